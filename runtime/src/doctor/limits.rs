// SPDX-License-Identifier: Apache-2.0
//! L5 and L6: cgroups of our own with the limits of `wsbox spec`, a child in each, removed again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::probe::Probe;
use super::{Check, host};
use crate::cgroup::{self, Cgroup, Host, Limits};
use crate::error::{Context, Error, Result};
use crate::plan::harden::{CPU_PERIOD, CPU_QUOTA, MEMORY, PIDS};
use crate::state::layers;

pub(super) fn pids() -> Check {
    let limits = with(json!({ "pids": { "limit": PIDS } }));
    Check::of_layer("pids.max in a cgroup of its own", limits.map(|limits| layers::pids(&limits)), |error| {
        fix(error, "pids")
    })
}

/// With swap, which some kernels do not count.
pub(super) fn memory() -> Check {
    let tried =
        with(json!({ "memory": { "limit": MEMORY, "swap": MEMORY } })).and_then(|limits| match limits.memory_max {
            Some(bytes) => Ok(format!("memory {bytes} bytes, without swap")),
            None => Err(Error::invalid("memory", "the limit was set and is not in force")),
        });
    Check::new("memory.max in a cgroup of its own", tried, |error| fix(error, "memory"))
}

pub(super) fn cpu() -> Check {
    let tried =
        with(json!({ "cpu": { "quota": CPU_QUOTA, "period": CPU_PERIOD } })).and_then(|limits| match limits.cpu {
            Some((quota, period)) => Ok(format!("cpu {quota}/{period} us")),
            None => Err(Error::invalid("cpu", "the limit was set and is not in force")),
        });
    Check::new("cpu.max in a cgroup of its own", tried, |error| fix(error, "cpu"))
}

/// A device program that denies all but the usual devices.
pub(super) fn devices() -> Check {
    let tried = with(json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    let told = |_| "a program was attached to a cgroup".to_owned();
    let fix = |_: &Error| {
        "boot a kernel with CONFIG_CGROUP_BPF=y, and run wsbox with CAP_SYS_ADMIN and CAP_BPF; until then linux.resources.devices is refused".to_owned()
    };
    Check::new("device rules (eBPF)", tried.map(told), fix).into_note()
}

/// Makes a cgroup with these limits, puts a child in, and reads what is in force.
fn with(resources: Value) -> Result<Limits> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("wsbox-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let resources: LinuxResources =
        serde_json::from_value(resources).map_err(|error| Error::invalid("resources", error.to_string()))?;
    let path = PathBuf::from("/").join(&name);
    let (host, plan) = (Host::detect()?, cgroup::Plan::new(Some(&path), &name, Some(&resources), None)?);
    let cgroup = Cgroup::create(host, &plan)?;
    let probe = Probe { cgroup: Some(cgroup.clone_fd()), ..Probe::default() };
    let limits = probe.run(|pid, _| cgroup.confine(pid).and_then(|()| cgroup.limits()));
    let removed = cgroup.remove();
    limits.and_then(|limits| removed.map(|()| limits))
}

fn fix(error: &Error, controller: &str) -> String {
    if !host::is_root() {
        return host::as_root("write access to /sys/fs/cgroup");
    }
    let swap = if controller == "memory" && error.to_string().contains("swap") {
        "; for swap boot with swapaccount=1"
    } else {
        ""
    };
    match Host::detect() {
        Ok(Host::V2) => format!(
            "echo +{controller} > /sys/fs/cgroup/cgroup.subtree_control; in a service of systemd: Delegate=yes; and a kernel with the {controller} controller{swap}"
        ),
        _ => format!(
            "mkdir -p /sys/fs/cgroup/{controller} && mount -t cgroup -o {controller} cgroup /sys/fs/cgroup/{controller}{swap}"
        ),
    }
}

/// The layout, and which controllers there are to limit with.
pub(super) fn controllers() -> Check {
    let tried = || {
        let host = Host::detect()?;
        Ok(match host {
            Host::Hybrid => {
                let v1 = host.v1_hierarchies()?.join(" ");
                format!("v1 controllers ({v1}) and a cgroup2 at /sys/fs/cgroup/unified")
            }
            Host::V2 => {
                let file = "/sys/fs/cgroup/cgroup.controllers";
                let controllers = std::fs::read_to_string(file).context(|| file.into())?;
                format!("v2, controllers: {}", controllers.trim())
            }
        })
    };
    Check::new("cgroups", tried(), |_| "mount -t cgroup2 cgroup2 /sys/fs/cgroup".into())
}
