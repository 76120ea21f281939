// SPDX-License-Identifier: Apache-2.0
//! Rules of what is no folder.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{SFlag, major, minor};

use super::{Entry, Rules, tree};
use crate::check::rules;
use crate::error::Result;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const EXECUTABLE: u32 = 0o111;

const PACKAGE_MANAGERS: [&str; 22] = [
    "apk", "apt", "apt-get", "conda", "dnf", "dnf5", "dpkg", "gem", "microdnf", "npm", "opkg", "pacman", "pip", "pip3",
    "pipx", "pnpm", "rpm", "tdnf", "uv", "yarn", "yum", "zypper",
];
const SHELLS: [&str; 11] = ["ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"];

impl Rules<'_> {
    /// Every kind but folders.
    pub(super) fn file(&mut self, entry: &Entry<'_>) -> Result<()> {
        let kind = tree::kind(entry.stat);
        if self.hidden {
            return if kind == SFlag::S_IFREG { self.content(entry) } else { Ok(()) };
        }
        if kind == SFlag::S_IFLNK {
            self.tool(entry);
            return Ok(());
        }
        if entry.permissions() & 0o002 != 0 {
            self.open_to_all(entry);
        }
        match kind {
            SFlag::S_IFREG => {
                self.program(entry);
                self.content(entry)
            }
            SFlag::S_IFCHR | SFlag::S_IFBLK => {
                let letter = if kind == SFlag::S_IFCHR { 'c' } else { 'b' };
                let what = format!("{letter} {}:{}", major(entry.stat.st_rdev), minor(entry.stat.st_rdev));
                self.add(&rules::DEVICE_NODE, entry.path, what);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn add(&mut self, rule: &'static rules::Rule, path: &Path, what: impl Into<String>) {
        self.found.file(rule, rule.severity, path.to_owned(), what);
    }

    fn program(&mut self, entry: &Entry<'_>) {
        let mode = entry.permissions();
        if mode & EXECUTABLE == 0 {
            return;
        }
        if mode & SET_UID != 0 {
            self.add(&rules::SETID, entry.path, format!("set-uid, of uid {}", entry.stat.st_uid));
        }
        if mode & SET_GID != 0 {
            self.add(&rules::SETID, entry.path, format!("set-gid, of gid {}", entry.stat.st_gid));
        }
        if let Some(names) = capabilities(entry) {
            self.add(&rules::FILE_CAPABILITIES, entry.path, names);
        }
        self.tool(entry);
    }

    fn tool(&mut self, entry: &Entry<'_>) {
        let folder = entry.path.parent().and_then(Path::file_name).unwrap_or_default();
        if folder != "bin" && folder != "sbin" {
            return;
        }
        let name = entry.name();
        for (rule, names) in [(&rules::PACKAGE_MANAGER, &PACKAGE_MANAGERS[..]), (&rules::SHELL, &SHELLS)] {
            if names.iter().any(|one| name == *one) {
                self.found.file(rule, self.tools, entry.path.to_owned(), "");
            }
        }
    }
}

/// The names in the attribute security.capability (capabilities(7), "File capabilities"). The last name is not followed.
fn capabilities(entry: &Entry<'_>) -> Option<String> {
    let folder = format!("/proc/self/fd/{}", entry.folder.as_raw_fd());
    let value = xattr::get(Path::new(&folder).join(entry.name()), "security.capability").ok()??;
    let word = |at: usize| value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let both = |low: usize, high: usize| u64::from(word(low)) | u64::from(word(high)) << 32;
    let mask = both(4, 12) | both(8, 16);
    let mut names: Vec<_> =
        caps::all().into_iter().filter(|one| mask & one.bitmask() != 0).map(|one| one.to_string()).collect();
    names.sort();
    Some(if names.is_empty() { "no names".into() } else { names.join(", ") })
}

/// Whether the path ends so.
pub(super) fn ends_with(path: &Path, end: &str) -> bool {
    path.as_os_str().as_bytes().ends_with(end.as_bytes())
}
