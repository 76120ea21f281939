// SPDX-License-Identifier: Apache-2.0
//! The host's ids that a user may map: its own, and those of its entries in /etc/subuid or /etc/subgid (subuid(5)).

use std::fs;

use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, Result};
use crate::plan::id_mapping;

/// Lines of a map, UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h.
const MOST_LINES: usize = 340;

/// Ranges (first, count), in the order in which they are mapped from 0 on.
#[derive(Debug, PartialEq)]
pub struct Owned(Vec<(u32, u32)>);

impl Owned {
    /// The user's own id alone.
    pub fn alone(own: u32) -> Self {
        Self(vec![(own, 1)])
    }

    /// Its own id, and what `file` gives to the user of this name and id.
    pub fn read(file: &str, own: u32, user: &str, uid: u32) -> Self {
        Self::parse(&fs::read_to_string(file).unwrap_or_default(), own, user, uid)
    }

    fn parse(text: &str, own: u32, user: &str, uid: u32) -> Self {
        let entry = |line: &str| {
            let (name, range) = line.split_once(':')?;
            let (first, count) = range.split_once(':')?;
            let (first, count) = (first.parse::<u32>().ok()?, count.trim().parse::<u32>().ok()?);
            // Ids past the 32 bits of the kernel are no grant.
            first.checked_add(count)?;
            (count > 0 && (name == user || name == uid.to_string())).then_some((first, count))
        };
        let mut ranges = vec![(own, 1)];
        for (first, count) in text.lines().filter_map(entry) {
            // The kernel refuses a map that has an id twice, or too many lines (user_namespaces(7)).
            let apart = |&(other, size): &(u32, u32)| first >= other + size || other >= first + count;
            if ranges.len() < MOST_LINES && ranges.iter().all(apart) {
                ranges.push((first, count));
            }
        }
        Self(ranges)
    }

    /// Whether there are more than the user's own.
    pub fn has_range(&self) -> bool {
        self.0.len() > 1
    }

    /// (inside, outside, count) each
    pub fn map(&self) -> Vec<(u32, u32, u32)> {
        let mut next = 0u32;
        let one = |&(first, count): &(u32, u32)| {
            let at = next;
            next = next.checked_add(count)?;
            Some((at, first, count))
        };
        self.0.iter().map_while(one).collect()
    }

    /// What the host's ids from `host` on are inside, if all of them are there in one piece.
    fn inside(&self, host: u32, count: u32) -> Option<u32> {
        self.map().into_iter().find_map(|(inside, outside, size)| {
            let offset = host.checked_sub(outside)?;
            (offset < size && count <= size - offset).then_some(inside + offset)
        })
    }

    /// All of them for a container: its root is the user. Each in a line of its own, for what one maps must be in one piece outside.
    pub fn all(&self) -> Vec<LinuxIdMapping> {
        self.map().into_iter().map(|(inside, _, count)| id_mapping(inside, inside, count)).collect()
    }

    /// A config's map with ids of the host, as it is inside.
    ///
    /// # Errors
    /// An entry with ids that are not the user's.
    pub fn translate(&self, map: &[LinuxIdMapping], kind: &str, user: &str) -> Result<Vec<LinuxIdMapping>> {
        let one = |(at, entry): (usize, &LinuxIdMapping)| {
            let inside = self.inside(entry.host_id(), entry.size()).ok_or_else(|| {
                let why = format!("{} ids from {} on are not {user}'s to map", entry.size(), entry.host_id());
                Error::invalid(format!("linux.{kind}Mappings[{at}]"), why).hint(format!(
                    "beside its own id these are in /etc/sub{kind}: usermod --add-sub{kind}s FIRST-LAST {user}; or leave the maps out"
                ))
            })?;
            Ok(id_mapping(entry.container_id(), inside, entry.size()))
        };
        map.iter().enumerate().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_user_map_from_zero_on() {
        let text = "other:1:5\ntester:100000:65536\n1000:300000:10\nbroken\ntester:4294967295:2\ntester:5:0\n";
        let owned = Owned::parse(text, 1000, "tester", 1000);
        assert_eq!(owned.map(), [(0, 1000, 1), (1, 100_000, 65536), (65537, 300_000, 10)]);
        assert_eq!(owned.all(), [id_mapping(0, 0, 1), id_mapping(1, 1, 65536), id_mapping(65537, 65537, 10)]);
        assert_eq!(owned.inside(1000, 1), Some(0));
        assert_eq!(owned.inside(100_000, 65536), Some(1));
        assert_eq!(owned.inside(300_009, 1), Some(65546));
        for (first, count) in [(1000, 2), (100_001, 65536), (0, 1), (300_010, 1)] {
            assert_eq!(owned.inside(first, count), None, "{first} {count}");
        }
    }

    #[test]
    fn no_id_is_mapped_twice() {
        let text = "tester:100000:10\ntester:100000:10\ntester:100005:10\ntester:999:2\ntester:100010:5\n";
        assert_eq!(Owned::parse(text, 1000, "tester", 1000).0, [(1000, 1), (100_000, 10), (100_010, 5)]);
        let many: String = (0..1000).map(|at| format!("tester:{}:1\n", 5000 + 2 * at)).collect();
        assert_eq!(Owned::parse(&many, 1000, "tester", 1000).map().len(), 340);
    }

    #[test]
    fn maps_are_translated_or_refused_by_their_entry() {
        let owned = Owned(vec![(1000, 1), (100_000, 65536)]);
        let translated = owned.translate(&[id_mapping(0, 1000, 1), id_mapping(1, 100_000, 999)], "uid", "tester");
        assert_eq!(translated.unwrap(), [id_mapping(0, 0, 1), id_mapping(1, 1, 999)]);
        let error = owned.translate(&[id_mapping(0, 1000, 1), id_mapping(1, 0, 1)], "gid", "tester").unwrap_err();
        assert!(error.to_string().starts_with("linux.gidMappings[1]: 1 ids from 0 on"), "{error}");
    }
}
