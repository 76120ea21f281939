// SPDX-License-Identifier: Apache-2.0
//! An attacker who swaps two names as fast as the kernel can.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Swaps `a` and `b` in a thread until it is dropped.
pub struct Swapper {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Begins.
    pub fn start(a: &Path, b: &Path) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let (a, b) = (path(a), path(b));
        let (stopped, counter) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if exchange(&a, &b) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, count, thread: Some(thread) }
    }

    /// How often it has swapped.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// renameat2(2) with RENAME_EXCHANGE, which nix has for glibc only.
fn exchange(a: &CStr, b: &CStr) -> bool {
    let (cwd, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both are C strings.
    unsafe { libc::syscall(libc::SYS_renameat2, cwd, a.as_ptr(), cwd, b.as_ptr(), flags) == 0 }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
