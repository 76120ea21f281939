// SPDX-License-Identifier: Apache-2.0
//! What the kernel does with a call: the values a filter returns (seccomp(2), linux/seccomp.h).

/// A return value of a filter: an action in the upper 16 bits, its data (an error number, a tracer's message) below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(u32);

impl Verdict {
    /// Let it through.
    pub const ALLOW: Self = Self(libc::SECCOMP_RET_ALLOW);
    /// Let it through and log it.
    pub const LOG: Self = Self(libc::SECCOMP_RET_LOG);
    /// Wait for what an agent says (seccomp_unotify(2)).
    pub const NOTIFY: Self = Self(libc::SECCOMP_RET_USER_NOTIF);
    /// Send SIGSYS.
    pub const TRAP: Self = Self(libc::SECCOMP_RET_TRAP);
    /// End the calling thread.
    pub const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    /// End the process.
    pub const KILL_PROCESS: Self = Self(libc::SECCOMP_RET_KILL_PROCESS);
    /// Fail with "operation not permitted".
    pub const EPERM: Self = Self::errno(libc::EPERM as u16);
    /// Fail as a kernel does that does not have the call, so that libraries fall back to an older one.
    pub const ENOSYS: Self = Self::errno(libc::ENOSYS as u16);

    /// Fail as a file system does that has no extended attributes.
    pub const ENOTSUP: Self = Self::errno(libc::EOPNOTSUPP as u16);

    /// Fail with `number`; the kernel cuts it to 4095.
    pub const fn errno(number: u16) -> Self {
        Self(libc::SECCOMP_RET_ERRNO | number as u32)
    }

    /// Stop for a tracer, which gets `message`; without one the call fails with ENOSYS.
    pub const fn trace(message: u16) -> Self {
        Self(libc::SECCOMP_RET_TRACE | message as u32)
    }

    /// The 32 bits that the filter returns.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// How strict it is, larger being stricter: the order in which the kernel chooses among several filters, which is
    /// that of the action as a signed number (`SECCOMP_RET_ACTION_FULL` in kernel/seccomp.c).
    pub const fn strictness(self) -> i32 {
        !((self.0 & libc::SECCOMP_RET_ACTION_FULL) as i32)
    }

    /// Whether the call is not carried out: ERRNO, TRAP and both KILLs.
    pub const fn denies(self) -> bool {
        self.strictness() >= Self::EPERM.strictness()
    }

    /// The stricter of two, the first where they are alike.
    pub const fn or_stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }
}
