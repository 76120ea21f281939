// SPDX-License-Identifier: Apache-2.0
//! The levels above a v2 cgroup: those that are missing are made, and on each the controllers enabled that the cgroup needs
//! (cgroup-v2.rst, "Controlling Controllers"). What is refused is told with the file, the reason and the way out.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::delegation;
use super::writes::{self, Write};
use crate::error::{Error, Result};

/// What was changed on the way to a cgroup, to be taken back if nothing comes of it.
#[derive(Debug, Default)]
pub struct Changed {
    made: Vec<String>,
    /// Levels, and what disables the controllers that were enabled there
    enabled: Vec<(String, String)>,
    /// The level that the caller's processes were moved aside in
    left: Option<String>,
}

impl Changed {
    /// Takes it back, but for controllers that a cgroup beside ours may have its limits by: to disable them would take those away
    /// without a word. A level with processes has no such child (cgroup-v2.rst, "No Internal Process Constraint"), and with a
    /// controller left enabled it would stay threaded.
    pub fn undo(&self, root: &OwnedFd) {
        for level in self.made.iter().rev() {
            let _ = unlinkat(root, level.as_str(), UnlinkatFlags::RemoveDir);
        }
        let aside = |level: &String| self.left.as_ref() == Some(level) && delegation::alone(root, level);
        let free = |level: &String| has_processes(root, level) || aside(level);
        for (level, value) in self.enabled.iter().rev().filter(|(level, _)| free(level)) {
            let _ =
                open(root, level, SUBTREE, OFlag::O_WRONLY).and_then(|file| nix::unistd::write(file, value.as_bytes()));
        }
        if let Some(level) = self.left.as_ref().filter(|level| aside(level)) {
            delegation::step_back(root, level);
        }
    }
}

fn has_processes(root: &OwnedFd, level: &str) -> bool {
    let mut first = [0u8; 1];
    let procs = open(root, level, "cgroup.procs", OFlag::O_RDONLY);
    procs.and_then(|file| nix::unistd::read(file, &mut first)).is_ok_and(|count| count > 0)
}

/// The way from the root of the hierarchy down to a cgroup.
#[derive(Debug)]
pub struct Levels<'a> {
    root: &'a OwnedFd,
    shown: &'a Path,
    path: &'a str,
    changed: Changed,
}

impl<'a> Levels<'a> {
    /// To `path` below the root, which is `shown` in errors.
    pub fn new(root: &'a OwnedFd, shown: &'a Path, path: &'a str) -> Self {
        Self { root, shown, path, changed: Changed::default() }
    }

    /// Makes the cgroup, with the controllers that `limits` need.
    ///
    /// # Errors
    /// What is refused, with the way out; what was done before is taken back.
    pub fn walk(mut self, limits: &[Write]) -> Result<Changed> {
        let result = self.enable(limits).and_then(|()| self.make());
        match result {
            Ok(()) => Ok(self.changed),
            Err(error) => {
                self.changed.undo(self.root);
                Err(error)
            }
        }
    }

    /// Makes the last level, and those above it if they are missing. To have made it is to own it: of two that want the same
    /// one fails here.
    fn make(&mut self) -> Result<()> {
        let made = match self.mkdir(self.path) {
            Err(Errno::ENOENT) => self.make_above().and_then(|()| self.mkdir(self.path)),
            result => result,
        };
        made.map_err(|errno| match errno {
            Errno::EEXIST => super::taken(&self.shown.join(self.path)),
            _ => self.not_made(errno),
        })
    }

    fn make_above(&mut self) -> nix::Result<()> {
        for (end, _) in self.path.match_indices('/') {
            let level = &self.path[..end];
            match self.mkdir(level) {
                Ok(()) => self.changed.made.push(level.to_owned()),
                Err(Errno::EEXIST) => {}
                // Read-only, or not ours to write: what is there already will do.
                Err(errno) if open(self.root, level, "cgroup.procs", OFlag::O_PATH).is_err() => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn mkdir(&self, level: &str) -> nix::Result<()> {
        mkdirat(self.root, level, Mode::from_bits_truncate(0o755))
    }

    /// Enables, at every level above the last, the controllers that the limits need and that are not enabled yet.
    pub fn enable(&mut self, limits: &[Write]) -> Result<()> {
        let controllers = writes::controllers(limits);
        if controllers.is_empty() {
            return Ok(());
        }
        self.make_above().map_err(|errno| self.not_made(errno))?;
        let path = self.path;
        for level in std::iter::once("").chain(path.match_indices('/').map(|(end, _)| &path[..end])) {
            let listed = self.read(level, SUBTREE).unwrap_or_default();
            let lacks = |name: &&str| listed.split_whitespace().all(|listed| listed != *name);
            let missing: Vec<&str> = controllers.iter().copied().filter(lacks).collect();
            if missing.is_empty() {
                continue;
            }
            let each = |sign: &str| missing.iter().map(|name| format!("{sign}{name} ")).collect::<String>();
            let add = || {
                open(self.root, level, SUBTREE, OFlag::O_WRONLY)
                    .and_then(|file| nix::unistd::write(file, each("+").as_bytes()))
            };
            let added = match add() {
                // A user's own: wsbox is in it itself.
                Err(Errno::EBUSY) if crate::rootless::is_user() && delegation::own()? == level => {
                    delegation::step_aside(self.root, level)?;
                    self.changed.left = Some(level.to_owned());
                    add()
                }
                result => result,
            };
            added.map_err(|errno| self.not_enabled(errno, level, &missing, limits))?;
            // At the real root they hold nobody back; that of a cgroup namespace may have processes that stepped aside.
            if !level.is_empty() || self.changed.left.is_some() {
                self.changed.enabled.push((level.to_owned(), each("-")));
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

    fn read(&self, level: &str, file: &str) -> Option<String> {
        // Longer than all names of controllers together, and than a pid.
        let mut text = [0u8; 256];
        let count = nix::unistd::read(open(self.root, level, file, OFlag::O_RDONLY).ok()?, &mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..count]).into_owned())
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
        // One that takes whole processes is the one that minds who is there.
        let threads = ["cpu", "cpuset", "perf_event", "pids"];
        let name = controllers.iter().find(|name| !threads.contains(name)).or(controllers.first()).unwrap_or(&"");
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

fn open(root: &OwnedFd, level: &str, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let name = if level.is_empty() { file.to_owned() } else { format!("{level}/{file}") };
    openat(root, name.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
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
        Errno::EACCES | Errno::EPERM => error.hint(delegation::HINT),
        _ => error,
    }
}
