// SPDX-License-Identifier: Apache-2.0
//! Rules of folders.

use super::{Entry, Rules};
use crate::check::rules;

/// Anybody may write.
const OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

impl Rules<'_> {
    pub(super) fn folder(&mut self, entry: &Entry<'_>) {
        if self.hidden {
            return;
        }
        let mode = entry.permissions();
        if mode & OTHERS != 0 && mode & STICKY == 0 {
            self.open_to_all(entry);
        }
        let owned = Some(entry.stat.st_uid) == self.user && mode & 0o200 != 0;
        if (owned || mode & OTHERS != 0) && !self.is_covered(entry) {
            let whose = if owned { "of the user" } else { "of everybody" };
            self.found.file(&rules::UNCOVERED, rules::UNCOVERED.severity, entry.path.to_owned(), whose);
            self.uncovered = Some(entry.path.to_owned());
        }
    }

    pub(super) fn open_to_all(&mut self, entry: &Entry<'_>) {
        let what = format!("mode {:04o}", entry.permissions());
        self.found.file(&rules::WORLD_WRITABLE, rules::WORLD_WRITABLE.severity, entry.path.to_owned(), what);
    }

    /// Whether a mount is over it, or a folder above was said.
    fn is_covered(&self, entry: &Entry<'_>) -> bool {
        self.mounted.iter().chain(&self.uncovered).any(|above| entry.path.starts_with(above))
    }
}
