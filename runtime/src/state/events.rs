// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, now and then, and when it runs out of memory, meets another limit, is denied system calls, is paused
//! or resumed, until it ends.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::met::{self, LimitWatch};
use super::{Root, Status, lifecycle};
use crate::cgroup::{Cgroup, Met, Oom};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::report::{self, Violations};

/// How often is looked for what nobody tells.
const LOOK: Duration = Duration::from_millis(500);

/// A running container.
pub struct Watch {
    root: Root,
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
        Ok(Self {
            root: root.clone(),
            id: id.into(),
            pid: known.pid,
            pidfd,
            cgroup,
            limits: LimitWatch::new(root, id)?,
        })
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

    /// What there is to say since `seen`: of the types `state`, `violations` and `limits`.
    fn changes(&self, seen: &mut Seen, ended: bool) -> Vec<Value> {
        let now = Seen {
            // Deleted, perhaps; then the end says it.
            status: self.root.read(&self.id).and_then(|record| lifecycle::status(&record)).unwrap_or(seen.status),
            // Where calls are not counted there are none to tell.
            violations: report::violations(&self.root, &self.id).map_or_else(|_| seen.violations.clone(), told),
            limits: self.limits.met(),
        };
        let event = |kind: &str, data: Value| json!({"type": kind, "id": self.id, "data": data});
        let mut events = Vec::new();
        if now.status != seen.status {
            events.push(event("state", json!({"status": lifecycle::word(now.status)})));
        }
        if now.violations != seen.violations {
            events.push(event("violations", now.violations.clone()));
        }
        // How long a CPU limit throttled changes all the time: that it did is told, and at the end for how long.
        let kinds = |limits: &[Met]| limits.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        let limits = if kinds(&now.limits) != kinds(&seen.limits) || ended && now.limits != seen.limits {
            events.push(event("limits", json!({"limits_met": met::to_json(&now.limits)})));
            now.limits
        } else {
            std::mem::take(&mut seen.limits)
        };
        *seen = Seen { limits, ..now };
        events
    }

    /// Hands every event to `tell`, stats each `interval`, until the container ends or `tell` says false.
    pub fn follow(&self, interval: Duration, mut tell: impl FnMut(&Value) -> Result<bool>) -> Result<()> {
        let mut oom = self.cgroup.watch_oom()?;
        let mut seen = Seen { status: Status::Running, violations: Value::Null, limits: Vec::new() };
        let (mut next, mut look) = (Instant::now() + interval, Instant::now());
        loop {
            let ended = self.wait(oom.as_ref(), next.min(look))?;
            // Also at the end: it may be what ended it.
            let mut events = Vec::new();
            if oom.as_mut().is_some_and(Oom::happened) {
                events.push(self.out_of_memory());
            }
            let now = Instant::now();
            if ended || now >= look {
                look = now + LOOK;
                events.extend(self.changes(&mut seen, ended));
            }
            if !ended && now >= next {
                next += interval;
                events.push(self.stats());
            }
            for event in events {
                if !tell(&event)? {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
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

/// What was told last.
struct Seen {
    status: Status,
    violations: Value,
    limits: Vec<Met>,
}

/// Null if there are none.
fn told(violations: Violations) -> Value {
    if violations.total == 0 && violations.killed == 0 {
        return Value::Null;
    }
    json!({"total": violations.total, "killed": violations.killed, "blocked": violations.blocked})
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
