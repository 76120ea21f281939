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
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, Pid, UnlinkatFlags, faccessat, unlinkat};

use super::writes::{self, Write};
use super::{Limits, tree};
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
}

impl Group {
    /// Makes the group at `path` below `root`, with the controllers that `writes` need enabled on the way, and writes those
    /// that need not wait.
    pub fn create(root: &Path, path: &str, writes: &[Write]) -> Result<Self> {
        let shown = root.join(path);
        let dir = open_root(root)?;
        enable(&dir, path, writes, &shown)?;
        make(&dir, path).map_err(|errno| not_made(errno, &shown))?;
        let group = Self {
            dir: open(&dir, path).context(|| shown.display().to_string())?,
            root: dir,
            path: path.into(),
            shown,
        };
        match writes.iter().filter(|write| !write.waits()).try_for_each(|write| group.write_limit(write)) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// A group that is there.
    pub fn open(root: &Path, path: &str) -> Result<Self> {
        let shown = root.join(path);
        let root = open_root(root)?;
        let dir = open(&root, path).context(|| format!("cgroup {}", shown.display()))?;
        Ok(Self { root, path: path.into(), dir, shown })
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
        enable(&self.root, &self.path, writes, &self.shown)
    }

    /// Whether memory is counted here: the kernel then kills in it when it is short.
    pub fn counts_memory(&self) -> bool {
        faccessat(&self.dir, "memory.current", AccessFlags::F_OK, AtFlags::empty()).is_ok()
    }

    fn write_limit(&self, write: &Write) -> Result<()> {
        self.write(&write.file, &write.value).map_err(|errno| refused(write, errno, &self.shown))
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

    fn subject(&self, file: &str) -> String {
        self.shown.join(file).display().to_string()
    }

    /// Freezes or thaws, and waits until the kernel says that it is done.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", value).context(|| self.subject("cgroup.freeze"))?;
        self.wait_for(&format!("frozen {value}"))
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

/// Makes the last level, and those above it if they are missing. To have made it is to own it: of two that want the same
/// one fails here.
fn make(root: &OwnedFd, path: &str) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(0o755);
    match mkdirat(root, path, mode) {
        Err(Errno::ENOENT) => {
            make_parents(root, path)?;
            mkdirat(root, path, mode)
        }
        result => result,
    }
}

fn not_made(errno: Errno, shown: &Path) -> Error {
    match errno {
        Errno::EEXIST => super::taken(shown),
        _ => Error::system(format!("linux.cgroupsPath: make {}", shown.display()), errno),
    }
}

fn make_parents(root: &OwnedFd, path: &str) -> nix::Result<()> {
    for (at, _) in path.match_indices('/') {
        match mkdirat(root, &path[..at], Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Enables, at every level above the group, the controllers that its limits need: one write a level, none without limits.
fn enable(root: &OwnedFd, path: &str, limits: &[Write], shown: &Path) -> Result<()> {
    let controllers = writes::controllers(limits);
    if controllers.is_empty() {
        return Ok(());
    }
    make_parents(root, path).context(|| format!("linux.cgroupsPath: make {}", shown.display()))?;
    let value: String = controllers.iter().map(|controller| format!("+{controller} ")).collect();
    let levels = std::iter::once("").chain(path.match_indices('/').map(|(at, _)| &path[..at]));
    for level in levels {
        let file = if level.is_empty() {
            "cgroup.subtree_control".to_owned()
        } else {
            format!("{level}/cgroup.subtree_control")
        };
        let fd =
            openat(root, file.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| file.clone())?;
        nix::unistd::write(fd, value.as_bytes()).map_err(|errno| not_enabled(errno, &file, limits))?;
    }
    Ok(())
}

fn not_enabled(errno: Errno, file: &str, writes: &[Write]) -> Error {
    let fields: Vec<&str> = writes.iter().map(|write| write.field.as_str()).collect();
    let error = Error::system(format!("{}: enable the controllers in {file}", fields.join(", ")), errno);
    match errno {
        Errno::ENOENT | Errno::EINVAL => {
            error.hint("this host does not offer one of them there: remove the limit, or delegate the controller")
        }
        Errno::EBUSY => error.hint("that cgroup has processes of its own: choose another linux.cgroupsPath"),
        _ => error,
    }
}

fn refused(write: &Write, errno: Errno, shown: &Path) -> Error {
    let subject = format!("{}: write {:?} to {}", write.field, write.value, shown.join(&write.file).display());
    let error = Error::system(subject, errno);
    match errno {
        Errno::ENOENT => error.hint("this kernel has no such limit"),
        Errno::EINVAL | Errno::ERANGE => error.hint("the kernel does not take this value"),
        _ => error,
    }
}
