// SPDX-License-Identifier: Apache-2.0
//! The one error of the crate: what failed, on which field or file, why, and what to do.

use std::fmt;

use nix::errno::Errno;

/// What `Result` means everywhere in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bundle, an argument or an option is wrong, or asks what this host cannot enforce.
    Invalid,
    /// No container of that name.
    NotFound,
    /// A container of that name is there already.
    Exists,
    /// The container is in a state that does not allow this.
    State,
    /// The kernel refused a step.
    System,
    /// The payload's program is not there (exit code 127).
    ExecNotFound,
    /// The payload's program may not be executed (exit code 126).
    ExecDenied,
}

/// One failure, told in one sentence: `subject: why (what to do)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    subject: String,
    why: String,
    hint: Option<String>,
    errno: Option<Errno>,
}

impl Error {
    /// A failure of `kind` on `subject` (a JSON path such as `linux.seccomp.syscalls[3].names[0]`, a file, or an argument).
    pub fn new(kind: Kind, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), why: why.into(), hint: None, errno: None }
    }

    /// The config, an argument or an option is wrong.
    pub fn invalid(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, subject, why)
    }

    /// The kernel refused `step` (for example `mkdir /run/wsbox/x`) with `errno`.
    pub fn system(step: impl Into<String>, errno: Errno) -> Self {
        Self { errno: Some(errno), ..Self::new(Kind::System, step, describe(errno)) }
    }

    /// The same error with a way out, printed in brackets.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The kernel's error number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// What failed and why, without the way out, and the way out.
    pub(crate) fn parts(&self) -> (String, Option<&str>) {
        let plain = Self { hint: None, ..self.clone() };
        (plain.to_string(), self.hint.as_deref())
    }

    /// The exit code of the command that failed so: 127 and 126 as a shell gives them, else 1.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            Kind::ExecNotFound => 127,
            Kind::ExecDenied => 126,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            f.write_str(&self.why)?;
        } else {
            write!(f, "{}: {}", self.subject, self.why)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Error {}

/// The words for an error number: in lower case, because the Docker CLI looks for "no such file or directory" and
/// "permission denied" as Go spells them, and takes its exit code from them.
pub fn describe(errno: Errno) -> String {
    match errno {
        // Of numbers that a file takes; the table's words are about mathematics.
        Errno::ERANGE => "numerical result out of range".into(),
        errno => errno.desc().to_lowercase(),
    }
}

/// Adds the failed step to a bare error number.
pub trait Context<T> {
    /// `step` is what was tried, such as `open /x/config.json`.
    fn context(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::system(step(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::system(step(), Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))
    }
}
