// SPDX-License-Identifier: Apache-2.0
//! The eight layers of a running container as the kernel has them: read from /proc, the cgroup and the container's own
//! network namespace, never from the config.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use super::{Record, Seccomp, process};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Kind, Result};

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// L1 to L8
    pub id: &'static str,
    /// What it is
    pub name: &'static str,
    /// Whether it holds
    #[serde(rename = "inForce")]
    pub in_force: bool,
    /// The values that say so, and where they were read
    pub evidence: String,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Layers {
    /// The container
    pub id: String,
    /// The process that was looked at: its first
    pub pid: i32,
    /// L1 to L8
    pub layers: Vec<Layer>,
}

/// Reads what is in force for the first process of a container.
///
/// # Errors
/// If it does not run.
pub fn observe(record: &Record) -> Result<Layers> {
    let stopped = || Error::new(Kind::State, "", format!("container not running: {}", record.id));
    let known = record.process.as_ref().ok_or_else(stopped)?;
    let alive = process::find(known)?.ok_or_else(stopped)?;
    let proc = Proc { pid: known.pid };
    let status = proc.read("status")?;
    let limits = Cgroup::open(&record.cgroup)?.limits()?;
    let layers = vec![
        network(&proc)?,
        seccomp(&status, record.seccomp),
        root(&proc.read("mountinfo")?),
        capabilities(&status),
        pids(&limits),
        memory_and_cpu(&limits),
        user(&proc, record.ids.as_ref().is_some_and(|ids| ids.shared))?,
        no_new_privs(&status),
    ];
    // What was read is only true if it was still the same process then.
    if process::ended(&alive)? {
        return Err(stopped());
    }
    Ok(Layers { id: record.id.clone(), pid: known.pid, layers })
}

pub(crate) struct Proc {
    pub pid: i32,
}

impl Proc {
    pub fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).context(|| path)
    }

    /// Whether it is in another namespace of this kind than we are.
    fn other_namespace(&self, kind: &str) -> Result<bool> {
        let inode = |path: String| fs::metadata(&path).context(|| path).map(|metadata| metadata.ino());
        Ok(inode(format!("/proc/{}/ns/{kind}", self.pid))? != inode(format!("/proc/self/ns/{kind}"))?)
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
    line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
}

pub(crate) fn network(proc: &Proc) -> Result<Layer> {
    let own = proc.other_namespace("net")?;
    let interfaces = if !own {
        Vec::new()
    } else if crate::rootless::is_user() {
        listed(&proc.read("net/dev")?, &proc.read("net/fib_trie")?)
    } else {
        interfaces(proc.pid)?
    };
    let only_lo = own && interfaces.len() == 1 && interfaces[0] == ("lo".to_owned(), true);
    let list: Vec<String> =
        interfaces.iter().map(|(name, up)| format!("{name} {}", if *up { "up" } else { "down" })).collect();
    let evidence =
        if own { format!("own namespace, interfaces: {}", list.join(", ")) } else { "the host's namespace".into() };
    Ok(Layer { id: "L1", name: "network", in_force: only_lo, evidence })
}

/// The same for who may not join the namespace: the names of /proc/PID/net/dev, two lines below its top (proc_pid_net(5)); lo is up if its
/// address is in the table of routes.
fn listed(devices: &str, routes: &str) -> Vec<(String, bool)> {
    let names = devices.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.map(|name| (name.to_owned(), name == "lo" && routes.contains("-- 127.0.0.1\n"))).collect()
}

/// Interfaces and whether they are up, asked inside of the namespace: a thread of its own joins it.
fn interfaces(pid: i32) -> Result<Vec<(String, bool)>> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context(|| format!("/proc/{pid}/ns/net"))?;
    let look = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context(|| "join the network namespace".into())?;
        crate::sys::net::interfaces().context(|| "list the interfaces".into())
    };
    std::thread::spawn(look)
        .join()
        .map_err(|_| Error::new(Kind::System, "list the interfaces", "the thread panicked"))?
}

/// Seccomp: 2 is SECCOMP_MODE_FILTER (proc_pid_status(5)). What a filter is made of no kernel tells.
pub(crate) fn seccomp(status: &str, made_of: Seccomp) -> Layer {
    let (mode, filters) = (field(status, "Seccomp"), field(status, "Seccomp_filters"));
    let profile = if made_of == Seccomp::Guard { ", no profile: it keeps set-id files off the host only" } else { "" };
    Layer {
        id: "L2",
        name: "seccomp",
        in_force: mode == "2" && made_of != Seccomp::Guard,
        evidence: format!("mode {mode}, {filters} filter(s){profile}"),
    }
}

/// Read-only root; and every tmpfs that can be written has a size, which no ramfs has (proc_pid_mountinfo(5)).
pub(crate) fn root(mountinfo: &str) -> Layer {
    let mounts: Vec<(&str, &str, &str, &str)> = mountinfo.lines().filter_map(parse_mount).collect();
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let root = mounts.iter().any(|(place, options, ..)| *place == "/" && read_only(options));
    let tmpfs = mounts.iter().filter(|(_, options, kind, _)| matches!(*kind, "tmpfs" | "ramfs") && !read_only(options));
    // A size of 0 is none (tmpfs(5)).
    let size = |option: &&str| option.strip_prefix("size=").is_some_and(|size| size.trim_end_matches('k') != "0");
    let sized = |super_options: &str| super_options.split(',').find(size).map(str::to_owned);
    let sizes: Vec<(String, Option<String>)> =
        tmpfs.map(|(place, _, _, options)| ((*place).to_owned(), sized(options))).collect();
    let list: Vec<String> =
        sizes.iter().map(|(place, size)| format!("{place} {}", size.as_deref().unwrap_or("without size"))).collect();
    let in_force = root && sizes.iter().all(|(_, size)| size.is_some());
    let evidence = format!("/ {}, tmpfs: {}", if root { "ro" } else { "rw" }, list.join(", "));
    Layer { id: "L3", name: "read-only root", in_force, evidence }
}

/// Where tmpfs are mounted that can be written; octal escapes are of blanks and such (proc_pid_mountinfo(5)), which wsbox mounts
/// nowhere.
pub(crate) fn writable_tmpfs(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    let writable = |(place, options, kind, _): (&str, &str, &str, &str)| {
        (kind == "tmpfs" && options.split(',').all(|option| option != "ro")).then(|| PathBuf::from(place))
    };
    mountinfo.lines().filter_map(parse_mount).filter_map(writable)
}

/// (place, mount options, type, options of the file system)
fn parse_mount(line: &str) -> Option<(&str, &str, &str, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let (mut mount, mut file_system) = (mount.split(' ').skip(4), file_system.split(' '));
    let (place, options) = (mount.next()?, mount.next()?);
    let (kind, _, super_options) = (file_system.next()?, file_system.next()?, file_system.next()?);
    Some((place, options, kind, super_options))
}

pub(crate) fn capabilities(status: &str) -> Layer {
    const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let values = SETS.map(|set| field(status, set).trim_start_matches('0'));
    let list: Vec<String> = SETS
        .iter()
        .zip(values)
        .map(|(set, value)| format!("{set} {}", if value.is_empty() { "0" } else { value }))
        .collect();
    Layer {
        id: "L4",
        name: "capabilities",
        in_force: values.iter().all(|value| value.is_empty()),
        evidence: list.join(", "),
    }
}

pub(crate) fn pids(limits: &crate::cgroup::Limits) -> Layer {
    let evidence = limits.pids_max.map_or("no limit".to_owned(), |max| format!("pids.max {max}"));
    Layer { id: "L5", name: "pids", in_force: limits.pids_max.is_some(), evidence }
}

pub(crate) fn memory_and_cpu(limits: &crate::cgroup::Limits) -> Layer {
    let memory = limits.memory_max.map_or("memory without limit".to_owned(), |bytes| format!("memory {bytes} bytes"));
    let cpu = limits.cpu.map_or("cpu without limit".to_owned(), |(quota, period)| format!("cpu {quota}/{period} us"));
    let in_force = limits.memory_max.is_some() && limits.cpu.is_some();
    Layer { id: "L6", name: "memory and cpu", in_force, evidence: format!("{memory}, {cpu}") }
}

/// The (inside, outside) ids with which the entries of a uid_map or gid_map begin (user_namespaces(7)).
fn id_map(map: &str) -> Vec<(&str, &str)> {
    map.lines().filter_map(|line| line.split_whitespace().next().zip(line.split_whitespace().nth(1))).collect()
}

/// Root inside is an unprivileged user outside, and nobody inside is the host's root or in its group.
pub(crate) fn user(proc: &Proc, shared: bool) -> Result<Layer> {
    let (uid_map, gid_map) = (proc.read("uid_map")?, proc.read("gid_map")?);
    let (uids, gids) = (id_map(&uid_map), id_map(&gid_map));
    let outside = uids.iter().find(|(inside, _)| *inside == "0").map_or("nobody", |(_, outside)| outside);
    let host_root = uids.iter().chain(&gids).any(|(_, outside)| *outside == "0");
    let in_force = proc.other_namespace("user")? && !host_root;
    let shared = if shared { ", shared with every container of dockremap" } else { "" };
    let maps_root = if host_root { ", host id 0 is mapped" } else { "" };
    let evidence = format!("root is host uid {outside}{maps_root}{shared}");
    Ok(Layer { id: "L7", name: "user namespace", in_force, evidence })
}

pub(crate) fn no_new_privs(status: &str) -> Layer {
    let value = field(status, "NoNewPrivs");
    Layer { id: "L8", name: "no_new_privs", in_force: value == "1", evidence: format!("NoNewPrivs {value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_hold_only_if_the_kernel_says_so() {
        let status = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert!(
            capabilities(status).in_force
                && seccomp(status, Seccomp::Profile).in_force
                && no_new_privs(status).in_force
        );
        let weak = status
            .replace("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400")
            .replace("Seccomp:\t2", "Seccomp:\t0");
        assert!(!capabilities(&weak).in_force && !seccomp(&weak, Seccomp::Profile).in_force);
        assert!(!seccomp(status, Seccomp::Guard).in_force);
        assert!(capabilities(&weak).evidence.contains("CapBnd 400"));
    }

    #[test]
    fn interfaces_are_listed_by_proc() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo:       0       0\n  eth0: 1 2\n";
        let routes = "Main:\n           |-- 127.0.0.1\n              /32 host LOCAL\n";
        assert_eq!(listed(devices, routes), [("lo".to_owned(), true), ("eth0".to_owned(), false)]);
        assert_eq!(listed("a\nb\n lo: 0\n", ""), [("lo".to_owned(), false)]);
    }

    #[test]
    fn a_tmpfs_without_a_size_breaks_the_root_layer() {
        let ro = "1 0 254:0 / / ro,nodev - ext4 /dev/vda rw\n";
        let sized = "2 1 0:5 / /tmp rw - tmpfs tmpfs rw,size=65536k,mode=1777\n";
        assert!(root(&format!("{ro}{sized}")).in_force);
        assert!(!root(&format!("{ro}2 1 0:5 / /tmp rw - tmpfs tmpfs rw\n")).in_force);
        assert!(!root(&format!("{ro}2 1 0:5 / /tmp rw - tmpfs tmpfs rw,size=0k\n")).in_force);
        assert!(!root(&format!("{ro}2 1 0:5 / /tmp rw - ramfs ramfs rw\n")).in_force);
        assert!(!root(&ro.replace("ro,nodev", "rw")).in_force);
    }
}
