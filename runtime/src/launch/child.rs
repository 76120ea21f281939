// SPDX-License-Identifier: Apache-2.0
//! The init as the parent sees it: on its way, at work, gone.

use nix::errno::Errno;

use super::agent::Agent;
use super::{Answer, Channel, failure};
use crate::error::{Error, Kind, Result};
use crate::plan;
use crate::sys::clone::Spawned;
use crate::sys::pidfd::{self, Exit};

/// The init, from the clone on.
pub(super) struct Child {
    pub spawned: Spawned,
    pub channel: Channel,
}

/// Waits for the end of the control socket, which is the payload's execve.
pub(super) fn executed(channel: &Channel, program: &plan::Program, agent: Option<Agent<'_>>) -> Result<()> {
    match (channel.receive()?, &agent) {
        (Answer::Listener(number), Some(agent)) => {
            agent.serve(number, channel, program)?;
            executed(channel, program, None)
        }
        (Answer::Closed, _) => Ok(()),
        (Answer::Failed(why), _) => Err(failure(program, why)),
        (answer, _) => Err(Error::system(format!("the init said {answer:?}"), Errno::EPROTO)),
    }
}

/// Waits until the init is executed.
pub(super) fn started(channel: &Channel, spawned: &Spawned) -> Result<()> {
    match channel.receive()? {
        Answer::Started => Ok(()),
        _ => Err(died(spawned)),
    }
}

/// The init is gone without a word: why, from how it ended.
pub(super) fn died(spawned: &Spawned) -> Error {
    if let Some((step, errno)) = spawned.early_failure() {
        return Error::system(format!("start the init: {step}"), errno);
    }
    match pidfd::wait(&spawned.pidfd) {
        Ok(Exit::Signal(libc::SIGKILL)) => Error::new(Kind::System, "the init", "was killed before it was ready")
            .hint("is linux.resources.memory.limit too small?"),
        Ok(Exit::Signal(libc::SIGSYS)) => Error::new(Kind::System, "linux.seccomp", "the filter killed the init"),
        Ok(exit) => Error::new(Kind::System, "the init", format!("ended before it was ready ({exit:?})")),
        Err(errno) => Error::system("wait for the init", errno),
    }
}

pub(super) fn not_joined(early: &plan::Early, errno: Errno) -> Error {
    let error = Error::system(format!("{}: join {}", early.field, early.path.display()), errno);
    match errno {
        Errno::EINVAL => error.hint("is it of that kind, and not wsbox's own or outside of it?"),
        Errno::EPERM => error.hint("wsbox has no rights in it"),
        _ => error,
    }
}
