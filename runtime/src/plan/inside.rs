// SPDX-License-Identifier: Apache-2.0
//! What is done in the new root once all is mounted.

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::mounts::read_only_root;
use super::namespaces::is_new;
use super::program::{DEST_IN_PROC, ROOT};
use super::step::Kind;
use super::{Builder, Source, Step, UserNamespace};
use crate::error::{Error, Result};
use crate::hooks::Moment;
use crate::state::ids;
use crate::sys::mount::attr;

impl Builder<'_> {
    /// What is done once all is mounted: hooks (they may make what sysctls are of), sysctls, the working directory, read-only root, pivot, masks, terminal.
    pub(super) fn inside(&mut self, spec: &Spec, linux: &Linux, user: &UserNamespace) -> Result<()> {
        if !Moment::Creating.of(spec.hooks().as_ref()).is_empty() {
            self.push("hooks", Step::Ready);
            self.push("hooks", Step::Receive);
        }
        self.create_container_hooks(spec);
        self.kernel_settings(linux, user)?;
        let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
        let path = process.cwd().to_string_lossy().trim_start_matches('/').to_owned();
        if !path.is_empty() {
            let (slot, kind) = (self.scratch.dest, Kind::Dir);
            self.push("process.cwd", Step::Dest { slot, path, kind, flags: DEST_IN_PROC });
        }
        self.program.steps.append(&mut self.late);
        if read_only_root(spec) {
            self.push(
                "root.readonly",
                Step::SetAttr { slot: ROOT, set: attr::RDONLY, propagation: 0, recursive: false },
            );
        }
        self.push("root.path", Step::Pivot);
        for (at, path) in linux.readonly_paths().iter().flatten().enumerate() {
            self.push(format!("linux.readonlyPaths[{at}]"), Step::ReadOnly { path: path.clone() });
        }
        self.masks(linux);
        if process.terminal().unwrap_or_default() {
            if !self.has_devpts {
                return Err(Error::invalid("process.terminal", "needs a devpts on /dev/pts in mounts"));
            }
            self.console(process, self.scratch.devpts, self.has_dev);
        }
        self.propagation(linux);
        Ok(())
    }

    /// The root is private, a copy of its own; so what becomes shared here is so among the container's own namespaces alone.
    fn propagation(&mut self, linux: &Linux) {
        let wanted = linux.rootfs_propagation().as_deref().unwrap_or_default();
        let propagation = match wanted.strip_prefix('r').unwrap_or(wanted) {
            "shared" => libc::MS_SHARED,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return,
        } as u32;
        let step = Step::SetAttr { slot: ROOT, set: 0, propagation, recursive: wanted.starts_with('r') };
        self.push("linux.rootfsPropagation", step);
    }

    fn masks(&mut self, linux: &Linux) {
        let masked = linux.masked_paths().as_deref().unwrap_or_default();
        if masked.is_empty() {
            return;
        }
        let empty = self.source(Source::Empty);
        for (at, path) in masked.iter().enumerate() {
            self.push(format!("linux.maskedPaths[{at}]"), Step::Mask { empty, path: path.clone() });
        }
    }

    /// Written through the descriptor of the proc that we mounted, or bound: no path of the image leads there (CVE-2025-52881).
    fn kernel_settings(&mut self, linux: &Linux, user: &UserNamespace) -> Result<()> {
        let mut settings: Vec<(String, String, String)> = Vec::new();
        for (key, value) in linux.sysctl().iter().flatten() {
            let (field, path) = (format!("linux.sysctl[{key:?}]"), crate::validate::sysctl_path(key));
            if path == DOMAINNAME {
                // The file of the sysctl is the host's root's alone; the call is for who owns the namespace.
                self.push(field, Step::Domainname { name: value.trim_end_matches('\n').to_owned() });
                continue;
            }
            let clamped = if path == "net/ipv4/ping_group_range" { mapped_groups(value, user) } else { None };
            if let Some(range) = &clamped {
                self.warnings
                    .push(format!("{field}: {range:?} in place of {value:?}: the user namespace has no other groups"));
            }
            settings.push((field, format!("sys/{path}"), clamped.unwrap_or_else(|| value.clone())));
        }
        settings.sort();
        if *user == UserNamespace::Allocate {
            settings.push(("linux.namespaces".into(), "sys/user/max_user_namespaces".into(), "0".into()));
        }
        // Who has a user namespace of its own, but not the PID namespace, may mount none: the host's shows the settings of who writes.
        let may_not = *user != UserNamespace::Host && !is_new(linux, LinuxNamespaceType::Pid);
        let bound = self.bound_proc.filter(|_| may_not);
        let proc = bound.unwrap_or(self.scratch.proc);
        if (!settings.is_empty() || is_new(linux, LinuxNamespaceType::Time)) && !self.has_proc && bound.is_none() {
            self.make("", proc, "proc", None, &[], 0);
        }
        for (field, path, value) in settings {
            self.push(field, Step::Write { dir: proc, path, value });
        }
        self.clocks(linux, proc)
    }
}

/// By which Docker sets `--domainname` (setdomainname(2)).
const DOMAINNAME: &str = "kernel/domainname";

/// What of a range of groups is mapped, if not all of it is: Docker asks for every group, and the kernel takes none that the user namespace
/// does not have (icmp(7), ping_group_range).
fn mapped_groups(range: &str, user: &UserNamespace) -> Option<String> {
    let (low, high) = range.split_once(char::is_whitespace)?;
    let (low, high): (u32, u32) = (low.parse().ok()?, high.trim().parse().ok()?);
    let mut maps: Vec<(u32, u32)> = match user {
        UserNamespace::Allocate => vec![(0, ids::SIZE)],
        UserNamespace::Mapped(maps) => maps.gid.iter().map(|entry| (entry.container_id(), entry.size())).collect(),
        UserNamespace::Host | UserNamespace::Joined(_) => return None,
    };
    maps.sort_unstable();
    let end = maps.into_iter().fold(low, |end, (first, size)| {
        if (first..=first.saturating_add(size - 1)).contains(&end) { first.saturating_add(size) } else { end }
    });
    (end > low && end <= high).then(|| format!("{low} {}", end - 1))
}
