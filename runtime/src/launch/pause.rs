// SPDX-License-Identifier: Apache-2.0
//! The named steps of a launch. A build with debug assertions stops itself (SIGSTOP) before the step that WSBOX_PAUSE_AT
//! names, so that a test can kill it there; a release build does nothing.

/// Every step, in order: what `wsbox debug-steps` prints in a debug build.
pub const STEPS: &[&str] = &[
    "state", "ids", "record", "cgroup", "program", "clone", "maps", "sources", "confine", "send", "monitor", "hooks",
    "ready", "created", "running", "exited",
];

/// Before `step`.
#[cfg(debug_assertions)]
pub fn before(step: &str) {
    debug_assert!(STEPS.contains(&step));
    if std::env::var("WSBOX_PAUSE_AT").is_ok_and(|wanted| wanted == step) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
    }
}

/// Before `step`.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn before(_step: &str) {}
