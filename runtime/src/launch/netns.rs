// SPDX-License-Identifier: Apache-2.0
//! A network namespace made beside everything else: it takes the kernel as long as all the others together. A thread of its
//! own makes it while the parent goes on. Only without a user namespace, which would have to own it: then it is the init's
//! first step.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Plan, Source};
use crate::sys::net;

/// A namespace in the making, if the plan wants one from the parent.
pub struct Network(Option<JoinHandle<Result<OwnedFd>>>);

impl Network {
    /// Begins.
    pub fn begin(plan: &Plan) -> Self {
        Self(plan.sources.contains(&Source::NewNetwork).then(|| std::thread::spawn(make)))
    }

    /// Its descriptor.
    pub fn finish(&mut self) -> Result<OwnedFd> {
        let panicked =
            || Error::new(Kind::System, "linux.namespaces", "the thread that makes the network namespace is gone");
        self.0.take().ok_or_else(panicked)?.join().map_err(|_| panicked())?
    }
}

/// The namespace belongs to the calling thread alone, and lives on by its descriptor.
fn make() -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET).context(|| "linux.namespaces: make a network namespace".into())?;
    net::lo_up().context(|| "linux.namespaces: bring lo up".into())?;
    openat(AT_FDCWD, "/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .context(|| "linux.namespaces: open the network namespace".into())
}
