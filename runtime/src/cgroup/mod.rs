// SPDX-License-Identifier: Apache-2.0
//! Control groups. Membership, killing, freezing and devices always go through a cgroup v2 directory; limits go there too
//! on a v2 host, and to the v1 controllers (through cgroups-rs) on a hybrid one.

mod beside;
#[cfg(feature = "cgroup-compat")]
mod compat;
pub mod delegation;
mod devices;
mod host;
mod ids;
mod levels;
mod met;
mod oom;
mod place;
mod plan;
mod reading;
mod stats;
mod systemd;
mod tree;
mod update;
mod v2;
mod wanted;
mod writes;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxDevice;
use serde::{Deserialize, Serialize};

pub use beside::{monitors, remove_monitors};
pub use devices::{Rule, allowed as device_allowed, rules as device_rules};
pub use host::Host;
use host::V2_ROOT;
pub use met::{Level, Met};
pub use oom::Oom;
pub use place::Place;
pub use plan::Plan;
pub use reading::Reading;
use systemd::Scope;
pub use systemd::{Instance, Saved as SavedScope};
pub use wanted::Wanted;
use writes::Write;

use crate::error::{Context, Error, Result};

/// v1's "no limit" for memory is the largest multiple of a page.
const NO_MEMORY_LIMIT: u64 = i64::MAX as u64 & !0xfff;

/// Where a container's cgroup is: what state.json keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The root of the v2 hierarchy
    root: PathBuf,
    /// Below it, and below those of the v1 hierarchies
    path: String,
    /// The v1 controllers that it is in
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    v1: Vec<String>,
    /// The scope of systemd's that it is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<SavedScope>,
}

impl Plan {
    /// Where the cgroup will be, known before it is made.
    pub fn saved(&self, host: Host) -> Saved {
        let v1 = if host == Host::V2 { Vec::new() } else { self.v1_controllers() };
        let scope = self.scope.as_ref().map(systemd::Plan::saved);
        Saved { root: host.root().into(), path: self.path.clone(), v1, scope }
    }

    /// The limits as this host has them.
    ///
    /// # Errors
    /// A limit that it does not have, by its field.
    fn writes(&self, host: Host) -> Result<Vec<Write>> {
        if host == Host::V2 { self.limits.v2_writes() } else { self.limits.v1_writes() }
    }

    /// The v1 controllers that the limits need, where they are on v1.
    pub fn v1_controllers(&self) -> Vec<String> {
        #[cfg(feature = "cgroup-compat")]
        return compat::controllers(&self.limits.v1_writes().unwrap_or_default(), self.everywhere);
        #[cfg(not(feature = "cgroup-compat"))]
        Vec::new()
    }

    /// Where the config has no rules: all is denied but the usual devices and those that it gives the container.
    pub fn deny_devices(&mut self, given: &[LinuxDevice]) {
        if self.devices.is_empty() {
            self.devices = devices::only(given);
        }
    }
}

impl Saved {
    /// Where the cgroup of container `id` is, by its config's cgroupsPath if it has one, in every hierarchy that it may be in.
    ///
    /// # Errors
    /// If the path or the id is none of a cgroup.
    pub fn usual(host: Host, path: Option<&std::path::Path>, id: &str) -> Result<Self> {
        let everywhere = Plan { everywhere: true, ..Plan::new(path, id, None, delegation::users()?.as_deref())? };
        Ok(everywhere.saved(host))
    }

    /// Where it is in the v2 hierarchy, from its root and as a directory.
    pub fn place(&self) -> (String, PathBuf) {
        (format!("/{}", self.path), self.root.join(&self.path))
    }

    /// The systemd that made it.
    pub fn systemd(&self) -> Option<&Instance> {
        self.scope.as_ref().map(|scope| &scope.instance)
    }
}

/// The limits that the kernel has in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads
    pub pids_max: Option<u64>,
    /// Bytes
    pub memory_max: Option<u64>,
    /// (quota, period) in microseconds
    pub cpu: Option<(u64, u64)>,
}

/// The cgroup of one container.
#[derive(Debug)]
pub struct Cgroup {
    v2: v2::Group,
    saved: Saved,
    scope: Option<Scope>,
    /// Limits that wait for the init
    waiting: Vec<Write>,
}

impl Cgroup {
    /// Makes the cgroup and its limits; nothing is left of it if that fails.
    ///
    /// # Errors
    /// The limit that this host can not enforce, by its field; or a path that has processes already.
    pub fn create(host: Host, plan: &Plan) -> Result<Self> {
        let saved = plan.saved(host);
        let limits = plan.writes(host)?;
        let writes = if host == Host::V2 { limits.clone() } else { Vec::new() };
        let v2 = v2::Group::create(&saved.root, &saved.path, &writes)?;
        let cgroup = Self { v2, saved, scope: None, waiting: writes };
        match cgroup.limit(host, plan, &limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                let _ = cgroup.discard();
                Err(error)
            }
        }
    }

    /// The same where systemd makes it: as a scope, which needs a process to begin with. `holder` may end once the cgroup has another.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; and what systemd does not do.
    pub fn create_scope(host: Host, plan: &Plan, scope: &systemd::Plan, holder: Pid) -> Result<Self> {
        let (saved, writes) = (plan.saved(host), plan.writes(host)?);
        let scope = Scope::start(scope, &writes, holder)?;
        let made = v2::Group::open(&saved.root, &saved.path).and_then(|v2| {
            writes.iter().filter(|write| !systemd::waits(write)).try_for_each(|write| v2.write_limit(write))?;
            devices::attach(v2.dir(), &plan.devices).map(|()| v2)
        });
        let waiting = writes.into_iter().filter(systemd::waits).collect();
        match made {
            Ok(v2) => Ok(Self { v2, saved, scope: Some(scope), waiting }),
            Err(error) => {
                let _ = scope.stop();
                Err(error)
            }
        }
    }

    /// A cgroup that is there already is somebody else's: what is in it, or below, would be killed and removed with the
    /// container.
    ///
    /// # Errors
    /// If it is there in any hierarchy that is to be used.
    pub fn must_be_free(host: Host, plan: &Plan) -> Result<()> {
        let saved = plan.saved(host);
        let directory = |controller: &String| PathBuf::from(V2_ROOT).join(controller.trim_start_matches("name="));
        let mut places = std::iter::once(saved.root.clone())
            .chain(saved.v1.iter().map(directory))
            .map(|root| root.join(&saved.path));
        places.find(|dir| dir.exists()).map_or(Ok(()), |dir| Err(taken(&dir)))
    }

    fn limit(&self, host: Host, plan: &Plan, limits: &[Write]) -> Result<()> {
        #[cfg(feature = "cgroup-compat")]
        if host == Host::Hybrid {
            compat::create(&self.saved.path, &self.saved.v1, limits, &plan.limits)?;
        }
        let _ = (host, limits);
        devices::attach(self.v2.dir(), &plan.devices)
    }

    /// The cgroup of a container that exists.
    ///
    /// # Errors
    /// If its directory is gone, among others.
    pub fn open(saved: &Saved) -> Result<Self> {
        let scope = saved.scope.as_ref().map(Scope::open);
        Ok(Self { v2: v2::Group::open(&saved.root, &saved.path)?, saved: saved.clone(), scope, waiting: Vec::new() })
    }

    /// The same; None if its directory is gone, or was never made.
    pub fn find(saved: &Saved) -> Result<Option<Self>> {
        match Self::open(saved) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Where it is, by now.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The v2 directory, for CLONE_INTO_CGROUP.
    pub fn clone_fd(&self) -> BorrowedFd<'_> {
        self.v2.dir().as_fd()
    }

    /// Moves a process into it that may not be born in it (EACCES), if it is a user's scope.
    ///
    /// # Errors
    /// If it is none, with the way out; or systemd does not do it.
    pub fn attach(&self, pid: Pid) -> Result<()> {
        match &self.scope {
            Some(scope) if self.saved.systemd().is_some_and(|instance| instance.user) => {
                scope.attach(pid, &self.saved.path)
            }
            _ => {
                let subject =
                    format!("linux.cgroupsPath: be born in {}", self.saved.root.join(&self.saved.path).display());
                Err(Error::system(subject, Errno::EACCES).hint(delegation::HINT))
            }
        }
    }

    /// Why nobody can be born in it (EOPNOTSUPP), and what to do.
    pub fn takes_no_process(&self) -> String {
        levels::threaded(&self.saved.root.join(&self.saved.path))
    }

    /// Its directory in the v1 hierarchy that is mounted by this name, or in the v2 one, as an O_PATH descriptor.
    pub fn open_dir(&self, hierarchy: Option<&str>) -> Result<OwnedFd> {
        let root = hierarchy.map_or_else(|| self.saved.root.clone(), |name| PathBuf::from(V2_ROOT).join(name));
        let path = root.join(&self.saved.path);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(AT_FDCWD, &path, flags, Mode::empty()).context(|| path.display().to_string())
    }

    /// Whether a process that is born into it may share its memory with nobody outside: it may be killed for want of memory,
    /// and all that share it with it.
    pub fn counts_memory(&self) -> bool {
        self.v2.counts_memory()
    }

    /// Puts a process that has memory of its own by now under the limits that waited for that, and into the v1 cgroups; on
    /// v2 it was born into its own.
    pub fn confine(&self, pid: Pid) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.set(&self.waiting)?;
            return self.waiting.iter().try_for_each(|write| self.v2.write_limit(write));
        }
        self.v2.write_waiting(&self.waiting)?;
        #[cfg(feature = "cgroup-compat")]
        if !self.saved.v1.is_empty() {
            return compat::join(&self.saved.path, &self.saved.v1, pid);
        }
        let _ = pid;
        Ok(())
    }

    /// Stops every process, and waits until each has stopped.
    pub fn freeze(&self) -> Result<()> {
        self.v2.freeze(true)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        self.v2.freeze(false)
    }

    /// Whether it is frozen, or about to be.
    pub fn frozen(&self) -> Result<bool> {
        self.v2.is_frozen()
    }

    /// Kills every process in it and below it, also frozen ones, and those being born.
    pub fn kill_all(&self) -> Result<()> {
        self.v2.kill()
    }

    /// Every process in it and below it.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        self.v2.procs()
    }

    /// Waits until its last process has ended, and removes it with all below it.
    pub fn remove(&self) -> Result<()> {
        if let Some(scope) = &self.scope {
            self.v2.empty()?;
            // Without systemd the folder goes all the same.
            let stopped = scope.stop();
            return self.v2.remove().and(stopped);
        }
        self.v2.remove()?;
        Self::remove_rest(&self.saved)
    }

    /// Removes it as if it had never been: of one that was just made, and that nothing came of.
    pub fn discard(&self) -> Result<()> {
        if self.scope.is_some() {
            return self.remove();
        }
        self.v2.discard()?;
        Self::remove_rest(&self.saved)
    }

    /// Removes what is left of a cgroup whose v2 directory is gone: those on v1, or systemd's scope.
    pub fn remove_rest(saved: &Saved) -> Result<()> {
        if let Some(scope) = &saved.scope {
            return Scope::open(scope).stop();
        }
        #[cfg(feature = "cgroup-compat")]
        if !saved.v1.is_empty() {
            return compat::remove(&saved.path, &saved.v1);
        }
        let _ = saved;
        Ok(())
    }

    /// What the kernel has in force.
    pub fn limits(&self) -> Result<Limits> {
        #[cfg(feature = "cgroup-compat")]
        if !self.saved.v1.is_empty() {
            return compat::limits(&self.saved.path, &self.saved.v1);
        }
        Ok(self.v2.limits())
    }
}

/// The directory on v1 that a file belongs to.
fn v1_dir(path: &str, write: &Write) -> PathBuf {
    Path::new(V2_ROOT).join(write.controller()).join(path)
}

/// A limit that was written and does not hold is an error.
fn must_be_in_force(found: &Limits, wanted: &Wanted) -> Result<()> {
    // From this on v1 and v2 have none.
    let finite =
        |limit: Option<i64>| limit.filter(|limit| (1..i64::MAX & !0xfff).contains(limit)).map(|limit| limit as u64);
    let quota = found.cpu.map(|(quota, _)| quota);
    let limits = [
        ("memory.limit", finite(wanted.memory).map(|bytes| bytes & !0xfff), found.memory_max),
        ("pids.limit", finite(wanted.pids), found.pids_max),
        ("cpu.quota", finite(wanted.quota), quota),
    ];
    match limits.iter().find(|(_, wanted, found)| wanted.is_some() && wanted != found) {
        Some((field, wanted, found)) => {
            let shown = |limit: &Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
            let why = format!("is {}, the kernel has {}", shown(wanted), shown(found));
            Err(Error::invalid(format!("linux.resources.{field}"), why))
        }
        None => Ok(()),
    }
}

fn taken(dir: &Path) -> Error {
    let error = Error::invalid("linux.cgroupsPath", format!("{} is there already", dir.display()));
    error.hint("each container needs a cgroup of its own; one that nobody is in goes with rmdir")
}

#[cfg(test)]
mod tests;
