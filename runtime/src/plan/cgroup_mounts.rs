// SPDX-License-Identifier: Apache-2.0
//! What a container sees of its cgroup: never another's.

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::binds::{BindAttr, MS_PRIVATE};
use super::options::Parsed;
use super::program::DEST_NO_SYMLINKS;
use super::{Builder, Planned, Source, Step};
use crate::error::Result;
use crate::plan::namespaces::is_new;
use crate::sys::mount::attr;

impl Builder<'_> {
    /// In a cgroup namespace, the file system itself: mounting cgroup2 without one takes 6 ms and more, and shows the host's.
    /// Of the v1 hierarchies those that the container has a cgroup in: of the others it would see the host's own.
    pub(super) fn cgroup(&mut self, parsed: Parsed, field: &str, place: &str, linux: &Linux) -> Result<()> {
        let own_namespace = is_new(linux, LinuxNamespaceType::Cgroup);
        let joined = |list: &&String| list.split(',').any(|name| self.joined.iter().any(|joined| joined == name));
        let hierarchies: Vec<String> = self.host.v1_hierarchies.iter().filter(joined).cloned().collect();
        // What it is in: on v1 where it has limits there, in v2 always.
        if hierarchies.is_empty() {
            return self.cgroup2(parsed, field, place, own_namespace);
        }
        let top = self.slot()?;
        let options = vec![(field.to_owned(), "mode".to_owned(), Some("755".to_owned()))];
        self.make(field, top, "tmpfs", Some("tmpfs".into()), &options, parsed.set & !attr::RDONLY);
        self.attach_dir(field, top, place, DEST_NO_SYMLINKS);
        for controllers in hierarchies {
            let (name, options) = hierarchy(&controllers, field);
            let to = format!("{place}/{name}");
            if own_namespace {
                self.make(field, self.scratch.mount, "cgroup", Some("cgroup".into()), &options, parsed.set);
                self.attach_dir(field, self.scratch.mount, &to, DEST_NO_SYMLINKS);
            } else {
                self.own_cgroup(field, Some(name), parsed.set, &to);
            }
        }
        if parsed.set & attr::RDONLY != 0 {
            // Late: other mounts may want a place in it.
            let step = Step::SetAttr { slot: top, set: attr::RDONLY, propagation: 0, recursive: false };
            self.late.push(Planned { step, field: field.to_owned() });
        }
        Ok(())
    }

    fn cgroup2(&mut self, parsed: Parsed, field: &str, place: &str, own_namespace: bool) -> Result<()> {
        if own_namespace {
            self.make(field, self.scratch.mount, "cgroup2", Some("cgroup".into()), &parsed.data, parsed.set);
            self.attach_dir(field, self.scratch.mount, place, DEST_NO_SYMLINKS);
        } else {
            self.own_cgroup(field, None, parsed.set, place);
        }
        Ok(())
    }

    /// Without a cgroup namespace, the file system would show the host's: so only the container's directory of it.
    fn own_cgroup(&mut self, field: &str, hierarchy: Option<String>, set: u64, place: &str) {
        let attr = BindAttr { set, propagation: MS_PRIVATE, ..BindAttr::default() };
        let slot = self.source(Source::Cgroup(hierarchy, attr));
        self.attach_dir(field, slot, place, DEST_NO_SYMLINKS);
    }
}

/// The directory of a v1 hierarchy and the options that find it: `name=systemd` has no controller.
fn hierarchy(controllers: &str, field: &str) -> (String, Vec<super::Option_>) {
    let option = |key: &str, value: Option<&str>| (field.to_owned(), key.to_owned(), value.map(str::to_owned));
    match controllers.strip_prefix("name=") {
        Some(name) => (name.to_owned(), vec![option("none", None), option("name", Some(name))]),
        None => (controllers.to_owned(), controllers.split(',').map(|controller| option(controller, None)).collect()),
    }
}
