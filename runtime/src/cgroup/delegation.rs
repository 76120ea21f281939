// SPDX-License-Identifier: Apache-2.0
//! A cgroup that was handed over to a user (cgroup-v2.rst, "Delegation"): the user's containers lie in it, beside a leaf for those who
//! were there before, for a cgroup that has processes can not give limits to others ("No Internal Process Constraint").

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::tree;
use crate::error::{Context, Error, Result};

/// The way out for a user.
pub const HINT: &str = "that cgroup is not delegated to this user: `systemd-run --user --scope -p Delegate=yes wsbox ...` gives a \
    cgroup of your own; or be in one that is chowned to you, and name one below it in linux.cgroupsPath";
/// Where those go who were there before. No container's id may hold an @.
const LEAF: &str = "wsbox@callers";

/// The cgroup that the caller is in, below the root of the v2 hierarchy: a user's containers are below it.
///
/// # Errors
/// If it can not be read.
fn own() -> Result<String> {
    let file = "/proc/self/cgroup";
    let text = std::fs::read_to_string(file).context(|| file.into())?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(own.strip_suffix(LEAF).unwrap_or(own).trim_end_matches('/').to_owned())
}

/// The same for a caller who is a user; root's containers have a place of their own.
///
/// # Errors
/// As [`own`].
pub fn users() -> Result<Option<String>> {
    crate::rootless::is_user().then(own).transpose()
}

/// Moves the processes of the cgroup at `path` into a leaf of it.
pub(super) fn step_aside(root: &OwnedFd, path: &str) -> Result<()> {
    let leaf = format!("{path}/{LEAF}");
    let step = || format!("linux.cgroupsPath: move the processes of {path} to {leaf}");
    match mkdirat(root, leaf.as_str(), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::system(step(), errno)),
    }
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = openat(root, path, directory, Mode::empty()).context(step)?;
    let file = format!("{leaf}/cgroup.procs");
    let procs = openat(root, file.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(step)?;
    for pid in tree::direct(&dir).context(step)? {
        match nix::unistd::write(procs.as_fd(), pid.to_string().as_bytes()) {
            // It ended meanwhile.
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(step(), errno)),
        }
    }
    Ok(())
}
