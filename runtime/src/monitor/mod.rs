// SPDX-License-Identifier: Apache-2.0
//! Violations counted exactly: denied calls of a container's filter go to its monitor (init/monitor.rs), which fails them and
//! counts them into a file (init/counts.rs). Here the parent's part: starting it, handing listeners to it, reading the counts.
//!
//! Each filter has exactly one holder of its listener: the message on its way, then the monitor. When that is gone, denied calls
//! fail with ENOSYS at once.

pub mod report;

mod jail;
mod start;

#[path = "../../init/counts.rs"]
#[allow(dead_code, reason = "the other half is the monitor's")]
mod counts;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::PollTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::profile::Profile;
use crate::seccomp::Counting;
use crate::state::process;
use crate::sys::pidfd;

/// Where listeners are sent to, in the container's state folder.
pub const SOCKET: &str = "monitor.sock";
/// The file of counts, there too.
pub const COUNTS: &str = "violations";
/// A container's annotation that asks for counting.
pub const ANNOTATION: &str = "dev.wsbox.violations";
/// Seconds that a monitor may take to have room for a listener.
const PATIENCE: i64 = 10;
/// Milliseconds that the kernel may take to end it.
const DEATH: u16 = 10_000;

/// A container's monitor, as its record has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// Its process
    pub process: crate::state::Process,
    /// The state folder, where its socket is
    pub folder: PathBuf,
}

/// What a monitor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It answers
    Alive,
    /// It was stopped by a signal: callers wait for it
    Stopped,
    /// It is gone
    Gone,
}

/// Whether a container's violations are to be counted: by `asked` (`--count-violations`), its annotation, or its profile.
///
/// # Errors
/// An annotation that says something else.
pub fn wanted(spec: &Spec, asked: bool, profile: Option<Profile>) -> Result<Counting> {
    let annotation = spec.annotations().as_ref().and_then(|annotations| annotations.get(ANNOTATION));
    match annotation.map(String::as_str) {
        Some("true") => return Ok(Counting::Asked),
        None | Some("false") => {}
        Some(other) => {
            let field = format!("annotations[{ANNOTATION:?}]");
            return Err(Error::invalid(field, format!("{other:?} is neither true nor false")));
        }
    }
    Ok(match (asked, profile) {
        (true, _) => Counting::Asked,
        (false, Some(Profile::Production)) => Counting::Wanted,
        _ => Counting::Off,
    })
}

impl Monitor {
    /// What it is doing.
    pub fn life(&self) -> Result<Life> {
        if process::find(&self.process)?.is_none() {
            return Ok(Life::Gone);
        }
        // The state comes after the name, which is ours (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        Ok(match state {
            Some('T' | 't') => Life::Stopped,
            Some(_) => Life::Alive,
            None => Life::Gone,
        })
    }

    /// Gives it a listener. The message is the holder until the monitor takes it.
    ///
    /// # Errors
    /// If it is gone, or has had no room for too long.
    pub fn hand_over(&self, listener: &OwnedFd) -> Result<()> {
        let context = || "the monitor: hand the filter's listener over".to_owned();
        let folder =
            openat(AT_FDCWD, &self.folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let folder = folder.context(context)?;
        let socket = datagrams().context(context)?;
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(PATIENCE, 0)).context(context)?;
        match send(&socket, &short(&folder, SOCKET), &[counts::LISTENER], &[listener.as_raw_fd()]) {
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => {
                let error = Error::new(crate::Kind::System, "the monitor", "that counts violations is gone");
                Err(error.hint("it was killed, or could not start"))
            }
            result => result.context(context),
        }
    }

    /// Wakes it if somebody has stopped it: a freeze waits for callers that wait for it.
    pub fn wake(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it: callers fail at once.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: i32) {
        if let Ok(Some(pidfd)) = process::find(&self.process) {
            let _ = pidfd::send_signal(&pidfd, signal);
        }
    }

    /// Ends it, waits for its end, and removes its cgroup if it was the last one there. As a rule it has ended by itself, with its container.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&self, container: &cgroup::Saved) -> Result<()> {
        if let Some(pidfd) = process::open(&self.process)? {
            let _ = pidfd::send_signal(&pidfd, libc::SIGKILL);
            if !process::wait(&pidfd, PollTimeout::from(DEATH))? {
                return Err(Error::system("wait for the end of the monitor", Errno::ETIMEDOUT));
            }
            // ECHILD: as a rule it is not ours.
            let _ = pidfd::wait(&pidfd);
        }
        cgroup::remove_monitors(container);
        Ok(())
    }
}

fn datagrams() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// A path in `folder` that is short enough for an address (unix(7)).
fn short(folder: impl AsFd, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_fd().as_raw_fd().to_string()).join(name)
}

fn send(socket: &OwnedFd, to: &Path, bytes: &[u8], fds: &[i32]) -> nix::Result<()> {
    let (to, rights) = (UnixAddr::new(to)?, [ControlMessage::ScmRights(fds)]);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, Some(&to)).map(drop)
}
