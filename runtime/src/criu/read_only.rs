// SPDX-License-Identifier: Apache-2.0
//! The root of a container, read-only again: criu has to write to it, and leaves it writable.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::sys::mount::{MountAttr, attr, mount_setattr};

/// Makes the top of the root of `pid` read-only.
///
/// # Errors
/// What the kernel refuses.
pub fn make(pid: Pid) -> Result<()> {
    // Only from its own mount namespace (mount_setattr(2)), which one thread of ours joins.
    std::thread::scope(|scope| scope.spawn(|| inside(pid)).join())
        .unwrap_or_else(|_| Err(Error::system("root.readonly: a thread", Errno::ECHILD)))
}

fn inside(pid: Pid) -> Result<()> {
    let open = |name: &str, flags: OFlag| {
        let path = format!("/proc/{pid}/{name}");
        openat(AT_FDCWD, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()).context(|| path)
    };
    let (root, namespace) = (open("root", OFlag::O_PATH | OFlag::O_DIRECTORY)?, open("ns/mnt", OFlag::O_RDONLY)?);
    let context = || "root.readonly: join the mount namespace".into();
    unshare(CloneFlags::CLONE_FS).context(context)?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS).context(context)?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(&root, &read_only, false).context(|| "root.readonly".into())
}
