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
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().for_each(|signal| set.add(*signal));
        set.thread_block().context(|| "block signals".into())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).context(|| "signalfd".into()).map(Self)
    }

    /// Whether one has come since the last time.
    pub fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
