// SPDX-License-Identifier: Apache-2.0
//! The eight layers on one page: the config that `wsbox spec` writes and every bundle of wsbox's own begins with.

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::{Value, json};

use super::caps;
use crate::error::{Error, Result};
use crate::seccomp;

/// L5: enough for a build, too few for a fork bomb.
pub(crate) const PIDS: u64 = 256;
/// L6, in bytes: 512 MiB, and no swap on top.
pub(crate) const MEMORY: u64 = 512 << 20;
/// L6, in microseconds: one CPU.
pub(crate) const CPU_QUOTA: u64 = 100_000;
/// See [`CPU_QUOTA`].
pub(crate) const CPU_PERIOD: u64 = 100_000;

/// What of /proc and /sys tells of the host or changes it.
pub(crate) const MASKED: [&str; 15] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// What of /proc may be seen but not written.
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The whole config.
///
/// # Errors
/// If the embedded profile can not be read, which a test rules out.
pub fn config() -> Result<Value> {
    let profile: Value = serde_json::from_str(seccomp::WORKSPACE)
        .map_err(|error| Error::invalid("the workspace profile", error.to_string()))?;
    Ok(json!({
        "ociVersion": "1.2.0",
        "process": process(),
        "root": { "path": "rootfs", "readonly": true },                             // L3
        "hostname": "wsbox",
        "mounts": mounts(),
        "linux": {
            "namespaces": [
                { "type": "network" },                                              // L1
                { "type": "user" },                                                 // L7: without maps, wsbox allocates ids
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }
            ],
            "seccomp": profile,                                                     // L2
            "resources": {
                "pids": { "limit": PIDS },                                          // L5
                "memory": { "limit": MEMORY, "swap": MEMORY },                      // L6
                "cpu": { "quota": CPU_QUOTA, "period": CPU_PERIOD }
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY
        }
    }))
}

/// The layers that a config does not ask for, L1 first.
pub fn lacking(spec: &Spec) -> Vec<&'static str> {
    let (process, linux) = (spec.process().as_ref(), spec.linux().as_ref());
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let own = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none());
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref()?.limit());
    let quota = resources.and_then(|resources| resources.cpu().as_ref()?.quota());
    let asked = [
        ("L1 network", own(LinuxNamespaceType::Network)),
        ("L2 seccomp", linux.is_some_and(|linux| linux.seccomp().is_some())),
        ("L3 read-only root", spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or_default())),
        ("L4 capabilities", caps::sets(capabilities).is_ok_and(|sets| sets == caps::Sets::default())),
        ("L5 pids", resources.is_some_and(|resources| resources.pids().is_some_and(|pids| pids.limit() > 0))),
        ("L6 memory and cpu", memory.is_some_and(|bytes| bytes > 0) && quota.is_some_and(|quota| quota > 0)),
        ("L7 user namespace", own(LinuxNamespaceType::User)),
        ("L8 no_new_privs", process.is_some_and(|process| process.no_new_privileges().unwrap_or_default())),
    ];
    asked.into_iter().filter_map(|(layer, asked)| (!asked).then_some(layer)).collect()
}

fn process() -> Value {
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] }, // L4
        "rlimits": [
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }
        ],
        "noNewPrivileges": true                                                     // L8
    })
}

/// Every place that can be written is a tmpfs with a size.
pub(crate) fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=64m"] },
        { "destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755", "size=16m"] }
    ])
}
