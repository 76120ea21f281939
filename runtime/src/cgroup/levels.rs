// SPDX-License-Identifier: Apache-2.0
//! The levels above a v2 cgroup: those that are missing are made, and on each the controllers enabled that the cgroup needs
//! (cgroup-v2.rst, "Controlling Controllers"). What is refused is told with the file, the reason and the way out.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::writes::{self, Write};
use crate::error::{Error, Result};

/// The way from the root of the hierarchy down to a cgroup.
#[derive(Debug)]
pub struct Levels<'a> {
    root: &'a OwnedFd,
    shown: &'a Path,
    path: &'a str,
    /// How much of `path` is our own making, by the ends of the levels
    made: Vec<usize>,
}

impl<'a> Levels<'a> {
    /// To `path` below the root, which is `shown` in errors.
    pub fn new(root: &'a OwnedFd, shown: &'a Path, path: &'a str) -> Self {
        Self { root, shown, path, made: Vec::new() }
    }

    /// Makes the last level, and those above it if they are missing. To have made it is to own it: of two that want the same
    /// one fails here.
    pub fn make(&mut self) -> Result<()> {
        let made = match self.mkdir(self.path.len()) {
            Err(Errno::ENOENT) => self.make_above().and_then(|()| self.mkdir(self.path.len())),
            result => result,
        };
        made.map_err(|errno| match errno {
            Errno::EEXIST => super::taken(&self.shown.join(self.path)),
            _ => self.not_made(errno),
        })
    }

    fn make_above(&mut self) -> nix::Result<()> {
        for (end, _) in self.path.match_indices('/') {
            match self.mkdir(end) {
                Ok(()) => self.made.push(end),
                Err(Errno::EEXIST) => {}
                // Read-only, or not ours to write: what is there already will do.
                Err(errno) if !self.exists(&self.path[..end]) => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn mkdir(&self, end: usize) -> nix::Result<()> {
        mkdirat(self.root, &self.path[..end], Mode::from_bits_truncate(0o755))
    }

    fn exists(&self, level: &str) -> bool {
        self.open(level, "cgroup.procs", OFlag::O_PATH).is_ok()
    }

    /// Removes the levels that were made on the way, unless somebody else uses them by now.
    pub fn undo(&mut self) {
        for end in std::mem::take(&mut self.made).into_iter().rev() {
            let _ = unlinkat(self.root, &self.path[..end], UnlinkatFlags::RemoveDir);
        }
    }

    /// Enables, at every level above the last, the controllers that the limits need: one write a level, none without limits.
    pub fn enable(&mut self, limits: &[Write]) -> Result<()> {
        let controllers = writes::controllers(limits);
        if controllers.is_empty() {
            return Ok(());
        }
        self.make_above().map_err(|errno| self.not_made(errno))?;
        let value: String = controllers.iter().map(|controller| format!("+{controller} ")).collect();
        let levels = std::iter::once("").chain(self.path.match_indices('/').map(|(end, _)| &self.path[..end]));
        for level in levels {
            let opened = self.open(level, SUBTREE, OFlag::O_WRONLY);
            match opened.and_then(|file| nix::unistd::write(file, value.as_bytes())) {
                Ok(_) => {}
                // Of a delegated cgroup the levels above are somebody else's, who has enabled what there is to use.
                Err(_) if self.lacks(level, SUBTREE, &controllers).is_none() => {}
                Err(errno) => return Err(self.not_enabled(errno, level, &controllers, limits)),
            }
        }
        Ok(())
    }

    /// The first of the controllers that a level's file does not list; none if all are there.
    fn lacks<'c>(&self, level: &str, file: &str, controllers: &[&'c str]) -> Option<&'c str> {
        let listed = self.read(level, file).unwrap_or_default();
        let has = |name: &str| listed.split_whitespace().any(|listed| listed == name);
        controllers.iter().copied().find(|name| !has(name))
    }

    fn open(&self, level: &str, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let name = if level.is_empty() { file.to_owned() } else { format!("{level}/{file}") };
        openat(self.root, name.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn read(&self, level: &str, file: &str) -> Option<String> {
        let mut text = String::new();
        File::from(self.open(level, file, OFlag::O_RDONLY).ok()?).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn shown(&self, level: &str) -> PathBuf {
        if level.is_empty() { self.shown.to_owned() } else { self.shown.join(level) }
    }

    fn not_made(&self, errno: Errno) -> Error {
        let error = Error::system(format!("linux.cgroupsPath: make {}", self.shown.join(self.path).display()), errno);
        match errno {
            Errno::EAGAIN => error.hint("a cgroup above has its cgroup.max.depth or cgroup.max.descendants reached"),
            _ => not_ours(error, errno, self.shown),
        }
    }

    fn not_enabled(&self, errno: Errno, level: &str, controllers: &[&str], limits: &[Write]) -> Error {
        let dir = self.shown(level);
        let field = |name: &str| {
            let write = limits.iter().find(|write| write.controller() == name);
            write.map_or("linux.resources", |write| write.field.as_str()).to_owned()
        };
        if let Some(name) = self.lacks(level, "cgroup.controllers", controllers) {
            let why = format!(
                "needs the {name} controller, which {} does not list",
                dir.join("cgroup.controllers").display()
            );
            return Error::invalid(field(name), why).hint(not_delegated(name, level));
        }
        let name = self.lacks(level, SUBTREE, controllers).unwrap_or_default();
        let subject = format!("{}: write \"+{name}\" to {}", field(name), dir.join(SUBTREE).display());
        let error = Error::system(subject, errno);
        match errno {
            Errno::EBUSY => {
                let procs = self.read(level, "cgroup.procs").unwrap_or_default();
                let who = procs.lines().next().map_or_else(String::new, |pid| format!(", such as {pid}"));
                error.hint(format!("{} has processes of its own{who}: choose another linux.cgroupsPath, or move them into a cgroup of their own below", dir.display()))
            }
            Errno::EOPNOTSUPP => error.hint(threaded(&dir)),
            _ => not_ours(error, errno, self.shown),
        }
    }
}

const SUBTREE: &str = "cgroup.subtree_control";

/// What to do about a cgroup that takes no processes, only threads of one above (cgroup-v2.rst, "Threads").
pub fn threaded(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "{dir} or one above it is threaded, or has processes beside controllers, see {dir}/cgroup.type: choose another linux.cgroupsPath"
    )
}

fn not_delegated(controller: &str, level: &str) -> String {
    if level.is_empty() {
        return format!(
            "remove the limit, or give v2 the controller: a kernel that has it, booted with cgroup_no_v1={controller}"
        );
    }
    format!(
        "remove the limit, or delegate the controller: a line Delegate={controller} in the unit that owns the cgroup"
    )
}

fn not_ours(error: Error, errno: Errno, root: &Path) -> Error {
    match errno {
        Errno::EROFS => error.hint(format!("mount -o remount,rw {}", root.display())),
        Errno::EACCES | Errno::EPERM => error
            .hint("that cgroup is not delegated to this user: systemd-run --user --scope -p Delegate=yes wsbox ..."),
        _ => error,
    }
}
