// SPDX-License-Identifier: Apache-2.0
//! What criu asks on its way: it runs an action script, which asks us over a pipe and waits for what we answer over another.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2, read};

use crate::error::{Context, Error, Result};
use crate::launch::memfd;

/// When criu asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The namespaces are there, and nothing in them
    Namespaces,
    /// All is there, and nothing runs
    Ready,
}

/// The script and its pipes.
pub struct Talk {
    script: OwnedFd,
    asks: (OwnedFd, OwnedFd),
    answers: (OwnedFd, OwnedFd),
}

impl Talk {
    /// A new one.
    pub fn new() -> Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context(|| "pipe".into());
        let (asks, answers) = (pipe()?, pipe()?);
        let ours = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let text = text(&ours(&asks.1), &ours(&answers.0));
        Ok(Self { script: memfd::executable(c"wsbox-criu", text.as_bytes())?, asks, answers })
    }

    /// Where the script is, for as long as we are there: criu executes it by its path, and takes no arguments for it.
    pub fn script(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.script.as_raw_fd())
    }

    /// The next question and the pid of the first process; none once criu, whose pidfd is given, has ended.
    ///
    /// # Errors
    /// If what comes is no question.
    pub fn next(&self, criu: &OwnedFd) -> Result<Option<(Moment, Pid)>> {
        let mut fds =
            [PollFd::new(self.asks.0.as_fd(), PollFlags::POLLIN), PollFd::new(criu.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => break result.map(drop).context(|| "poll".into())?,
            }
        }
        let asked = fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        if asked { self.question().map(Some) } else { Ok(None) }
    }

    /// One write of the script's, below PIPE_BUF: it comes whole.
    fn question(&self) -> Result<(Moment, Pid)> {
        let mut buffer = [0u8; 256];
        let length = read(&self.asks.0, &mut buffer).context(|| "what criu asks".into())?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (moment, pid) = text.trim().split_once(' ').unwrap_or_default();
        let odd = || Error::invalid("criu", format!("asks {text:?}"));
        let moment = match moment {
            "setup-namespaces" => Moment::Namespaces,
            "pre-resume" => Moment::Ready,
            _ => return Err(odd()),
        };
        let pid = pid.parse().ok().filter(|pid| *pid > 1).ok_or_else(odd)?;
        Ok((moment, Pid::from_raw(pid)))
    }

    /// Lets criu go on.
    pub fn go_on(&self) -> Result<()> {
        let copy = self.answers.1.try_clone().context(|| "pipe".into())?;
        File::from(copy).write_all(GOOD.as_bytes()).context(|| "answer criu".into())
    }
}

/// The one answer that lets criu go on.
const GOOD: &str = "go on\n";

/// Whatever else comes, and also if we are gone by then: criu does not heed how the script ends before it lets the payload run, so the script ends
/// the first process, and with it all of the pid namespace.
fn text(asks: &str, answers: &str) -> String {
    format!(
        "#!/bin/sh\ntrap '' HUP INT QUIT TERM PIPE\n\
         case $CRTOOLS_SCRIPT_ACTION in setup-namespaces|pre-resume) ;; *) exit 0 ;; esac\n\
         echo \"$CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID\" >{asks} && read -r answer <{answers} && \
         [ \"$answer\" = '{}' ] && exit 0\nkill -KILL \"$CRTOOLS_INIT_PID\"\nexit 1\n",
        GOOD.trim()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;
    use crate::sys::pidfd;

    /// A payload, and the script at work for it.
    fn asked(talk: &Talk) -> (Child, Child) {
        let payload = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut script = Command::new(talk.script());
        script.env("CRTOOLS_SCRIPT_ACTION", "pre-resume").env("CRTOOLS_INIT_PID", payload.id().to_string());
        let script = script.spawn().unwrap();
        let criu = pidfd::open(Pid::from_raw(script.id() as i32)).unwrap();
        let pid = Pid::from_raw(payload.id() as i32);
        assert_eq!(talk.next(&criu).unwrap(), Some((Moment::Ready, pid)));
        (payload, script)
    }

    #[test]
    fn only_a_good_answer_lets_it_run() {
        let talk = Talk::new().unwrap();
        let (mut payload, mut script) = asked(&talk);
        talk.go_on().unwrap();
        assert!(script.wait().unwrap().success());
        assert!(payload.try_wait().unwrap().is_none());
        payload.kill().unwrap();
        payload.wait().unwrap();
    }

    #[test]
    fn without_us_it_does_not_run() {
        let talk = Talk::new().unwrap();
        let (mut payload, mut script) = asked(&talk);
        let Talk { answers: (_ours, answer), .. } = talk;
        drop(answer);
        assert!(!script.wait().unwrap().success());
        assert_eq!(payload.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
