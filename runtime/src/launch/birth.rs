// SPDX-License-Identifier: Apache-2.0
//! The init: the cgroup that it is born into, and its clone.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::child::{Child, not_joined};
use super::holder::Holder;
use super::{Channel, Launch, sources};
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::plan::UserNamespace;
use crate::sys::clone::{Failed, Role, Spawn, spawn};
use crate::sys::join::Join;

impl Launch<'_> {
    /// A scope of systemd's is there for as long as a process is in it: until the init is, that is a holder.
    pub(super) fn make_cgroup(&mut self, init: &OwnedFd) -> Result<Option<Holder>> {
        let (host, plan) = (self.host, &self.plan.cgroup);
        let Some(scope) = &plan.scope else {
            self.cgroup = Some(Cgroup::create(host, plan)?);
            return Ok(None);
        };
        let holder = Holder::new(init)?;
        self.cgroup = Some(Cgroup::create_scope(host, plan, scope, holder.pid())?);
        Ok(Some(holder))
    }

    pub(super) fn clone_init(&mut self, init: &OwnedFd) -> Result<()> {
        let (channel, control) = Channel::pair()?;
        let early = self.plan.early.iter().map(|early| sources::namespace(&early.path, &early.field, early.not_ours));
        let early = early.collect::<Result<Vec<_>>>()?;
        let join = self.plan.early.iter().zip(&early);
        let join: Vec<_> = join.map(|(early, fd)| Join { namespace: fd.as_fd(), kind: early.kind }).collect();
        let request = |cgroup| Spawn {
            role: Role::Init,
            join: &join,
            namespaces: self.plan.namespaces,
            cgroup,
            init: init.as_fd(),
            control: control.as_fd(),
            keep_below: 3 + self.preserve_fds,
            // Its limits of memory come later.
            share_memory: true,
            ambient: self.plan.user != UserNamespace::Host,
            last_cap: self.plan.last_cap,
            // For us to write its maps, who have no rights over the host.
            dumpable: self.plan.device_rules.is_some() && matches!(self.plan.user, UserNamespace::Mapped(_)),
        };
        let born = spawn(&request(self.cgroup.as_ref().map(Cgroup::clone_fd)));
        let moved = matches!(born, Err(Failed::Clone(Errno::EACCES)));
        let spawned = if moved { spawn(&request(None)) } else { born }.map_err(|failed| self.clone_failed(failed))?;
        let pid = spawned.pid;
        self.child = Some(Child { spawned, channel });
        if moved {
            self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.attach(pid))?;
        }
        Ok(())
    }

    fn clone_failed(&self, failed: Failed) -> Error {
        let errno = match failed {
            Failed::Clone(errno) => errno,
            Failed::Join(at, errno) => return not_joined(&self.plan.early[at], errno),
        };
        let error = Error::system("linux.namespaces: clone3", errno);
        match errno {
            Errno::EPERM => error.hint("wsbox needs root, or a user namespace that this host allows"),
            Errno::ENOSPC | Errno::EUSERS => error.hint("a limit in /proc/sys/user is reached"),
            Errno::EAGAIN => error.hint("is pids.max of the cgroup, or the limit of processes, reached?"),
            Errno::EOPNOTSUPP => error.hint(self.cgroup.as_ref().map(Cgroup::takes_no_process).unwrap_or_default()),
            _ => error,
        }
    }
}
