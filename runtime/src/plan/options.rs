// SPDX-License-Identifier: Apache-2.0
//! Mount options: mount attributes, propagation, and what is left for the file system (config.md, "Linux mount options").

use oci_spec::runtime::Mount;

use super::Option_;
use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// A mount's options, sorted by what carries them out.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// bind or rbind
    pub bind: bool,
    /// rbind
    pub recursive: bool,
    /// MOUNT_ATTR_* to set and clear on the mount
    pub set: u64,
    pub clear: u64,
    /// The same on it and all below it (options rro, rnosuid, …)
    pub set_all: u64,
    pub clear_all: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE
    pub propagation: u64,
    pub propagation_all: bool,
    /// src-nofollow: a link is bound itself, not what it leads to
    pub source_nofollow: bool,
    /// dest-nofollow: a link is covered itself, not what it leads to
    pub dest_nofollow: bool,
    /// tmpcopyup
    pub copy_up: bool,
    /// idmap or ridmap
    pub idmap: bool,
    /// The file system's own: (field, key, value)
    pub data: Vec<Option_>,
}

/// (name, attribute, set or clear); with an `r` before it, recursive.
const ATTRIBUTES: [(&str, u64, bool); 18] = [
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
    ("noatime", attr::NOATIME, true),
    ("strictatime", attr::STRICTATIME, true),
    ("relatime", 0, true),
    ("atime", attr::NOATIME, false),
    ("norelatime", 0, false),
    ("nostrictatime", attr::STRICTATIME, false),
];

const PROPAGATIONS: [(&str, u64); 4] = [
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Options that would need what this version does not do.
const REFUSED: [&str; 2] = ["remount", "copy-symlink"];

impl Parsed {
    /// Sorts the options of the mount at `field`.
    ///
    /// # Errors
    /// On an option that wsbox knows and does not do; those of the file system are checked by the kernel.
    pub fn new(mount: &Mount, field: &str) -> Result<Self> {
        let mut parsed = Self::default();
        for (at, option) in mount.options().iter().flatten().enumerate() {
            parsed.add(option, &format!("{field}.options[{at}]"))?;
        }
        parsed.settle();
        Ok(parsed)
    }

    /// What is recursive overrules the others, wherever it stands: runc and crun set it last, and a `rro` must not be lost.
    fn settle(&mut self) {
        let all = self.set_all | self.clear_all;
        let overruled = all | if all & attr::ATIME_MASK == 0 { 0 } else { attr::ATIME_MASK };
        self.set &= !overruled;
        self.clear &= !overruled;
    }

    /// The same for a file system of its own: it has nothing below it, so its recursive options are as the others.
    ///
    /// # Errors
    /// On id maps, which only a bind has here.
    pub fn flat(mut self, mount: &Mount, field: &str) -> Result<Self> {
        let maps = [mount.uid_mappings(), mount.gid_mappings()];
        if self.idmap || maps.into_iter().flatten().any(|maps| !maps.is_empty()) {
            return Err(Error::invalid(field, "is no bind: only a bind can be id-mapped"));
        }
        self.set |= self.set_all;
        (self.set_all, self.clear_all) = (0, 0);
        Ok(self)
    }

    /// Whether no device node can be opened through a bind with these options.
    pub fn no_devices(&self) -> bool {
        let top = self.set | self.set_all;
        top & attr::NODEV != 0 && (!self.recursive || self.set_all & attr::NODEV != 0)
    }

    fn add(&mut self, option: &str, field: &str) -> Result<()> {
        match option {
            "" | "defaults" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "tmpcopyup" => self.copy_up = true,
            "src-nofollow" => self.source_nofollow = true,
            "dest-nofollow" => self.dest_nofollow = true,
            "idmap" => self.idmap = true,
            "ridmap" => (self.idmap, self.recursive) = (true, true),
            option if REFUSED.contains(&option) => {
                return Err(Error::invalid(field, format!("this version of wsbox does not do {option:?}")));
            }
            option => {
                if !self.attribute(option) && !self.propagate(option) {
                    let (key, value) =
                        option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value.to_owned())));
                    self.data.push((field.to_owned(), key.to_owned(), value));
                }
            }
        }
        Ok(())
    }

    /// A later option overrules an earlier one.
    fn attribute(&mut self, option: &str) -> bool {
        let find = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        let (all, found) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(found), _) => (false, found),
            (None, Some(found)) => (true, found),
            (None, None) => return false,
        };
        let (set, clear) =
            if all { (&mut self.set_all, &mut self.clear_all) } else { (&mut self.set, &mut self.clear) };
        let (_, bit, on) = *found;
        if bit & attr::ATIME_MASK != 0 || bit == 0 {
            // The access-time modes exclude each other: the kernel wants the whole field cleared (mount_setattr(2)).
            *set &= !attr::ATIME_MASK;
            *clear |= attr::ATIME_MASK;
        }
        if on {
            *set |= bit;
            *clear &= !bit | attr::ATIME_MASK;
        } else {
            *set &= !bit;
            *clear |= bit;
        }
        true
    }

    fn propagate(&mut self, option: &str) -> bool {
        let find = |name: &str| PROPAGATIONS.iter().find(|(known, _)| *known == name);
        let (all, found) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(found), _) => (false, found),
            (None, Some(found)) => (true, found),
            (None, None) => return false,
        };
        (self.propagation, self.propagation_all) = (found.1, all);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Parsed {
        let mount: Mount =
            serde_json::from_value(serde_json::json!({"destination": "/x", "options": options})).unwrap();
        Parsed::new(&mount, "mounts[0]").unwrap()
    }

    #[test]
    fn attributes_and_data_are_told_apart() {
        let parsed = parse(&["nosuid", "noexec", "nodev", "mode=755", "size=1k", "newinstance", "ro"]);
        assert_eq!(parsed.set, attr::NOSUID | attr::NOEXEC | attr::NODEV | attr::RDONLY);
        let data: Vec<_> = parsed.data.iter().map(|(_, key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(data, [("mode", Some("755")), ("size", Some("1k")), ("newinstance", None)]);
        assert_eq!(parsed.data[0].0, "mounts[0].options[3]");
    }

    #[test]
    fn later_options_overrule_earlier_ones() {
        assert_eq!(parse(&["ro", "rw"]).set & attr::RDONLY, 0);
        assert_eq!(parse(&["rw", "ro"]).set & attr::RDONLY, attr::RDONLY);
        let atime = parse(&["noatime", "strictatime"]);
        assert_eq!(
            (atime.set & attr::ATIME_MASK, atime.clear & attr::ATIME_MASK),
            (attr::STRICTATIME, attr::ATIME_MASK)
        );
        assert_eq!(parse(&["relatime"]).set, 0);
    }

    #[test]
    fn recursive_forms() {
        let parsed = parse(&["rbind", "rro", "rnosuid", "rprivate"]);
        assert!(parsed.bind && parsed.recursive && parsed.propagation_all);
        assert_eq!((parsed.set_all, parsed.propagation), (attr::RDONLY | attr::NOSUID, libc::MS_PRIVATE));
        assert!(!parse(&["relatime"]).propagation_all);
        for options in [["rro", "rw"], ["rw", "rro"]] {
            let parsed = parse(&options);
            assert_eq!((parsed.set, parsed.clear, parsed.set_all), (0, 0, attr::RDONLY), "{options:?}");
        }
        let parsed = parse(&["ro", "noatime", "rrw", "rrelatime"]);
        assert_eq!((parsed.set, parsed.clear, parsed.set_all), (0, 0, 0));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let mount: Mount =
            serde_json::from_value(serde_json::json!({"destination": "/x", "options": ["bind", "remount"]})).unwrap();
        let error = Parsed::new(&mount, "mounts[4]").unwrap_err().to_string();
        assert!(error.starts_with("mounts[4].options[1]: ") && error.contains("remount"), "{error}");
    }
}
