// SPDX-License-Identifier: Apache-2.0
//! The parent's end of the control socket: see init/program.rs for the protocol.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::error::{Context, Error, Result};
use crate::plan::program::{FDS_PER_MESSAGE, REPORT, Report};
use crate::plan::{HookRun, Program, Step};
use crate::sys::scm;

/// What the init said.
#[derive(Debug)]
pub enum Answer {
    /// It has memory of its own
    Started,
    /// All is done but the payload
    Ready,
    /// The master of its terminal
    Console(OwnedFd),
    /// The payload's pid and pidfd (exec into a PID namespace)
    Forked(i32, OwnedFd),
    /// The filter's listener will have this number in the init
    Listener(i32),
    /// The filter is in force
    Installed,
    /// A step failed
    Failed(Failure),
    /// End of file: it executed the payload, or died
    Closed,
}

/// A step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the program
    pub step: usize,
    /// Why
    pub errno: Errno,
    /// Of a hook: how it ended, its exit status or 128 and the number of a signal
    pub status: u32,
}

/// Our end of a control socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends: ours, and the init's.
    pub fn pair() -> Result<(Self, OwnedFd)> {
        let (ours, inits) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context(|| "socketpair".into())?;
        Ok((Self(ours), inits))
    }

    /// The connection that `start` made.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends the program: the init begins with it at once.
    pub fn send_program(&self, program: &OwnedFd) -> Result<()> {
        self.send(std::slice::from_ref(program))
    }

    /// Lets an init go on that waits without wanting anything.
    pub fn go_on(&self) -> Result<()> {
        match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&[0])], &[], MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) | Err(Errno::EPIPE) => Ok(()),
            Err(errno) => Err(Error::system("send to the init", errno)),
        }
    }

    /// Sends the descriptors, in slot order.
    pub fn send(&self, fds: &[OwnedFd]) -> Result<()> {
        let all: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let chunks = all.chunks(FDS_PER_MESSAGE);
        let last = chunks.len().saturating_sub(1);
        for (at, chunk) in chunks.enumerate() {
            let more = [u8::from(at < last)];
            let rights = [ControlMessage::ScmRights(chunk)];
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&more)], &rights, MsgFlags::MSG_NOSIGNAL, None) {
                // It is gone: its last word, if it left one, is there to be received.
                Ok(_) | Err(Errno::EPIPE) => {}
                Err(errno) => return Err(Error::system("send to the init", errno)),
            }
        }
        Ok(())
    }

    /// Waits for the next answer.
    pub fn receive(&self) -> Result<Answer> {
        let mut data = [0u8; REPORT];
        let (len, fd) = match scm::receive(&self.0, &mut data) {
            // It died with our message unread.
            Err(Errno::ECONNRESET) => (0, None),
            result => result.context(|| "hear from the init".into())?,
        };
        Ok(match len {
            0 => Answer::Closed,
            1 => Answer::Installed,
            _ => decode(&data[..len], fd)?,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn decode(data: &[u8], fd: Option<OwnedFd>) -> Result<Answer> {
    let word =
        |at: usize| data.get(at * 4..at * 4 + 4).map_or(0, |raw| u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]));
    match (Report::from_u32(word(0)), fd) {
        (Some(Report::Failed), _) => {
            let (step, errno) = (word(1) as usize, Errno::from_raw(word(2) as i32));
            Ok(Answer::Failed(Failure { step, errno, status: word(3) }))
        }
        (Some(Report::Started), _) => Ok(Answer::Started),
        (Some(Report::Listener), _) => Ok(Answer::Listener(word(3) as i32)),
        (Some(Report::Ready), _) => Ok(Answer::Ready),
        (Some(Report::Console), Some(fd)) => Ok(Answer::Console(fd)),
        (Some(Report::Forked), Some(fd)) => Ok(Answer::Forked(word(3) as i32, fd)),
        _ => Err(Error::system("hear from the init", Errno::EPROTO)),
    }
}

/// The error for a step that failed, in words that name the field.
pub fn failure(program: &Program, failure: Failure) -> Error {
    let errno = failure.errno;
    let Some(planned) = program.steps.get(failure.step) else { return Error::system("the init", errno) };
    if let Some(error) = exec_failure(&planned.step, program, errno) {
        return error;
    }
    if let Step::Hook(hook) = &planned.step {
        return hook_failure(&planned.field, hook, failure);
    }
    let doing = doing(&planned.step);
    let subject = if planned.field.is_empty() { doing } else { format!("{}: {doing}", planned.field) };
    let error = Error::system(subject, errno);
    match (&planned.step, errno) {
        (Step::Dest { .. }, Errno::ENOTDIR) => error.hint("the image has a link or a file there"),
        // Docker looks for these words of Go's ENOTDIR, to tell the user more.
        (Step::Dest { .. }, Errno::EISDIR) => error.hint("what is mounted there is not a directory"),
        (Step::Dest { .. }, Errno::EROFS) => error.hint("make it in the image, it can not be made at run time"),
        (Step::MemoryPolicy { .. }, Errno::EINVAL) => {
            error.hint("this host has not these nodes, or the mode not these nodes and flags")
        }
        (Step::Write { .. }, Errno::ENOENT) if planned.field == "process.apparmorProfile" => {
            error.hint("the profile is not loaded: apparmor_parser --replace FILE")
        }
        (Step::Write { .. }, Errno::EINVAL) if planned.field == "process.selinuxLabel" => {
            error.hint("the policy has no such label")
        }
        (Step::Chdir { .. }, Errno::ENOENT) => error.hint("the directory is not in the image"),
        (Step::Seccomp { .. }, Errno::EACCES) => error.hint("without noNewPrivileges a filter needs CAP_SYS_ADMIN"),
        (Step::Capset { .. }, Errno::EPERM) => {
            error.hint("wsbox itself lacks a capability that the config asks for, or linux.seccomp denies capset(2)")
        }
        _ => error,
    }
}

fn hook_failure(field: &str, hook: &HookRun, failure: Failure) -> Error {
    let path = &hook.path;
    let why = match failure.errno {
        Errno::ECANCELED => {
            format!("{path} failed: exit status: {}, what it said is on the container's stderr", failure.status)
        }
        Errno::ETIMEDOUT => format!("{path} did not end within {} s, and was killed", hook.timeout / 1000),
        errno => return Error::system(format!("{field}: {path}"), errno),
    };
    Error::new(crate::Kind::System, field, why)
}

/// runc's words, which the Docker CLI takes its exit code from.
fn exec_failure(step: &Step, program: &Program, errno: Errno) -> Option<Error> {
    use crate::error::Kind::{ExecDenied, ExecNotFound};
    let argv0 = program.steps.iter().find_map(|planned| match &planned.step {
        Step::Exec { argv, .. } => argv.first(),
        _ => None,
    })?;
    let subject = format!("exec: {argv0:?}");
    let path = argv0.contains('/');
    Some(match (step, errno) {
        (Step::FindExec { .. }, Errno::ENOENT | Errno::ENOTDIR) if path => {
            Error::new(ExecNotFound, subject, format!("stat {argv0}: no such file or directory"))
        }
        (Step::FindExec { .. }, Errno::ENOENT) => {
            Error::new(ExecNotFound, subject, "executable file not found in $PATH")
        }
        (Step::FindExec { .. } | Step::Exec { .. }, Errno::EACCES) => {
            Error::new(ExecDenied, subject, "permission denied")
        }
        (Step::FindExec { .. }, Errno::EISDIR) => Error::new(ExecDenied, subject, "is a directory: permission denied"),
        (Step::Exec { .. }, Errno::ENOENT) => Error::new(ExecNotFound, subject, "no such file or directory")
            .hint("the interpreter that it names is missing"),
        (Step::Exec { .. }, Errno::ENOEXEC) => Error::new(ExecDenied, subject, "exec format error"),
        (Step::Exec { .. } | Step::FindExec { .. }, errno) => {
            Error::new(ExecDenied, subject, crate::error::describe(errno))
        }
        _ => return None,
    })
}

/// A limit of setrlimit(2), as ulimit says it.
pub(super) fn limit(value: u64) -> String {
    if value == u64::MAX { "unlimited".into() } else { value.to_string() }
}

fn doing(step: &Step) -> String {
    match step {
        Step::Dest { path, .. } => format!("find or make /{path} in the root file system"),
        Step::Attach { .. } => "attach the mount".into(),
        Step::FsOpen { kind, .. } => format!("file system type {kind:?}"),
        Step::FsConfig { key, value: Some(value), .. } => format!("option {key}={value}"),
        Step::FsConfig { key, .. } => format!("option {key}"),
        Step::FsMount { .. } => "make the file system".into(),
        Step::Write { path, value, .. } => format!("write {value:?} to /proc/{path}"),
        Step::Mask { path, .. } => format!("mask {path}"),
        Step::ReadOnly { path } => format!("make {path} read-only"),
        Step::Chdir { path, .. } => format!("chdir to {path}"),
        Step::CheckCwd => "the directory lies outside of the container".into(),
        Step::SetNs { .. } => "join the namespace".into(),
        Step::Rlimit { soft, hard, .. } => format!("set the limit to {}:{}", limit(*soft), limit(*hard)),
        Step::Seccomp { filter, .. } => format!("install the filter ({} instructions)", filter.len()),
        Step::MemoryPolicy { .. } => "set the memory policy".into(),
        Step::LoUp => "bring lo up".into(),
        Step::Console { .. } => "open the terminal".into(),
        step => format!("{:?}", step.op()).to_lowercase(),
    }
}
