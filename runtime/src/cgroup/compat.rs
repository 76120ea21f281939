// SPDX-License-Identifier: Apache-2.0
//! The v1 controllers of a hybrid host, through cgroups-rs. Where nobody looks for the cgroup, only those that carry a limit are
//! touched: to join the first one costs a grace period of the kernel. What was written is read back, and a join is checked in /proc, for on a path that it takes
//! for absolute the crate has been seen to report success without a limit.

use std::path::Path;

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::hierarchies::{Mountinfo, V1, mountinfo_self};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Controller, Hierarchy, MaxValue, Subsystem};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::Limits;
use super::plan::Wanted;
use crate::error::{Context, Error, Result};

/// v1's "no limit" for memory is the largest multiple of a page.
const NO_LIMIT: i64 = i64::MAX & !0xfff;

/// The controllers that these limits need, or all that this host has mounted.
pub fn controllers(wanted: &Wanted, everywhere: bool) -> Vec<String> {
    if everywhere {
        let mut names: Vec<String> = mounted().into_iter().chain(needed(wanted)).collect();
        names.sort_unstable();
        names.dedup();
        return names;
    }
    needed(wanted)
}

/// The controllers that the crate knows and that can be reached: it also finds mounts that others cover, and would make plain
/// folders there.
fn mounted() -> Vec<String> {
    let reached =
        |mount: &Mountinfo| statfs(&mount.mount_point).is_ok_and(|found| found.filesystem_type() == CGROUP_SUPER_MAGIC);
    let mounts: Vec<Mountinfo> = mountinfo_self().into_iter().filter(reached).collect();
    let has = |name: &String| mounts.iter().any(|mount| mount.super_opts.contains(name));
    V1::new().subsystems().iter().map(Subsystem::controller_name).filter(has).collect()
}

fn needed(wanted: &Wanted) -> Vec<String> {
    let needs = [
        ("memory", wanted.memory.is_some() || wanted.swap.is_some() || wanted.reservation.is_some()),
        ("pids", wanted.pids.is_some()),
        ("cpu", wanted.quota.is_some() || wanted.period.is_some() || wanted.shares.is_some()),
        ("cpuset", wanted.cpus.is_some() || wanted.mems.is_some()),
    ];
    needs.iter().filter(|(_, needed)| *needed).map(|(name, _)| (*name).to_owned()).collect()
}

fn load(path: &str, controllers: &[String]) -> Cgroup {
    Cgroup::load_with_specified_controllers(Box::new(V1::new()), Path::new(path), controllers.to_vec())
}

/// Makes the cgroups of the controllers in `needed`, and the limits.
pub fn create(path: &str, needed: &[String], wanted: &Wanted) -> Result<()> {
    refuse_v2_only(wanted)?;
    if needed.is_empty() {
        return Ok(());
    }
    let mounted = mounted();
    if let Some(controller) = needed.iter().find(|controller| !mounted.contains(controller)) {
        let why = format!("needs the {controller} controller, which this host has not mounted");
        return Err(Error::invalid("linux.resources", why));
    }
    let cgroup = load(path, needed);
    let made = cgroup.create().map_err(|error| refused("linux.cgroupsPath", path, &error));
    let limited = made.and_then(|()| limit(&cgroup, wanted)).and_then(|()| check(&cgroup, wanted));
    limited.inspect_err(|_| drop(cgroup.delete()))
}

/// What only v2 has.
fn refuse_v2_only(wanted: &Wanted) -> Result<()> {
    let fields = [
        ("unified", !wanted.unified.is_empty()),
        ("cpu.burst", wanted.burst.is_some()),
        ("cpu.idle", wanted.idle.is_some()),
    ];
    match fields.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Error::invalid(
            format!("linux.resources.{field}"),
            "needs cgroup v2; this host has its controllers on v1",
        )),
        None => Ok(()),
    }
}

fn refused(field: &str, value: impl ToString, error: &cgroups_rs::fs::error::Error) -> Error {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Error::invalid(field, format!("{}: {}", value.to_string(), cause.to_lowercase()))
}

fn controller<'a, T>(cgroup: &'a Cgroup) -> Result<&'a T>
where
    &'a T: From<&'a cgroups_rs::fs::Subsystem>,
    T: Controller + cgroups_rs::fs::ControllIdentifier,
{
    cgroup
        .controller_of()
        .ok_or_else(|| Error::invalid("linux.resources", "needs a controller that this host has not mounted"))
}

fn limit(cgroup: &Cgroup, wanted: &Wanted) -> Result<()> {
    limit_memory(cgroup, wanted)?;
    if let Some(limit) = wanted.pids {
        let max = if limit < 1 { MaxValue::Max } else { MaxValue::Value(limit) };
        let pids: &PidController = controller(cgroup)?;
        pids.set_pid_max(max).map_err(|error| refused("linux.resources.pids.limit", limit, &error))?;
    }
    limit_cpu(cgroup, wanted)?;
    if wanted.cpus.is_some() || wanted.mems.is_some() {
        let cpuset: &CpuSetController = controller(cgroup)?;
        for (field, value, set) in [
            ("cpus", &wanted.cpus, CpuSetController::set_cpus as fn(&CpuSetController, &str) -> _),
            ("mems", &wanted.mems, CpuSetController::set_mems),
        ] {
            if let Some(value) = value {
                set(cpuset, value).map_err(|error| refused(&format!("linux.resources.cpu.{field}"), value, &error))?;
            }
        }
    }
    Ok(())
}

fn limit_memory(cgroup: &Cgroup, wanted: &Wanted) -> Result<()> {
    if wanted.memory.is_none() && wanted.swap.is_none() && wanted.reservation.is_none() {
        return Ok(());
    }
    let memory: &MemController = controller(cgroup)?;
    if let Some(limit) = wanted.memory {
        memory.set_limit(limit).map_err(|error| refused("linux.resources.memory.limit", limit, &error))?;
    }
    if let Some(swap) = wanted.swap {
        memory.set_memswap_limit(swap).map_err(|error| refused("linux.resources.memory.swap", swap, &error))?;
    }
    if let Some(low) = wanted.reservation {
        memory.set_soft_limit(low).map_err(|error| refused("linux.resources.memory.reservation", low, &error))?;
    }
    Ok(())
}

fn limit_cpu(cgroup: &Cgroup, wanted: &Wanted) -> Result<()> {
    if wanted.quota.is_none() && wanted.period.is_none() && wanted.shares.is_none() {
        return Ok(());
    }
    let cpu: &CpuController = controller(cgroup)?;
    if let Some(period) = wanted.period {
        cpu.set_cfs_period(period).map_err(|error| refused("linux.resources.cpu.period", period, &error))?;
    }
    if let Some(quota) = wanted.quota {
        cpu.set_cfs_quota(quota).map_err(|error| refused("linux.resources.cpu.quota", quota, &error))?;
    }
    if let Some(shares) = wanted.shares {
        cpu.set_shares(shares).map_err(|error| refused("linux.resources.cpu.shares", shares, &error))?;
    }
    Ok(())
}

/// Reads the limits back: one that is not in force is an error.
fn check(cgroup: &Cgroup, wanted: &Wanted) -> Result<()> {
    let found = read(cgroup);
    let finite = |limit: Option<i64>| limit.filter(|limit| *limit > 0).map(|limit| limit as u64);
    let page = |bytes: u64| bytes & !0xfff;
    if let Some(limit) = finite(wanted.memory)
        && found.memory_max != Some(page(limit))
    {
        return Err(Error::invalid(
            "linux.resources.memory.limit",
            format!("is {limit}, the kernel has {:?}", found.memory_max),
        ));
    }
    if let Some(limit) = finite(wanted.pids)
        && found.pids_max != Some(limit)
    {
        return Err(Error::invalid(
            "linux.resources.pids.limit",
            format!("is {limit}, the kernel has {:?}", found.pids_max),
        ));
    }
    if let Some(quota) = finite(wanted.quota)
        && found.cpu.map(|(quota, _)| quota) != Some(quota)
    {
        return Err(Error::invalid("linux.resources.cpu.quota", format!("is {quota}, the kernel has {:?}", found.cpu)));
    }
    Ok(())
}

/// Moves a process in, and looks whether it is there.
pub fn join(path: &str, controllers: &[String], pid: Pid) -> Result<()> {
    let id = CgroupPid::from(pid.as_raw() as u64);
    let cgroup = load(path, controllers);
    cgroup.add_task_by_tgid(id).map_err(|error| refused("linux.cgroupsPath", path, &error))?;
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).context(|| file)?;
    for controller in controllers {
        let inside = text.lines().any(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next().is_some_and(|list| list.split(',').any(|name| name == controller))
                && fields.next().is_some_and(|place| place.trim_start_matches('/') == path)
        });
        if !inside {
            return Err(Error::invalid(
                "linux.cgroupsPath",
                format!("the {controller} controller did not take the container into {path}"),
            ));
        }
    }
    Ok(())
}

/// Removes the cgroups; their processes have ended.
pub fn remove(path: &str, controllers: &[String]) -> Result<()> {
    let cgroup = load(path, controllers);
    if !cgroup.exists() {
        return Ok(());
    }
    cgroup.delete().map_err(|error| refused("remove the cgroup", path, &error))
}

/// What the kernel has in force.
pub fn limits(path: &str, controllers: &[String]) -> Result<Limits> {
    Ok(read(&load(path, controllers)))
}

fn read(cgroup: &Cgroup) -> Limits {
    let pids: Option<&PidController> = cgroup.controller_of();
    let memory: Option<&MemController> = cgroup.controller_of();
    let cpu: Option<&CpuController> = cgroup.controller_of();
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Limits {
        pids_max: pids.and_then(|pids| pids.get_pid_max().ok()).and_then(|max| match max {
            MaxValue::Max => None,
            MaxValue::Value(value) => positive(value),
        }),
        memory_max: memory
            .and_then(|memory| positive(memory.memory_stat().limit_in_bytes))
            .filter(|limit| *limit < NO_LIMIT as u64),
        cpu: cpu.and_then(|cpu| Some((positive(cpu.cfs_quota().ok()?)?, cpu.cfs_period().ok()?))),
    }
}
