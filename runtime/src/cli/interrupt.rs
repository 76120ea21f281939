// SPDX-License-Identifier: Apache-2.0
//! The signals by which a user ends a command, held back: what is temporary goes first.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Context, Result};

/// See above.
pub struct Interrupt(SignalFd);

impl Interrupt {
    /// For all threads that are started from here on, too.
    pub fn hold() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        // Blocked, it would be queued though nohup(1) has it ignored; a shell ignores SIGINT for any job in the background.
        if !ignores(Signal::SIGHUP)? {
            set.add(Signal::SIGHUP);
        }
        set.thread_block().context(|| "block signals".into())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).context(|| "signalfd".into()).map(Self)
    }

    /// Whether one has come since the last time.
    pub fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

/// Whether we were started with a signal ignored (proc_pid_status(5)).
fn ignores(signal: Signal) -> Result<bool> {
    let file = "/proc/self/status";
    let status = std::fs::read_to_string(file).context(|| file.into())?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    Ok(mask & (1 << (signal as u32 - 1)) != 0)
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
