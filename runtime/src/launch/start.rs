// SPDX-License-Identifier: Apache-2.0
//! `start`: a connection to the socket that the init of a created container listens on. The init's errors come back over it,
//! and its end of file is the payload's execve.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as listen_on, socket,
};

use nix::unistd::Pid;

use super::agent::Agent;
use super::exec::load_filter;
use super::{Answer, Channel, failure, plan_host};
use crate::bundle::Bundle;
use crate::cgroup;
use crate::error::{Context, Error, Kind, Result};
use crate::hooks::{self, Moment};
use crate::notify;
use crate::plan;
use crate::profile;
use crate::seccomp::Counting;
use crate::state::{self, Folder, Record, Root, Status};
use crate::sys::pidfd;

fn seqpacket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context(|| "socket of `start`".into())
}

fn address(folder: &Folder) -> Result<UnixAddr> {
    UnixAddr::new(&folder.start_socket()).context(|| "socket of `start`".into())
}

/// The socket for the init.
pub(super) fn listen(folder: &Folder) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let socket = seqpacket()?;
    bind(socket.as_raw_fd(), &address(folder)?).context(|| "bind the socket of `start`".into())?;
    listen_on(&socket, Backlog::new(1).unwrap_or(Backlog::MAXCONN)).context(|| "listen for `start`".into())?;
    Ok(socket)
}

/// A payload that was started.
#[derive(Debug)]
pub struct Started {
    /// What the user should know of its hooks, one sentence each
    pub warnings: Vec<String>,
    /// What it tells the service manager, to be passed on
    notify: Option<(notify::Proxy, Pid, OwnedFd)>,
}

impl Started {
    /// Passes on what the payload tells the service manager, until it says that it is ready or ends.
    ///
    /// # Errors
    /// If what it says can not be received.
    pub fn until_ready(&self) -> Result<()> {
        self.notify.as_ref().map_or(Ok(()), |(proxy, pid, pidfd)| proxy.until_ready(*pid, pidfd))
    }
}

/// Starts the payload of the created container `id`, which may tell the service manager at `manager` (NOTIFY_SOCKET) of itself if it was
/// created for one.
///
/// # Errors
/// If it is not created but something else; or what the payload's execve failed with.
pub fn start(root: &Root, id: &str, manager: Option<&OsStr>) -> Result<Started> {
    use std::os::fd::AsRawFd;
    let folder = root.open(id)?;
    let mut record =
        folder.record()?.ok_or_else(|| Error::new(Kind::State, "", format!("container {id} was never created")))?;
    let status = state::lifecycle::status(&record)?;
    if status != Status::Created {
        let why = match status {
            Status::Running => "cannot start an already running container".to_owned(),
            Status::Stopped => "cannot start a container that has stopped".to_owned(),
            other => format!("cannot start a container in the {} state", state::lifecycle::word(other)),
        };
        return Err(Error::new(Kind::State, "", why));
    }
    let notify = manager.map(|manager| notified(&folder, &record, manager)).transpose()?.flatten();
    let socket = seqpacket()?;
    // Before the init can go on: whoever finds us killed must not take a running payload for one that waits.
    record.status = Status::Running;
    folder.write(&record)?;
    connect(socket.as_raw_fd(), &address(&folder)?).map_err(|errno| {
        record.status = Status::Created;
        folder.write(&record).err().unwrap_or_else(|| unreachable_init(errno, id))
    })?;
    folder.remove_start_socket();
    let channel = Channel::from_socket(socket);
    let mut answer = channel.receive()?;
    if let Answer::Listener(number) = answer {
        serve(root, &record, &channel, number)?;
        answer = channel.receive()?;
    }
    match answer {
        Answer::Closed => {
            run_hooks(root, &record)?;
            Ok(Started { warnings: Vec::new(), notify })
        }
        Answer::Failed(why) => {
            let program = program(root, &record)?;
            let error = failure(&program, why);
            if program.said(why.step) {
                Ok(Started { warnings: vec![error.to_string()], notify: None })
            } else {
                Err(error)
            }
        }
        answer => Err(Error::system(format!("the init said {answer:?}"), Errno::EPROTO)),
    }
}

/// Those that tell others of a payload that runs. One that fails ends it (runtime.md, "Lifecycle", 9); poststop is for `delete`.
fn run_hooks(root: &Root, record: &Record) -> Result<()> {
    if !record.hooks {
        return Ok(());
    }
    let run = |bundle: Bundle| hooks::run(Moment::Started, bundle.spec.hooks().as_ref(), record, None);
    bundle(root, record).and_then(run).map_err(|error| match state::lifecycle::end_processes(record) {
        Ok(()) => error,
        Err(lives) => error.hint(format!("and the payload could not be ended: {lives}")),
    })
}

/// The payload's socket for the service manager, before the payload can look for it.
fn notified(folder: &Folder, record: &Record, manager: &OsStr) -> Result<Option<(notify::Proxy, Pid, OwnedFd)>> {
    let Some(proxy) = notify::Proxy::open(folder.path(), manager)? else { return Ok(None) };
    let gone = || Error::system("the init", Errno::ESRCH);
    let process = record.process.as_ref().ok_or_else(gone)?;
    let pidfd = state::process::find(process)?.ok_or_else(gone)?;
    Ok(Some((proxy, Pid::from_raw(process.pid), pidfd)))
}

/// Hands the filter's listener to the agent.
fn serve(root: &Root, record: &Record, channel: &Channel, number: i32) -> Result<()> {
    let gone = || Error::system("the init", Errno::ESRCH);
    let process = record.process.as_ref().ok_or_else(gone)?;
    let pidfd = state::process::find(process)?.ok_or_else(gone)?;
    let bundle = bundle(root, record)?;
    // What the record has already is true only once the payload is executed.
    let record = &Record { status: Status::Created, ..record.clone() };
    let agent = Agent { spec: &bundle.spec, record, pid: Pid::from_raw(process.pid), pidfd: &pidfd };
    // An init whose listener nobody wants is not left: by then it may wait for the agent itself.
    agent.serve(number, channel, &program(root, record)?).inspect_err(|_| {
        let _ = pidfd::send_signal(&pidfd, libc::SIGKILL);
        let _ = state::process::wait(&pidfd, PollTimeout::from(u8::MAX));
    })
}

/// The same program once more, to put a failed step into words.
fn program(root: &Root, record: &Record) -> Result<plan::Program> {
    let (config, filter) = root.config(&record.id)?;
    let bundle = Bundle::from_config(record.bundle.clone(), config)?;
    let options = plan::Options {
        wait_for_start: true,
        fresh_network: profile::made_under_one(&bundle.spec),
        systemd: record.cgroup.systemd().cloned(),
        // A profile may have tightened the config's own, and may not be in force any more.
        compiled: filter.as_deref().map(load_filter).transpose()?,
        counting: if record.monitor.is_some() { Counting::Wanted } else { Counting::Off },
        ..plan::Options::default()
    };
    plan::container(&bundle.spec, &record.id, &plan_host(cgroup::Host::detect()?, Some(record))?, &options)
        .map(|plan| plan.program)
}

/// The bundle as it was when the container was created.
fn bundle(root: &Root, record: &Record) -> Result<Bundle> {
    Bundle::from_config(record.bundle.clone(), root.config(&record.id)?.0)
}

fn unreachable_init(errno: Errno, id: &str) -> Error {
    Error::system(format!("reach the init of container {id}"), errno).hint("`wsbox delete --force` removes it")
}
