// SPDX-License-Identifier: Apache-2.0
//! What criu asks on its way: it runs an action script, which asks us over a pipe and waits for what we answer over another.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, readlink};
use nix::poll::PollTimeout;
use nix::unistd::{Pid, pipe2, read};

use crate::error::{Context, Error, Kind, Result};
use crate::state::process;

/// How long criu may take to its end once the payload may run, in ms: only its last steps are left.
const MOST: u16 = 60_000;

/// When criu asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The namespaces are there, and nothing in them
    Namespaces,
    /// All is there, and nothing runs
    Ready,
}

/// Our ends and criu's of two pipes.
pub struct Talk {
    asks: (OwnedFd, OwnedFd),
    answers: (OwnedFd, OwnedFd),
}

impl Talk {
    /// A new one.
    pub fn new() -> Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context(|| "pipe".into());
        Ok(Self { asks: pipe()?, answers: pipe()? })
    }

    /// The script of a container with this cgroup. It has to be there for as long as criu is: one that criu can not execute it takes for a bad
    /// answer, and lets the payload run.
    ///
    /// # Errors
    /// If the kernel does not tell our pipes.
    pub fn script(&self, cgroup: &Path) -> Result<String> {
        Ok(text(&pipe(&self.asks.1)?, &pipe(&self.answers.0)?, cgroup))
    }

    /// The next question and the pid of the first process; none once criu, whose pidfd is given, has ended.
    ///
    /// # Errors
    /// If what comes is no question, or one of `signals` comes first; without signals, if criu takes longer than it has reason to.
    pub fn next(&self, criu: &OwnedFd, signals: Option<BorrowedFd<'_>>) -> Result<Option<(Moment, Pid)>> {
        let timeout = if signals.is_some() { PollTimeout::NONE } else { PollTimeout::from(MOST) };
        if wait(Some(self.asks.0.as_fd()), criu, signals, timeout)? { self.question().map(Some) } else { Ok(None) }
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

/// Waits until criu asks, or has ended: whether it asks.
///
/// # Errors
/// If one of the caller's signals comes, or `timeout` is over: criu may never come to its end.
pub fn wait(
    asks: Option<BorrowedFd<'_>>,
    ended: &OwnedFd,
    signals: Option<BorrowedFd<'_>>,
    timeout: PollTimeout,
) -> Result<bool> {
    let fds: Vec<_> = [signals, asks, Some(ended.as_fd())].into_iter().flatten().collect();
    let came = process::first(&fds, timeout)?.map(|at| fds[at].as_raw_fd());
    if came.is_none() {
        let why = format!("criu hangs: {} seconds after it was to let the container run it has not ended", MOST / 1000);
        return Err(Error::new(Kind::System, "restore", why)
            .hint("criu and the container were killed: see restore.log in --work-path"));
    }
    let is = |fd: Option<BorrowedFd<'_>>| fd.is_some_and(|fd| came == Some(fd.as_raw_fd()));
    if is(signals) {
        return Err(Error::new(Kind::State, "restore", "a signal came before the container ran, and criu was ended")
            .hint("nothing is left of it: restore it again"));
    }
    Ok(is(asks))
}

/// The one answer that lets criu go on.
const GOOD: &str = "go on\n";

/// A pipe's path, for as long as we are there, and its name: a path of ours may lead to somebody else's once we are gone.
fn pipe(fd: &OwnedFd) -> Result<(String, String)> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let name = readlink(path.as_str()).context(|| "pipe".into())?.to_string_lossy().into_owned();
    Ok((path, name))
}

/// Whatever else comes, and also if we are gone by then: criu does not heed how the script ends before it lets the payload run, so the script ends
/// the first process, and with it all of the pid namespace. Then criu itself and the script, all of our group: without us it would wait for its dead
/// forever. But not before everyone whom it holds is sure to die: who is let go runs.
fn text((asks, asks_name): &(String, String), (answers, answers_name): &(String, String), cgroup: &Path) -> String {
    format!(
        "#!/bin/sh\ntrap '' HUP INT QUIT TERM PIPE\n\
         case $CRTOOLS_SCRIPT_ACTION in setup-namespaces|pre-resume) ;; *) exit 0 ;; esac\n\
         [ \"$(readlink {asks})\" = '{asks_name}' ] && [ \"$(readlink {answers})\" = '{answers_name}' ] && \
         echo \"$CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID\" >{asks} && read -r answer <{answers} && \
         [ \"$answer\" = '{good}' ] && exit 0\n\
         kill -KILL \"$CRTOOLS_INIT_PID\"\necho 1 >'{cgroup}/cgroup.kill' && kill -KILL 0\nexit 1\n",
        good = GOOD.trim(),
        cgroup = cgroup.to_string_lossy().replace('\'', "'\\''"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    use super::*;
    use crate::sys::pidfd;

    /// A payload, and the script at work for it.
    fn asked(talk: &Talk) -> (Child, Child) {
        asked_in(talk, "/no/such".as_ref())
    }

    fn asked_in(talk: &Talk, cgroup: &Path) -> (Child, Child) {
        let payload = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut script = Command::new("/bin/sh");
        script
            .process_group(0)
            .args(["-c", &talk.script(cgroup).unwrap()])
            .env("CRTOOLS_SCRIPT_ACTION", "pre-resume")
            .env("CRTOOLS_INIT_PID", payload.id().to_string());
        let script = script.spawn().unwrap();
        let criu = pidfd::open(Pid::from_raw(script.id() as i32)).unwrap();
        let pid = Pid::from_raw(payload.id() as i32);
        let signals = nix::unistd::pipe().unwrap();
        assert_eq!(talk.next(&criu, Some(signals.0.as_fd())).unwrap(), Some((Moment::Ready, pid)));
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
    fn a_signal_comes_first() {
        let talk = Talk::new().unwrap();
        let (mut payload, mut script) = asked(&talk);
        let (read, write) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&write, b"x").unwrap();
        let criu = pidfd::open(Pid::from_raw(script.id() as i32)).unwrap();
        let error = talk.next(&criu, Some(read.as_fd())).unwrap_err().to_string();
        assert!(error.starts_with("restore: a signal came before the container ran"), "{error}");
        talk.go_on().unwrap();
        assert!(script.wait().unwrap().success());
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

    #[test]
    fn all_of_the_cgroup_goes_and_criu_with_it() {
        let cgroup = std::env::temp_dir().join(format!("wsbox-it's-{}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        let talk = Talk::new().unwrap();
        let (mut payload, mut script) = asked_in(&talk, &cgroup);
        let Talk { answers: (_ours, answer), .. } = talk;
        drop(answer);
        assert_eq!(script.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(payload.wait().unwrap().signal(), Some(libc::SIGKILL));
        let written = std::fs::read_to_string(cgroup.join("cgroup.kill"));
        std::fs::remove_dir_all(&cgroup).unwrap();
        assert_eq!(written.unwrap(), "1\n");
    }
}
