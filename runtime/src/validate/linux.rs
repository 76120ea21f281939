// SPDX-License-Identifier: Apache-2.0
//! linux.*: namespaces, id maps, sysctls, devices, paths.

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, LinuxSeccompAction, Spec,
};

use super::no_nul;
use crate::error::{Error, Result};
use crate::plan::{has, is_new};

/// Checks linux.* and the fields that need one of its namespaces.
pub fn check(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    namespaces(linux)?;
    joined_by_others(spec, linux)?;
    mappings(linux)?;
    hostnames(spec, linux)?;
    sysctls(linux)?;
    linux
        .devices()
        .iter()
        .flatten()
        .enumerate()
        .try_for_each(|(at, node)| device(node, &format!("linux.devices[{at}]")))?;
    agent(linux)?;
    paths(linux.masked_paths(), "linux.maskedPaths")?;
    paths(linux.readonly_paths(), "linux.readonlyPaths")?;
    propagation(linux)
}

fn namespaces(linux: &Linux) -> Result<()> {
    let mut seen = Vec::new();
    for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{at}]");
        if seen.contains(&namespace.typ()) {
            return Err(Error::invalid(field, format!("asks for the {} namespace a second time", namespace.typ())));
        }
        let joined = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if joined.is_some() && namespace.typ() == LinuxNamespaceType::Mount {
            let why = "a mount namespace can not be joined: the root is changed in it";
            return Err(Error::invalid(format!("{field}.path"), why));
        }
        seen.push(namespace.typ());
    }
    if !seen.contains(&LinuxNamespaceType::Mount) {
        return Err(Error::invalid("linux.namespaces", "must have a mount namespace: the root is changed in it"));
    }
    Ok(())
}

/// The file systems that show a namespace: who does not own it may not mount them.
const SHOWN: [(LinuxNamespaceType, &str); 3] =
    [(LinuxNamespaceType::Pid, "proc"), (LinuxNamespaceType::Ipc, "mqueue"), (LinuxNamespaceType::Network, "sysfs")];

/// In a new user namespace nothing that is joined is one's own (namespaces(7)).
fn joined_by_others(spec: &Spec, linux: &Linux) -> Result<()> {
    if !is_new(linux, LinuxNamespaceType::User) {
        return Ok(());
    }
    for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let joined = namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        let shown = SHOWN.iter().find(|(kind, _)| joined && *kind == namespace.typ()).map(|(_, name)| *name);
        if shown.is_some() && spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == shown) {
            let kind = namespace.typ();
            let why = format!(
                "belongs to another user namespace, whose {} can not be mounted in a new one",
                shown.unwrap_or_default()
            );
            return Err(Error::invalid(format!("linux.namespaces[{at}].path"), why)
                .hint(format!("join its user namespace too; with docker, leave out --{kind} container:NAME")));
        }
    }
    Ok(())
}

fn mappings(linux: &Linux) -> Result<()> {
    let uid = linux.uid_mappings().as_deref().unwrap_or_default();
    let gid = linux.gid_mappings().as_deref().unwrap_or_default();
    let given = !uid.is_empty() || !gid.is_empty();
    if given && !has(linux, LinuxNamespaceType::User) {
        return Err(Error::invalid("linux.uidMappings", "needs a user namespace in linux.namespaces"));
    }
    if uid.is_empty() != gid.is_empty() {
        return Err(Error::invalid("linux.gidMappings", "must be given together with linux.uidMappings"));
    }
    for (map, field) in [(uid, "linux.uidMappings"), (gid, "linux.gidMappings")] {
        id_map(map, field)?;
        if !map.is_empty() && map.iter().all(|entry| entry.container_id() != 0) {
            return Err(Error::invalid(field, "has no container id 0, which sets the container up and owns its /dev"));
        }
    }
    Ok(())
}

/// user_namespaces(7): no range may be empty, overflow, or overlap another on either side; at most 340 lines.
pub fn id_map(map: &[LinuxIdMapping], field: &str) -> Result<()> {
    if map.len() > 340 {
        return Err(Error::invalid(field, format!("has {} entries, the kernel takes 340", map.len())));
    }
    for (at, entry) in map.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let ends = [entry.container_id(), entry.host_id()].map(|start| start.checked_add(entry.size()));
        if entry.size() == 0 || ends.contains(&None) {
            return Err(Error::invalid(
                format!("{field}.size"),
                format!("{} is no size for a range of ids", entry.size()),
            ));
        }
        if let Some(other) = map[..at].iter().position(|other| overlaps(entry, other)) {
            return Err(Error::invalid(field, format!("overlaps entry {other}")));
        }
    }
    Ok(())
}

fn overlaps(a: &LinuxIdMapping, b: &LinuxIdMapping) -> bool {
    let meet = |x: u32, y: u32| x < y + b.size() && y < x + a.size();
    meet(a.container_id(), b.container_id()) || meet(a.host_id(), b.host_id())
}

fn hostnames(spec: &Spec, linux: &Linux) -> Result<()> {
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        no_nul(field, name)?;
        if !is_new(linux, LinuxNamespaceType::Uts) {
            let why = "needs a new uts namespace in linux.namespaces: it would rename the host, or another container";
            return Err(Error::invalid(field, why));
        }
        if name.len() > 64 {
            return Err(Error::invalid(field, "is longer than 64 bytes"));
        }
    }
    Ok(())
}

/// Only sysctls that a namespace of the container's own holds; any other is the host's (runtime-spec, config-linux.md).
fn sysctls(linux: &Linux) -> Result<()> {
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl[{key:?}]");
        no_nul(&field, value)?;
        let path = sysctl_path(key);
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || path.contains('\0') {
            return Err(Error::invalid(field, "is no name of a sysctl"));
        }
        let needs =
            owner(&path).ok_or_else(|| Error::invalid(&field, "belongs to no namespace: it would change the host"))?;
        // That a joined one is not the host's is seen when it is opened (launch/sources.rs).
        let joined = needs == LinuxNamespaceType::Network && has(linux, needs);
        if !is_new(linux, needs) && !joined {
            return Err(Error::invalid(field, format!("needs a {needs} namespace of the container's own")));
        }
        if needs == LinuxNamespaceType::Uts && value.trim_end_matches('\n').len() > 64 {
            return Err(Error::invalid(field, "is longer than 64 bytes"));
        }
    }
    Ok(())
}

/// The path below /proc/sys. As sysctl(8) reads names: if a dot comes first, dots separate and slashes stand for dots.
pub fn sysctl_path(key: &str) -> String {
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    if key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('.')) {
        key.chars().map(swap).collect()
    } else {
        key.into()
    }
}

fn owner(path: &str) -> Option<LinuxNamespaceType> {
    const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    if path.strip_prefix("kernel/").is_some_and(|name| IPC.contains(&name)) || path.starts_with("fs/mqueue/") {
        return Some(LinuxNamespaceType::Ipc);
    }
    if path.starts_with("net/") {
        return Some(LinuxNamespaceType::Network);
    }
    (path == "kernel/domainname").then_some(LinuxNamespaceType::Uts)
}

fn device(node: &LinuxDevice, field: &str) -> Result<()> {
    let path = node.path().to_str().ok_or_else(|| Error::invalid(format!("{field}.path"), "is no UTF-8"))?;
    no_nul(field, path)?;
    let place = super::clean(path);
    if matches!(place.as_str(), "/" | "/dev") {
        return Err(Error::invalid(format!("{field}.path"), format!("{path:?} is a directory")));
    }
    // As of a mount there (CVE-2019-16884).
    if place.starts_with("/proc/") {
        return Err(Error::invalid(format!("{field}.path"), format!("{path}: nothing may be put into /proc")));
    }
    if node.typ() == LinuxDeviceType::A {
        return Err(Error::invalid(format!("{field}.type"), "\"a\" is no type of a device node"));
    }
    // mknod(2) would take a larger one for another device (include/linux/kdev_t.h, new_decode_dev).
    let known = (0..=0xfff).contains(&node.major()) && (0..=0xf_ffff).contains(&node.minor());
    if node.typ() != LinuxDeviceType::P && !known {
        return Err(Error::invalid(field, format!("{}:{} is no device number", node.major(), node.minor())));
    }
    Ok(())
}

/// Somebody has to answer.
fn agent(linux: &Linux) -> Result<()> {
    let Some(seccomp) = linux.seccomp() else { return Ok(()) };
    let actions = seccomp.syscalls().iter().flatten().map(|rule| rule.action());
    let notifies = actions.chain([seccomp.default_action()]).any(|action| action == LinuxSeccompAction::ScmpActNotify);
    match seccomp.listener_path() {
        None if notifies => {
            Err(Error::invalid("linux.seccomp.listenerPath", "is missing: SCMP_ACT_NOTIFY needs an agent that answers"))
        }
        Some(path) if !path.is_absolute() => {
            Err(Error::invalid("linux.seccomp.listenerPath", format!("{} is no absolute path", path.display())))
        }
        _ => Ok(()),
    }
}

fn paths(list: &Option<Vec<String>>, field: &str) -> Result<()> {
    for (at, path) in list.iter().flatten().enumerate() {
        no_nul(&format!("{field}[{at}]"), path)?;
        if !path.starts_with('/') {
            return Err(Error::invalid(format!("{field}[{at}]"), format!("{path:?} is no absolute path")));
        }
    }
    Ok(())
}

fn propagation(linux: &Linux) -> Result<()> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate" | "slave" | "rslave") => Ok(()),
        Some("shared" | "rshared" | "unbindable" | "runbindable") => Ok(()),
        Some(other) => Err(Error::invalid("linux.rootfsPropagation", format!("{other:?} is no propagation"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(u32, u32, u32)]) -> Result<()> {
        let entry = |&(inside, outside, size): &(u32, u32, u32)| {
            serde_json::from_value(serde_json::json!({"containerID": inside, "hostID": outside, "size": size})).unwrap()
        };
        id_map(&entries.iter().map(entry).collect::<Vec<_>>(), "m")
    }

    #[test]
    fn id_maps_do_not_overlap() {
        assert!(map(&[(0, 1000, 10), (10, 2000, 5)]).is_ok());
        for (bad, word) in [
            (&[(0, 1000, 10), (9, 2000, 1)][..], "m[1]: overlaps entry 0"),
            (&[(0, 1000, 10), (10, 1009, 1)], "m[1]: overlaps entry 0"),
            (&[(0, 1000, 0)], "m[0].size"),
            (&[(0, u32::MAX, 2)], "m[0].size"),
        ] {
            assert!(map(bad).unwrap_err().to_string().starts_with(word), "{bad:?}");
        }
    }

    #[test]
    fn sysctl_names_are_read_as_sysctl_reads_them() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(owner("net/ipv4/ip_forward"), Some(LinuxNamespaceType::Network));
        assert_eq!(owner("kernel/core_pattern"), None);
    }
}
