// SPDX-License-Identifier: Apache-2.0
//! Namespaces: which are new, which are joined, and what is done first in them.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::{Builder, IdMaps, Options, Slot, Source, Step};
use crate::error::{Error, Result};

/// linux/prctl.h
const PR_SET_DUMPABLE: u32 = 4;

/// Whose ids the container has.
#[derive(Clone, Debug, PartialEq)]
pub enum UserNamespace {
    /// The host's: no user namespace
    Host,
    /// A range of its own that wsbox allocates; root and binds are id-mapped, so no file is ever chowned
    Allocate,
    /// As the config's maps say; files are taken as they are
    Mapped(IdMaps),
    /// Those of a user namespace that exists; maps are what the config says of it, if anything
    Joined(IdMaps),
}

/// A namespace that is joined before the new ones are made: they belong to the user namespace, and the init is born into a PID
/// namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Early {
    /// The field of the path
    pub field: String,
    /// A file of nsfs
    pub path: PathBuf,
    /// Its CLONE_NEW* flag
    pub kind: i32,
    /// It must not be wsbox' own
    pub not_ours: bool,
}

/// A user namespace without maps is an order to allocate them: runc and crun refuse such a config, so nobody means less.
pub fn user(linux: &Linux) -> UserNamespace {
    let maps = IdMaps {
        uid: linux.uid_mappings().clone().unwrap_or_default(),
        gid: linux.gid_mappings().clone().unwrap_or_default(),
    };
    match find(linux, LinuxNamespaceType::User) {
        None => UserNamespace::Host,
        Some((_, Some(_))) => UserNamespace::Joined(maps),
        Some(_) if maps.uid.is_empty() => UserNamespace::Allocate,
        Some(_) => UserNamespace::Mapped(maps),
    }
}

fn no_clocks(why: &str) -> Error {
    Error::invalid("linux.timeOffsets", why)
}

/// The entry for `kind`: its index and its path, if it is to be joined.
fn find(linux: &Linux, kind: LinuxNamespaceType) -> Option<(usize, Option<&std::path::Path>)> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let at = namespaces.iter().position(|namespace| namespace.typ() == kind)?;
    Some((at, namespaces[at].path().as_deref().filter(|path| !path.as_os_str().is_empty())))
}

/// Whether the config asks for a namespace of `kind`, new or joined.
pub fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    find(linux, kind).is_some()
}

/// Whether the container gets a new namespace of `kind`.
pub fn is_new(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    matches!(find(linux, kind), Some((_, None)))
}

/// The index and the path of a namespace of `kind` that is to be joined.
pub fn joined(linux: &Linux, kind: LinuxNamespaceType) -> Option<(usize, &std::path::Path)> {
    let (at, path) = find(linux, kind)?;
    path.map(|path| (at, path))
}

/// What is joined before the new namespaces are made. The user namespace comes last: once in it there may be no right to the others.
/// In a new one there is none to what was there before, so that all is joined by then.
pub fn early(linux: &Linux) -> Vec<Early> {
    let one = |(kind, flag): (LinuxNamespaceType, i32)| {
        let (at, path) = find(linux, kind).filter(|_| is_early(linux, kind))?;
        let not_ours = kind == LinuxNamespaceType::Network && changes_net(linux);
        Some(Early { field: format!("linux.namespaces[{at}].path"), path: path?.into(), kind: flag, not_ours })
    };
    // The user namespace is the first there.
    KINDS.into_iter().rev().filter_map(one).collect()
}

fn is_early(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    match kind {
        LinuxNamespaceType::User | LinuxNamespaceType::Pid => true,
        // Nobody is born into a cgroup that is not below the root of the cgroup namespace (nsdelegate of cgroups(7)).
        LinuxNamespaceType::Cgroup => false,
        _ => is_new(linux, LinuxNamespaceType::User),
    }
}

fn changes_net(linux: &Linux) -> bool {
    linux.sysctl().iter().flatten().any(|(key, _)| crate::validate::sysctl_path(key).starts_with("net/"))
}

/// linux/sched.h; libc has it for some targets only.
const CLONE_NEWTIME: i32 = 0x80;

const KINDS: [(LinuxNamespaceType, i32); 8] = [
    (LinuxNamespaceType::User, libc::CLONE_NEWUSER),
    (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
    (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
    (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
    (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
    (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP),
    (LinuxNamespaceType::Time, CLONE_NEWTIME),
];

impl Builder<'_> {
    /// The flags for clone3(2), and the first steps.
    pub(super) fn namespaces(
        &mut self,
        spec: &Spec,
        linux: &Linux,
        user: &super::UserNamespace,
        options: &Options,
    ) -> Result<u64> {
        let interfaces_go_in = linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty());
        let (mut flags, mut joined) = (0, Vec::new());
        for (kind, flag) in KINDS {
            match find(linux, kind) {
                // The root of a cgroup namespace is the cgroup of whoever makes it: the init, once it is in its own. And a
                // network namespace takes as long as all the others: the init makes it while the parent goes on, unless the parent has
                // interfaces for it.
                Some((_, None)) if kind == LinuxNamespaceType::Network => {
                    if interfaces_go_in {
                        flags |= flag as u64;
                    } else {
                        self.push("linux.namespaces", Step::Unshare { flags: flag as u32 });
                    }
                    self.push("linux.namespaces", Step::LoUp);
                }
                // Entered once its clocks are set (time_namespaces(7)).
                Some((_, None)) if kind == LinuxNamespaceType::Time => {}
                Some((_, None)) if kind != LinuxNamespaceType::Cgroup => flags |= flag as u64,
                Some((_, Some(_))) if is_early(linux, kind) => {}
                Some((at, Some(path))) => joined.push((format!("linux.namespaces[{at}].path"), path, flag as u32)),
                _ => {}
            }
        }
        self.push("", Step::Receive);
        if self.host.in_user_namespace && matches!(user, super::UserNamespace::Mapped(_)) {
            // It was left until now, for the parent to write the maps; others may be in a namespace that is joined.
            self.push("", Step::Prctl { option: PR_SET_DUMPABLE, value: 0 });
        }
        for (field, path, flags) in joined {
            let not_ours = flags == libc::CLONE_NEWNET as u32 && changes_net(linux);
            let slot = self.source(Source::Namespace { path: path.into(), field: field.clone(), not_ours });
            self.push(field, Step::SetNs { slot, flags });
        }
        if *user != UserNamespace::Host {
            self.push("linux.uidMappings", Step::BecomeRoot);
        }
        if is_new(linux, LinuxNamespaceType::Cgroup) {
            self.push("linux.namespaces", Step::Unshare { flags: libc::CLONE_NEWCGROUP as u32 });
        }
        if !options.no_new_keyring {
            self.push("", Step::Keyring);
        }
        self.push("", Step::Setsid);
        self.names(spec);
        Ok(flags)
    }

    /// The clocks of a new time namespace; `proc` shows us as process 1 then.
    pub(super) fn clocks(&mut self, linux: &Linux, proc: Slot) -> Result<()> {
        let offsets: Vec<_> = linux.time_offsets().iter().flatten().collect();
        let Some((at, None)) = find(linux, LinuxNamespaceType::Time) else {
            return if offsets.is_empty() {
                Ok(())
            } else {
                Err(no_clocks("needs a new time namespace in linux.namespaces"))
            };
        };
        self.push(format!("linux.namespaces[{at}]"), Step::Unshare { flags: CLONE_NEWTIME as u32 });
        if offsets.is_empty() {
            self.push(format!("linux.namespaces[{at}]"), Step::EnterTime { proc });
            return Ok(());
        }
        if !is_new(linux, LinuxNamespaceType::Pid) {
            return Err(no_clocks("needs a new pid namespace in linux.namespaces"));
        }
        let mut lines: Vec<String> = Vec::new();
        for (clock, offset) in offsets {
            if clock != "monotonic" && clock != "boottime" {
                return Err(Error::invalid(
                    format!("linux.timeOffsets[{clock:?}]"),
                    "is neither monotonic nor boottime",
                ));
            }
            lines.push(format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
        }
        lines.sort();
        let path = "1/timens_offsets".to_owned();
        self.push("linux.timeOffsets", Step::Write { dir: proc, path, value: lines.concat() });
        self.push(format!("linux.namespaces[{at}]"), Step::EnterTime { proc });
        Ok(())
    }

    fn names(&mut self, spec: &Spec) {
        if let Some(name) = spec.hostname().clone().filter(|name| !name.is_empty()) {
            self.push("hostname", Step::Hostname { name });
        }
        if let Some(name) = spec.domainname().clone().filter(|name| !name.is_empty()) {
            self.push("domainname", Step::Domainname { name });
        }
    }

    /// Joins every namespace of the container of slot 0 at once, by its pidfd (setns(2)). The container must not see us
    /// before `Fork`: the PID namespace applies to children only.
    pub(super) fn join(&mut self, linux: &Linux) {
        let namespaces = linux.namespaces().iter().flatten();
        let flag = |kind| KINDS.iter().find(|(known, _)| *known == kind).map_or(0, |(_, flag)| *flag as u32);
        let flags = namespaces.fold(0, |flags, namespace| flags | flag(namespace.typ()));
        self.push("", Step::Receive);
        self.push("", Step::SetNs { slot: 0, flags });
        if find(linux, LinuxNamespaceType::User).is_some() {
            self.push("", Step::BecomeRoot);
        }
        // A new one: never the caller's, and none that somebody else could have made under a name that we know.
        self.push("", Step::Keyring);
    }
}
