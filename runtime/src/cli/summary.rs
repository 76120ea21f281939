// SPDX-License-Identifier: Apache-2.0
//! What there is to say at the end of `wsbox run`: to a person in a line, to a program in a file.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::output::{self, Replacing};
use crate::cgroup::Met;
use crate::error::{Context, Error, Result};
use crate::monitor::report::{self, State, Violations};
use crate::state::{self, Root, met};
use crate::sys::pidfd::Exit;

/// The version of the file's layout.
const VERSION: u32 = 1;

/// A run, from its beginning.
pub struct Summary {
    file: Option<(PathBuf, Out)>,
    started: String,
    clock: Instant,
}

/// Where it goes: a file is replaced by a whole one, all else (a pipe, /dev/stderr) is written to as it is.
enum Out {
    File(Replacing),
    Other(File),
}

impl Out {
    fn open(path: &Path) -> Result<Self> {
        let subject = || format!("--summary {}", path.display());
        if path.symlink_metadata().map_or(true, |found| found.is_file()) {
            return Replacing::new(path).map(Self::File).context(subject);
        }
        let other = File::options().append(true).custom_flags(libc::O_NOCTTY).open(path).context(subject)?;
        // /dev/stdout may well be a file; a link that somebody laid elsewhere is another's choice of what is written.
        let is_file = other.metadata().context(subject)?.is_file();
        let own = ["/dev/stdout", "/dev/stderr"].map(Path::new).contains(&path);
        if is_file
            && !own
            && path.parent() != Some(Path::new("/dev/fd"))
            && path.parent() != Some(Path::new("/proc/self/fd"))
        {
            return Err(Error::invalid(subject(), "is a link to a file, which is not followed").hint("give the file"));
        }
        Ok(Self::Other(other))
    }

    fn finish(self, text: &[u8]) -> std::io::Result<()> {
        match self {
            Self::File(file) => file.finish(text),
            Self::Other(mut file) => file.write_all(text),
        }
    }
}

/// What is written.
#[derive(Serialize)]
struct Content<'a> {
    version: u32,
    id: &'a str,
    bundle: PathBuf,
    /// RFC 3339
    started: &'a str,
    ended: String,
    seconds: f64,
    exit: Ended,
    violations: &'a Violations,
    /// As `inspect` has them
    #[serde(rename = "limitsMet")]
    limits_met: serde_json::Value,
}

#[derive(Serialize)]
struct Ended {
    /// As a shell has it: 128 + n for signal n
    code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

impl Summary {
    /// Before anything runs: a file that can not be written is an error by then.
    pub fn begin(file: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| Ok::<_, Error>((path.to_owned(), Out::open(path)?));
        Ok(Self { file: file.map(open).transpose()?, started: state::now(), clock: Instant::now() })
    }

    /// The payload has ended, and the container is still there.
    ///
    /// # Errors
    /// If the file can not be written.
    pub fn end(self, root: &Root, id: &str, exit: Exit, met: &[Met]) -> Result<()> {
        let terminal = std::io::stderr().is_terminal();
        let killed = exit == Exit::Signal(libc::SIGSYS);
        if self.file.is_none() && !terminal && !killed {
            return Ok(());
        }
        let record = root.read(id)?;
        if killed {
            report::count_killed(&record)?;
        }
        let violations = report::of(&record)?;
        if let (true, Some(line)) = (terminal, line(&violations, exit)) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        let Some((path, out)) = self.file else { return Ok(()) };
        let signal = if let Exit::Signal(signal) = exit { Some(signal) } else { None };
        let content = Content {
            version: VERSION,
            id,
            bundle: record.bundle,
            started: &self.started,
            ended: state::now(),
            seconds: self.clock.elapsed().as_secs_f64(),
            exit: Ended { code: exit.code(), signal },
            violations: &violations,
            limits_met: met::to_json(met),
        };
        let context = || format!("--summary {}", path.display());
        out.finish(output::pretty(&content)?.as_bytes()).context(context)
    }
}

/// None where there is nothing to say.
fn line(violations: &Violations, exit: Exit) -> Option<String> {
    let mut parts = Vec::new();
    if exit == Exit::Signal(libc::SIGSYS) {
        parts.push("killed by the seccomp filter (SIGSYS)".to_owned());
    }
    if violations.total > 0 {
        let names = violations.blocked.iter().map(|blocked| blocked.syscall.as_str());
        // One without a name can not be allowed by it.
        let mut names: Vec<&str> = names.filter(|name| !name.contains(' ')).collect();
        names.sort_unstable();
        names.dedup();
        let advice = format!("; to allow: wsbox seccomp allow BUNDLE {}", names.join(" "));
        parts.push(format!("blocked: {}{}", violations.line(), if names.is_empty() { "" } else { &advice }));
    }
    if let (State::Stopped, Some(reason)) = (violations.counting, &violations.reason) {
        parts.push(format!("counting has stopped: {reason}"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::report::Blocked;

    #[test]
    fn a_line_says_what_and_how_to_allow_it() {
        let blocked = |syscall: &str, process: &str, count| Blocked {
            syscall: syscall.into(),
            abi: "x86_64",
            process: Some(process.into()),
            count,
        };
        let blocked = vec![blocked("ptrace", "strace", 2), blocked("mount", "mount", 1), blocked("mount", "a\nb", 1)];
        let mut violations = Violations { total: 4, blocked, ..Violations::default() };
        assert_eq!(
            line(&violations, Exit::Code(0)).unwrap(),
            "blocked: ptrace 2 (strace), mount 1 (mount), mount 1 (a\\nb); to allow: wsbox seccomp allow BUNDLE mount ptrace"
        );
        (violations.counting, violations.reason) = (State::Stopped, Some("gone".into()));
        assert!(line(&violations, Exit::Signal(libc::SIGSYS)).unwrap().starts_with("killed by the seccomp filter"));
        assert_eq!(line(&Violations::default(), Exit::Code(1)), None);
    }
}
