// SPDX-License-Identifier: Apache-2.0
//! Processes by descriptor: pidfd_open(2), pidfd_send_signal(2), ioctl_pidfd(2), waitid(2) with P_PIDFD.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// PIDFD_GET_USER_NAMESPACE of linux/pidfd.h, since Linux 6.11.
const PIDFD_GET_USER_NAMESPACE: libc::c_ulong = 0xff09;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with this code
    Code(i32),
    /// Killed by this signal
    Signal(i32),
}

impl Exit {
    /// The code of a shell: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// ESRCH if there is no such process.
pub fn open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: numbers only.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// Sends signal number `signal`, 0 to only ask; ESRCH if the process was reaped.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a NULL siginfo is allowed: the kernel fills in what kill(2) would.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0) };
    Errno::result(result).map(drop)
}

/// A copy of the descriptor that the process has as `number` (pidfd_getfd(2)).
pub fn get_fd(pidfd: impl AsFd, number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: numbers only.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) };
    // SAFETY: the kernel just made this descriptor for us.
    Errno::result(raw).map(|raw| unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// A descriptor of the process's user namespace; ENOTTY before Linux 6.11.
pub fn user_namespace(pidfd: impl AsFd) -> nix::Result<OwnedFd> {
    // SAFETY: the request takes no argument.
    let raw = Errno::result(unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_USER_NAMESPACE as _, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Waits for a child. __WALL: an init has no exit signal until it executes the payload.
pub fn wait(pidfd: impl AsFd) -> nix::Result<Exit> {
    loop {
        // SAFETY: siginfo_t is plain numbers, zero is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
        // SAFETY: info is a siginfo_t that lives through the call.
        let result = unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, libc::WEXITED | libc::__WALL) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {
                // SAFETY: waitid filled info in for a child that ended, so si_status is there.
                let status = unsafe { info.si_status() };
                return Ok(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) });
            }
        }
    }
}
