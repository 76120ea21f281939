// SPDX-License-Identifier: Apache-2.0
//! A folder of the host that no container may touch: what is in it is recorded, and the kernel tells of every change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::TempDir;

/// Owner, group, mode, modification time in seconds and nanoseconds, content.
type Facts = (u32, u32, u32, i64, i64, Option<Vec<u8>>);

/// The folder.
#[derive(Debug)]
pub struct Canary {
    dir: TempDir,
    watch: Inotify,
    before: BTreeMap<PathBuf, Facts>,
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

impl Canary {
    /// A folder with a marker file, a `ptmx`, a subfolder and a program.
    pub fn new() -> Self {
        let dir = TempDir::new("canary");
        fs::create_dir_all(dir.path().join("sub/bin")).expect("sub");
        for (name, content) in
            [("marker", "HOST-MARKER\n"), ("ptmx", "x"), ("sub/file", "y"), ("sub/bin/tool", "#!/bin/sh\n")]
        {
            fs::write(dir.path().join(name), content).expect("a file");
        }
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("inotify");
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE;
        for folder in ["", "sub", "sub/bin"] {
            watch.add_watch(&dir.path().join(folder), changes).expect("a watch");
        }
        let before = facts(dir.path());
        Self { dir, watch, before }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Panics if anything in it was changed, made or removed.
    pub fn assert_untouched(&self) {
        match self.watch.read_events() {
            Err(Errno::EAGAIN) => {}
            events => panic!("the host's folder was touched: {events:?}"),
        }
        assert_eq!(self.before, facts(self.dir.path()), "the host's folder was changed");
    }
}

fn facts(dir: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let metadata = entry.metadata().expect("metadata");
        let content = metadata.is_file().then(|| fs::read(entry.path()).expect("a file"));
        let facts_of =
            (metadata.uid(), metadata.gid(), metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content);
        found.insert(entry.path(), facts_of);
        if metadata.is_dir() {
            found.extend(facts(&entry.path()));
        }
    }
    found
}
