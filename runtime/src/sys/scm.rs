// SPDX-License-Identifier: Apache-2.0
//! A descriptor that comes with a message (unix(7), SCM_RIGHTS).

#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The length of the next message, cut to `data`, and the descriptor that came with it: the kernel drops any further one.
///
/// # Errors
/// recvmsg(2)'s, but for EINTR.
pub fn receive(socket: impl AsFd, data: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    loop {
        let mut iov = [IoSliceMut::new(data)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let fd = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel just installed it for us, and nobody else knows of it.
        return Ok((message.bytes, fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })));
    }
}
