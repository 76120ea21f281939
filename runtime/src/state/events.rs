// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, now and then, and when it runs out of memory, until it ends.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::met::{self, LimitWatch};
use super::{Root, lifecycle};
use crate::cgroup::{Cgroup, Met, Oom};
use crate::error::{Context, Error, Kind, Result};

/// A running container.
pub struct Watch {
    id: String,
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    limits: LimitWatch,
}

impl Watch {
    /// # Errors
    /// If it does not run, in runc's words.
    pub fn new(root: &Root, id: &str) -> Result<Self> {
        let record = root.read(id)?;
        let stopped = || Error::new(Kind::State, "", format!("container with id {id} is not running"));
        let known = record.process.as_ref().ok_or_else(stopped)?;
        let pidfd = lifecycle::process(&record)?.ok_or_else(stopped)?;
        let cgroup = Cgroup::open(&record.cgroup)?;
        Ok(Self { id: id.into(), pid: known.pid, pidfd, cgroup, limits: LimitWatch::new(root, id)? })
    }

    /// One event of type `stats`: runc's numbers, and the limits that were met.
    pub fn stats(&self) -> Value {
        let mut data = self.cgroup.stats();
        data["limits_met"] = met::to_json(&self.limits.met());
        data["network_interfaces"] = interfaces(self.pid);
        json!({"type": "stats", "id": self.id, "data": data})
    }

    /// Of type `oom`, with the limit that was met: v1 tells before it kills and counts.
    fn out_of_memory(&self) -> Value {
        let found = || self.cgroup.met().into_iter().find(|met| matches!(met, Met::Memory { .. }));
        let until = Instant::now() + Duration::from_millis(100);
        let mut met = found();
        while met.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            met = found();
        }
        let mut event = json!({"type": "oom", "id": self.id});
        if let Some(data) = met.and_then(|met| met::to_json(&[met]).get_mut(0).map(Value::take)) {
            event["data"] = data;
        }
        event
    }

    /// Hands every event to `tell`, stats each `interval`, until the container ends or `tell` says false. The last one, of type
    /// `limits`, says which were met, if any were.
    pub fn follow(&self, interval: Duration, mut tell: impl FnMut(&Value) -> Result<bool>) -> Result<()> {
        let mut oom = self.cgroup.watch_oom()?;
        let mut next = Instant::now() + interval;
        loop {
            let ended = self.wait(oom.as_ref(), next)?;
            // Also at the end: it may be what ended it.
            if oom.as_mut().is_some_and(Oom::happened) && !tell(&self.out_of_memory())? {
                return Ok(());
            }
            if ended {
                let met = self.limits.met();
                let last = json!({"type": "limits", "id": self.id, "data": {"limits_met": met::to_json(&met)}});
                return if met.is_empty() { Ok(()) } else { tell(&last).map(drop) };
            }
            if Instant::now() >= next {
                next += interval;
                if !tell(&self.stats())? {
                    return Ok(());
                }
            }
        }
    }

    /// Whether the container has ended by `until`, or by the time that it ran out of memory.
    fn wait(&self, oom: Option<&Oom>, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        // A timeout of whole milliseconds, not below what is left.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(oom.map(Oom::poll).map(|(fd, flags)| PollFd::new(fd, flags)));
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            result => drop(result.context(|| "poll".into())?),
        }
        Ok(fds[0].revents().is_some_and(|events| !events.is_empty()))
    }
}

/// The interfaces of its own network namespace; null if it is in ours, as in runc.
fn interfaces(pid: i32) -> Value {
    let inode = |who: &str| fs::metadata(format!("/proc/{who}/ns/net")).map(|metadata| metadata.ino()).ok();
    if inode(&pid.to_string()) == inode("self") {
        return Value::Null;
    }
    // proc_pid_net(5), dev: two lines of head, then name: 8 numbers received, 8 sent.
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let line = |line: &str| {
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let at = |at: usize| numbers.get(at).copied().unwrap_or_default();
        Some(json!({
            "Name": name.trim(),
            "RxBytes": at(0), "RxPackets": at(1), "RxErrors": at(2), "RxDropped": at(3),
            "TxBytes": at(8), "TxPackets": at(9), "TxErrors": at(10), "TxDropped": at(11),
        }))
    };
    text.lines().skip(2).filter_map(line).collect()
}
