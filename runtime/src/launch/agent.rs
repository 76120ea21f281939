// SPDX-License-Identifier: Apache-2.0
//! The agent that answers calls with SCMP_ACT_NOTIFY: it gets the filter's listener over linux.seccomp.listenerPath, with the
//! state of the process (config-linux.md, "The Container Process State"); or the monitor, which counts what it answers. init/program.rs has the table of who waits for whom.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde_json::json;

use super::{Answer, Channel, failure};
use crate::error::{Context, Error, Result};
use crate::plan::Program;
use crate::state::{Record, lifecycle};
use crate::sys::pidfd;

const FIELD: &str = "linux.seccomp.listenerPath";
/// Seconds that an agent may take to accept, and to read.
const PATIENCE: i64 = 10;
/// Bytes of sun_path, with its NUL.
const SUN_PATH: usize = 108;

/// Who is to be told of which process.
pub struct Agent<'a> {
    /// The container's config
    pub spec: &'a Spec,
    /// The container
    pub record: &'a Record,
    /// The process that installs the filter
    pub pid: Pid,
    /// Its pidfd
    pub pidfd: &'a OwnedFd,
}

/// An agent that does not accept, or read, holds nobody up for ever; a path that no address has room for (unix(7)) is reached
/// through its directory.
fn connect_to(path: &Path) -> nix::Result<OwnedFd> {
    let agent = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&agent, sockopt::SendTimeout, &TimeVal::new(PATIENCE, 0))?;
    let (Some(dir), Some(name), true) = (path.parent(), path.file_name(), path.as_os_str().len() >= SUN_PATH) else {
        return connect(agent.as_raw_fd(), &UnixAddr::new(path)?).map(|()| agent);
    };
    let dir = openat(AT_FDCWD, dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    connect(agent.as_raw_fd(), &UnixAddr::new(&short)?).map(|()| agent)
}

impl Agent<'_> {
    /// Carries the listener from the init, where it has number `number`, to the agent, and lets the init go on.
    ///
    /// # Errors
    /// If the init could not install the filter, or the agent is not there: then the init ends with `channel`.
    pub fn serve(&self, number: i32, channel: &Channel, program: &Program) -> Result<()> {
        match channel.receive()? {
            Answer::Installed => self.fetch(number, channel),
            Answer::Failed(why) => Err(failure(program, why)),
            answer => Err(Error::new(crate::Kind::System, "linux.seccomp", format!("the init said {answer:?}"))),
        }
    }

    /// The same, once the init has said that the filter is in force.
    ///
    /// # Errors
    /// As [`Agent::serve`].
    pub fn fetch(&self, number: i32, channel: &Channel) -> Result<()> {
        let listener = pidfd::get_fd(self.pidfd, number).context(|| "linux.seccomp: fetch the listener".into())?;
        self.send(&listener)?;
        // One holder: while a second lives, callers of a dead agent would wait for ever.
        drop(listener);
        channel.go_on()
    }

    fn send(&self, listener: &OwnedFd) -> Result<()> {
        if let Some(monitor) = &self.record.monitor {
            return monitor.hand_over(listener);
        }
        let seccomp = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let path = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref());
        let path = path.ok_or_else(|| Error::invalid(FIELD, "is missing"))?;
        let context = || format!("{FIELD}: {}", path.display());
        let agent = connect_to(path).context(context)?;
        let state = self.state(seccomp.and_then(|seccomp| seccomp.listener_metadata().as_deref()));
        let (text, fds) = (state.to_string(), [listener.as_raw_fd()]);
        let rights = [ControlMessage::ScmRights(&fds)];
        let sent =
            sendmsg::<()>(agent.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &rights, MsgFlags::MSG_NOSIGNAL, None);
        match sent.context(context)? {
            whole if whole == text.len() => Ok(()),
            _ => Err(Error::invalid(FIELD, "the agent's socket did not take the state as a whole")),
        }
    }

    fn state(&self, metadata: Option<&str>) -> serde_json::Value {
        let record = self.record;
        let init = record.process.as_ref().map_or(self.pid.as_raw(), |process| process.pid);
        json!({
            "ociVersion": record.oci_version,
            "fds": ["seccompFd"],
            "pid": self.pid.as_raw(),
            "metadata": metadata.unwrap_or_default(),
            "state": {
                "ociVersion": record.oci_version,
                "id": record.id,
                "status": lifecycle::word(record.status),
                "pid": init,
                "bundle": record.bundle,
                "annotations": record.annotations,
            },
        })
    }
}
