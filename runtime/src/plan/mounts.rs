// SPDX-License-Identifier: Apache-2.0
//! Mounts: each as a file system to make in the container or a tree for the parent to clone, and where it goes.
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};

use super::binds::{BindAttr, Idmap, MS_PRIVATE};
use super::devices;
use super::options::Parsed;
use super::program::{DEST_IN_PROC, DEST_NO_SYMLINKS};
use super::step::Kind;
use super::{Builder, CopyUp, Dev, Slot, Source, Step, UserNamespace};
use crate::error::{Error, Result};
use crate::plan::namespaces::has;
use crate::sys::mount::attr;
use crate::validate::clean;

/// The top of the root is attached read-write, so that mount points can be made in it, and made read-only afterwards; what
/// the host has mounted below it is as the root is to be. The image's device nodes are of use to an attacker only: /dev is
/// never the image's. Who may make nodes may use them where it makes them, as far as the device rules go.
pub fn root_attr(spec: &Spec, process: &Process, user: &UserNamespace) -> BindAttr {
    let set_all = if makes_nodes(process) { 0 } else { attr::NODEV };
    let mut attr = BindAttr { recursive: true, set_all, propagation: MS_PRIVATE, ..BindAttr::default() };
    if read_only_root(spec) {
        attr.set_all |= attr::RDONLY;
        attr.clear = attr::RDONLY;
    }
    if *user == UserNamespace::Allocate {
        attr.idmap = Idmap::Container;
        // So are its set-id files in a user namespace.
        attr.set_all |= if process.no_new_privileges() == Some(true) { attr::NOSUID } else { 0 };
    }
    attr
}

pub(super) fn read_only_root(spec: &Spec) -> bool {
    spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or_default()
}

/// Whether a container without device rules could open a node that is not in its /dev: in a bind, in a file system of the
/// host's devices, or one that it makes.
pub fn may_open_devices(spec: &Spec, user: &UserNamespace) -> bool {
    const WITHOUT_NODES: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];
    let carries_nodes = |mount: &Mount| match Parsed::new(mount, "") {
        Ok(parsed) if parsed.bind || mount.typ().as_deref() == Some("bind") => !parsed.no_devices(),
        Ok(_) => !mount.typ().as_deref().is_some_and(|kind| WITHOUT_NODES.contains(&kind)),
        Err(_) => true,
    };
    // With ids of its own every bind is nodev, and no node that it makes can be opened (mknod(2)).
    *user != UserNamespace::Allocate
        && (spec.process().as_ref().is_some_and(makes_nodes) || spec.mounts().iter().flatten().any(carries_nodes))
}

fn makes_nodes(process: &Process) -> bool {
    super::caps::sets(process.capabilities().as_ref()).is_ok_and(|sets| sets.any(caps::Capability::CAP_MKNOD))
}

/// Whether the container can write to a folder of the host as its owner (a bind, or the root itself): then the filter denies
/// set-id modes, or a user of the host could execute what it left there.
pub fn makes_set_id_files(spec: &Spec, user: &UserNamespace) -> bool {
    let writable = |mount: &Mount| match Parsed::new(mount, "") {
        Ok(parsed) if parsed.bind || mount.typ().as_deref() == Some("bind") => {
            (parsed.set | parsed.set_all) & attr::RDONLY == 0
        }
        _ => false,
    };
    *user == UserNamespace::Allocate && (!read_only_root(spec) || spec.mounts().iter().flatten().any(writable))
}

/// An upper bound for the number of sources: they take the first slots.
pub fn most_sources(spec: &Spec, linux: &Linux, host: &super::Host) -> usize {
    let count = |list: Option<usize>| list.unwrap_or_default();
    let hooks = spec.hooks().as_ref().map_or(0, |hooks| crate::hooks::all(hooks).len());
    let hierarchies = if shows_cgroup(spec) { host.v1_hierarchies.len() } else { 0 };
    count(spec.mounts().as_ref().map(Vec::len))
        + count(linux.namespaces().as_ref().map(Vec::len))
        + hierarchies
        + hooks
        + usize::from(super::secrets::has(spec))
        + if host.in_user_namespace { super::devices::most_bound(linux) } else { 0 }
        + 6
}

/// Whether the container sees its cgroup.
pub fn shows_cgroup(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("cgroup"))
}

impl Builder<'_> {
    /// All mounts, onto a root that lies on "/" of the new mount namespace.
    pub(super) fn mounts(&mut self, spec: &Spec, linux: &Linux, user: &UserNamespace) -> Result<()> {
        if *user == UserNamespace::Host {
            // With a user namespace the kernel has made every mount a slave already (mount_namespaces(7)).
            self.push("", Step::Propagate { flags: libc::MS_REC | libc::MS_SLAVE });
        }
        self.push("root.path", Step::AttachRoot);
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let covers_dev = mounts.iter().any(|mount| clean(&mount.destination().to_string_lossy()) == "/dev");
        if !covers_dev {
            self.dev(Parsed::default(), "", spec, linux)?;
        }
        for (at, mount) in mounts.iter().enumerate() {
            self.mount(mount, &format!("mounts[{at}]"), spec, linux, user)?;
        }
        self.devices_apart(spec, linux, context(linux).into_iter().collect())
    }

    fn mount(&mut self, mount: &Mount, field: &str, spec: &Spec, linux: &Linux, user: &UserNamespace) -> Result<()> {
        let parsed = Parsed::new(mount, field)?;
        let place = clean(&mount.destination().to_string_lossy());
        let kind = mount.typ().as_deref().unwrap_or_default();
        if parsed.copy_up && (parsed.bind || kind != "tmpfs" || place == "/dev") {
            let why = "tmpcopyup is for a tmpfs that is not /dev";
            return Err(Error::invalid(format!("{field}.options"), why));
        }
        let binds = parsed.bind || kind == "bind";
        if (parsed.source_nofollow || parsed.dest_nofollow) && !binds {
            return Err(Error::invalid(format!("{field}.options"), "src-nofollow and dest-nofollow are for a bind"));
        }
        if binds {
            return self.bind(mount, parsed, field, &place, spec, user);
        }
        let mut parsed = parsed.flat(mount, field)?;
        // What the kernel makes has labels of its own.
        parsed.data.extend(context(linux).filter(|_| !matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2")));
        match kind {
            "" | "none" => Err(Error::invalid(format!("{field}.type"), "is missing, and the options do not say bind")),
            "cgroup" | "cgroup2" => self.cgroup(parsed, field, &place, linux),
            "tmpfs" if parsed.copy_up => {
                self.copied_up(parsed, field, &place, user);
                Ok(())
            }
            "tmpfs" if place == "/dev" => self.dev(parsed, field, spec, linux),
            // Only the owner of a network namespace may mount its sysfs; of the host's, a read-only copy of the mount shows the same.
            "sysfs" if *user != UserNamespace::Host && !has(linux, LinuxNamespaceType::Network) => {
                let attr = BindAttr {
                    recursive: true,
                    set_all: parsed.set | attr::RDONLY,
                    propagation: MS_PRIVATE,
                    ..BindAttr::default()
                };
                let slot = self.source(Source::Bind {
                    path: "/sys".into(),
                    field: field.into(),
                    attr,
                    nofollow: false,
                    proc: false,
                });
                self.attach(field, slot, &place, DEST_NO_SYMLINKS);
                Ok(())
            }
            kind => self.new_file_system(mount, kind, parsed, field, &place),
        }
    }

    fn new_file_system(&mut self, mount: &Mount, kind: &str, parsed: Parsed, field: &str, place: &str) -> Result<()> {
        let read_only_late = kind == "tmpfs" && parsed.set & attr::RDONLY != 0;
        let slot = match kind {
            "proc" => self.scratch.proc,
            "devpts" => self.scratch.devpts,
            _ if read_only_late => self.slot()?,
            _ => self.scratch.mount,
        };
        let source = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
        let set = if read_only_late { parsed.set & !attr::RDONLY } else { parsed.set };
        self.make(field, slot, kind, source, &parsed.data, set);
        // An image with a link in place of /proc or /sys would have it mounted elsewhere (CVE-2019-19921, CVE-2023-27561).
        let flags = if matches!(kind, "proc" | "sysfs") { DEST_NO_SYMLINKS } else { 0 };
        // As runc has it: a tmpfs without a mode of its own has that of what it covers; what we have made in /dev is nothing to go by.
        let modeless =
            kind == "tmpfs" && !place.starts_with("/dev/") && !parsed.data.iter().any(|(_, key, _)| key == "mode");
        let dest = if modeless { Kind::DirModel(slot) } else { Kind::Dir };
        self.attach_as(field, "destination", (slot, dest), place, flags);
        self.spread(field, slot, parsed.propagation, parsed.propagation_all);
        self.has_devpts |= kind == "devpts" && place == "/dev/pts";
        self.has_proc |= kind == "proc" && place == "/proc" && set & attr::RDONLY == 0;
        if read_only_late {
            let step = Step::SetAttr { slot, set: attr::RDONLY, propagation: 0, recursive: false };
            self.late.push(super::Planned { step, field: field.into() });
        }
        Ok(())
    }

    /// fsopen, its options, fsmount: a detached mount in `slot`.
    pub(super) fn make(
        &mut self,
        field: &str,
        slot: Slot,
        kind: &str,
        source: Option<String>,
        data: &[super::Option_],
        set: u64,
    ) {
        self.push(format!("{field}.type"), Step::FsOpen { slot, kind: kind.into() });
        if let Some(source) = source.filter(|source| !source.is_empty()) {
            self.push(format!("{field}.source"), Step::FsConfig { slot, key: "source".into(), value: Some(source) });
        }
        for (field, key, value) in data {
            self.push(field, Step::FsConfig { slot, key: key.clone(), value: value.clone() });
        }
        self.push(field, Step::FsMount { slot, attributes: set });
    }

    /// Made by the parent, which sees the image whole; read-only once all is mounted in it.
    fn copied_up(&mut self, parsed: Parsed, field: &str, place: &str, user: &UserNamespace) {
        let wanted = CopyUp {
            field: field.into(),
            path: place.into(),
            options: parsed.data,
            attributes: parsed.set & !attr::RDONLY,
            id_mapped: *user == UserNamespace::Allocate,
        };
        let slot = self.source(Source::CopyUp(wanted));
        self.attach_dir(field, slot, place, 0);
        self.spread(field, slot, parsed.propagation, parsed.propagation_all);
        if parsed.set & attr::RDONLY != 0 {
            let step = Step::SetAttr { slot, set: attr::RDONLY, propagation: 0, recursive: false };
            self.late.push(super::Planned { step, field: field.into() });
        }
    }

    fn spread(&mut self, field: &str, slot: Slot, propagation: u64, recursive: bool) {
        if propagation != 0 {
            self.push(field, Step::SetAttr { slot, set: 0, propagation: propagation as u32, recursive });
        }
    }

    pub(super) fn attach_dir(&mut self, field: &str, mount: Slot, place: &str, flags: u32) {
        self.attach_as(field, "destination", (mount, Kind::Dir), place, flags);
    }

    /// Attaches a mount of the parent's, to a directory or file as it is one.
    pub(super) fn attach(&mut self, field: &str, mount: Slot, place: &str, flags: u32) {
        self.attach_as(field, "destination", (mount, Kind::Like(mount)), place, flags);
    }

    /// [`Builder::attach`] of a device.
    pub(super) fn attach_node(&mut self, field: &str, node: Slot, place: &str) {
        self.attach_as(field, "path", (node, Kind::Like(node)), place, 0);
    }

    fn attach_as(&mut self, field: &str, place_field: &str, (mount, kind): (Slot, Kind), place: &str, flags: u32) {
        let in_proc = if place.starts_with("/proc/") { DEST_IN_PROC } else { 0 };
        let dest = self.scratch.dest;
        let path = place.trim_start_matches('/').to_owned();
        self.push(format!("{field}.{place_field}"), Step::Dest { slot: dest, path, kind, flags: flags | in_proc });
        self.push(field, Step::Attach { mount, dest });
    }

    /// wsbox always mounts a /dev of its own, unless the config binds one: the image's is never used (CVE-2025-31133 and
    /// CVE-2026-41579 began there).
    fn dev(&mut self, parsed: Parsed, field: &str, spec: &Spec, linux: &Linux) -> Result<()> {
        let own = field.is_empty();
        let defaults = || {
            [("mode", "755"), ("size", "65536k")]
                .map(|(key, value)| (String::new(), key.to_owned(), Some(value.to_owned())))
                .to_vec()
        };
        let mounted = |name: &&str| {
            let place = format!("/dev/{name}");
            spec.mounts().iter().flatten().any(|mount| clean(&mount.destination().to_string_lossy()) == place)
        };
        let dev = Dev {
            directories: ["pts", "shm", "mqueue"].into_iter().filter(mounted).collect(),
            options: if own { defaults() } else { parsed.data },
            attributes: if own { attr::NOSUID | attr::NOEXEC } else { parsed.set & !(attr::NODEV | attr::RDONLY) },
            covered: covered(spec),
            nodes: devices::in_dev(spec, linux),
            console: spec.process().as_ref().and_then(Process::terminal).unwrap_or_default(),
            bound: self.host.in_user_namespace,
        };
        let slot = self.source(Source::Dev(dev));
        self.attach_dir(if own { "/dev" } else { field }, slot, "/dev", DEST_NO_SYMLINKS);
        if self.host.in_user_namespace {
            self.bound_devices(spec, linux)?;
        }
        if parsed.set & attr::RDONLY != 0 {
            let step = Step::SetAttr { slot, set: attr::RDONLY, propagation: 0, recursive: false };
            self.late.push(super::Planned { step, field: field.into() });
        }
        self.has_dev = true;
        Ok(())
    }
}

/// The first component, in /dev, of each mount below it.
fn covered(spec: &Spec) -> Vec<String> {
    let places = spec.mounts().iter().flatten().map(|mount| clean(&mount.destination().to_string_lossy()));
    places.filter_map(|place| Some(place.strip_prefix("/dev/")?.split('/').next()?.to_owned())).collect()
}

/// The SELinux label of what a new file system holds (mount(8), "context").
fn context(linux: &Linux) -> Option<super::Option_> {
    let label = linux.mount_label().as_ref().filter(|label| !label.is_empty())?;
    Some(("linux.mountLabel".into(), "context".into(), Some(label.clone())))
}
