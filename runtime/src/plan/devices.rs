// SPDX-License-Identifier: Apache-2.0
//! Devices: most are in the tmpfs of /dev from the start, and what another mount would cover is bound last of all. Where wsbox itself
//! is in a user namespace neither nodes can be made (mknod(2)) nor programs loaded that say which may be opened (bpf(2)): nodes of the
//! host are bound, and no other mount has any.

use std::path::{Path, PathBuf};

use ::caps::Capability;
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount, Process, Spec};

use super::binds::is_bind;
use super::step::Step;
use super::{Apart, Builder, Given, Node, Option_, Source, caps};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::launch::NODES;
use crate::validate::clean;

/// The rules are kept by what there is to open, and no program is loaded.
///
/// # Errors
/// A device that is given and that a rule denies, or allows in part; a process that could undo what keeps the rules.
pub fn keep_by_mounts(cgroup: &mut cgroup::Plan, linux: &Linux, process: &Process) -> Result<Vec<cgroup::Rule>> {
    must_not_remount(linux, process)?;
    let mut rules = std::mem::take(&mut cgroup.devices);
    if allow_all(linux) {
        rules.clear();
    }
    for (at, device) in given(linux) {
        let node = node(device, format!("linux.devices[{at}]"))?;
        must_be_allowed(&rules, &node.field, &node.path, (node.block, node.number))?;
    }
    Ok(rules)
}

/// Whether the rules deny nothing: there are none, or the last that names every device allows it, as `--privileged` has it.
fn allow_all(linux: &Linux) -> bool {
    let rules = linux.resources().as_ref().and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let any = |number: Option<i64>| number.is_none_or(|number| number == -1);
    let whole = |rule: &LinuxDeviceCgroup| {
        let access = rule.access().as_deref().unwrap_or_default();
        rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A)
            && any(rule.major())
            && any(rule.minor())
            && (access.is_empty() || ['r', 'w'].iter().all(|letter| access.contains(*letter)))
    };
    let last = rules.iter().rposition(whole).filter(|at| rules[*at].allow());
    rules.iter().skip(last.map_or(0, |at| at + 1)).all(LinuxDeviceCgroup::allow) && (last.is_some() || rules.is_empty())
}

/// Who may remount takes nodev away: the kernel locks it only in namespaces below the one that set it (mount_namespaces(7)).
///
/// # Errors
/// If there are rules, and the process has the right.
pub fn must_not_remount(linux: &Linux, process: &Process) -> Result<()> {
    let may = || caps::sets(process.capabilities().as_ref()).map(|sets| sets.any(Capability::CAP_SYS_ADMIN));
    if allow_all(linux) || !may()? {
        return Ok(());
    }
    let error =
        Error::invalid("process.capabilities", "CAP_SYS_ADMIN could remount away what keeps linux.resources.devices");
    Err(error.hint("only root's wsbox can keep device rules against it: leave one of the two out"))
}

/// Of a device (whether it is a block device, and its number) at `path`, that the rules allow all of it; no rules allow everything.
///
/// # Errors
/// If they do not, with the field that gives it.
pub fn must_be_allowed(rules: &[cgroup::Rule], field: &str, path: &Path, device: (bool, (u64, u64))) -> Result<()> {
    let (block, number) = device;
    if rules.is_empty() || cgroup::device_allowed(rules, block, number) {
        return Ok(());
    }
    let error = Error::invalid(field, format!("{} is denied by linux.resources.devices", path.display()));
    Err(error.hint("only root's wsbox can give a node and deny its use: leave the device out, or allow rwm"))
}

fn given(linux: &Linux) -> impl Iterator<Item = (usize, &LinuxDevice)> {
    linux.devices().iter().flatten().enumerate()
}

/// How many are bound at most.
pub fn most_bound(linux: &Linux) -> usize {
    NODES.len() + given(linux).count()
}

impl Builder<'_> {
    /// The usual nodes, and those of the config, over the empty files of /dev.
    pub(super) fn bound_devices(&mut self, spec: &Spec, linux: &Linux) -> Result<()> {
        let usual = |(name, major, minor): (&str, u64, u64)| {
            let path = PathBuf::from(format!("/dev/{name}"));
            let field = path.display().to_string();
            Node { field, path, block: false, number: (major, minor), ..Node::default() }
        };
        let mut nodes: Vec<Node> = NODES.map(usual).into();
        for (field, device) in in_dev(spec, linux) {
            let node = node(&device, field)?;
            // One of the usual six may be given again: what the config says of it stands.
            nodes.retain(|known| known.path != node.path);
            nodes.push(node);
        }
        nodes.into_iter().for_each(|node| self.bound_device(node));
        Ok(())
    }

    fn bound_device(&mut self, node: Node) {
        let (field, place) = (node.field.clone(), node.path.to_string_lossy().into_owned());
        let slot = self.source(Source::Node(node));
        self.attach_node(&field, slot, &place);
    }

    /// Once all is mounted: the nodes that are not in the tmpfs of /dev.
    pub(super) fn devices_apart(&mut self, spec: &Spec, linux: &Linux, options: Vec<Option_>) -> Result<()> {
        let nodes = apart(spec, linux);
        if nodes.is_empty() {
            return Ok(());
        }
        if self.host.in_user_namespace {
            return nodes.iter().try_for_each(|(field, device)| {
                self.bound_device(node(device, field.clone())?);
                Ok(())
            });
        }
        let from = self.source(Source::Apart(Apart { options, nodes: nodes.clone() }));
        // All before the first is attached: what a kernel before 6.15 clones them from is gone then (init/steps.rs, take_back).
        let mut slots = Vec::new();
        for (at, (field, _)) in nodes.iter().enumerate() {
            let slot = self.slot()?;
            self.push(field, Step::CloneTree { slot, from, path: at.to_string() });
            slots.push(slot);
        }
        nodes.iter().zip(slots).for_each(|((field, device), slot)| self.attach_node(field, slot, &place(device)));
        Ok(())
    }
}

/// The nodes that the tmpfs of /dev begins with.
pub(super) fn in_dev(spec: &Spec, linux: &Linux) -> Vec<Given> {
    let (in_dev, _) = sorted(spec, linux);
    in_dev
}

/// Those outside of it, and in what is mounted below it. What is bound there of the host's /dev has what it has: nothing is made in it.
pub fn apart(spec: &Spec, linux: &Linux) -> Vec<Given> {
    let (_, mut apart) = sorted(spec, linux);
    if apart.is_empty() {
        return apart;
    }
    let mounts: Vec<(String, bool)> =
        spec.mounts().iter().flatten().map(|mount| (destination(mount), is_bind(mount))).collect();
    // The last that a place lies in: it covers those before.
    let in_bind = |place: &str| {
        let covers = mounts.iter().rev().find(|(to, _)| Path::new(place).starts_with(to));
        place.starts_with("/dev/") && covers.is_some_and(|(_, bind)| *bind)
    };
    apart.retain(|(_, device)| !in_bind(&place(device)));
    apart
}

fn sorted(spec: &Spec, linux: &Linux) -> (Vec<Given>, Vec<Given>) {
    if given(linux).next().is_none() {
        return Default::default();
    }
    let below: Vec<String> = spec.mounts().iter().flatten().map(destination).filter(|to| to != "/dev").collect();
    let covered = |place: &str| below.iter().any(|to| Path::new(place).starts_with(to) && place != to);
    given(linux)
        .map(|(at, device)| (format!("linux.devices[{at}]"), device.clone()))
        .partition(|(_, device)| place(device).starts_with("/dev/") && !covered(&place(device)))
}

fn destination(mount: &Mount) -> String {
    clean(&mount.destination().to_string_lossy())
}

fn place(device: &LinuxDevice) -> String {
    clean(&device.path().to_string_lossy())
}

fn node(device: &LinuxDevice, field: String) -> Result<Node> {
    let number = |number: i64, name: &str| {
        u64::try_from(number)
            .map_err(|_| Error::invalid(format!("{field}.{name}"), format!("{number} is no device number")))
    };
    let number = (number(device.major(), "major")?, number(device.minor(), "minor")?);
    let block = match device.typ() {
        LinuxDeviceType::B => true,
        LinuxDeviceType::P => {
            return Err(Error::invalid(format!("{field}.type"), "only root's wsbox makes a FIFO in /dev"));
        }
        _ => false,
    };
    let path = place(device).into();
    // Engines give a node's own, and nothing says 0 as well as nothing.
    let owner = (device.uid().filter(|id| *id != 0), device.gid().filter(|id| *id != 0));
    Ok(Node { path, block, number, mode: device.file_mode().map(|mode| mode & 0o777), owner, field })
}
