// SPDX-License-Identifier: Apache-2.0
//! A file that the caller gives a payload to read.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Whence, dup2_stdin, lseek};

use crate::sys::mount::{MountAttr, attr, mount_setattr, open_tree};

/// Puts in its place the same file on a read-only mount of its own: by /proc/self/fd/0 a payload with the rights of its owner could open
/// it again, for writing (proc_pid_fd(5)). Where no such mount can be made, as without rights, it stays. Who else has the file open as it
/// was given goes on where the payload has stopped, once what is returned is dropped.
pub fn keep_unwritten() -> Option<Given> {
    on_a_read_only_mount().ok().flatten()
}

/// The caller's own open file.
pub struct Given(OwnedFd);

impl Drop for Given {
    fn drop(&mut self) {
        let _ = lseek(std::io::stdin(), 0, Whence::SeekCur).and_then(|at| lseek(&self.0, at, Whence::SeekSet));
    }
}

fn on_a_read_only_mount() -> nix::Result<Option<Given>> {
    let stdin = std::io::stdin();
    let kind = SFlag::from_bits_truncate(fstat(&stdin)?.st_mode) & SFlag::S_IFMT;
    let access = || fcntl(&stdin, FcntlArg::F_GETFL).map(|flags| OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE);
    if kind != SFlag::S_IFREG || access()? != OFlag::O_RDONLY {
        return Ok(None);
    }
    let tree = open_tree(&stdin, false)?;
    let read_only = MountAttr { set: attr::RDONLY, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(&tree, &read_only, false)?;
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let again = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    lseek(&again, lseek(&stdin, 0, Whence::SeekCur)?, Whence::SeekSet)?;
    let given = Given(stdin.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?);
    dup2_stdin(again).map(|()| Some(given))
}
