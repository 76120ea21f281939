// SPDX-License-Identifier: Apache-2.0
//! The limits that a container meets: those of its cgroup, and tmpfs that are full. Nothing is read until somebody asks.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use serde_json::Value;

use super::{Root, layers, lifecycle};
use crate::cgroup::{Cgroup, Met};
use crate::error::Result;

/// Looks at a container's limits. Made while the container runs, it still sees after its end, until it is deleted, what was met.
pub struct LimitWatch {
    cgroup: Option<Cgroup>,
    /// Each tmpfs that can be written, held by its directory
    tmpfs: Vec<(PathBuf, OwnedFd)>,
}

impl LimitWatch {
    /// Of container `id`; of one that has ended, what its cgroup counted.
    ///
    /// # Errors
    /// If there is no such container.
    pub fn new(root: &Root, id: &str) -> Result<Self> {
        let record = root.read(id)?;
        let alive = lifecycle::process(&record)?.is_some();
        let pid = record.process.as_ref().filter(|_| alive).map(|process| process.pid);
        let tmpfs = pid.map(tmpfs).unwrap_or_default();
        Ok(Self { cgroup: Cgroup::find(&record.cgroup)?, tmpfs })
    }

    /// What was met so far.
    pub fn met(&self) -> Vec<Met> {
        let counted = self.cgroup.as_ref().map(Cgroup::met).unwrap_or_default();
        counted.into_iter().chain(self.tmpfs.iter().filter_map(full)).collect()
    }
}

/// The tmpfs of a process that have a size and can be written. Its root is only opened, and links in it are not followed.
fn tmpfs(pid: i32) -> Vec<(PathBuf, OwnedFd)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mountinfo = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let Ok(root) = openat(AT_FDCWD, format!("/proc/{pid}/root").as_str(), flags, Mode::empty()) else {
        return Vec::new();
    };
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let open = |place: PathBuf| openat2(&root, &place, how).ok().map(|dir| (place, dir));
    layers::writable_tmpfs(&mountinfo).filter_map(open).collect()
}

fn full((mount, dir): &(PathBuf, OwnedFd)) -> Option<Met> {
    let found = fstatfs(dir).ok().filter(|found| found.filesystem_type() == TMPFS_MAGIC)?;
    let size = found.blocks() * found.block_size() as u64;
    let inodes = found.files() > 0 && found.files_free() == 0;
    let full = size > 0 && found.blocks_available() == 0;
    (full || inodes).then(|| Met::Tmpfs { mount: mount.clone(), size, inodes: !full })
}

/// As JSON, with the sentence that a person is told.
pub fn to_json(met: &[Met]) -> Value {
    let one = |met: &Met| {
        let mut value = serde_json::to_value(met).unwrap_or_default();
        value["text"] = met.to_string().into();
        value
    };
    met.iter().map(one).collect()
}
