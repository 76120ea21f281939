// SPDX-License-Identifier: Apache-2.0
//! cgroup v2 by hand: one descriptor of the directory, one write for each level and limit (cgroup-v2.rst).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Pid, UnlinkatFlags, faccessat, unlinkat};

use super::levels::{Levels, Made};
use super::writes::Write;
use super::{Limits, ids, tree};
use crate::error::{Context, Error, Result};

/// How long the kernel may take to freeze, or to end what was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory of the hierarchy.
#[derive(Debug)]
pub struct Group {
    root: OwnedFd,
    path: String,
    dir: OwnedFd,
    shown: PathBuf,
    made: Made,
}

impl Group {
    /// Makes the group at `path` below `root`, with the controllers that `writes` need enabled on the way, and writes those
    /// that need not wait.
    pub fn create(root: &Path, path: &str, writes: &[Write]) -> Result<Self> {
        let (shown, root_dir) = (root.join(path), open_root(root)?);
        let made = Levels::new(&root_dir, root, path).walk(writes)?;
        let dir =
            open(&root_dir, path).context(|| shown.display().to_string()).inspect_err(|_| made.undo(&root_dir))?;
        Self { root: root_dir, path: path.into(), dir, shown, made }.with(writes)
    }

    /// Itself under those of the limits that need not wait; removed if one is not taken.
    fn with(self, writes: &[Write]) -> Result<Self> {
        let mut now = writes.iter().filter(|write| !write.waits());
        now.try_for_each(|write| self.write_limit(write)).inspect_err(|_| drop(self.discard()))?;
        Ok(self)
    }

    /// A group that is there.
    pub fn open(root: &Path, path: &str) -> Result<Self> {
        let shown = root.join(path);
        let root = open_root(root)?;
        let dir = open(&root, path).context(|| format!("cgroup {}", shown.display()))?;
        Ok(Self { root, path: path.into(), dir, shown, made: Made::default() })
    }

    /// Removes it, and the levels that were made on the way to it.
    pub fn discard(&self) -> Result<()> {
        self.remove()?;
        self.made.undo(&self.root);
        Ok(())
    }

    /// Its directory.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Writes the limits that wait until the init has memory of its own.
    pub fn write_waiting(&self, writes: &[Write]) -> Result<()> {
        writes.iter().filter(|write| write.waits()).try_for_each(|write| self.write_limit(write))
    }

    /// Enables the controllers that `writes` need on the way to it.
    pub fn enable(&self, writes: &[Write]) -> Result<()> {
        let root = self.shown.ancestors().nth(self.path.split('/').count()).unwrap_or(&self.shown);
        Levels::new(&self.root, root, &self.path).enable(writes)
    }

    /// Whether memory is counted here: the kernel then kills in it when it is short.
    pub fn counts_memory(&self) -> bool {
        self.has("memory.current")
    }

    fn has(&self, file: &str) -> bool {
        faccessat(&self.dir, file, AccessFlags::F_OK, AtFlags::empty()).is_ok()
    }

    /// Writes one limit.
    pub fn write_limit(&self, write: &Write) -> Result<()> {
        let write = write.settled(|file| self.has(file));
        match self.write(&write.file, &write.value) {
            Err(Errno::ENOENT) if write.needs_no_file() => Ok(()),
            Err(errno) => Err(write.refused(&self.shown.join(&write.file), errno)),
            Ok(()) => self.check_ids(&write),
        }
    }

    /// Where the cgroups above have none of the CPUs or nodes that are asked for, the kernel gives what they have (cgroup-v2.rst,
    /// cpuset.cpus).
    pub fn check_ids(&self, write: &Write) -> Result<()> {
        if !matches!(write.file.as_str(), "cpuset.cpus" | "cpuset.mems") {
            return Ok(());
        }
        let file = format!("{}.effective", write.file);
        let found = self.read(&file).context(|| self.subject(&file))?;
        let asked = ids::list(&write.value);
        if ids::list(found.trim()).iter().all(|id| asked.contains(id)) {
            return Ok(());
        }
        let why = format!("{:?} gives {:?}: see {}", write.value, found.trim(), self.subject(&file));
        Err(Error::invalid(&write.field, why).hint("the cgroups above have none of these: choose some that they have"))
    }

    fn write(&self, file: &str, value: &str) -> nix::Result<()> {
        let fd = openat(&self.dir, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        nix::unistd::write(fd, value.as_bytes()).map(drop)
    }

    fn read(&self, file: &str) -> nix::Result<String> {
        let fd = openat(&self.dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(fd)
            .read_to_string(&mut text)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(text)
    }

    /// Lets the kernel take back what nobody needs, until no more than `limit` bytes are in use: it would kill for a limit below
    /// (cgroup-v2.rst, memory.max and memory.reclaim), where v1 refuses one.
    pub fn make_room(&self, write: &Write) -> Result<()> {
        let Ok(limit) = write.value.parse::<u64>() else { return Ok(()) };
        let used =
            || self.read("memory.current").ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default();
        let over = used().saturating_sub(limit);
        if over > 0 {
            let _ = self.write("memory.reclaim", &over.to_string());
        }
        if used() > limit { Err(write.refused(&self.shown.join(&write.file), Errno::EBUSY)) } else { Ok(()) }
    }

    fn subject(&self, file: &str) -> String {
        self.shown.join(file).display().to_string()
    }

    /// Freezes or thaws, and waits until the kernel says that it is done.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", value).context(|| self.subject("cgroup.freeze"))?;
        // Half frozen is not paused.
        self.wait_for(&format!("frozen {value}")).inspect_err(|_| {
            let _ = self.write("cgroup.freeze", "0");
        })
    }

    /// Whether it was told to freeze.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.read("cgroup.freeze") {
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(false),
            result => result.map(|text| text.trim() == "1").context(|| self.subject("cgroup.freeze")),
        }
    }

    /// cgroup.kill, since Linux 5.14. A group that is gone has nothing to kill.
    pub fn kill(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(()),
            result => result.context(|| self.subject("cgroup.kill")),
        }
    }

    /// Polls cgroup.events until it has the line `wanted`.
    fn wait_for(&self, wanted: &str) -> Result<()> {
        let name = "cgroup.events";
        let until = Instant::now() + PATIENCE;
        let fd = match openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENODEV | Errno::ENOENT) => return Ok(()),
            result => result.context(|| self.subject(name))?,
        };
        let file = File::from(fd);
        let mut buffer = [0u8; 256];
        loop {
            let len = match nix::sys::uio::pread(&file, &mut buffer, 0) {
                Err(Errno::ENODEV) => return Ok(()),
                result => result.context(|| self.subject(name))?,
            };
            if String::from_utf8_lossy(&buffer[..len]).lines().any(|line| line == wanted) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::system(format!("wait for `{wanted}` in {}", self.subject(name)), Errno::ETIMEDOUT));
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
                Err(Errno::EINTR) | Ok(_) => {}
                Err(errno) => return Err(Error::system(self.subject(name), errno)),
            }
        }
    }

    /// Processes of this group and of those below it.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        tree::procs(&self.dir).context(|| self.subject("cgroup.procs"))
    }

    /// Waits until the last process has ended.
    pub fn empty(&self) -> Result<()> {
        self.wait_for("populated 0")
    }

    /// Removes it and what the payload made below it, once the last process has ended.
    pub fn remove(&self) -> Result<()> {
        match unlinkat(&self.root, self.path.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(Error::system(format!("remove {}", self.shown.display()), errno)),
        }
        self.wait_for("populated 0")?;
        tree::remove_below(&self.dir).context(|| format!("remove the cgroups below {}", self.shown.display()))?;
        match unlinkat(&self.root, self.path.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::system(format!("remove {}", self.shown.display()), errno)),
        }
    }

    /// The limits that the files show; a file that is not there limits nothing.
    pub fn limits(&self) -> Limits {
        let number = |file: &str| self.read(file).ok().and_then(|text| text.trim().parse().ok());
        let cpu = self.read("cpu.max").ok().and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse().ok()?, period.parse().ok()?))
        });
        Limits { pids_max: number("pids.max"), memory_max: number("memory.max"), cpu }
    }
}

pub(super) fn open_root(root: &Path) -> Result<OwnedFd> {
    File::open(root).map(OwnedFd::from).context(|| root.display().to_string())
}

fn open(root: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    openat(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
