// SPDX-License-Identifier: Apache-2.0
//! Ids of the container, and what they are on the host.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, User};

use super::UserNamespace;
use crate::error::{Error, Result};
use crate::state::ids;

/// The maps of a user namespace, for the parent to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdMaps {
    /// uid_map
    pub uid: Vec<LinuxIdMapping>,
    /// gid_map
    pub gid: Vec<LinuxIdMapping>,
}

/// One entry: container ids from `inside`, host ids from `outside`.
pub fn id_mapping(inside: u32, outside: u32, size: u32) -> LinuxIdMapping {
    LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size).build().unwrap_or_default()
}

/// What the container's `id` is on the host, if it is anybody there.
pub fn host_id(map: &[LinuxIdMapping], id: u32) -> Option<u32> {
    let one = |entry: &LinuxIdMapping| {
        let at = id.checked_sub(entry.container_id()).filter(|at| *at < entry.size())?;
        Some(entry.host_id() + at)
    };
    map.iter().find_map(one)
}

/// The payload's ids are ones that the container has: of others setuid(2) says no more than that they are invalid.
pub fn check_ids(payload: &User, user: &UserNamespace) -> Result<()> {
    let allocated = [id_mapping(0, 0, ids::SIZE)];
    let (uids, gids) = match user {
        UserNamespace::Allocate => (&allocated[..], &allocated[..]),
        UserNamespace::Mapped(maps) => (&maps.uid[..], &maps.gid[..]),
        UserNamespace::Host | UserNamespace::Joined(_) => return Ok(()),
    };
    let check = |map: &[LinuxIdMapping], id: u32, field: &dyn Fn() -> String| match host_id(map, id) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!("process.user.{}", field()), lacks(id, map))),
    };
    check(uids, payload.uid(), &|| "uid".into())?;
    check(gids, payload.gid(), &|| "gid".into())?;
    let mut groups = payload.additional_gids().iter().flatten().enumerate();
    groups.try_for_each(|(at, gid)| check(gids, *gid, &|| format!("additionalGids[{at}]")))
}

fn lacks(id: u32, map: &[LinuxIdMapping]) -> String {
    let range = |entry: &LinuxIdMapping| {
        (entry.container_id(), entry.container_id().saturating_add(entry.size().saturating_sub(1)))
    };
    let ranges: Vec<_> = map.iter().map(range).map(|(first, last)| format!("{first} to {last}")).collect();
    format!("the container's user namespace has no id {id}, only {}", ranges.join(", "))
}
