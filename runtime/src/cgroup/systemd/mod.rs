// SPDX-License-Identifier: Apache-2.0
//! Cgroups that systemd makes: a transient scope each (systemd.scope(5)), with every limit that systemd has a property for, so
//! that `systemctl daemon-reload` puts the same back. The files are written by hand all the same: systemd only logs what the
//! kernel refuses, and keeps some values less precisely.

#[cfg(feature = "cgroup-compat")]
mod bus;
#[cfg(not(feature = "cgroup-compat"))]
#[path = "no_bus.rs"]
mod bus;
mod properties;
mod unit;

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(super) use bus::Manager;
pub use properties::Property;
use properties::{annotated, properties};
pub use unit::Unit;

use super::writes::Write;
use super::{Host, V2_ROOT};
use crate::error::{Context, Error, Result};

/// Which systemd makes the cgroup, and below which cgroup it has its units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The caller's own, not the host's
    pub user: bool,
    /// Below the root of the hierarchy; empty for the host's
    pub prefix: String,
}

impl Instance {
    /// The one that serves the caller: for root the host's, for others their own.
    ///
    /// # Errors
    /// If systemd does not run here, or its controllers are not on v2.
    pub fn detect(host: Host) -> Result<Self> {
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(unusable("systemd does not run on this host"));
        }
        if host != Host::V2 {
            return Err(unusable(
                "wsbox lets systemd make cgroups on v2 hosts alone, and this one has its controllers on v1",
            ));
        }
        let user = crate::rootless::has_users_systemd();
        let prefix = if user { Manager::connect(true)?.control_group()? } else { String::new() };
        Ok(Self { user, prefix })
    }
}

fn unusable(why: &str) -> Error {
    let error = Error::invalid("--systemd-cgroup", why);
    error
        .hint("leave it out, or set native.cgroupdriver=cgroupfs (podman: cgroup_manager = \"cgroupfs\") in the engine")
}

/// The scope that a config asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its name and place
    pub unit: Unit,
    /// Whose it is
    pub instance: Instance,
    /// What the annotations add
    pub properties: Vec<Property>,
}

impl Plan {
    /// The scope at `cgroups_path` (SLICE:PREFIX:NAME) of `instance`.
    ///
    /// # Errors
    /// A name that is none, or an annotation that is not taken, by its field.
    pub fn new(
        instance: &Instance,
        cgroups_path: Option<&Path>,
        id: &str,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Self> {
        let unit = Unit::new(cgroups_path, id, instance.user)?;
        Ok(Self { unit, instance: instance.clone(), properties: annotated(annotations)? })
    }

    /// Where systemd will make it, below the root of the hierarchy.
    pub fn path(&self) -> String {
        let parts = [self.instance.prefix.as_str(), self.unit.slice_path.as_str(), self.unit.name.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// What state.json keeps of it.
    pub fn saved(&self) -> Saved {
        Saved { unit: self.unit.name.clone(), instance: self.instance.clone() }
    }
}

/// A scope that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The unit's name
    pub unit: String,
    /// Whose it is
    pub instance: Instance,
}

/// A scope and the connection to its manager, if there is one by now.
#[derive(Debug)]
pub(super) struct Scope {
    saved: Saved,
    manager: Option<Manager>,
}

impl Scope {
    /// One that exists, as far as we know.
    pub fn open(saved: &Saved) -> Self {
        Self { saved: saved.clone(), manager: None }
    }

    /// Starts it with process `pid` in it, and those limits that need not wait for the init.
    pub fn start(plan: &Plan, writes: &[Write], pid: nix::unistd::Pid) -> Result<Self> {
        let now: Vec<Write> = writes.iter().filter(|write| !waits(write)).cloned().collect();
        let mut all = vec![
            Property::new("Description", format!("wsbox container {}", plan.unit.name.trim_end_matches(".scope"))),
            Property::new("Slice", plan.unit.slice.clone()),
            Property::new("Delegate", true),
            Property::new("DefaultDependencies", false),
            // One whose processes were killed for want of memory is not kept as a failed one.
            Property::new("CollectMode", "inactive-or-failed".to_owned()),
            Property::new("PIDs", vec![pid.as_raw().unsigned_abs()]),
        ];
        let counted = ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"];
        all.extend(counted.map(|name| Property::new(name, true)));
        all.extend(properties(&now)?);
        // The limits that wait are tried here: they must not fail once the init is there.
        properties(writes)?;
        all.extend(plan.properties.iter().cloned());
        let manager = Manager::connect(plan.instance.user)?;
        let group = writes.iter().any(|write| write.file == "memory.oom.group" && write.value == "1");
        start(&manager, &plan.unit.name, all, group)?;
        let scope = Self { saved: plan.saved(), manager: Some(manager) };
        scope.must_hold(pid, &plan.path()).inspect_err(|_| drop(scope.stop()))?;
        Ok(scope)
    }

    /// Where systemd put the process is where the record says that the cgroup is.
    fn must_hold(&self, pid: nix::unistd::Pid, path: &str) -> Result<()> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).context(|| file.clone())?;
        let found = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        if found == path {
            return Ok(());
        }
        let why = format!("systemd made the scope at {V2_ROOT}/{found}, not at {V2_ROOT}/{path}");
        Err(Error::invalid("linux.cgroupsPath", why))
    }

    /// Moves a process into it: who is in a session of theirs may not be born elsewhere, but systemd moves it.
    pub fn attach(&self, pid: nix::unistd::Pid, path: &str) -> Result<()> {
        self.asked(|manager| manager.attach(&self.saved.unit, pid.as_raw().unsigned_abs()))?;
        self.must_hold(pid, path)
    }

    fn asked(&self, ask: impl FnOnce(&Manager) -> Result<()>) -> Result<()> {
        match &self.manager {
            Some(manager) => ask(manager),
            None => ask(&Manager::connect(self.saved.instance.user)?),
        }
    }

    /// Gives it the limits that systemd has a property for, and waits until they are written.
    pub fn set(&self, writes: &[Write]) -> Result<()> {
        let properties = properties(writes)?;
        if properties.is_empty() {
            return Ok(());
        }
        self.asked(|manager| manager.set(&self.saved.unit, &properties))
    }

    /// Ends it: systemd forgets the unit, and kills who is left in it.
    pub fn stop(&self) -> Result<()> {
        self.asked(|manager| manager.stop(&self.saved.unit))
    }
}

/// What holds memory.oom.group over a reload is a property of scopes since systemd 253; before, a reload resets it.
fn start(manager: &Manager, unit: &str, mut all: Vec<Property>, oom_group: bool) -> Result<()> {
    const OOM_POLICY: &str = "OOMPolicy";
    if oom_group && !all.iter().any(|property| property.name == OOM_POLICY) {
        all.push(Property::new(OOM_POLICY, "kill".to_owned()));
        match manager.start(unit, &all) {
            Err(error) if error.to_string().contains(OOM_POLICY) => all.retain(|property| property.name != OOM_POLICY),
            result => return result,
        }
    }
    manager.start(unit, &all)
}

/// With the init comes the end of the process that held the scope open: until then there is one more.
pub(super) fn waits(write: &Write) -> bool {
    write.waits() || write.file == "pids.max"
}
