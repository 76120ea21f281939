// SPDX-License-Identifier: Apache-2.0
//! Limits of another process: prlimit(2), which nix lacks.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::unistd::Pid;

/// Raises the hard limit of `pid` to `hard` if it lies below it; never lowers anything.
pub fn raise(pid: Pid, resource: u32, hard: u64) -> nix::Result<()> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: now is a struct rlimit64 that lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, 0, &raw mut now) };
    Errno::result(result)?;
    if now.rlim_max >= hard {
        return Ok(());
    }
    now.rlim_max = hard;
    // SAFETY: now is a struct rlimit64 that lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, &raw const now, 0) };
    Errno::result(result).map(drop)
}
