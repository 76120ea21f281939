// SPDX-License-Identifier: Apache-2.0
//! The v1 controllers of a hybrid host, through cgroups-rs. Where nobody looks for the cgroup, only those that carry a limit are
//! touched: to join the first one costs a grace period of the kernel. What was written is read back, and a join is checked in /proc, for on a path that it takes
//! for absolute the crate has been seen to report success without a limit.

use std::path::Path;

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::hierarchies::V1;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Controller, Hierarchy, MaxValue, Subsystem};
use nix::unistd::Pid;

use super::Limits;
use super::plan::Wanted;
use crate::error::{Context, Error, Result};

/// v1's "no limit" for memory is the largest multiple of a page.
const NO_LIMIT: i64 = i64::MAX & !0xfff;

/// The controllers that these limits need, or all that this host has mounted.
pub fn controllers(wanted: &Wanted, everywhere: bool) -> Vec<String> {
    if everywhere {
        let mounted = V1::new().subsystems();
        let mut names: Vec<String> = mounted.iter().map(Subsystem::controller_name).chain(needed(wanted)).collect();
        names.sort_unstable();
        names.dedup();
        return names;
    }
    needed(wanted)
}

fn needed(wanted: &Wanted) -> Vec<String> {
    Wanted::controllers(&wanted.v1_writes()).into_iter().map(str::to_owned).collect()
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
    make(path, needed)?;
    let cgroup = load(path, needed);
    let limited = limit(&cgroup, path, wanted).and_then(|()| super::must_be_in_force(&read(&cgroup), wanted));
    limited.inspect_err(|_| drop(cgroup.delete()))
}

/// Makes the cgroups of the controllers in `needed`, without limits.
pub fn make(path: &str, needed: &[String]) -> Result<()> {
    let cgroup = load(path, needed);
    for controller in needed {
        if !cgroup.subsystems().iter().any(|subsystem| subsystem.controller_name() == *controller) {
            let why = format!("needs the {controller} controller, which this host has not mounted");
            return Err(Error::invalid("linux.resources", why));
        }
    }
    let made = cgroup.create().map_err(|error| refused("linux.cgroupsPath", path, &error));
    made.inspect_err(|_| drop(cgroup.delete()))
}

/// What only v2 has.
pub fn refuse_v2_only(wanted: &Wanted) -> Result<()> {
    if wanted.unified.is_empty() {
        return Ok(());
    }
    Err(Error::invalid("linux.resources.unified", "needs cgroup v2; this host has its controllers on v1"))
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

fn limit(cgroup: &Cgroup, path: &str, wanted: &Wanted) -> Result<()> {
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
    super::update::put(wanted.v1_extra_writes().into_iter().map(|write| (super::v1_dir(path, &write), write)).collect())
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
