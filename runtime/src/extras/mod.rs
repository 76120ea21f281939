// SPDX-License-Identifier: Apache-2.0
//! What few configs ask, carried out by libcontainer: reached only by those that do. Without the feature `oci-extras` they are
//! refused by name.

#[cfg(feature = "oci-extras")]
mod intel_rdt;
#[cfg(feature = "oci-extras")]
mod net_devices;

#[cfg(feature = "oci-extras")]
use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::is_new;

/// What must be taken back when the container is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Folders below /sys/fs/resctrl, the innermost first
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
}

impl Made {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes it back; what is gone is no error.
    pub fn undo(&self) {
        self.resctrl.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

/// Refuses what can not be done, before anything is made.
///
/// # Errors
/// The field.
pub fn check(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        check_net_devices(linux)?;
    }
    if linux.intel_rdt().is_some() {
        check_intel_rdt(linux)?;
    }
    Ok(())
}

/// What a failed launch has to give back.
#[cfg(feature = "oci-extras")]
pub use net_devices::Lent;

/// Nothing is lent without the feature.
#[cfg(not(feature = "oci-extras"))]
#[derive(Debug)]
pub struct Lent;

#[cfg(not(feature = "oci-extras"))]
impl Lent {
    /// There is nothing.
    pub fn give_back(self) {}
}

/// Carries out what the host's side has to do for the init.
///
/// # Errors
/// The field, and what the kernel said.
#[cfg(feature = "oci-extras")]
pub fn carry_out(spec: &Spec, id: &str, pid: Pid) -> Result<(Made, Option<Lent>)> {
    let Some(linux) = spec.linux() else { return Ok((Made::default(), None)) };
    let resctrl = linux.intel_rdt().as_ref().map(|wanted| intel_rdt::join(wanted, id, pid)).transpose()?;
    let made = Made { resctrl: resctrl.unwrap_or_default() };
    let lent = lend(linux, pid).inspect_err(|_| made.undo())?;
    Ok((made, lent))
}

#[cfg(feature = "oci-extras")]
fn lend(linux: &Linux, pid: Pid) -> Result<Option<Lent>> {
    // In an order that is the same each time.
    let devices: BTreeMap<_, _> = linux.net_devices().iter().flatten().collect();
    if devices.is_empty() {
        return Ok(None);
    }
    let mut lent = Lent::to(pid)?;
    match devices.into_iter().try_for_each(|(name, device)| lent.lend(name, device)) {
        Ok(()) => Ok(Some(lent)),
        Err(error) => {
            lent.give_back();
            Err(error)
        }
    }
}

/// [`check`] has refused all that there would be to do.
#[cfg(not(feature = "oci-extras"))]
pub fn carry_out(_: &Spec, _: &str, _: Pid) -> Result<(Made, Option<Lent>)> {
    Ok((Made::default(), None))
}

fn built_in(field: &str) -> Result<()> {
    if cfg!(feature = "oci-extras") {
        return Ok(());
    }
    Err(Error::invalid(field, "this wsbox was built without the feature oci-extras"))
}

fn check_net_devices(linux: &Linux) -> Result<()> {
    built_in("linux.netDevices")?;
    if !is_new(linux, LinuxNamespaceType::Network) {
        let why = "there is no new network namespace that they could go to";
        return Err(Error::invalid("linux.netDevices", why).hint("add {\"type\": \"network\"} to linux.namespaces"));
    }
    let mut inside = std::collections::HashSet::from(["lo"]);
    for (name, device) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices.{name}");
        check_name(name, &field)?;
        let own = device.name().as_deref().filter(|own| !own.is_empty());
        own.map_or(Ok(()), |own| check_name(own, &format!("{field}.name")))?;
        if !inside.insert(own.unwrap_or(name)) {
            return Err(Error::invalid(field, "another interface of the container has that name"));
        }
    }
    Ok(())
}

/// As the kernel has it (net/core/dev.c, dev_valid_name); a % would make it count.
fn check_name(name: &str, field: &str) -> Result<()> {
    let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(Error::invalid(field, format!("{name:?} is no name of a network interface")));
    }
    Ok(())
}

fn check_intel_rdt(linux: &Linux) -> Result<()> {
    built_in("linux.intelRdt")?;
    let group = linux.intel_rdt().as_ref().and_then(|rdt| rdt.clos_id().as_deref());
    match group {
        // It is the name of a folder (config-linux.md, "IntelRdt").
        Some(group) if group.is_empty() || group == "." || group == ".." || group.contains('/') => {
            Err(Error::invalid("linux.intelRdt.closID", format!("{group:?} is no name of a resctrl group")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    fn refused(linux: serde_json::Value) -> String {
        let spec = serde_json::from_value(json!({"ociVersion": "1.3.0", "linux": linux})).unwrap();
        super::check(&spec).unwrap_err().to_string()
    }

    #[test]
    fn what_can_not_be_done_is_named() {
        let network = json!([{"type": "network"}]);
        let devices = |devices| refused(json!({"namespaces": network, "netDevices": devices}));
        let joined = json!({"namespaces": [{"type": "network", "path": "/x"}], "netDevices": {"e": {}}});
        assert!(refused(joined).starts_with("linux.netDevices: "));
        assert!(devices(json!({"a/b": {}})).starts_with("linux.netDevices.a/b: "));
        assert!(devices(json!({"e": {"name": "much-too-long-for-one"}})).starts_with("linux.netDevices.e.name: "));
        assert!(devices(json!({"e": {"name": "lo"}})).contains("another interface"));
        assert!(devices(json!({"e": {"name": "x"}, "x": {}})).contains("another interface"));
        assert!(refused(json!({"intelRdt": {"closID": "../x"}})).starts_with("linux.intelRdt.closID: "));
    }
}
