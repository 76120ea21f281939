// SPDX-License-Identifier: Apache-2.0
//! The signal mask of children: std gives them ours, which may hold back what is meant to end them.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

/// Has a child begin with no signal blocked.
pub fn unblock(command: &mut Command) {
    // Where there is none std can start it without a copy of our page tables (posix_spawn(3)).
    if SigSet::thread_get_mask().is_ok_and(|mask| mask == SigSet::empty()) {
        return;
    }
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: all it does is sigprocmask(2), which is async-signal-safe (signal-safety(7)); it takes no memory.
    unsafe { command.pre_exec(unblock) };
}
