// SPDX-License-Identifier: Apache-2.0
//! New limits for a cgroup in use. Every file is opened before one is written; if the kernel refuses one, those before it get their
//! old values back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::devices::{self, Rule};
use super::wanted::Wanted;
use super::writes::{self, Write};
use super::{Cgroup, must_be_in_force, v1_dir};
use crate::error::{Context, Error, Result};

/// A file, what is to be in it, and what was.
struct Change {
    write: Write,
    path: PathBuf,
    file: File,
    old: String,
}

impl Change {
    fn open((dir, write): (PathBuf, Write)) -> Result<Self> {
        let write = write.settled(|file| dir.join(file).exists()).into_owned();
        let path = dir.join(&write.file);
        let refused = |error: std::io::Error| write.refused(&path, errno(&error));
        let file = File::options().read(true).write(true).open(&path).map_err(refused)?;
        let old = std::io::read_to_string(&file).context(|| format!("{}: {}", write.field, path.display()))?;
        Ok(Self { write, path, file, old })
    }

    fn put(&self, value: &str) -> std::io::Result<()> {
        // An empty list is written as an empty line: a write of nothing is none.
        self.file.write_at(if value.is_empty() { b"\n" } else { value.as_bytes() }, 0).map(drop)
    }

    /// What takes the write back.
    fn before(&self) -> String {
        let (file, key) = (self.write.file.as_str(), self.write.value.split(' ').next().unwrap_or_default());
        let of_key = |none: String| {
            let line = self.old.lines().find(|line| line.split(' ').next() == Some(key));
            line.map_or(none, str::to_owned)
        };
        match file {
            "memory.oom_control" => self.old.split_whitespace().nth(1).unwrap_or("0").to_owned(),
            "io.max" => of_key(format!("{key} rbps=max wbps=max riops=max wiops=max")),
            "rdma.max" => of_key(format!("{key} hca_handle=max hca_object=max")),
            "net_prio.ifpriomap" => of_key(format!("{key} 0")),
            _ if key == "default" || key.contains(':') => of_key(format!("{key} 0")),
            _ => self.old.trim_end().to_owned(),
        }
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Changes that were made.
pub struct Made(Vec<Change>);

impl Made {
    /// Takes them back.
    pub fn undo(&self) {
        let _ = in_some_order(&self.0, Change::before);
    }

    /// What takes them back.
    fn before(&self) -> Vec<Write> {
        self.0.iter().map(|change| Write { value: change.before(), ..change.write.clone() }).collect()
    }

    fn open(writes: Vec<(PathBuf, Write)>) -> Result<Self> {
        let needed = writes.into_iter().filter(|(dir, write)| !write.needs_no_file() || dir.join(&write.file).exists());
        needed.map(Change::open).collect::<Result<_>>().map(Self)
    }

    /// Makes all of them, in an order that the kernel takes, or none.
    fn put(self) -> Result<Self> {
        in_some_order(&self.0, |change| change.write.value.clone()).inspect_err(|_| self.undo())?;
        Ok(self)
    }
}

/// One limit may have to wait for another, such as that of memory for that of memory and swap: which, depends on whether they
/// rise or fall. So what is refused is tried again for as long as something else is taken.
fn in_some_order(changes: &[Change], value: impl Fn(&Change) -> String) -> Result<()> {
    let mut left: Vec<&Change> = changes.iter().collect();
    while !left.is_empty() {
        let (before, mut first) = (left.len(), None);
        left.retain(|change| match change.put(&value(change)) {
            Ok(()) => false,
            Err(error) => {
                first.get_or_insert_with(|| change.write.refused(&change.path, errno(&error)));
                true
            }
        });
        if let Some(error) = first.filter(|_| left.len() == before) {
            return Err(error);
        }
    }
    Ok(())
}

/// A cgroup with new limits, until it is settled or undone.
pub struct Updated {
    made: Made,
    /// v1 controllers that it was not in before
    joined: Vec<String>,
    devices: devices::Replaced,
}

impl Cgroup {
    /// Puts those of the limits `all` in force that `change` names, and rules of devices in the place of those that it has, if
    /// there are any.
    ///
    /// # Errors
    /// The limit that the kernel refused, by its field; the others are as they were.
    pub fn update(&mut self, change: &Wanted, all: &Wanted, devices: &[Rule]) -> Result<Updated> {
        let writes = self.touched(change, all)?;
        let kept = self.kept(&writes, all)?;
        self.make_room(&writes)?;
        let joined = self.make_missing(&writes)?;
        let result = self.put(&writes, &kept).and_then(|made| {
            let checked = self.limits().and_then(|found| must_be_in_force(&found, all));
            let checked = checked.and_then(|()| self.check_ids(&writes));
            let replaced = checked.and_then(|()| devices::replace(self.v2.dir(), devices));
            replaced.inspect_err(|_| self.take_back(&made)).map(|replaced| (made, replaced))
        });
        match result {
            Ok((made, devices)) => Ok(Updated { made, joined, devices }),
            Err(error) => {
                self.forget(&joined);
                Err(error)
            }
        }
    }

    /// What systemd is to know of these writes: whether there is a weight depends on SCHED_IDLE.
    fn kept(&self, writes: &[Write], all: &Wanted) -> Result<Vec<Write>> {
        let shares = |write: &Write| matches!(write.file.as_str(), "cpu.weight" | "cpu.idle");
        if self.scope.is_none() || !writes.iter().any(shares) {
            return Ok(writes.to_vec());
        }
        let others = writes.iter().filter(|write| !shares(write)).cloned();
        Ok(others.chain(all.v2_writes()?.into_iter().filter(shares)).collect())
    }

    /// Through systemd first, which keeps some limits less precisely than they are written then.
    fn put(&self, writes: &[Write], kept: &[Write]) -> Result<Made> {
        let opened = Made::open(self.with_places(writes))?;
        let Some(scope) = &self.scope else { return opened.put() };
        let before = opened.before();
        let made = scope.set(kept).and_then(|()| opened.put());
        made.inspect_err(|_| drop(scope.set(&before)))
    }

    fn take_back(&self, made: &Made) {
        if let Some(scope) = &self.scope {
            let _ = scope.set(&made.before());
        }
        made.undo();
    }

    fn make_room(&self, writes: &[Write]) -> Result<()> {
        let mut limits = writes.iter().filter(|write| write.file == "memory.max");
        limits.try_for_each(|write| self.v2.make_room(write))
    }

    fn check_ids(&self, writes: &[Write]) -> Result<()> {
        if self.on_v1() { Ok(()) } else { writes.iter().try_for_each(|write| self.v2.check_ids(write)) }
    }

    /// Bytes, where memory is counted.
    pub fn memory_in_use(&self) -> Option<u64> {
        let (root, file) = if self.on_v1() { ("memory", "memory.usage_in_bytes") } else { ("", "memory.current") };
        let path = std::path::Path::new(super::V2_ROOT).join(root).join(&self.saved.path).join(file);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// Takes an update back whose record could not be kept.
    pub fn undo(&mut self, updated: &Updated) {
        self.take_back(&updated.made);
        updated.devices.undo(self.v2.dir());
        self.forget(&updated.joined);
    }

    /// Moves the processes to where the limits are, once the record names the place: who comes later looks there.
    pub fn settle(&self, updated: &Updated) -> Result<()> {
        #[cfg(feature = "cgroup-compat")]
        if !updated.joined.is_empty() {
            return self.move_in(&updated.joined);
        }
        let _ = updated;
        Ok(())
    }

    /// Until nobody is outside: one who was may have had children meanwhile. Of those who have them faster than they are moved, none
    /// has any while it is frozen; a container that behaves is not seen to pause.
    #[cfg(feature = "cgroup-compat")]
    fn move_in(&self, controllers: &[String]) -> Result<()> {
        const PASSES: usize = 32;
        for _ in 0..PASSES {
            if !self.move_outsiders(controllers)? && !self.move_outsiders(controllers)? {
                return Ok(());
            }
        }
        let frozen = self.frozen()?;
        self.freeze()?;
        let moved = self.move_outsiders(controllers).map(drop);
        let thawed = if frozen { Ok(()) } else { self.thaw() };
        moved.and(thawed)
    }

    /// Whether there were any.
    #[cfg(feature = "cgroup-compat")]
    fn move_outsiders(&self, controllers: &[String]) -> Result<bool> {
        let mut any = false;
        for controller in controllers {
            let file =
                std::path::Path::new(super::V2_ROOT).join(controller).join(&self.saved.path).join("cgroup.procs");
            let all = self.procs()?;
            let inside = std::fs::read_to_string(&file).context(|| file.display().to_string())?;
            let inside: std::collections::BTreeSet<&str> = inside.lines().collect();
            for pid in all.into_iter().filter(|pid| !inside.contains(pid.to_string().as_str())) {
                any = true;
                self.join(std::slice::from_ref(controller), pid)?;
            }
        }
        Ok(any)
    }

    #[cfg(feature = "cgroup-compat")]
    fn join(&self, controllers: &[String], pid: Pid) -> Result<()> {
        match super::compat::join(&self.saved.path, controllers, pid) {
            // It ended meanwhile.
            Err(_) if !self.procs()?.contains(&pid) => Ok(()),
            result => result,
        }
    }

    /// Of all writes those to files that the change names; that of swap follows that of memory: on v2 it is swap alone, and on v1 a
    /// profile may tie it to memory.
    fn touched(&self, change: &Wanted, all: &Wanted) -> Result<Vec<Write>> {
        let writes = |wanted: &Wanted| if self.on_v1() { wanted.v1_writes() } else { wanted.v2_writes() };
        let changed = writes(change)?;
        let named = |file: &str| changed.iter().any(|write| write.file == file);
        let follows = |file: &str| match file {
            "memory.swap.max" => named("memory.max"),
            "memory.memsw.limit_in_bytes" => named("memory.limit_in_bytes"),
            _ => false,
        };
        let touched = |write: &Write| named(&write.file) || follows(&write.file);
        Ok(writes(all)?.into_iter().filter(touched).collect())
    }

    fn with_places(&self, writes: &[Write]) -> Vec<(PathBuf, Write)> {
        let v2 = self.saved.root.join(&self.saved.path);
        let dir = |write: &Write| if self.on_v1() { v1_dir(&self.saved.path, write) } else { v2.clone() };
        writes.iter().map(|write| (dir(write), write.clone())).collect()
    }

    fn on_v1(&self) -> bool {
        self.saved.root != std::path::Path::new(super::V2_ROOT)
    }

    /// Makes the places for limits of a kind that the container had none of. Memory can not be limited so: what it has in use by
    /// then would not count.
    fn make_missing(&mut self, writes: &[Write]) -> Result<Vec<String>> {
        if !self.on_v1() {
            let memory = writes.iter().find(|write| write.file.starts_with("memory."));
            return match memory.filter(|_| !self.counts_memory()) {
                Some(write) => Err(not_counted(&write.field)),
                None => self.v2.enable(writes).map(|()| Vec::new()),
            };
        }
        #[cfg(feature = "cgroup-compat")]
        {
            let has = |name: &str| self.saved.v1.iter().any(|has| has == name);
            let needed = writes::controllers(writes).into_iter().filter(|name| !has(name));
            let missing: Vec<String> = needed.map(str::to_owned).collect();
            if let Some(write) = writes.iter().find(|write| write.file.starts_with("memory.") && !has("memory")) {
                return Err(not_counted(&write.field));
            }
            if let Some(dir) =
                missing.iter().map(|name| std::path::Path::new(super::V2_ROOT).join(name)).find_map(|root| {
                    let dir = root.join(&self.saved.path);
                    dir.exists().then_some(dir)
                })
            {
                return Err(super::taken(&dir));
            }
            if !missing.is_empty() {
                super::compat::make(&self.saved.path, &missing, writes)?;
                self.saved.v1.extend(missing.iter().cloned());
            }
            Ok(missing)
        }
        #[cfg(not(feature = "cgroup-compat"))]
        Ok(Vec::new())
    }

    fn forget(&mut self, joined: &[String]) {
        #[cfg(feature = "cgroup-compat")]
        if !joined.is_empty() {
            let _ = super::compat::remove(&self.saved.path, joined);
        }
        self.saved.v1.retain(|name| !joined.contains(name));
    }
}

fn not_counted(field: &str) -> Error {
    let error =
        Error::invalid(field, "the container was created without a limit of memory: what it uses is not counted");
    error.hint("give it one in its config.json, -1 will do")
}
