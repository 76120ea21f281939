// SPDX-License-Identifier: Apache-2.0
//! What happens to a container while it runs: what it uses, again and again, and processes killed for want of memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::{Root, lifecycle};
use crate::cgroup::{Cgroup, Oom};
use crate::error::{Context, Error, Kind, Result};

/// One line of JSON, in runc's shape: `type`, `id`, and for stats `data`.
fn event(kind: &str, id: &str, data: Option<Value>) -> Value {
    match data {
        Some(data) => json!({ "type": kind, "id": id, "data": data }),
        None => json!({ "type": kind, "id": id }),
    }
}

/// What container `id` uses now.
///
/// # Errors
/// If it does not run.
pub fn stats(root: &Root, id: &str) -> Result<Value> {
    let (cgroup, _) = running(root, id)?;
    Ok(event("stats", id, Some(cgroup.stats())))
}

/// Tells `each` what happens until the container ends or `each` says false: its use every `interval`, and each kill for want of memory.
///
/// # Errors
/// If it does not run, or `each` fails.
pub fn follow(root: &Root, id: &str, interval: Duration, mut each: impl FnMut(&Value) -> Result<bool>) -> Result<()> {
    let (cgroup, pidfd) = running(root, id)?;
    let mut watch = Watch::new(cgroup.oom()?)?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = watch.wait(&pidfd, next.saturating_duration_since(Instant::now()))?;
        for _ in 0..watch.kills()? {
            if !each(&event("oom", id, None))? {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            if !each(&event("stats", id, Some(cgroup.stats())))? {
                return Ok(());
            }
            next += interval;
        }
    }
}

fn running(root: &Root, id: &str) -> Result<(Cgroup, OwnedFd)> {
    let record = root.read(id)?;
    let stopped = || Error::new(Kind::State, "", format!("container not running: {id}"));
    let pidfd = lifecycle::process(&record)?.ok_or_else(stopped)?;
    Ok((Cgroup::open(&record.cgroup)?, pidfd))
}

/// The kernel's word of processes killed for want of memory.
struct Watch {
    source: Option<Oom>,
    seen: u64,
}

impl Watch {
    fn new(source: Option<Oom>) -> Result<Self> {
        let mut watch = Self { source, seen: 0 };
        // What was before is no news.
        if let Some(Oom::Events(_)) = watch.source {
            watch.kills()?;
        }
        Ok(watch)
    }

    /// Whether the container has ended; false also when the time is over or there is news.
    fn wait(&self, pidfd: &OwnedFd, time: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.source.as_ref().map(|source| match source {
            Oom::Eventfd(fd, _) => PollFd::new(fd.as_fd(), PollFlags::POLLIN),
            Oom::Events(file) => PollFd::new(file.as_fd(), PollFlags::POLLPRI),
        }));
        let timeout = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => return Ok(false),
            result => result.context(|| "wait for events".into())?,
        };
        Ok(fds[0].any().unwrap_or(false))
    }

    /// How many since the last time.
    fn kills(&mut self) -> Result<u64> {
        match &mut self.source {
            None => Ok(0),
            Some(Oom::Eventfd(fd, control)) => {
                let mut count = [0u8; 8];
                match nix::unistd::read(&*fd, &mut count) {
                    Err(Errno::EAGAIN) => Ok(0),
                    // The v1 controller tells of the cgroup's removal the same way.
                    result => result.map(|_| u64::from(control.exists())).context(|| "memory.oom_control".into()),
                }
            }
            Some(Oom::Events(file)) => {
                let now = oom_kills(file).unwrap_or(self.seen);
                let new = now.saturating_sub(self.seen);
                self.seen = now;
                Ok(new)
            }
        }
    }
}

/// memory.events, `oom_kill`; None once the cgroup is gone.
fn oom_kills(file: &mut File) -> Option<u64> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}
