// SPDX-License-Identifier: Apache-2.0
//! Checkpoints, by the criu program (criu.org) and its command line: finding it, running it, and what it says when it fails. What
//! can not come back as the config has it is refused before criu is started (refuse.rs); what came back is looked at before it
//! runs (verify.rs).

mod describe;
mod dump;
mod images;
mod mountinfo;
mod read_only;
mod refuse;
mod restore;
mod rights;
mod stage;
mod talk;
mod verify;

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error, Kind, Result};

pub use dump::{Dump, checkpoint};
pub use restore::{Restore, restore};

/// What dumps and restores share.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The program
    pub criu: PathBuf,
    /// Where the images are
    pub images: PathBuf,
    /// Where criu's log goes
    pub work: PathBuf,
    /// Flags that are criu's own
    pub flags: Vec<&'static str>,
    /// What of the cgroups goes into the images
    pub cgroups: String,
    /// Leave the network namespace empty
    pub empty_network: bool,
}

impl Settings {
    /// Asks criu itself whether it works here.
    ///
    /// # Errors
    /// criu is not there, or does not work on this kernel.
    fn check(&self, command: &str) -> Result<()> {
        let subject = self.criu.display().to_string();
        match Command::new(&self.criu).arg("check").stdin(Stdio::null()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::invalid(command, format!("criu is not installed: there is no {subject:?} in $PATH"))
                    .hint("install the package criu, or name the program with --criu"))
            }
            Err(error) => Err(Error::invalid(command, format!("{subject}: {}", error.to_string().to_lowercase()))),
            Ok(output) if !output.status.success() => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let first = text.lines().next().unwrap_or("`criu check` failed").to_owned();
                Err(Error::invalid(command, format!("{subject} does not work on this host: {first}")))
            }
            Ok(_) => Ok(()),
        }
    }

    /// `criu VERB` with its folders and its log; what it says before it has one comes back in the file.
    fn command(&self, verb: &str, empty_network: bool) -> Result<(Command, File)> {
        let said: File = memfd_create(c"criu", MFdFlags::MFD_CLOEXEC).context(|| "memfd".into())?.into();
        let mut command = Command::new(&self.criu);
        command.arg(verb).arg("--images-dir").arg(&self.images).arg("--work-dir").arg(&self.work);
        command.arg("--log-file").arg(log_name(verb)).arg("-v4").args(&self.flags);
        if empty_network {
            command.args(["--empty-ns", "net"]);
        }
        let stderr = said.try_clone().context(|| "memfd".into())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Ok((command, said))
    }

    /// Why criu failed: the last errors of its log, or what it said without one.
    fn failed(&self, what: &str, verb: &str, status: ExitStatus, said: File) -> Error {
        let log = self.work.join(log_name(verb));
        let text = std::fs::read(&log).unwrap_or_default();
        let why = last_errors(&String::from_utf8_lossy(&text)).unwrap_or_else(|| words(said));
        let why = if why.is_empty() { status.to_string() } else { why };
        Error::new(Kind::System, what, format!("criu {verb} failed: {why}")).hint(format!("see {}", log.display()))
    }
}

fn log_name(verb: &str) -> String {
    format!("{verb}.log")
}

/// The first and the last error of a log: the cause, and what came of it.
fn last_errors(log: &str) -> Option<String> {
    let text = |line: &str| {
        line.split_once("Error (").and_then(|(_, rest)| rest.split_once("): ")).map(|(_, text)| text.to_owned())
    };
    let errors: Vec<String> = log.lines().filter_map(text).map(|text| text.trim().to_owned()).collect();
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [first, .., last] => Some(format!("{first}; {last}")),
    }
}

fn words(mut said: File) -> String {
    let mut text = String::new();
    let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// A folder for images or logs, which nobody else may read: memory is in them.
fn make_folder(flag: &str, path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context(|| format!("{flag} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::last_errors;

    #[test]
    fn the_cause_comes_first() {
        let log = "(00.1) all is well\n(00.2) Error (criu/mount.c:1): no such mount\n(00.3)      1: Error (criu/x.c:20): gave up\n";
        assert_eq!(last_errors(log).as_deref(), Some("no such mount; gave up"));
        assert_eq!(last_errors("(00.2) Error (criu/mount.c:1): alone").as_deref(), Some("alone"));
        assert_eq!(last_errors("(00.2) nothing\n"), None);
    }
}
