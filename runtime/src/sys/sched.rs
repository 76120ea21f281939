// SPDX-License-Identifier: Apache-2.0
//! How another process is scheduled: sched_setattr(2) and ioprio_set(2), which nix and libc lack.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::unistd::Pid;

/// struct sched_attr of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Clone, Debug, PartialEq)]
pub struct SchedAttr {
    /// Of this structure, in bytes
    pub size: u32,
    /// SCHED_*
    pub policy: u32,
    /// SCHED_FLAG_*
    pub flags: u64,
    /// -20 to 19
    pub nice: i32,
    /// 1 to 99 for the realtime policies
    pub priority: u32,
    /// Nanoseconds of SCHED_DEADLINE
    pub runtime: u64,
    /// Nanoseconds
    pub deadline: u64,
    /// Nanoseconds
    pub period: u64,
}

impl Default for SchedAttr {
    fn default() -> Self {
        let size = size_of::<Self>() as u32;
        Self { size, policy: 0, flags: 0, nice: 0, priority: 0, runtime: 0, deadline: 0, period: 0 }
    }
}

/// Sets the policy of `pid`.
pub fn set_scheduler(pid: Pid, wanted: &SchedAttr) -> nix::Result<()> {
    // SAFETY: wanted is a struct sched_attr that says its size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), std::ptr::from_ref(wanted), 0) };
    Errno::result(result).map(drop)
}

/// Sets the I/O priority of `pid`: class << 13 | priority.
pub fn set_io_priority(pid: Pid, value: u32) -> nix::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), value) };
    Errno::result(result).map(drop)
}
