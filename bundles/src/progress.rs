// SPDX-License-Identifier: Apache-2.0
//! How far long work is, and whether somebody wants it to end.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

/// Shared by those who work and those who watch.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    /// Bytes more that are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes more that there are to do.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes done, and in all as far as is known.
    pub fn state(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Ends the work at the next [`check`](Self::check).
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits for a lock that others may hold for long, as long as nobody has had enough; `how` is one that does not wait.
    ///
    /// # Errors
    /// If it can not be had, or the work was cancelled.
    pub(crate) fn lock(&self, mut file: File, how: FlockArg) -> Result<Flock<File>> {
        const BETWEEN: Duration = Duration::from_millis(20);
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => return Err(Error::new("lock", errno.desc().to_lowercase())),
            }
            self.check()?;
            std::thread::sleep(BETWEEN);
        }
    }

    /// # Errors
    /// If the work was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new("bundle", "interrupted; nothing is left of it"));
        }
        Ok(())
    }
}
