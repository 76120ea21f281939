// SPDX-License-Identifier: Apache-2.0
//! A payload in the hands of its starter.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::unistd::Pid;

use crate::error::{Context, Result};
use crate::notify;
use crate::sys::pidfd::{self, Exit};

/// A process that was started, and what its starter holds of it.
#[derive(Debug)]
pub struct Process {
    /// Its pid on the host
    pub pid: Pid,
    /// Its pidfd
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one and no console socket was given
    pub console: Option<OwnedFd>,
    /// What it tells the service manager, to be passed on
    pub notify: Option<notify::Proxy>,
    /// What the user should know of the config: one sentence each
    pub warnings: Vec<String>,
}

impl Process {
    /// Waits for its end.
    ///
    /// # Errors
    /// If it is not the caller's child.
    pub fn wait(&self) -> Result<Exit> {
        pidfd::wait(&self.pidfd).context(|| "wait for the payload".into())
    }

    /// Passes on what it tells the service manager, until it says that it is ready or ends.
    ///
    /// # Errors
    /// If what it says can not be received.
    pub fn until_ready(&self) -> Result<()> {
        self.notify.as_ref().map_or(Ok(()), |proxy| proxy.until_ready(self.pid, &self.pidfd))
    }

    /// Passes on what it tells the service manager, in a thread that ends after it; None if there is no manager.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn pass_notifications(&mut self) -> Result<Option<JoinHandle<()>>> {
        let Some(proxy) = self.notify.take() else { return Ok(None) };
        Ok(Some(proxy.follow(self.pid, self.pidfd.try_clone().context(|| "pidfd".into())?)))
    }

    /// Kills it and waits for its end.
    pub fn kill(&self) {
        let _ = pidfd::send_signal(&self.pidfd, libc::SIGKILL);
        let _ = pidfd::wait(&self.pidfd);
    }
}
