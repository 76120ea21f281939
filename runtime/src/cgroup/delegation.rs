// SPDX-License-Identifier: Apache-2.0
//! A cgroup that was handed over to a user (cgroup-v2.rst, "Delegation"): the user's containers lie in it, beside a leaf for those who
//! were there before, for a cgroup that has processes can not give limits to others ("No Internal Process Constraint").

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

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
pub(super) fn own() -> Result<String> {
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

/// Moves the processes of the cgroup `level`, the caller's own, into a leaf of it.
///
/// # Errors
/// If they can not be moved; those that were are back.
pub(super) fn step_aside(root: &OwnedFd, level: &str) -> Result<()> {
    let context = || format!("linux.cgroupsPath: move the processes of /{level} to /{}", below(level, LEAF));
    match mkdirat(root, below(level, LEAF).as_str(), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::system(context(), errno)),
    }
    move_all(root, level, &below(level, LEAF)).map_err(|errno| {
        step_back(root, level);
        Error::system(context(), errno)
    })
}

/// Moves them back, as far as they can be: not where controllers that others need are enabled.
fn step_back(root: &OwnedFd, level: &str) {
    let leaf = below(level, LEAF);
    if move_all(root, &leaf, level).is_ok() {
        let _ = unlinkat(root, leaf.as_str(), UnlinkatFlags::RemoveDir);
    }
}

fn open(root: &OwnedFd, level: &str) -> nix::Result<OwnedFd> {
    let level = if level.is_empty() { "." } else { level };
    openat(root, level, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn below(level: &str, name: &str) -> String {
    if level.is_empty() { name.to_owned() } else { format!("{level}/{name}") }
}

/// Those that fork while they are moved take more than one pass.
fn move_all(root: &OwnedFd, from: &str, to: &str) -> nix::Result<()> {
    const PASSES: usize = 32;
    let dir = open(root, from)?;
    let file = below(to, "cgroup.procs");
    let procs = openat(root, file.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for _ in 0..PASSES {
        // One of another pid namespace shows as 0, which is us to the kernel: it can not be moved.
        let mut pids = tree::direct(&dir)?;
        pids.retain(|pid| pid.as_raw() != 0);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            match nix::unistd::write(procs.as_fd(), pid.to_string().as_bytes()) {
                // It ended meanwhile.
                Ok(_) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Err(Errno::EBUSY)
}
