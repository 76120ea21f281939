// SPDX-License-Identifier: Apache-2.0
//! Filters, signals, children and execve.

use core::ffi::CStr;

use super::*;

const CLONE_PARENT: u64 = 0x8000;
const CLONE_PIDFD: u64 = 0x1000;

/// Installs a filter of 8-byte instructions; `filter` must be a multiple of them.
pub fn seccomp(filter: &[u8], flags: u32) -> Result<i32> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    #[repr(C)]
    struct Fprog {
        len: u16,
        filter: *const u8,
    }
    let program = Fprog { len: (filter.len() / 8) as u16, filter: filter.as_ptr() };
    sys!(SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &raw const program).map(|fd| fd as i32)
}

/// Every signal to its default action and none blocked: what the payload must begin with.
pub fn reset_signals() {
    let default = [0u64; 4];
    let none = 0u64;
    for signal in 1u32..=64 {
        let _ = sys!(RT_SIGACTION, signal, default.as_ptr(), 0usize, 8u32);
    }
    let _ = sys!(RT_SIGPROCMASK, 2u32, &raw const none, 0usize, 8u32);
}

/// Forks a sibling: 0 in it, (pid, pidfd) in the caller.
pub fn fork_sibling() -> Result<(u32, i32)> {
    let mut pidfd = -1i32;
    let mut args = [0u64; 11];
    args[0] = CLONE_PARENT | CLONE_PIDFD;
    args[1] = (&raw mut pidfd) as u64;
    let pid = sys!(CLONE3, args.as_ptr(), size_of_val(&args))?;
    Ok((pid as u32, pidfd))
}

/// Forks a child: 0 in it, (pid, pidfd) in the caller.
pub fn fork_child() -> Result<(u32, i32)> {
    const SIGCHLD: u64 = 17;
    let mut pidfd = -1i32;
    let mut args = [0u64; 11];
    args[0] = CLONE_PIDFD;
    args[1] = (&raw mut pidfd) as u64;
    args[4] = SIGCHLD;
    let pid = sys!(CLONE3, args.as_ptr(), size_of_val(&args))?;
    Ok((pid as u32, pidfd))
}

/// Whether `fd` is readable (a pidfd: whether its process has ended) within `millis`; 0 waits for ever.
pub fn readable_within(fd: i32, millis: u32) -> Result<bool> {
    const POLLIN: u32 = 1;
    let poll = [fd as u32, POLLIN];
    let time = [u64::from(millis / 1000), u64::from(millis % 1000) * 1_000_000];
    let time = if millis == 0 { core::ptr::null() } else { time.as_ptr() };
    loop {
        match sys!(PPOLL, poll.as_ptr(), 1u32, time, 0usize, 0usize) {
            Err(EINTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}

pub fn kill(pidfd: i32) -> Result<()> {
    const SIGKILL: u32 = 9;
    sys!(PIDFD_SEND_SIGNAL, pidfd, SIGKILL, 0usize, 0u32).map(drop)
}

/// Waits for a child: its exit status, or as shells have it 128 and the number of the signal that ended it.
pub fn wait(pidfd: i32) -> Result<u32> {
    const P_PIDFD: u32 = 3;
    const WEXITED: u32 = 4;
    const CLD_EXITED: u32 = 1;
    // siginfo_t: si_code is the third word, si_status the seventh (sigaction(2)).
    let mut info = [0u32; 32];
    loop {
        match sys!(WAITID, P_PIDFD, pidfd, info.as_mut_ptr(), WEXITED, 0usize) {
            Err(EINTR) => {}
            result => return result.map(|_| if info[2] == CLD_EXITED { info[6] } else { 128 + info[6] }),
        }
    }
}

/// Executes `path`. `argv` and `envp` are NULL-terminated arrays of addresses of C strings, made by `Pointers`.
pub fn execve(path: &CStr, argv: &Pointers, envp: &Pointers) -> Result<()> {
    sys!(EXECVE, path, argv.0, envp.0).map(drop)
}

/// An array of C strings as execve takes it.
pub struct Pointers(*const u64);

impl Pointers {
    /// Turns `count` offsets at `at` (`u64` each, and room for one more) into addresses, in place. None unless each is the
    /// start of a string that ends within `data`.
    pub fn relocate(data: &mut [u8], at: usize, count: usize) -> Option<Pointers> {
        let base = data.as_ptr() as u64;
        for index in 0..count {
            let slot = at + index * 8;
            let offset = u64::from_ne_bytes(data.get(slot..slot + 8)?.try_into().ok()?);
            CStr::from_bytes_until_nul(data.get(offset as usize..)?).ok()?;
            data.get_mut(slot..slot + 8)?.copy_from_slice(&(base + offset).to_ne_bytes());
        }
        data.get_mut(at + count * 8..at + count * 8 + 8)?.fill(0);
        Some(Pointers(data.get(at..)?.as_ptr().cast()))
    }
}
