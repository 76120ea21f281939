// SPDX-License-Identifier: Apache-2.0
//! Binds: trees of the host that the parent clones, and how it changes them.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, Spec};

use super::options::Parsed;
use super::program::{DEST_NO_SYMLINKS, DEST_NOFOLLOW};
use super::{Builder, IdMaps, Source, UserNamespace};
use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// How the parent changes a tree before the init attaches it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BindAttr {
    /// The tree with all mounts below it
    pub recursive: bool,
    /// MOUNT_ATTR_* for its top
    pub set: u64,
    /// MOUNT_ATTR_* to take from its top
    pub clear: u64,
    /// MOUNT_ATTR_* for all of it
    pub set_all: u64,
    /// MOUNT_ATTR_* to take from all of it
    pub clear_all: u64,
    /// MS_PRIVATE or MS_SLAVE, MS_SHARED where the config says so
    pub propagation: u64,
    /// How its owners map
    pub idmap: Idmap,
}

/// How the owners of files in a mount map to the container's ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Idmap {
    /// As they are
    #[default]
    None,
    /// On-disk id x is the container's id x
    Container,
    /// The owner of the tree's top is this user and group of the container, and nobody else is anybody
    Owner { uid: u32, gid: u32 },
    /// As the mount's own maps say
    Explicit(IdMaps),
}

pub(super) const MS_PRIVATE: u64 = libc::MS_PRIVATE;

/// What podman has done itself by then, and leaves in: how a volume begins, and labels.
const OF_ENGINES: [&str; 4] = ["copy", "nocopy", "z", "Z"];

/// Whether a mount is a tree of the host.
pub fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind") || Parsed::new(mount, "").is_ok_and(|parsed| parsed.bind)
}

/// The field by which a mount is id-mapped, if it is.
pub fn id_mapped_mount(mount: &Mount) -> Option<&'static str> {
    let maps = mount.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
    let option = Parsed::new(mount, "").is_ok_and(|parsed| parsed.idmap);
    if maps { Some("uidMappings") } else { option.then_some("options") }
}

impl Builder<'_> {
    pub(super) fn bind(
        &mut self,
        mount: &Mount,
        parsed: Parsed,
        field: &str,
        place: &str,
        spec: &Spec,
        user: &UserNamespace,
    ) -> Result<()> {
        let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
        let source = source.ok_or_else(|| Error::invalid(format!("{field}.source"), "is missing"))?;
        if let Some((option, ..)) = parsed.data.iter().find(|(_, key, _)| !OF_ENGINES.contains(&key.as_str())) {
            // They would be dropped in silence: a bind shares the superblock of its source.
            return Err(Error::invalid(option, "is no option of a bind"));
        }
        let ids = spec.process().as_ref().map_or((0, 0), |process| (process.user().uid(), process.user().gid()));
        let attr = bind_attr(mount, &parsed, field, user, ids)?;
        let writable = (attr.set | attr.set_all) & attr::RDONLY == 0;
        let (nofollow, proc) = (parsed.source_nofollow, place == "/proc");
        let field_of_source = format!("{field}.source");
        let slot = self.source(Source::Bind { path: source.clone(), field: field_of_source, attr, nofollow, proc });
        self.bound_proc = (proc && writable).then_some(slot).or(self.bound_proc);
        let flags = if parsed.dest_nofollow { DEST_NOFOLLOW } else { 0 } | if proc { DEST_NO_SYMLINKS } else { 0 };
        self.attach(field, slot, place, flags);
        Ok(())
    }
}

fn bind_attr(mount: &Mount, parsed: &Parsed, field: &str, user: &UserNamespace, ids: (u32, u32)) -> Result<BindAttr> {
    let mut attr = BindAttr {
        recursive: parsed.recursive,
        set: parsed.set,
        clear: parsed.clear,
        set_all: parsed.set_all,
        clear_all: parsed.clear_all,
        propagation: if parsed.propagation == 0 { MS_PRIVATE } else { parsed.propagation },
        idmap: explicit_idmap(mount, parsed, field, user)?,
    };
    if *user == UserNamespace::Allocate {
        let forced = attr::NOSUID | attr::NODEV;
        attr.set_all |= attr.set | forced;
        attr.clear &= !forced;
        attr.clear_all &= !forced;
        if attr.idmap == Idmap::None {
            attr.idmap = Idmap::Owner { uid: ids.0, gid: ids.1 };
        }
    }
    Ok(attr)
}

/// The mount's own maps, or with option `idmap` the container's (config.md, "Mounts").
fn explicit_idmap(mount: &Mount, parsed: &Parsed, field: &str, user: &UserNamespace) -> Result<Idmap> {
    let uid = mount.uid_mappings().clone().unwrap_or_default();
    let gid = mount.gid_mappings().clone().unwrap_or_default();
    if uid.is_empty() != gid.is_empty() {
        return Err(Error::invalid(format!("{field}.uidMappings"), "must be given together with gidMappings"));
    }
    if !uid.is_empty() {
        return Ok(Idmap::Explicit(IdMaps { uid, gid }));
    }
    match (parsed.idmap, user) {
        (false, _) => Ok(Idmap::None),
        (true, UserNamespace::Host) => {
            Err(Error::invalid(format!("{field}.options"), "idmap needs maps, or a user namespace"))
        }
        (true, _) => Ok(Idmap::Container),
    }
}

/// Where a bind comes from, relative to the bundle unless absolute (config.md, "Mounts").
pub fn source_path(bundle: &std::path::Path, path: &std::path::Path) -> PathBuf {
    bundle.join(path)
}
