// SPDX-License-Identifier: Apache-2.0
//! A child that carries out a few steps of a container's program, is looked at, and is killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::launch::{self, Answer, Channel, memfd, userns};
use crate::plan::{IdMaps, Program, Step};
use crate::state::ids;
use crate::sys::clone::{Role, Spawn, Spawned, spawn};
use crate::sys::pidfd;

/// What the child is born into and does.
#[derive(Default)]
pub struct Probe<'a> {
    /// CLONE_NEW*
    pub namespaces: libc::c_int,
    /// In a user namespace with these ids
    pub range: Option<&'a ids::Range>,
    /// Born in this cgroup v2 directory
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The slots of its program, from 0 on
    pub fds: Vec<OwnedFd>,
    /// What it does
    pub steps: Vec<Step>,
}

impl Probe<'_> {
    /// Starts the child, lets it do the steps, and looks at it while it waits.
    ///
    /// # Errors
    /// What failed: clone3, the maps, a step, or the look.
    pub fn run<T>(self, look: impl FnOnce(Pid, BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let init = memfd::init()?;
        let (channel, control) = Channel::pair()?;
        let user = if self.range.is_some() { libc::CLONE_NEWUSER } else { 0 };
        let request = Spawn {
            role: Role::Init,
            join: &[],
            namespaces: (self.namespaces | user) as u64,
            cgroup: self.cgroup,
            init: init.as_fd(),
            control: control.as_fd(),
            keep_below: 3,
            // The limits of its cgroup come later.
            share_memory: true,
            ambient: self.range.is_some(),
            last_cap: launch::last_cap(),
            dumpable: crate::rootless::in_namespace(),
        };
        let child = spawn(&request).map_err(Errno::from).context(|| "clone3".into())?;
        drop(control);
        let result = self.follow(&child, &channel, &init).and_then(|()| look(child.pid, child.pidfd.as_fd()));
        let ended = pidfd::send_signal(&child.pidfd, libc::SIGKILL).and_then(|()| pidfd::wait(&child.pidfd));
        child.executed();
        result.and_then(|value| ended.map(|_| value).context(|| "end the probe".into()))
    }

    fn follow(self, child: &Spawned, channel: &Channel, init: &OwnedFd) -> Result<()> {
        let maps: Option<IdMaps> = self.range.map(ids::Range::maps);
        let mut program = Program::default();
        program.push("", Step::Receive);
        program.steps.extend(maps.iter().map(|_| planned(Step::BecomeRoot)));
        program.steps.extend(self.steps.into_iter().map(planned));
        program.push("", Step::Ready);
        // It waits for descriptors that never come.
        program.push("", Step::Receive);
        channel.send_program(&memfd::program(&program.encode())?)?;
        if let Some(maps) = &maps {
            userns::write_maps(child.pid, maps)?;
        }
        let mut fds = self.fds;
        if fds.is_empty() {
            fds.push(init.try_clone().context(|| "a descriptor".into())?);
        }
        channel.send(&fds)?;
        let answer = match channel.receive()? {
            Answer::Started => channel.receive()?,
            answer => answer,
        };
        match answer {
            Answer::Ready => Ok(()),
            Answer::Failed(why) => Err(launch::failure(&program, why)),
            _ => Err(child.early_failure().map_or_else(
                || Error::system("the probe ended", Errno::ECHILD),
                |(step, errno)| Error::system(format!("start the probe: {step}"), errno),
            )),
        }
    }
}

fn planned(step: Step) -> crate::plan::Planned {
    crate::plan::Planned { step, field: String::new() }
}
