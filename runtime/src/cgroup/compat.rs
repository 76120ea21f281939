// SPDX-License-Identifier: Apache-2.0
//! The v1 controllers of a hybrid host, through cgroups-rs. Where nobody looks for the cgroup, only those that carry a limit are
//! touched: to join the first one costs a grace period of the kernel. What was written is read back, and a join is checked in /proc, for on a path that it takes
//! for absolute the crate has been seen to report success without a limit.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::hierarchies::{Mountinfo, V1, mountinfo_self};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Hierarchy, MaxValue, Subsystem};
use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::wanted::Wanted;
use super::writes::{self, Write};
use super::{Limits, NO_MEMORY_LIMIT};
use crate::error::{Context, Error, Result};

/// The controllers that these limits need, or all that this host has mounted.
pub fn controllers(writes: &[Write], everywhere: bool) -> Vec<String> {
    let needed = writes::controllers(writes).into_iter().map(str::to_owned);
    if !everywhere {
        return needed.collect();
    }
    let mut names: Vec<String> = mounted().into_iter().chain(needed).collect();
    names.sort_unstable();
    names.dedup();
    names
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

fn load(path: &str, controllers: &[String]) -> Cgroup {
    Cgroup::load_with_specified_controllers(Box::new(V1::new()), Path::new(path), controllers.to_vec())
}

/// Makes the cgroups of the controllers in `needed`, and the limits.
pub fn create(path: &str, needed: &[String], plan: &[Write], wanted: &Wanted) -> Result<()> {
    if needed.is_empty() {
        return Ok(());
    }
    make(path, needed, plan)?;
    let cgroup = load(path, needed);
    write_all(&cgroup, plan)
        .and_then(|()| super::must_be_in_force(&read(&cgroup), wanted))
        .inspect_err(|_| drop(cgroup.delete()))
}

/// Makes the cgroups of the controllers in `needed`, which the limits of `plan` need, without those.
pub fn make(path: &str, needed: &[String], plan: &[Write]) -> Result<()> {
    let mounted = mounted();
    if let Some(controller) = needed.iter().find(|controller| !mounted.contains(controller)) {
        let field = plan.iter().find(|write| write.controller() == controller).map(|write| write.field.as_str());
        let why = format!("needs the {controller} controller, which this host has not mounted");
        return Err(Error::invalid(field.unwrap_or("linux.resources"), why));
    }
    let cgroup = load(path, needed);
    let made = cgroup.create().map_err(|error| match plan.first() {
        Some(write) if crate::rootless::is_user() => not_delegated(&write.field),
        _ => refused("linux.cgroupsPath", path, &error),
    });
    made.inspect_err(|_| drop(cgroup.delete()))
}

/// cgroups(7): v1 has no safe way to hand a cgroup over.
fn not_delegated(field: &str) -> Error {
    let why = "only root can set limits where the controllers are on cgroup v1";
    Error::invalid(field, why)
        .hint("boot with systemd.unified_cgroup_hierarchy=1, leave the limits out, or run wsbox as root")
}

/// Of two limits that depend on each other the kernel takes the first after the second where both grow (EINVAL): once more.
fn write_all(cgroup: &Cgroup, plan: &[Write]) -> Result<()> {
    let mut again = Vec::new();
    for write in plan {
        match write_one(cgroup, write) {
            Err(error) if error.errno() == Some(Errno::EINVAL) => again.push(write),
            result => result?,
        }
    }
    again.into_iter().try_for_each(|write| write_one(cgroup, write))
}

fn write_one(cgroup: &Cgroup, write: &Write) -> Result<()> {
    let controller = cgroup.subsystems().iter().find(|subsystem| subsystem.controller_name() == write.controller());
    let dir = controller.map(|subsystem| subsystem.to_controller().path().to_owned()).unwrap_or_default();
    let write = write.settled(|file| dir.join(file).exists());
    let file = dir.join(&write.file);
    let written =
        OpenOptions::new().write(true).open(&file).and_then(|mut open| open.write_all(write.value.as_bytes()));
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    written.map_err(|error| write.refused(&file, errno(error)))
}

fn refused(field: &str, value: impl ToString, error: &cgroups_rs::fs::error::Error) -> Error {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Error::invalid(field, format!("{}: {}", value.to_string(), cause.to_lowercase()))
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
            .filter(|limit| *limit < NO_MEMORY_LIMIT),
        cpu: cpu.and_then(|cpu| Some((positive(cpu.cfs_quota().ok()?)?, cpu.cfs_period().ok()?))),
    }
}
