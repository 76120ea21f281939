// SPDX-License-Identifier: Apache-2.0
//! A device node of the host, where none can be made (mknod(2) in a user namespace).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};

use crate::error::{Context, Error, Result};
use crate::plan::Node;
use crate::sys::mount::{MountAttr, attr, mount_setattr, open_tree};

/// A detached bind of it.
///
/// # Errors
/// If it is another device on the host, or has another mode or owner, which only root could change.
pub fn bind(node: &Node) -> Result<OwnedFd> {
    let context = || format!("{}: {}", node.field, node.path.display());
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = match openat(AT_FDCWD, &node.path, flags, Mode::empty()) {
        // It is to lie elsewhere in the container: udev names each by its number, too.
        Err(Errno::ENOENT) => {
            let (kind, (major, minor)) = (if node.block { "block" } else { "char" }, node.number);
            openat(AT_FDCWD, format!("/dev/{kind}/{major}:{minor}").as_str(), flags & !OFlag::O_NOFOLLOW, Mode::empty())
                .map_err(|_| Errno::ENOENT)
        }
        found => found,
    }
    .context(context)?;
    let stat = fstat(&fd).context(context)?;
    let kind = if node.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind
        || (major(stat.st_rdev), minor(stat.st_rdev)) != node.number
    {
        let why = format!("{} is not that device on the host, and only root can make nodes", node.path.display());
        return Err(Error::invalid(&node.field, why).hint("leave it out, or run wsbox as root"));
    }
    if let Some(mode) = node.mode.filter(|mode| *mode != stat.st_mode & 0o777) {
        let why = format!("{} has the mode {:o} on the host, not {mode:o}", node.path.display(), stat.st_mode & 0o777);
        return Err(Error::invalid(format!("{}.fileMode", node.field), why).hint("leave fileMode out"));
    }
    for (name, wanted, is) in [("uid", node.owner.0, stat.st_uid), ("gid", node.owner.1, stat.st_gid)] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            let why = format!("{} is {is}'s here, not {wanted}'s", node.path.display());
            return Err(Error::invalid(format!("{}.{name}", node.field), why).hint(format!("leave {name} out")));
        }
    }
    let tree = open_tree(&fd, false).context(context)?;
    let all = MountAttr { set: attr::NOSUID | attr::NOEXEC, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(&tree, &all, false).context(context)?;
    Ok(tree)
}
