// SPDX-License-Identifier: Apache-2.0
//! Why a tree is not id-mapped: which mount of it the kernel refuses, and of which type that is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::Error;
use crate::mountinfo::{self, Mount};
use crate::sys::mount::{MountAttr, attr, mount_setattr, open_tree};

pub const ELSEWHERE: &str = "run it without a user namespace of its own (docker: --runtime wsbox)";

/// A look at one of these may wait for ever, for a server that is gone.
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"];

/// What mount_setattr(2) said of the tree at `from`, with the mount that it said it of.
pub fn refused(field: &str, errno: Errno, from: BorrowedFd<'_>, recursive: bool, user: &OwnedFd) -> Error {
    match culprit(from, recursive, user) {
        Some((mount, errno, below)) => Error::invalid(field, why(&mount, errno)).hint(way_out(&mount.kind, below)),
        None => Error::system(format!("{field}: id-map the mount"), errno),
    }
}

fn why(mount: &Mount, errno: Errno) -> String {
    let (place, kind) = (&mount.place, &mount.kind);
    match errno {
        Errno::EINVAL => format!("{place} is of type {kind}, which this kernel can not id-map"),
        Errno::EPERM => format!("{place}, of type {kind}, is id-mapped already, or of another user namespace"),
        errno => format!("{place}, of type {kind}, can not be id-mapped: {errno}"),
    }
}

fn way_out(kind: &str, below: bool) -> String {
    match (below, kind) {
        (true, _) => format!(
            "bind without what is mounted below: option bind in place of rbind (docker: --mount type=bind,…,bind-nonrecursive); or {ELSEWHERE}"
        ),
        (false, "overlay") => format!("an overlay can only be so as the root; bind a folder of a disk, or {ELSEWHERE}"),
        (false, _) => format!("bind a folder of a disk or a tmpfs, or {ELSEWHERE}"),
    }
}

/// The first mount that is refused when it is alone, with the error, and whether it is one below the source.
fn culprit(from: BorrowedFd<'_>, recursive: bool, user: &OwnedFd) -> Option<(Mount, Errno, bool)> {
    let mounts = mountinfo::of(Pid::this()).ok()?;
    if let Err(errno) = alone(from, user) {
        let own = mountinfo::id(from)?;
        return mounts.into_iter().find(|mount| mount.id == own).map(|mount| (mount, errno, false));
    }
    let source = nix::fcntl::readlink(format!("/proc/thread-self/fd/{}", from.as_raw_fd()).as_str()).ok()?;
    let below = |mount: &Mount| Path::new(&mount.place).starts_with(&source) && *mount.place != *source;
    mounts.into_iter().filter(|mount| recursive && below(mount) && !REMOTE.contains(&&*mount.kind)).find_map(|mount| {
        let errno = at(&mount, user).err()?;
        Some((mount, errno, true))
    })
}

fn at(mount: &Mount, user: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let found = openat(AT_FDCWD, mount.place.as_str(), flags, Mode::empty())?;
    // Another may lie on it.
    if mountinfo::id(found.as_fd()) == Some(mount.id) { alone(found.as_fd(), user) } else { Ok(()) }
}

fn alone(mount: BorrowedFd<'_>, user: &OwnedFd) -> nix::Result<()> {
    let wanted = MountAttr { set: attr::IDMAP, userns_fd: user.as_raw_fd() as u64, ..MountAttr::default() };
    mount_setattr(open_tree(mount, false)?, &wanted, false)
}
