// SPDX-License-Identifier: Apache-2.0
//! What the monitor waits for. By poll(2), not epoll(7): only so does the kernel wake us on the caller's CPU
//! (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP), which halves what a call costs.

use crate::sys::{self, Result};

/// The socket and the container's first process come before the listeners.
pub const SOCKET: usize = 0;
pub const FIRST: usize = 1;
const LISTENERS: usize = 2;
/// The most that can be waited for.
const ROOM: usize = 4096;
/// struct pollfd as a word: the descriptor, then what is asked and what has happened, 16 bits each (poll(2)).
const POLLIN: u64 = 1;
const ASKED: u32 = 32;
const HAPPENED: u32 = 48;

/// Descriptors to wait for.
pub struct Listeners {
    fds: &'static mut [u64],
    count: usize,
}

impl Listeners {
    pub fn new(socket: i32, first: i32) -> Result<Self> {
        let mut listeners = Self { fds: sys::zeroes(ROOM)?, count: 0 };
        listeners.add(socket);
        listeners.add(first);
        Ok(listeners)
    }

    /// False if there is no room.
    pub fn add(&mut self, fd: i32) -> bool {
        let Some(place) = self.fds.get_mut(self.count) else { return false };
        *place = fd as u32 as u64 | POLLIN << ASKED;
        self.count += 1;
        true
    }

    /// Whether no listener is left, nor the container's first process.
    pub fn is_over(&self) -> bool {
        self.count == LISTENERS && self.fds.get(FIRST).is_none_or(|first| (*first as i32) < 0)
    }

    /// Where messages come.
    pub fn socket(&self) -> i32 {
        self.fds.get(SOCKET).map_or(-1, |word| *word as i32)
    }

    /// How many there are, the socket and the first process too.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Waits until something happens, at most so many nanoseconds; none waits for ever. How many are ready.
    pub fn wait(&mut self, nanos: Option<u64>) -> Result<usize> {
        sys::poll(self.fds.get_mut(..self.count).unwrap_or_default(), nanos)
    }

    /// The one at `at`, if something happened there, and whether it is a message; else its other end is gone.
    pub fn ready(&self, at: usize) -> Option<(i32, bool)> {
        let word = self.fds.get(at).copied().filter(|word| word >> HAPPENED != 0)?;
        Some((word as i32, word >> HAPPENED & POLLIN != 0))
    }

    /// Closes the one at `at`. Those before it keep their places.
    pub fn remove(&mut self, at: usize) {
        let last = self.count - 1;
        let Some(word) = self.fds.get(at).copied() else { return };
        sys::close(word as i32);
        if at == FIRST {
            // poll(2) passes over what is negative.
            self.fds[FIRST] = u64::from(u32::MAX);
        } else {
            self.fds[at] = self.fds[last];
            self.count = last;
        }
    }
}
