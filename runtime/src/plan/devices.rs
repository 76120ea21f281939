// SPDX-License-Identifier: Apache-2.0
//! Devices where wsbox itself is in a user namespace. Neither nodes can be made there (mknod(2)) nor programs loaded that say which may be
//! opened (bpf(2)): nodes of the host are bound, and no other mount has any.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::{Builder, Node, Source};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::launch::NODES;
use crate::validate::clean;

/// The rules are kept by what there is to open.
///
/// # Errors
/// A device that is given and that a rule denies, or allows in part.
pub fn keep_by_mounts(cgroup: &mut cgroup::Plan, linux: &Linux) -> Result<()> {
    let rules = std::mem::take(&mut cgroup.devices);
    for (at, device) in given(linux) {
        if !rules.is_empty() && !cgroup::device_allowed(&rules, device) {
            let why = format!("{} is denied by linux.resources.devices", device.path().display());
            let error = Error::invalid(format!("linux.devices[{at}]"), why);
            return Err(
                error.hint("only root's wsbox can give a node and deny its use: leave the device out, or allow rwm")
            );
        }
    }
    Ok(())
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
    pub(super) fn bound_devices(&mut self, linux: &Linux) -> Result<()> {
        let usual = |(name, major, minor): (&str, u64, u64)| {
            let path = PathBuf::from(format!("/dev/{name}"));
            Node { field: path.display().to_string(), path, block: false, number: (major, minor), mode: None }
        };
        let mut nodes: Vec<Node> = NODES.map(usual).into();
        for (at, device) in given(linux) {
            let node = node(device, format!("linux.devices[{at}]"))?;
            // One of the usual six may be given again.
            if nodes.iter().all(|known| known.path != node.path) {
                nodes.push(node);
            }
        }
        for node in nodes {
            let (field, place) = (node.field.clone(), node.path.to_string_lossy().into_owned());
            let slot = self.source(Source::Node(node));
            self.attach(&field, slot, &place, 0);
        }
        Ok(())
    }
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
    let path = clean(&device.path().to_string_lossy()).into();
    Ok(Node { path, block, number, mode: device.file_mode().map(|mode| mode & 0o777), field })
}
