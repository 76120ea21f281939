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
        // Who started us with one ignored (nohup(1)) does not want it to end anything; blocked, it would be queued all the same.
        let ignored = ignored()?;
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        ends.into_iter().filter(|signal| ignored & (1 << (*signal as u32 - 1)) == 0).for_each(|signal| set.add(signal));
        set.thread_block().context(|| "block signals".into())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).context(|| "signalfd".into()).map(Self)
    }

    /// Whether one has come since the last time.
    pub fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

/// The signals that are ignored, a bit for each (proc_pid_status(5)).
fn ignored() -> Result<u64> {
    let file = "/proc/self/status";
    let status = std::fs::read_to_string(file).context(|| file.into())?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default())
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
