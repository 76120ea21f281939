// SPDX-License-Identifier: Apache-2.0
//! Word of every time that a container runs out of its memory: an eventfd(2) on memory.oom_control (cgroup-v1/memory.rst, section 9),
//! or memory.events, which polls ready when it changes (cgroup-v2.rst).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Cgroup, V2_ROOT};
use crate::error::{Context, Result};

/// What tells.
pub enum Oom {
    /// v1: the eventfd, and the cgroup, whose end it tells as well
    V1(EventFd, PathBuf),
    /// v2: the file, and how often it told of a kill so far
    V2(File, u64),
}

impl Cgroup {
    /// None if nobody counts the container's memory.
    pub fn watch_oom(&self) -> Result<Option<Oom>> {
        let v1 = Path::new(V2_ROOT).join("memory").join(&self.saved.path);
        if self.saved.v1.iter().any(|name| name == "memory") {
            let step = || format!("watch {}", v1.join("memory.oom_control").display());
            let control = File::open(v1.join("memory.oom_control")).context(step)?;
            let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context(step)?;
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            File::options()
                .write(true)
                .open(v1.join("cgroup.event_control"))
                .and_then(|file| file.write_at(line.as_bytes(), 0))
                .context(step)?;
            return Ok(Some(Oom::V1(event, v1)));
        }
        match File::open(self.saved.root.join(&self.saved.path).join("memory.events")) {
            Ok(file) => {
                let kills = kills(&file);
                Ok(Some(Oom::V2(file, kills)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| "watch memory.events".into()),
        }
    }
}

fn kills(file: &File) -> u64 {
    let mut text = [0u8; 512];
    let count = file.read_at(&mut text, 0).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..count]).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

impl Oom {
    /// What to poll, and for what.
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Oom::V1(event, _) => (event.as_fd(), PollFlags::POLLIN),
            Oom::V2(file, _) => (file.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Whether it happened since this was last asked.
    pub fn happened(&mut self) -> bool {
        match self {
            // The end of the cgroup makes it readable too.
            Oom::V1(event, dir) => event.read().is_ok() && dir.exists(),
            Oom::V2(file, before) => {
                let now = kills(file);
                std::mem::replace(before, now) < now
            }
        }
    }
}
