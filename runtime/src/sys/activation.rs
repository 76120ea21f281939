// SPDX-License-Identifier: Apache-2.0
//! Sockets that the service manager opened for us (sd_listen_fds(3)).

#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// The socket, if exactly one was passed to this process. To be called once, before anything else is opened.
pub fn listener() -> Option<TcpListener> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
        return None;
    }
    nix::fcntl::fcntl(
        // SAFETY: borrowed for this call only; that it is open is what the call finds out.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(FIRST) },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )
    .ok()?;
    // SAFETY: the manager passed it to this process, and nobody else here knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    Some(TcpListener::from(fd))
}
