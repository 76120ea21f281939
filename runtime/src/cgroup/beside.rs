// SPDX-License-Identifier: Apache-2.0
//! A cgroup beside a container's, for its monitor: in the container's it would be frozen, limited and killed with it, and the
//! caller's may be a login session's, which ends. All monitors of containers that lie side by side share one, without limits of its own.
//! Who may make the container's cgroup may make this one too; on a hybrid host it is the v2 one alone.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Saved, v2};
use crate::error::{Context, Error, Result};

/// No container's id may hold an @.
const NAME: &str = "wsbox@monitors";

fn path(saved: &Saved) -> String {
    saved.path.rsplit_once('/').map_or_else(|| NAME.into(), |(parent, _)| format!("{parent}/{NAME}"))
}

/// Its directory, made if it is not there.
pub fn monitors(saved: &Saved) -> Result<OwnedFd> {
    let (root, path) = (v2::open_root(&saved.root)?, path(saved));
    let open = || openat(&root, path.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let context = || format!("cgroup {}", saved.root.join(&path).display());
    match open() {
        Err(Errno::ENOENT) => {}
        result => return result.context(context),
    }
    match mkdirat(&root, path.as_str(), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => open().context(context),
        Err(errno) => Err(Error::system(context(), errno)),
    }
}

/// Removes it if nobody is in it.
pub fn remove_monitors(saved: &Saved) {
    if let Ok(root) = v2::open_root(&saved.root) {
        let _ = unlinkat(&root, path(saved).as_str(), UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_beside_the_container() {
        let of = |path: &str| super::path(&Saved { root: "/r".into(), path: path.into(), v1: Vec::new(), scope: None });
        assert_eq!(of("docker/abc"), "docker/wsbox@monitors");
        assert_eq!(of("a/b/c"), "a/b/wsbox@monitors");
        assert_eq!(of("alone"), "wsbox@monitors");
    }
}
