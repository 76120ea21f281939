// SPDX-License-Identifier: Apache-2.0
//! What the host has, what a caller hands over, and what only the host side may set on the init.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Pid, Uid, fchown};
use oci_spec::runtime::{Process, Spec};

use super::channel::limit;
use super::{lsm, userns};
use crate::bundle::passwd;
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::plan;
use crate::rootless;
use crate::state::{Record, ids};
use crate::sys::{rlimit, sched};

/// What a careless caller may hand over: a folder as stdio leads out of the container (as in CVE-2024-21626).
pub(super) fn refuse_escapes(preserve_fds: u32) -> Result<()> {
    const MOST: u32 = 1 << 16;
    if preserve_fds > MOST {
        return Err(Error::invalid("--preserve-fds", format!("{preserve_fds} is more than {MOST}")));
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (name, fd) in [("stdin", stdin.as_fd()), ("stdout", stdout.as_fd()), ("stderr", stderr.as_fd())] {
        let folder =
            fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR);
        if folder {
            return Err(Error::invalid(name, "is a directory: the container could leave through it"));
        }
    }
    Ok(())
}

/// linux/magic.h
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);

/// The payload's user may open /dev/stdout as well as write to it: an engine that does not know the ids gave no pipes to them, and in
/// the user namespace nobody may.
pub(super) fn own_pipes(ids: Option<&ids::Range>, process: Option<&Process>) {
    let uid = process.map_or(0, |process| process.user().uid());
    let Some(ids) = ids.filter(|_| uid < ids::SIZE) else { return };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        // One with a name is a file of the host's, which stays as it is.
        if fstatfs(fd).is_ok_and(|pipe| pipe.filesystem_type() == PIPEFS_MAGIC) {
            let _ = fchown(fd, Some(Uid::from_raw(ids.first + uid)), None);
        }
    }
}

/// What a plan needs to know of this host, for a new container or for one that is there.
pub(crate) fn plan_host(host: cgroup::Host, record: Option<&Record>) -> Result<plan::Host> {
    let by_user =
        record.map_or_else(rootless::in_namespace, |record| record.in_user_namespace.unwrap_or(record.owner != 0));
    let pid = record.and_then(|record| record.process.as_ref()).map(|process| process.pid);
    Ok(plan::Host {
        last_cap: last_cap(),
        v1_hierarchies: host.v1_hierarchies()?,
        apparmor: lsm::apparmor(),
        in_user_namespace: by_user,
        set_groups: !by_user || rootless::may_set_groups(pid),
    })
}

/// The highest capability, from the kernel; a kernel that does not tell has what this program knows.
#[expect(clippy::disallowed_methods, reason = "a fixed file of the host's /proc")]
pub(crate) fn last_cap() -> u32 {
    let known = u32::from(caps::Capability::CAP_CHECKPOINT_RESTORE.index());
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(known)
}

/// The user's home in the image, where the environment does not say.
pub(crate) fn home(spec: &Spec, rootfs: impl AsFd) -> Option<String> {
    let process = spec.process().as_ref()?;
    let set = |variable: &String| variable.starts_with("HOME=") && variable.len() > 5;
    if process.env().iter().flatten().any(set) { None } else { passwd::home(rootfs, process.user().uid()) }
}

pub(super) fn scheduler_refused(errno: Errno) -> Error {
    let error = Error::system("process.scheduler: sched_setattr", errno);
    match errno {
        Errno::EPERM => error.hint(
            "it takes CAP_SYS_NICE on the host; a real-time policy in a cgroup v1 takes linux.resources.cpu.realtimeRuntime too",
        ),
        Errno::EBUSY => error.hint("the kernel has no such share of the CPUs left"),
        Errno::EINVAL => error.hint("the kernel does not take these values together"),
        _ => error,
    }
}

/// Before the process runs: what it makes inherits them.
pub(super) fn attributes(pid: Pid, wanted: &plan::Attributes) -> Result<()> {
    if let Some(scheduler) = &wanted.scheduler {
        sched::set_scheduler(pid, scheduler).map_err(scheduler_refused)?;
    }
    if let Some(value) = wanted.io_priority {
        sched::set_io_priority(pid, value).context(|| "process.ioPriority: ioprio_set".into())?;
    }
    Ok(())
}

/// oom_score_adj (proc_pid_oom_score_adj(5)). Not in the words of EACCES: Docker would take them for the program's.
pub(super) fn set_oom_score(pid: Pid, score: i32) -> Result<()> {
    match userns::write_proc(pid, "oom_score_adj", &score.to_string()) {
        Err(Errno::EACCES | Errno::EPERM) => {
            let error = Error::invalid("process.oomScoreAdj", format!("can not be set to {score}"));
            Err(error.hint("to lower it takes CAP_SYS_RESOURCE, which wsbox itself has not here"))
        }
        result => result.context(|| format!("process.oomScoreAdj: set it to {score}")),
    }
}

/// A limit above what the init inherits takes the host's CAP_SYS_RESOURCE, which it has not in a user namespace.
pub(super) fn raise_limits(pid: Pid, limits: &[(String, u32, u64)]) -> Result<()> {
    for (field, resource, hard) in limits {
        let context = || format!("{field}: raise the hard limit to {}", limit(*hard));
        rlimit::raise(pid, *resource, *hard).context(context).map_err(|error| error.hint("wsbox itself may not"))?;
    }
    Ok(())
}
