// SPDX-License-Identifier: Apache-2.0
//! Checkpoints, by the criu program (criu.org) and its command line: finding it, running it, and what it says when it fails. What
//! can not come back as the config has it is refused before criu is started (refuse.rs); what came back is looked at before it
//! runs (verify.rs).

mod confined;
mod describe;
mod descriptors;
mod dump;
mod images;
mod lazy;
mod read_only;
mod refuse;
mod restore;
mod rights;
mod room;
mod stage;
mod talk;
mod verify;
mod way;

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::pidfd;
use images::Images;

pub use dump::{Dump, checkpoint};
pub use restore::{Restore, restore};

/// Where criu and its helpers are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a log is looked at.
const MOST_OF_A_LOG: u64 = 256 << 20;

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
    fn check(&self, command: &str, signals: Option<BorrowedFd<'_>>) -> Result<()> {
        let subject = self.criu.display().to_string();
        let said: File = memfd_create(c"criu", MFdFlags::MFD_CLOEXEC).context(|| "memfd".into())?.into();
        let stderr = said.try_clone().context(|| "memfd".into())?;
        let spawned = self.program("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = spawned.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let program = find(&self.criu);
                Error::invalid(command, format!("criu is not installed: there is no {}", program.display()))
                    .hint("install the package criu, or name the program with --criu")
            }
            _ => Error::invalid(command, format!("{subject}: {}", error.to_string().to_lowercase())),
        })?;
        if end(child, signals)?.success() {
            return Ok(());
        }
        let text = words(said);
        let first = if text.is_empty() { "`criu check` failed" } else { &text };
        Err(Error::invalid(command, format!("{subject} does not work on this host: {first}")))
    }

    /// criu with nothing of the caller's: neither environment nor files of settings change what it does.
    fn program(&self, verb: &str) -> Command {
        let mut command = Command::new(find(&self.criu));
        command.env_clear().env("PATH", PATH).args([verb, "--no-default-config"]);
        command
    }

    /// `criu VERB` with its folders and its log; what it says before it has one comes back in the file.
    fn command(&self, verb: &str, folders: &Folders, empty_network: bool) -> Result<(Command, File)> {
        let said: File = memfd_create(c"criu", MFdFlags::MFD_CLOEXEC).context(|| "memfd".into())?.into();
        let mut command = self.program(verb);
        command.arg("--images-dir").arg(folders.images.place()).arg("--work-dir").arg(&folders.work_path);
        command.arg("--log-file").arg(log_name(verb)).arg("-v4").args(&self.flags);
        if empty_network {
            command.args(["--empty-ns", "net"]);
        }
        let stderr = said.try_clone().context(|| "memfd".into())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Ok((command, said))
    }

    /// Why criu failed: the last errors of its log, or what it said without one.
    fn failed(&self, what: &str, verb: &str, status: ExitStatus, said: File, work: &Images) -> Error {
        let log = self.work.join(log_name(verb));
        let text = work.read(&log_name(verb), MOST_OF_A_LOG).unwrap_or_default();
        let why = last_errors(&String::from_utf8_lossy(&text)).unwrap_or_else(|| words(said));
        let why = if why.is_empty() { status.to_string() } else { why };
        Error::new(Kind::System, what, format!("criu {verb} failed: {why}")).hint(format!("see {}", log.display()))
    }
}

/// Waits for the end of a child, or until one of `signals` comes, which ends it.
fn end(mut child: Child, signals: Option<BorrowedFd<'_>>) -> Result<ExitStatus> {
    let ended = pidfd::open(Pid::from_raw(child.id() as i32)).context(|| "pidfd of criu".into());
    let waited = ended.and_then(|ended| talk::wait(None, &ended, signals, PollTimeout::NONE).map(drop));
    if waited.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context(|| "wait for criu".into());
    waited.and(status)
}

/// The file of a program: one without a folder is looked for in our [`PATH`], not the caller's.
fn find(program: &Path) -> PathBuf {
    if program.components().count() > 1 || program.has_root() {
        return std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
    }
    let mut all = PATH.split(':').map(|folder| Path::new(folder).join(program));
    all.find(|file| file.is_file()).unwrap_or_else(|| Path::new("/usr/sbin").join(program))
}

fn log_name(verb: &str) -> String {
    format!("{verb}.log")
}

/// The first and the last error of a log: the cause, and what came of it.
fn last_errors(log: &str) -> Option<String> {
    // Of a page server criu says so without a word of an error.
    let text = |line: &str| match line.split_once(") Can't connect to server ") {
        Some((_, server)) => Some(format!("can't connect to server {server}")),
        None => {
            line.split_once("Error (").and_then(|(_, rest)| rest.split_once("): ")).map(|(_, text)| text.to_owned())
        }
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

/// What criu works in.
struct Folders {
    images: Images,
    work: Images,
    /// The work folder by a path without links: criu mounts below it, which it can not by a descriptor of our mount namespace
    work_path: PathBuf,
}

impl Folders {
    /// The images, and the folder of the log of `verb`, which is a link to one in containerd's bundles.
    fn new(images: Images, work: &Path, verb: &str) -> Result<Self> {
        make_folder("--work-path", work)?;
        let work_path = std::fs::canonicalize(work).context(|| format!("--work-path {}", work.display()))?;
        let work = Images::of_logs("--work-path", &work_path, &log_name(verb))?;
        Ok(Self { images, work, work_path })
    }
}

/// A folder for images or logs, which nobody else may read: memory is in them.
fn make_folder(flag: &str, path: &Path) -> Result<()> {
    let flag = format!("{flag} {}", path.display());
    // As far as it is there: what is made there is ours.
    way::to(path, &flag)
        .map(drop)
        .or_else(|error| if error.errno() == Some(Errno::ENOENT) { Ok(()) } else { Err(error) })?;
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_first() {
        let log = "(00.1) all is well\n(00.2) Error (criu/mount.c:1): no such mount\n(00.3)      1: Error (criu/x.c:20): gave up\n";
        assert_eq!(last_errors(log).as_deref(), Some("no such mount; gave up"));
        assert_eq!(last_errors("(00.2) Error (criu/mount.c:1): alone").as_deref(), Some("alone"));
        assert_eq!(last_errors("(00.2) nothing\n"), None);
        let log = "(00.1) Can't connect to server ::1:7\n(00.2) Error (criu/x.c:20): gave up\n";
        assert_eq!(last_errors(log).as_deref(), Some("can't connect to server ::1:7; gave up"));
    }

    #[test]
    fn criu_gets_nothing_of_the_caller() {
        let settings = Settings { criu: "env".into(), ..Settings::default() };
        let command = settings.program("check");
        let program = Path::new(command.get_program());
        assert!(program.is_absolute() && program.is_file(), "{program:?}");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["check", "--no-default-config"]);
        assert_eq!(command.get_envs().collect::<Vec<_>>(), [("PATH".as_ref(), Some(PATH.as_ref()))]);
    }

    #[test]
    fn a_folder_that_is_none() {
        let images = Images::open("--image-path", "/proc/self".as_ref());
        assert!(images.is_err(), "/proc/self is a link");
        let images = Images::open("--image-path", "/var/empty-of-wsbox".as_ref());
        assert!(images.is_err_and(|error| error.to_string().contains("no such file")));
    }

    #[test]
    fn programs_without_a_folder_are_ours() {
        assert_eq!(find("./a/criu".as_ref()), std::path::absolute("a/criu").unwrap());
        assert_eq!(find("/no/such".as_ref()), Path::new("/no/such"));
        assert!(find("no-such-criu".as_ref()).is_absolute());
    }

    #[test]
    fn logs_lie_where_nobody_else_writes() {
        let dir = std::env::temp_dir().join(format!("wsbox-work-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let link = dir.with_extension("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let open = |path: &Path| Folders::new(Images::open("--image-path", &dir)?, path, "dump").map(|it| it.work_path);
        let (behind_link, shared) = (open(&link), open("/tmp".as_ref()));
        // What else is there, as in podman's folders, is no matter.
        std::os::unix::fs::symlink("/etc/passwd", dir.join("other")).unwrap();
        let beside = Images::of_logs("--work-path", &dir, "dump.log").map(drop);
        std::os::unix::fs::symlink("/etc/passwd", dir.join("dump.log")).unwrap();
        let laid = Images::of_logs("--work-path", &dir, "dump.log").map(drop);
        let _ = (std::fs::remove_file(link), std::fs::remove_dir_all(&dir));
        assert_eq!((behind_link, beside), (Ok(dir), Ok(())));
        assert!(shared.is_err_and(|error| error.to_string().contains("can be written by others")));
        assert!(laid.is_err_and(|error| error.to_string().contains("is no regular file")));
    }
}
