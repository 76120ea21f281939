// SPDX-License-Identifier: Apache-2.0
//! A process that does nothing: an init that waits for a program that never comes.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::Channel;
use crate::error::{Context, Result};
use crate::sys::clone::{Role, Spawn, Spawned, spawn};
use crate::sys::pidfd;

/// It ends when this is dropped, and when we end.
pub(crate) struct Holder {
    spawned: Option<Spawned>,
    pid: Pid,
    _channel: Channel,
}

impl Holder {
    /// A new one, where we are.
    pub fn new(init: &OwnedFd) -> Result<Self> {
        let (channel, control) = Channel::pair()?;
        let request = Spawn {
            role: Role::Init,
            join: &[],
            namespaces: 0,
            cgroup: None,
            init: init.as_fd(),
            control: control.as_fd(),
            keep_below: 0,
            share_memory: true,
            ambient: false,
            last_cap: 0,
            dumpable: false,
        };
        let spawned =
            spawn(&request).map_err(Errno::from).context(|| "clone3 of a first process for the scope".into())?;
        Ok(Self { pid: spawned.pid, spawned: Some(spawned), _channel: channel })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(spawned) = self.spawned.take() {
            let _ = pidfd::send_signal(&spawned.pidfd, libc::SIGKILL);
            let _ = pidfd::wait(&spawned.pidfd);
            spawned.executed();
        }
    }
}
