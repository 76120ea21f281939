// SPDX-License-Identifier: Apache-2.0
//! What criu can not bring back as the config has it: an error by its field, before anything is done.

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccompAction, Spec};

use crate::bundle::own::LAYERS;
use crate::cgroup::Host;
use crate::error::{Error, Result};
use crate::plan::{UserNamespace, id_mapped_mount, is_new, joined, user_namespace};
use crate::{monitor, notify, plan};

fn refuse(field: impl Into<String>, why: &str, way_out: &str) -> Error {
    Error::invalid(field, format!("{why}: criu could not restore it")).hint(way_out.to_owned())
}

/// Checks a config, at the dump and again at the restore.
///
/// # Errors
/// The first field that stands in the way, and the way out.
pub fn check(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    annotations(spec)?;
    process(spec)?;
    namespaces(linux)?;
    seccomp(linux)?;
    mounts(spec)?;
    if let Some((field, _)) = plan::devices_apart(spec, linux).first() {
        return Err(refuse(field, "a device that is not in the tmpfs of /dev", "give it a place there"));
    }
    host_side(linux)
}

/// On a hybrid host criu would put the container into its own v1 cgroups.
///
/// # Errors
/// If this is one.
pub fn check_host(host: Host) -> Result<()> {
    if host == Host::V2 {
        return Ok(());
    }
    let why = "this host has cgroup v1 hierarchies, and checkpoints need cgroup v2 alone";
    Err(Error::invalid("/sys/fs/cgroup", why).hint("boot with systemd.unified_cgroup_hierarchy=1"))
}

fn annotations(spec: &Spec) -> Result<()> {
    let field = |name: &str| format!("annotations[{name:?}]");
    let has = |name: &str| spec.annotations().as_ref().is_some_and(|all| all.contains_key(name));
    if has(LAYERS) {
        let way_out = "`wsbox bundle create --copy` gives a bundle files of its own";
        return Err(refuse(field(LAYERS), "the root is an overlay of layers", way_out));
    }
    if let Some(name) = plan::first_secret(spec) {
        return Err(refuse(field(name), "a secret would lie in the images", "leave it out"));
    }
    if monitor::wanted(spec, false, None)? != crate::seccomp::Counting::Off {
        return Err(refuse(field(monitor::ANNOTATION), "the filter has a listener of wsbox's", "leave it out"));
    }
    Ok(())
}

fn process(spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else { return Err(Error::invalid("process", "is missing")) };
    if process.terminal().unwrap_or_default() {
        let why = "criu's command line does not hand over the other end of a terminal";
        return Err(Error::invalid("process.terminal", why).hint("set it to false"));
    }
    if process.io_priority().is_some() {
        return Err(refuse("process.ioPriority", "it is in no image", "use linux.resources.blockIO.weight"));
    }
    Ok(())
}

fn namespaces(linux: &Linux) -> Result<()> {
    let kinds = [LinuxNamespaceType::Pid, LinuxNamespaceType::Mount];
    if let Some(kind) = kinds.into_iter().find(|kind| !is_new(linux, *kind)) {
        let way_out = format!("add {{\"type\": \"{}\"}} to linux.namespaces", word(kind));
        return Err(refuse("linux.namespaces", &format!("there is no new {} namespace", word(kind)), &way_out));
    }
    let kinds =
        [LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts, LinuxNamespaceType::Cgroup, LinuxNamespaceType::Time];
    if let Some((at, kind)) = kinds.into_iter().find_map(|kind| Some((joined(linux, kind)?.0, kind))) {
        let why = format!("a namespace is joined ({})", word(kind));
        return Err(refuse(format!("linux.namespaces[{at}].path"), &why, "leave the path out"));
    }
    let why = match user_namespace(linux) {
        UserNamespace::Host => return Ok(()),
        UserNamespace::Allocate => "the root and the binds of a user namespace without maps are id-mapped",
        UserNamespace::Mapped(_) | UserNamespace::Joined(_) => "device nodes are not made inside of a user namespace",
    };
    Err(refuse(
        "linux.namespaces",
        why,
        "for what is to be checkpointed take the user namespace out; all other layers stay",
    ))
}

fn seccomp(linux: &Linux) -> Result<()> {
    let Some(profile) = linux.seccomp() else { return Ok(()) };
    if profile.listener_path().is_some() {
        return Err(refuse("linux.seccomp.listenerPath", "the filter has a listener", "leave it out"));
    }
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(refuse("linux.seccomp.defaultAction", "the filter has a listener", "use SCMP_ACT_ERRNO"));
    }
    let calls = profile.syscalls().iter().flatten();
    match calls.enumerate().find(|(_, call)| call.action() == LinuxSeccompAction::ScmpActNotify) {
        Some((at, _)) => {
            let field = format!("linux.seccomp.syscalls[{at}].action");
            Err(refuse(field, "the filter has a listener", "use SCMP_ACT_ERRNO"))
        }
        None => Ok(()),
    }
}

fn mounts(spec: &Spec) -> Result<()> {
    for (at, mount) in spec.mounts().iter().flatten().enumerate() {
        if let Some(field) = id_mapped_mount(mount) {
            return Err(refuse(format!("mounts[{at}].{field}"), "the mount is id-mapped", "leave it out"));
        }
        if mount.destination() == std::path::Path::new(notify::INSIDE) {
            let why = "the service manager's socket is this container's own";
            return Err(refuse(format!("mounts[{at}]"), why, "create the container without NOTIFY_SOCKET"));
        }
    }
    Ok(())
}

/// What the host's side does for a container that is made: in no image.
fn host_side(linux: &Linux) -> Result<()> {
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(refuse("linux.netDevices", "an interface of the host is lent", "leave it out"));
    }
    if linux.intel_rdt().is_some() {
        return Err(refuse("linux.intelRdt", "it is in no image", "leave it out"));
    }
    if linux.memory_policy().is_some() {
        return Err(refuse("linux.memoryPolicy", "it is in no image", "use linux.resources.cpu.mems"));
    }
    Ok(())
}

fn word(kind: LinuxNamespaceType) -> String {
    format!("{kind:?}").to_lowercase()
}
