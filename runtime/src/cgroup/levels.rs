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

/// The levels that were made on the way to a cgroup, to be taken back if nothing comes of it.
///
/// Controllers that were enabled stay so: a cgroup that came beside ours meanwhile may have its limits by them, and to disable them
/// would take those away without a word.
#[derive(Debug, Default)]
pub struct Made(Vec<String>);

impl Made {
    /// Removes those that nobody else is in.
    pub fn undo(&self, root: &OwnedFd) {
        for level in self.0.iter().rev() {
            let _ = unlinkat(root, level.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The way from the root of the hierarchy down to a cgroup.
#[derive(Debug)]
pub struct Levels<'a> {
    root: &'a OwnedFd,
    shown: &'a Path,
    path: &'a str,
    made: Made,
}

impl<'a> Levels<'a> {
    /// To `path` below the root, which is `shown` in errors.
    pub fn new(root: &'a OwnedFd, shown: &'a Path, path: &'a str) -> Self {
        Self { root, shown, path, made: Made::default() }
    }

    /// Makes the cgroup, with the controllers that `limits` need.
    ///
    /// # Errors
    /// What is refused, with the way out; what was made before is taken back.
    pub fn walk(mut self, limits: &[Write]) -> Result<Made> {
        let mut result = self.make(limits);
        // A level may go between two steps, with another's cgroup that came to nothing.
        for _ in 0..AGAIN {
            if !result.as_ref().is_err_and(|error| matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV))) {
                break;
            }
            result = self.make_above().map_err(|errno| self.not_made(errno)).and_then(|()| self.make(limits));
        }
        result.inspect_err(|_| self.made.undo(self.root))?;
        Ok(self.made)
    }

    /// Makes the last level. To have made it is to own it: of two that want the same one fails here.
    fn make(&mut self, limits: &[Write]) -> Result<()> {
        self.enable(limits)?;
        self.mkdir(self.path).map_err(|errno| match errno {
            Errno::EEXIST => super::taken(&self.shown.join(self.path)),
            _ => self.not_made(errno),
        })
    }

    fn make_above(&mut self) -> nix::Result<()> {
        for (end, _) in self.path.match_indices('/') {
            let level = &self.path[..end];
            match self.mkdir(level) {
                Ok(()) => self.made.0.push(level.to_owned()),
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
            let missing = self.unlisted(level, SUBTREE, &controllers).unwrap_or_else(|| controllers.clone());
            if missing.is_empty() {
                continue;
            }
            let names: String = missing.iter().map(|name| format!("+{name} ")).collect();
            let refused = |errno| self.not_enabled(errno, level, &missing, limits);
            // Nobody moves where nothing can be enabled.
            if self.lacks(level, &missing).is_some() {
                return Err(refused(Errno::ENOENT));
            }
            let file = open(self.root, level, SUBTREE, OFlag::O_WRONLY).map_err(refused)?;
            if self.is_busy(level) {
                if !is_own(level)? {
                    return Err(refused(Errno::EBUSY));
                }
                self.clear(level)?;
            }
            nix::unistd::write(file, names.as_bytes()).map_err(refused)?;
        }
        Ok(())
    }

    /// Whether it has processes, and so no room for limits of others (cgroup-v2.rst, "No Internal Process Constraint"): with
    /// controllers for threads the kernel would make it a threaded domain. The real root, which has no type, is exempt.
    fn is_busy(&self, level: &str) -> bool {
        let has = |file: &str| self.read(level, file).is_some_and(|text| !text.is_empty());
        has("cgroup.type") && has("cgroup.procs")
    }

    /// Moves the processes of a user's own level aside, of which wsbox is one; they stay there.
    fn clear(&self, level: &str) -> Result<()> {
        delegation::step_aside(self.root, level).map_err(|error| match error.errno() {
            Some(Errno::EOPNOTSUPP) => error.hint(threaded(&self.shown(level))),
            _ => error,
        })
    }

    /// The first of the controllers that a level does not have; none if all are there, or the level is gone.
    fn lacks<'c>(&self, level: &str, controllers: &[&'c str]) -> Option<&'c str> {
        self.unlisted(level, "cgroup.controllers", controllers)?.first().copied()
    }

    /// The controllers that a level's file does not list; none if it can not be read.
    fn unlisted<'c>(&self, level: &str, file: &str, controllers: &[&'c str]) -> Option<Vec<&'c str>> {
        let listed = self.read(level, file)?;
        let has = |name: &str| listed.split_whitespace().any(|listed| listed == name);
        Some(controllers.iter().copied().filter(|name| !has(name)).collect())
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
        if let Some(name) = self.lacks(level, controllers) {
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

/// Whether a user's containers are there, and the user's other processes too.
fn is_own(level: &str) -> Result<bool> {
    Ok(crate::rootless::is_user() && delegation::own()? == level)
}

fn open(root: &OwnedFd, level: &str, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let name = if level.is_empty() { file.to_owned() } else { format!("{level}/{file}") };
    openat(root, name.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// How often another may be in the way.
const AGAIN: usize = 8;
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
