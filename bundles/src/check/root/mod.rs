// SPDX-License-Identifier: Apache-2.0
//! Rules of the root file system.

mod content;
mod files;
mod folders;
mod tree;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;
use serde_json::Value;

use super::config::{clean, list};
use super::finding::Findings;
use super::rules::Severity;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes of files that are read in all.
const BYTES: u64 = 64 << 30;

/// Looks at every file of the root; `folders` are its layers, the uppermost first.
///
/// # Errors
/// If a folder is not there, or there is more than can be looked at.
pub fn check(folders: &[PathBuf], config: &Value, progress: &Progress, found: &mut Findings) -> Result<()> {
    let mut rules = Rules::new(config, found);
    tree::walk(folders, progress, &mut rules)
}

/// What the rules have to know.
struct Rules<'a> {
    found: &'a mut Findings,
    /// Where something is mounted over the root.
    mounted: Vec<PathBuf>,
    /// The container's user, if it is not root and files show who owns them.
    user: Option<u32>,
    /// For what a production image does not need.
    tools: Severity,
    /// What is looked at can not be seen in the container: only secrets count.
    hidden: bool,
    /// Files that were read: some have several names.
    read: HashSet<(u64, u64)>,
    bytes: u64,
    /// The last folder that is to be written: not all below are said, too.
    uncovered: Option<PathBuf>,
}

impl<'a> Rules<'a> {
    fn new(config: &Value, found: &'a mut Findings) -> Self {
        let destination = |mount: &Value| mount["destination"].as_str().map(|path| clean(Path::new(path)));
        let mounted = list(config, "/mounts").iter().filter_map(destination).collect();
        let user = config["process"]["user"]["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok());
        // What a user unpacks is the user's.
        let user = user.filter(|uid| *uid != 0 && nix::unistd::geteuid().is_root());
        let production = config["annotations"]["dev.wsbox.profile"] == "production";
        let tools = if production { Severity::Warning } else { Severity::Note };
        Self { found, mounted, user, tools, hidden: false, read: HashSet::new(), bytes: 0, uncovered: None }
    }

    /// Counts bytes that are about to be read.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        match self.bytes > BYTES {
            true => Err(Error::new("the root", format!("has more than {} GiB to read", BYTES >> 30))),
            false => Ok(()),
        }
    }
}

/// One name of the root, in the uppermost layer that has it.
struct Entry<'a> {
    /// In the container.
    path: &'a Path,
    stat: &'a FileStat,
    /// The folder it is in.
    folder: &'a OwnedFd,
}

impl Entry<'_> {
    fn name(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn permissions(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }
}
