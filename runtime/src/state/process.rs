// SPDX-License-Identifier: Apache-2.0
//! A recorded process and the one that has its pid now: the same, another, or none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::Pid;

use super::Process;
use crate::error::{Context, Result};
use crate::sys::pidfd;

/// linux/magic.h
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// Remembers the process behind `fd`.
pub fn remember(pid: Pid, fd: impl AsFd) -> Result<Process> {
    let pidfs =
        nix::sys::statfs::fstatfs(fd.as_fd()).context(|| "pidfd".into())?.filesystem_type().0 as i64 == PID_FS_MAGIC;
    let pidfd_inode = if pidfs { fstat(fd).context(|| "pidfd".into())?.st_ino } else { 0 };
    let start_time = if pidfs { None } else { start_time(pid) };
    Ok(Process { pid: pid.as_raw(), pidfd_inode, start_time })
}

/// A pidfd of the recorded process, if it still runs: a zombie does not.
pub fn find(process: &Process) -> Result<Option<OwnedFd>> {
    match open(process)? {
        Some(fd) if !ended(&fd)? => Ok(Some(fd)),
        _ => Ok(None),
    }
}

/// A pidfd of the recorded process, until it is reaped.
pub fn open(process: &Process) -> Result<Option<OwnedFd>> {
    let pid = Pid::from_raw(process.pid);
    let fd = match pidfd::open(pid) {
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        result => result.context(|| format!("pidfd of {pid}"))?,
    };
    let same = match process.start_time {
        None => fstat(&fd).is_ok_and(|stat| stat.st_ino == process.pidfd_inode),
        Some(started) => start_time(pid) == Some(started),
    };
    Ok(same.then_some(fd))
}

/// Whether the process behind a pidfd has ended.
pub fn ended(fd: impl AsFd) -> Result<bool> {
    wait(fd, PollTimeout::ZERO)
}

/// Waits for the end of the process behind a pidfd (a zombie has ended); false if `timeout` runs out first.
pub fn wait(fd: impl AsFd, timeout: PollTimeout) -> Result<bool> {
    Ok(first(&[fd.as_fd()], timeout)?.is_some())
}

/// Which of some descriptors can be read (a pidfd: its process has ended), the first in their order; none if `timeout` runs out before.
///
/// # Errors
/// Of poll(2).
pub fn first(fds: &[BorrowedFd<'_>], timeout: PollTimeout) -> Result<Option<usize>> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            result => break result.map(drop).context(|| "poll a pidfd".into())?,
        }
    }
    Ok(fds.iter().position(|fd| fd.any().unwrap_or_default()))
}

/// Clock ticks (1/100 s, USER_HZ) since boot at which the process began: field 22, after the name in parentheses (proc_pid_stat(5)).
pub fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
