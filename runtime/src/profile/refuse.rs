// SPDX-License-Identifier: Apache-2.0
//! What a profile refuses by name: host namespaces, privileged containers, added devices, and maps of the host's root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, LinuxSchedulerPolicy,
    Mount, Process, Spec,
};

use super::{Profile, mounts};
use crate::error::{Error, Result};
use crate::plan::IdMaps;

/// (major, minor) of what every container has: null, zero, full, random, urandom, tty, console, ptmx; and tun, which containerd
/// lists without a node.
const USUAL: [(i64, i64); 9] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200)];
/// unix98 terminals, all of them
const PTS: i64 = 136;
/// What `docker run` calls the choice of each of the host's namespaces.
const HOSTS: [(LinuxNamespaceType, &str, &str); 4] = [
    (LinuxNamespaceType::Network, "network", "--network host"),
    (LinuxNamespaceType::Pid, "pid", "--pid host"),
    (LinuxNamespaceType::Ipc, "ipc", "--ipc host"),
    (LinuxNamespaceType::Uts, "uts", "--uts host"),
];
/// Files of `unified` that would overrule the limits.
const OVERRULING: [&str; 5] = ["pids.max", "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max"];

/// File systems that show what is the container's own.
const CONTAINED: [&str; 9] = ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"];

/// Root inside must be nobody outside: of a user namespace that is joined, as its maps turn out.
///
/// # Errors
/// If root of the host is in it.
pub fn joined_maps(container: &Spec, maps: &IdMaps) -> Result<()> {
    let host_root = |map: &[LinuxIdMapping]| map.iter().any(|entry| entry.host_id() == 0);
    if super::made_under_one(container) && (host_root(&maps.uid) || host_root(&maps.gid)) {
        let why =
            "the user namespace that is joined maps id 0 of the host into the container: under a profile it is refused";
        return Err(Error::invalid("linux.namespaces", why));
    }
    Ok(())
}

fn refused(field: impl Into<String>, what: &str, profile: Profile) -> Error {
    Error::invalid(field, format!("{what}: profile {profile} refuses it"))
}

/// The whole config, without a look at the host.
pub(super) fn check(spec: &Spec, profile: Profile) -> Result<()> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    // What explains the others comes first: `docker run --ipc host` also binds the host's /dev/shm.
    host_namespaces(linux, profile)?;
    let resources = linux.resources().as_ref();
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    rules.iter().enumerate().try_for_each(|(at, rule)| device_rule(rule, at, profile))?;
    let nodes = linux.devices().iter().flatten().enumerate();
    nodes.into_iter().try_for_each(|(at, node)| device(node, at, profile))?;
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts
        .into_iter()
        .try_for_each(|(at, mount)| host_file_system(mount, at, profile).and(device_bind(mount, at, profile)))?;
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(refused("linux.netDevices", "gives it interfaces of the host", profile));
    }
    root_maps(linux, profile)?;
    spec.process().as_ref().map_or(Ok(()), scheduler)?;
    let overruled = |file: &&String| OVERRULING.contains(&file.as_str());
    match resources.and_then(|resources| resources.unified().as_ref()?.keys().find(overruled)) {
        Some(file) => Err(refused(format!("linux.resources.unified[{file:?}]"), "would overrule the limit", profile)
            .hint("give it as linux.resources.pids, memory or cpu")),
        None => Ok(()),
    }
}

/// `docker run --privileged` is known by the rule that allows all devices.
fn device_rule(rule: &LinuxDeviceCgroup, at: usize, profile: Profile) -> Result<()> {
    let field = format!("linux.resources.devices[{at}]");
    let number = |number: Option<i64>| number.filter(|number| *number != -1);
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    // To make a node takes CAP_MKNOD, which nobody has.
    if !rule.allow() || rule.access().as_deref() == Some("m") {
        return Ok(());
    }
    if matches!(rule.typ(), None | Some(LinuxDeviceType::A)) || major.is_none() {
        return Err(refused(field, "allows all devices, as --privileged does", profile).hint("leave out --privileged"));
    }
    let character = matches!(rule.typ(), Some(LinuxDeviceType::C | LinuxDeviceType::U));
    let usual = major == Some(PTS) || USUAL.iter().any(|(a, b)| (major, minor) == (Some(*a), Some(*b)));
    if character && usual {
        return Ok(());
    }
    let number = format!("{}:{}", major.unwrap_or_default(), minor.map_or("*".to_owned(), |minor| minor.to_string()));
    Err(refused(field, &format!("allows the device {number}"), profile)
        .hint("leave out --device and --device-cgroup-rule"))
}

fn device(node: &LinuxDevice, at: usize, profile: Profile) -> Result<()> {
    let usual = node.typ() != LinuxDeviceType::B && USUAL[..8].contains(&(node.major(), node.minor()));
    if usual {
        return Ok(());
    }
    let path = node.path().display().to_string();
    Err(refused(format!("linux.devices[{at}]"), &format!("adds the device {path}"), profile)
        .hint(format!("leave out --device {path}")))
}

/// Without a user namespace the kernel mounts any: disks, the nodes of all devices, what debugs it.
fn host_file_system(mount: &Mount, at: usize, profile: Profile) -> Result<()> {
    match mount.typ().as_deref().filter(|kind| !mounts::is_bind(mount) && !CONTAINED.contains(kind)) {
        Some(kind) => {
            Err(refused(format!("mounts[{at}].type"), &format!("{kind} is a file system of the host's"), profile)
                .hint("mount it on the host, and bind what is needed of it"))
        }
        None => Ok(()),
    }
}

fn device_bind(mount: &Mount, at: usize, profile: Profile) -> Result<()> {
    let source =
        mount.source().as_ref().map(|source| crate::validate::clean(&source.to_string_lossy())).unwrap_or_default();
    let below = source == "/dev" || source.starts_with("/dev/") && !source.starts_with("/dev/shm/");
    if mounts::is_bind(mount) && below {
        return Err(refused(format!("mounts[{at}].source"), &format!("{source} adds devices"), profile));
    }
    Ok(())
}

fn host_namespaces(linux: &Linux, profile: Profile) -> Result<()> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (kind, name, flag) in HOSTS {
        if !namespaces.iter().any(|namespace| namespace.typ() == kind) {
            return Err(refused("linux.namespaces", &format!("without {name} it is the host's"), profile)
                .hint(format!("add {{\"type\": {name:?}}}; with docker, leave out {flag}")));
        }
    }
    Ok(())
}

/// cpu.max and the v1 quota bind the fair policies alone (sched-bwc.rst).
pub(super) fn scheduler(process: &Process) -> Result<()> {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
    let policy = process.scheduler().as_ref().map(|scheduler| *scheduler.policy());
    match policy.filter(|policy| matches!(policy, SchedFifo | SchedRr | SchedDeadline)) {
        Some(policy) => {
            let why = format!("{policy} is not bound by the limit of CPU: under a profile it is refused");
            Err(Error::invalid("process.scheduler.policy", why))
        }
        None => Ok(()),
    }
}

/// Root inside must be nobody outside.
fn root_maps(linux: &Linux, profile: Profile) -> Result<()> {
    let lists = [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())];
    for (name, maps) in lists {
        if let Some(at) = maps.iter().flatten().position(|map| map.host_id() == 0) {
            return Err(refused(format!("linux.{name}[{at}]"), "maps id 0 of the host into the container", profile));
        }
    }
    Ok(())
}

/// Namespaces that are joined by a path and turn out to be the host's, that is wsbox's own or init's.
pub(super) fn joined_host_namespaces(spec: &Spec, profile: Profile) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (at, namespace) in namespaces.iter().enumerate() {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let Some(path) = path else { continue };
        let own = ["self", "1"].map(|process| inode(Path::new(&format!("/proc/{process}/ns/{}", namespace.typ()))));
        let joined = inode(path);
        // A network namespace is left for a fresh one, also where it can not be told whose it is.
        let unknown = joined.is_none() && namespace.typ() != LinuxNamespaceType::Network;
        if unknown || joined.is_some() && own.contains(&joined) {
            let what =
                format!("{} is the host's {} namespace, or can not be told from it", path.display(), namespace.typ());
            let flag = HOSTS.iter().find(|(kind, ..)| *kind == namespace.typ()).map_or("", |(_, _, flag)| flag);
            return Err(refused(format!("linux.namespaces[{at}].path"), &what, profile)
                .hint(format!("with docker, leave out {flag}")));
        }
    }
    Ok(())
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
