// SPDX-License-Identifier: Apache-2.0
//! The counts: see counts.rs for the layout. We are the only writer of all but the word for killed processes.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::counts::{HEADER, NAMED, OVERFLOW, ROW, ROWS, TOTAL, USED};

/// A process's name: 16 bytes in two words.
pub type Name = [u64; 2];

/// The file, mapped.
pub struct Table(&'static [AtomicU64]);

impl Table {
    pub fn new(words: &'static [AtomicU64]) -> Self {
        Self(words)
    }

    /// One more of what word `at` counts.
    pub fn add_to(&self, at: usize) {
        if let Some(word) = self.0.get(at) {
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// One more call `number` (with its architecture) of a process called `name`.
    pub fn count(&self, number: u64, name: Name) {
        let at = self.row(number, name).or_else(|| self.row(number, [0; 2]));
        self.add_to(at.map_or(OVERFLOW, |at| at + 3));
        self.add_to(TOTAL);
    }

    /// The first word of the row, which is made if there is room.
    fn row(&self, number: u64, name: Name) -> Option<usize> {
        let used = (self.0.get(USED)?.load(Ordering::Relaxed) as usize).min(ROWS);
        let key = [number, name[0], name[1]];
        let is = |row: &[AtomicU64]| row.iter().zip(key).all(|(word, key)| word.load(Ordering::Relaxed) == key);
        let rows = self.0.get(HEADER..)?.chunks_exact(ROW);
        if let Some(found) = rows.take(used).position(is) {
            return Some(HEADER + found * ROW);
        }
        let room = if name == [0; 2] { ROWS } else { NAMED };
        if used >= room {
            return None;
        }
        let at = HEADER + used * ROW;
        for (word, key) in self.0.get(at..)?.iter().zip(key) {
            word.store(key, Ordering::Relaxed);
        }
        self.0.get(USED)?.store(used as u64 + 1, Ordering::Release);
        Some(at)
    }
}
