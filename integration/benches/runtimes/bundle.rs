// SPDX-License-Identifier: Apache-2.0
//! The root file system and the configs: `runc spec`'s defaults without a terminal and without limits, the same for all.

use crate::Outcome;
use crate::host::Site;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The host id that root is in the user namespace cases.
const MAPPED_ROOT: u32 = 100_000;
/// Docker 29's default profile as Docker hands it to a runtime.
pub const PROFILE: &str = include_str!("../../data/docker29-seccomp.json");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/floor");
const APPLETS: [&str; 6] = ["sh", "true", "sleep", "cat", "grep", "echo"];

/// What sets a case's containers apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// Nothing added.
    Plain,
    /// Docker's default seccomp profile.
    Seccomp,
    /// The same, and what it denies is counted: only wsbox does that.
    Counted,
    /// A user namespace with explicit mappings.
    Userns,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Seccomp, Self::Counted, Self::Userns];

    /// For ids and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Seccomp => "seccomp",
            Self::Counted => "counted",
            Self::Userns => "userns",
        }
    }
}

/// Makes the two root file systems and the programs of the bench.
pub fn set_up(site: &Site) -> Outcome<()> {
    build(
        site,
        "musl-gcc",
        &["-idirafter", "/usr/include", "-idirafter", &multiarch()],
        &["floor.c", "init.c"],
        "floor",
    )?;
    build(site, "cc", &["-nostdlib", "-fno-stack-protector", "-Wl,--build-id=none"], &["tiny.c"], "tiny")?;
    for (name, owner) in [("rootfs", 0), ("rootfs-userns", MAPPED_ROOT)] {
        root(&site.dir.join(name), &site.dir.join("tiny"), owner)?;
    }
    Ok(fs::create_dir(site.dir.join("bundles"))?)
}

fn multiarch() -> String {
    format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH)
}

fn build(site: &Site, compiler: &str, flags: &[&str], sources: &[&str], output: &str) -> Outcome<()> {
    let status = Command::new(compiler)
        .current_dir(SOURCES)
        .args(["-O2", "-static", "-no-pie", "-fno-pie", "-s", "-o"])
        .arg(site.dir.join(output))
        .args(flags)
        .args(sources)
        .status()
        .map_err(|error| format!("{compiler}: {error} (Debian packages gcc and musl-tools)"))?;
    if status.success() { Ok(()) } else { Err(format!("{compiler} {output}: {status}").into()) }
}

fn root(dir: &Path, tiny: &Path, owner: u32) -> Outcome<()> {
    for name in ["", "bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir(dir.join(name))?;
        chown(dir.join(name), Some(owner), Some(owner))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))
        .map_err(|error| format!("/bin/busybox: {error} (Debian package busybox-static)"))?;
    fs::copy(tiny, dir.join("bin/tiny"))?;
    for name in ["busybox", "tiny"] {
        chown(dir.join("bin").join(name), Some(owner), Some(owner))?;
    }
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    Ok(())
}

/// The root file system of a variant.
pub fn rootfs(site: &Site, variant: Variant) -> PathBuf {
    site.dir.join(if variant == Variant::Userns { "rootfs-userns" } else { "rootfs" })
}

/// Writes the bundle of one container: each has a cgroup of its own, and that stands in the config.
pub fn write(site: &Site, id: &str, variant: Variant, args: &[&str]) -> Outcome<PathBuf> {
    let dir = site.dir.join("bundles").join(id);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("config.json"), config(site, id, variant, args).to_string())?;
    Ok(dir)
}

fn config(site: &Site, id: &str, variant: Variant, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": process(args),
        "root": { "path": rootfs(site, variant), "readonly": true },
        "hostname": "bench",
        "mounts": mounts(),
        "annotations": { "dev.wsbox.violations": (variant == Variant::Counted).to_string() },
        "linux": linux(&format!("{}/{id}", site.cgroup_name), variant),
    })
}

fn process(args: &[&str]) -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": args,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        "noNewPrivileges": true,
    })
}

fn mounts() -> Value {
    let mount = |kind: &str, to: &str, source: &str, options: &str| {
        let options: Vec<_> = options.split(',').filter(|word| !word.is_empty()).collect();
        json!({ "destination": to, "type": kind, "source": source, "options": options })
    };
    json!([
        mount("proc", "/proc", "proc", ""),
        mount("tmpfs", "/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("devpts", "/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("tmpfs", "/dev/shm", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        mount("mqueue", "/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("sysfs", "/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("cgroup", "/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ])
}

fn linux(cgroup: &str, variant: Variant) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind })).to_vec();
    let mut linux = json!({
        "cgroupsPath": cgroup,
        "namespaces": namespaces,
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    match variant {
        Variant::Plain => {}
        Variant::Seccomp | Variant::Counted => linux["seccomp"] = serde_json::from_str(PROFILE).unwrap_or_default(),
        Variant::Userns => map_root(&mut linux),
    }
    linux
}

fn map_root(linux: &mut Value) {
    let map = json!([{ "containerID": 0, "hostID": MAPPED_ROOT, "size": 65_536 }]);
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    linux["namespaces"].as_array_mut().into_iter().for_each(|list| list.push(json!({ "type": "user" })));
}
