// SPDX-License-Identifier: Apache-2.0
//! The life of a container after its creation: status, signals, pause, deletion.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use serde::Serialize;

use super::{Folder, Record, Root, Status, process};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::hooks::{self, Moment};
use crate::monitor::{Life, Monitor};
use crate::sys::pidfd;

/// How long the kernel may take to end a killed process, in milliseconds.
const DEATH: u16 = 10_000;

/// `state`'s JSON, as runc writes it.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// ociVersion
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's id
    pub id: String,
    /// The pid of its first process, 0 once that is gone
    pub pid: i32,
    /// What it is doing
    pub status: Status,
    /// Its bundle
    pub bundle: PathBuf,
    /// Its root file system
    pub rootfs: PathBuf,
    /// RFC 3339
    pub created: String,
    /// The config's
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user who owns it: its name, or empty
    pub owner: String,
}

/// What a container is doing now.
pub fn status(record: &Record) -> Result<Status> {
    Ok(observe(record)?.0)
}

/// The word for it.
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}

/// What a container is doing now, and its first process if that is alive.
fn observe(record: &Record) -> Result<(Status, Option<OwnedFd>)> {
    let Some(known) = &record.process else { return Ok((Status::Stopped, None)) };
    let Some(pidfd) = process::find(known)? else { return Ok((Status::Stopped, None)) };
    let frozen = matches!(record.status, Status::Created | Status::Running)
        && Cgroup::open(&record.cgroup).and_then(|cgroup| cgroup.frozen()).unwrap_or(false);
    Ok((if frozen { Status::Paused } else { record.status }, Some(pidfd)))
}

/// The first process of a container that has not ended.
pub fn process(record: &Record) -> Result<Option<OwnedFd>> {
    Ok(observe(record)?.1)
}

/// What `state` and `list` print of a container.
pub fn state(record: &Record) -> Result<State> {
    let (status, pidfd) = observe(record)?;
    let pid = record.process.as_ref().filter(|_| pidfd.is_some()).map_or(0, |process| process.pid);
    Ok(State {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        pid,
        status,
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: record.created.clone(),
        annotations: record.annotations.clone(),
        owner: String::new(),
    })
}

/// Sends signal number `signal` to the first process of container `id`, or with `all` to each of its processes.
///
/// # Errors
/// In runc's words if it does not run: containerd-shim looks for `container not running`.
pub fn kill(root: &Root, id: &str, signal: i32, all: bool) -> Result<()> {
    let record = root.read(id)?;
    let cgroup = Cgroup::open(&record.cgroup);
    if all {
        return kill_all(&cgroup?, signal);
    }
    let not_running = || Error::new(Kind::State, "", format!("container not running: {id}"));
    let (_, pidfd) = observe(&record)?;
    match pidfd::send_signal(pidfd.ok_or_else(not_running)?, signal) {
        Err(Errno::ESRCH) => Err(not_running()),
        result => result.context(|| format!("send signal {signal} to container {id}")),
    }?;
    match cgroup {
        // A frozen one dies when it is thawed, unless the cgroup itself kills it.
        Ok(cgroup) if signal == libc::SIGKILL && cgroup.frozen()? => cgroup.kill_all(),
        _ => Ok(()),
    }
}

/// Each process of a cgroup, by pidfd; one that ends meanwhile is no error.
fn kill_all(cgroup: &Cgroup, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL {
        return cgroup.kill_all();
    }
    let (mut found, mut failed) = (Vec::new(), Ok(()));
    for pid in cgroup.procs()? {
        match pidfd::open(pid) {
            Ok(fd) => found.push((pid, fd)),
            Err(Errno::ESRCH | Errno::EINVAL) => {}
            Err(errno) => failed = Err(Error::system(format!("pidfd of {pid}"), errno)),
        }
    }
    // Those that are still there are the ones that were opened: a pid may have passed to another process meanwhile.
    let members = cgroup.procs()?;
    for (pid, fd) in found.into_iter().filter(|(pid, _)| members.contains(pid)) {
        match pidfd::send_signal(fd, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(format!("send signal {signal} to {pid}"), errno)),
        }
    }
    failed
}

/// Deletes container `id`; with `force` also one that runs, and without error one that does not exist. What the user should
/// know of its hooks is returned, one sentence each.
///
/// # Errors
/// If it is alive and `force` is not given; or what can not be removed.
pub fn delete(root: &Root, id: &str, force: bool) -> Result<Vec<String>> {
    let folder = match root.open(id) {
        Err(error) if force && error.kind() == Kind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    delete_locked(root, folder, id, force)
}

/// As [`delete`], for who has the container's folder locked.
///
/// # Errors
/// As [`delete`].
pub fn delete_locked(root: &Root, folder: Folder, id: &str, force: bool) -> Result<Vec<String>> {
    let record = match folder.record() {
        Ok(Some(record)) => record,
        Ok(None) => return delete_unrecorded(folder, id, force),
        Err(_) if force => {
            let warning = destroy_salvaged(&folder, id)?;
            return folder.remove(None).map(|()| warning.into_iter().collect());
        }
        Err(error) => return Err(error),
    };
    let (status, pidfd) = observe(&record)?;
    if !force && matches!(status, Status::Running | Status::Paused) {
        let why = format!("cannot delete container {id} that is not stopped: {}", word(status));
        return Err(Error::new(Kind::State, "", why).hint("kill it first, or use --force"));
    }
    destroy_processes(&record, pidfd)?;
    record.extras.undo();
    super::held::release(&record.annotations, folder.path());
    let warnings = if record.hooks { stopped_hooks(root, &record) } else { Vec::new() };
    folder.remove(record.ids.as_ref()).map(|()| warnings)
}

/// Kills what is left of a container whose record can not be read, as far as it is known where.
fn destroy_salvaged(folder: &Folder, id: &str) -> Result<Option<String>> {
    match folder.salvage_cgroup(id) {
        Ok(saved) => destroy_cgroup(&saved).map(|()| None),
        Err(error) => Ok(Some(not_found(id, &error))),
    }
}

fn not_found(id: &str, error: &Error) -> String {
    format!("container {id} has no record that says where its cgroup is ({error}): processes there are left alone")
}

/// A create that was killed before it wrote a record has made nothing else, not even the copy of the config. If there are processes where
/// the container's would be, the record was lost, or they are those of its namesake below another root: they are left alone, and told.
fn delete_unrecorded(folder: Folder, id: &str, force: bool) -> Result<Vec<String>> {
    let busy = |saved: cgroup::Saved| {
        let procs = Cgroup::find(&saved)?.map_or(Ok(Vec::new()), |cgroup| cgroup.procs())?;
        let place = saved.place().0;
        let why =
            format!("container {id} has no record, but there are processes in cgroup {place}: they are left alone");
        Ok((!procs.is_empty()).then_some(why))
    };
    let warning = match folder.salvage_cgroup(id).and_then(busy) {
        Ok(warning) => warning,
        Err(error) => folder.has_config().then(|| not_found(id, &error)),
    };
    match warning {
        Some(why) if !force => {
            Err(Error::new(Kind::State, "", why).hint("end them if they are its own, or use --force"))
        }
        warning => folder.remove(None).map(|()| warning.into_iter().collect()),
    }
}

/// Runs the hooks of a container that is gone but for its folder, where its config is.
fn stopped_hooks(root: &Root, record: &Record) -> Vec<String> {
    let bundle = root.config(&record.id).and_then(|(config, _)| Bundle::from_config(record.bundle.clone(), config));
    match bundle {
        Ok(bundle) => hooks::run_all(Moment::Stopped, bundle.spec.hooks().as_ref(), record),
        Err(error) => vec![format!("hooks.poststop: {error}")],
    }
}

/// Kills what is left in the cgroup (all of it: the init may be on its way, and not recorded yet) and removes it.
pub fn destroy_processes(record: &Record, pidfd: Option<OwnedFd>) -> Result<()> {
    let cgroup = Cgroup::find(&record.cgroup)?;
    kill_processes(cgroup.as_ref(), pidfd)?;
    record.monitor.as_ref().map_or(Ok(()), |monitor| monitor.end(&record.cgroup))?;
    cgroup.map_or_else(|| Cgroup::remove_rest(&record.cgroup), |cgroup| cgroup.remove())
}

/// Kills what runs in a container, and leaves all else for `delete`.
///
/// # Errors
/// If it can not be killed.
pub fn end_processes(record: &Record) -> Result<()> {
    kill_processes(Cgroup::find(&record.cgroup)?.as_ref(), observe(record)?.1)
}

fn kill_processes(cgroup: Option<&Cgroup>, pidfd: Option<OwnedFd>) -> Result<()> {
    cgroup.map_or(Ok(()), Cgroup::kill_all)?;
    if let Some(pidfd) = pidfd {
        match pidfd::send_signal(&pidfd, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system("kill the container", errno)),
        }
        if !process::wait(&pidfd, PollTimeout::from(DEATH))? {
            return Err(Error::system("wait for the end of the container", Errno::ETIMEDOUT)
                .hint("a process hangs in the kernel"));
        }
    }
    Ok(())
}

/// Kills what is in the cgroup of a container that no more is known of.
fn destroy_cgroup(saved: &cgroup::Saved) -> Result<()> {
    match Cgroup::find(saved)? {
        Some(cgroup) => cgroup.kill_all().and_then(|()| cgroup.remove()),
        None => Cgroup::remove_rest(saved),
    }
}

/// Freezes every process of container `id`.
///
/// # Errors
/// If it does not run, and does not wait for its start.
pub fn pause(root: &Root, id: &str) -> Result<()> {
    let cgroup = expect(root, id, &[Status::Running, Status::Created], "pause")?;
    let monitor = root.read(id)?.monitor;
    monitor.iter().for_each(Monitor::wake);
    match (cgroup.freeze(), monitor) {
        // Callers wait for one that was stopped again; one that is at work is not why.
        (Err(error), Some(monitor))
            if error.errno() == Some(Errno::ETIMEDOUT) && monitor.life().is_ok_and(|life| life == Life::Stopped) =>
        {
            monitor.kill();
            cgroup.freeze()
        }
        (result, _) => result,
    }
}

/// Lets a paused container go on.
///
/// # Errors
/// If it is not paused.
pub fn resume(root: &Root, id: &str) -> Result<()> {
    expect(root, id, &[Status::Paused], "resume")?.thaw()
}

fn expect(root: &Root, id: &str, wanted: &[Status], verb: &str) -> Result<Cgroup> {
    let record = root.read(id)?;
    let found = status(&record)?;
    if !wanted.contains(&found) {
        let state = wanted.first().copied().map_or("", word);
        let why = format!("container not {state}: cannot {verb} container {id} in the {} state", word(found));
        return Err(Error::new(Kind::State, "", why));
    }
    Cgroup::open(&record.cgroup)
}
