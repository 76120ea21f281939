// SPDX-License-Identifier: Apache-2.0
//! The user namespace: writing a container's maps, and namespaces that exist only to id-map a mount.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;

use super::Channel;
use crate::error::{Context, Error, Result};
use crate::plan::{IdMaps, id_mapping};
use crate::sys::clone::{Role, Spawn, spawn};
use crate::sys::pidfd;

/// Writes uid_map and gid_map of `pid` (user_namespaces(7)): one write(2) each, as the kernel demands.
pub fn write_maps(pid: Pid, maps: &IdMaps) -> Result<()> {
    write_map(pid, "uid_map", &maps.uid, "linux.uidMappings")?;
    write_map(pid, "gid_map", &maps.gid, "linux.gidMappings")
}

fn write_map(pid: Pid, file: &str, map: &[LinuxIdMapping], field: &str) -> Result<()> {
    let mut lines = String::new();
    for entry in map {
        let _ = writeln!(lines, "{} {} {}", entry.container_id(), entry.host_id(), entry.size());
    }
    write_proc(pid, file, &lines).map_err(|errno| Error::system(format!("{field}: write {file}"), errno))
}

/// The maps of the user namespace that `pid` has joined; those of the config, if it has any, must be the same.
///
/// # Errors
/// As [`read_maps`]; or they are others.
pub fn joined_maps(pid: Pid, wanted: &IdMaps) -> Result<IdMaps> {
    let maps = read_maps(pid)?;
    if *wanted != IdMaps::default() && *wanted != maps {
        return Err(Error::invalid("linux.uidMappings", "are not those of the user namespace that is joined")
            .hint("leave uidMappings and gidMappings out"));
    }
    Ok(maps)
}

/// The maps of the user namespace of `pid`, as we see them.
///
/// # Errors
/// If it has none: in it nobody is anybody.
fn read_maps(pid: Pid) -> Result<IdMaps> {
    let maps = IdMaps { uid: read_map(pid, "uid_map")?, gid: read_map(pid, "gid_map")? };
    if maps.uid.is_empty() || maps.gid.is_empty() {
        return Err(Error::invalid("linux.namespaces", "the user namespace that is joined has no maps"));
    }
    Ok(maps)
}

#[expect(clippy::disallowed_methods, reason = "a file of a process of ours in the host's /proc")]
fn read_map(pid: Pid, file: &str) -> Result<Vec<LinuxIdMapping>> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path).context(|| path)?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        Some(id_mapping(numbers.next()?, numbers.next()?, numbers.next()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// How often to try again, a millisecond apart.
const BETWEEN: u32 = 1000;

/// Writes `text` to /proc/`pid`/`file`.
pub fn write_proc(pid: Pid, file: &str, text: &str) -> nix::Result<()> {
    let path = format!("/proc/{pid}/{file}");
    let open = || openat(AT_FDCWD, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let mut fd = open();
    // In the midst of an execve its files are the host's root's, which to a user's wsbox is nobody (proc(5)).
    for _ in 0..BETWEEN {
        if !matches!(fd, Err(Errno::EACCES)) || !crate::rootless::in_namespace() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        fd = open();
    }
    File::from(fd?)
        .write_all(text.as_bytes())
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// The user namespace of a process as a descriptor.
pub fn open(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    match pidfd::user_namespace(pidfd) {
        // Before Linux 6.11.
        Err(Errno::ENOTTY | Errno::EINVAL) => {
            openat(AT_FDCWD, format!("/proc/{pid}/ns/user").as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        }
        result => result,
    }
    .context(|| "open the user namespace".into())
}

/// A user namespace with these maps and nobody in it, for MOUNT_ATTR_IDMAP: made by an init that waits for a program that
/// never comes.
pub fn for_mount(init: &OwnedFd, maps: &IdMaps) -> Result<OwnedFd> {
    let (channel, control) = Channel::pair()?;
    let last_cap = 0;
    let request = Spawn {
        role: Role::Init,
        join: &[],
        namespaces: libc::CLONE_NEWUSER as u64,
        cgroup: None,
        init: init.as_fd(),
        control: control.as_fd(),
        keep_below: 0,
        share_memory: true,
        ambient: false,
        last_cap,
        dumpable: crate::rootless::in_namespace(),
    };
    let child = spawn(&request).map_err(Errno::from).context(|| "clone3 of a user namespace for a mount".into())?;
    drop(control);
    let namespace = write_maps(child.pid, maps).and_then(|()| open(child.pid, child.pidfd.as_fd()));
    drop(channel);
    let killed = pidfd::send_signal(&child.pidfd, libc::SIGKILL).and_then(|()| pidfd::wait(&child.pidfd));
    child.executed();
    killed.context(|| "end the helper of a user namespace".into())?;
    namespace
}
