// SPDX-License-Identifier: Apache-2.0
//! A config to a stricter one, field by field (design, decision 2). Pure.

use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, Spec,
};

use super::{ANNOTATION, Floor, limits, mounts, refuse};
use crate::error::{Error, Result};
use crate::plan::harden;
use crate::validate::sysctl_path;

/// Interfaces as sysfs shows them: it was mounted in the network namespace that the engine saw, not in the fresh one.
const INTERFACES: [&str; 2] = ["/sys/class/net", "/sys/devices/virtual/net"];

/// The tightened config, and one sentence for each change that a user may wonder about. The filters are joined by
/// `seccomp::compile_strictest`: no list of rules could say it.
///
/// # Errors
/// What the profile refuses, by its field.
pub fn tighten(spec: &Spec, floor: &Floor) -> Result<(Spec, Vec<String>)> {
    refuse::check(spec, floor.profile)?;
    let mut spec = spec.clone();
    let mut warnings = Vec::new();
    mounts::tighten(&mut spec)?;
    let wanted = spec.process().clone().ok_or_else(|| Error::invalid("process", "is missing"))?;
    spec.set_process(Some(process(wanted)));
    let linux = spec.linux_mut().as_mut().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    namespaces(linux, floor.user_namespace);
    sysctls(linux, floor, &mut warnings);
    let mut resources = linux.resources().clone().unwrap_or_default();
    limits::tighten(&mut resources);
    linux.set_resources(Some(resources));
    let masked = union(linux.masked_paths(), harden::MASKED.iter().chain(&INTERFACES));
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(union(linux.readonly_paths(), harden::READ_ONLY.iter())));
    let annotations = spec.annotations_mut().get_or_insert_default();
    annotations.insert(ANNOTATION.to_owned(), floor.profile.name().to_owned());
    Ok((spec, warnings))
}

/// L4 and L8, and no core files: a container's first process, and each that joins it.
pub(super) fn process(mut process: Process) -> Process {
    let none = || Some(Capabilities::default());
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(none())
        .set_effective(none())
        .set_permitted(none())
        .set_inheritable(none())
        .set_ambient(none());
    let limits = process.rlimits().iter().flatten().copied().filter(|limit| limit.typ() != PosixRlimitType::RlimitCore);
    let limits: Vec<PosixRlimit> = limits.chain(no_core()).collect();
    process.set_capabilities(Some(capabilities)).set_no_new_privileges(Some(true)).set_rlimits(Some(limits));
    process
}

fn no_core() -> Option<PosixRlimit> {
    PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitCore).hard(0u64).soft(0u64).build().ok()
}

/// L1: a fresh network namespace in place of any. L7: one with ids that wsbox allocates, unless the config has one.
fn namespaces(linux: &mut Linux, user: bool) {
    let list = linux.namespaces_mut().get_or_insert_default();
    for namespace in list.iter_mut().filter(|namespace| namespace.typ() == LinuxNamespaceType::Network) {
        namespace.set_path(None);
    }
    let wanted = [(LinuxNamespaceType::Cgroup, true), (LinuxNamespaceType::User, user)];
    for (kind, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
        if !list.iter().any(|namespace| namespace.typ() == kind) {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            list.push(namespace);
        }
    }
}

/// The network namespace that the engine set up is not the one that the payload gets, and so are its settings not.
fn sysctls(linux: &mut Linux, floor: &Floor, warnings: &mut Vec<String>) {
    let Some(sysctls) = linux.sysctl_mut() else { return };
    let mut dropped: Vec<String> = sysctls.keys().filter(|key| sysctl_path(key).starts_with("net/")).cloned().collect();
    dropped.sort();
    for key in dropped {
        sysctls.remove(&key);
        let why = format!(
            "profile {} gives the container a fresh network namespace, where it is as the kernel has it",
            floor.profile
        );
        warnings.push(format!("linux.sysctl[{key:?}]: left out: {why}"));
    }
}

fn union<'a>(own: &Option<Vec<String>>, more: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    let mut all = own.clone().unwrap_or_default();
    for path in more {
        if !all.iter().any(|own| own == path) {
            all.push((*path).to_owned());
        }
    }
    all
}
