// SPDX-License-Identifier: Apache-2.0
//! Hooks (config.md, "POSIX-platform Hooks"): the state on stdin, arguments and environment as they are given, killed when
//! their time is over. Those of the host run here; those inside the container are steps of the init (plan/hooks.rs).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::PollTimeout;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Hooks};
use serde_json::json;

use crate::error::{Context, Error, Kind, Result};
use crate::state::{Record, process};
use crate::sys::{pidfd, signals};

/// How much of what a hook said on stderr an error repeats, in bytes.
const WORDS: u64 = 1024;

/// When hooks run, in the order of a container's life (runtime.md, "Lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The namespaces are there, nothing of the container has run: prestart, then createRuntime
    Creating,
    /// The payload runs
    Started,
    /// The container is gone
    Stopped,
}

impl Moment {
    /// The hooks of this moment, each with its field.
    pub fn of(self, hooks: Option<&Hooks>) -> Vec<(String, &Hook)> {
        let Some(hooks) = hooks else { return Vec::new() };
        match self {
            Moment::Creating => {
                [named("prestart", hooks.prestart()), named("createRuntime", hooks.create_runtime())].concat()
            }
            Moment::Started => named("poststart", hooks.poststart()),
            Moment::Stopped => named("poststop", hooks.poststop()),
        }
    }

    fn status(self) -> &'static str {
        match self {
            Moment::Creating => "creating",
            Moment::Started => "running",
            Moment::Stopped => "stopped",
        }
    }

    fn pid(self, record: &Record) -> i32 {
        record.process.as_ref().filter(|_| self != Moment::Stopped).map_or(0, |process| process.pid)
    }
}

/// Runs the hooks of `moment` in order, up to the first that fails.
///
/// # Errors
/// The hook that failed, by its field, and what it said.
pub fn run(moment: Moment, hooks: Option<&Hooks>, record: &Record, signals: Option<BorrowedFd<'_>>) -> Result<()> {
    moment.of(hooks).iter().try_for_each(|(field, hook)| one(field, hook, moment, record, signals))
}

/// The same where failures change nothing any more: one sentence for each.
pub fn run_all(moment: Moment, hooks: Option<&Hooks>, record: &Record) -> Vec<String> {
    let each = moment.of(hooks).into_iter();
    each.filter_map(|(field, hook)| one(&field, hook, moment, record, None).err())
        .map(|error| error.to_string())
        .collect()
}

fn one(field: &str, hook: &Hook, moment: Moment, record: &Record, signals: Option<BorrowedFd<'_>>) -> Result<()> {
    let stderr = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).context(|| format!("{field}: memfd"))?;
    let mut said = File::from(stderr);
    let state = stdin(moment.status(), moment.pid(record), record)?;
    let mut child = spawn(hook, state, &said).context(|| format!("{field}: {}", hook.path().display()))?;
    let status = wait(&mut child, hook, field, signals)?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    let _ = said.seek(SeekFrom::Start(0)).and_then(|_| said.take(WORDS).read_to_string(&mut words));
    let why = format!("{} failed: {status}, stderr: {:?}", hook.path().display(), words.trim_end());
    Err(Error::new(Kind::System, field, why))
}

fn spawn(hook: &Hook, state: OwnedFd, stderr: &File) -> std::io::Result<Child> {
    let (first, rest) = match hook.args().as_deref() {
        Some([first, rest @ ..]) => (OsStr::new(first), rest),
        _ => (hook.path().as_os_str(), Default::default()),
    };
    let mut command = Command::new(hook.path());
    command.arg0(first).args(rest);
    // As runc has it: without a list of its own it has ours, and so a PATH.
    if let Some(env) = hook.env() {
        command.env_clear().envs(env.iter().filter_map(|variable| variable.split_once('=')));
    }
    command.stdin(Stdio::from(state)).stdout(Stdio::null()).stderr(stderr.try_clone()?);
    signals::unblock(&mut command);
    command.spawn()
}

/// The state (runtime.md, "State") for a hook to read: a file, so that one that never reads it blocks nobody.
///
/// # Errors
/// If there is no memory for it.
pub fn stdin(status: &str, pid: i32, record: &Record) -> Result<OwnedFd> {
    let state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status,
        "pid": pid,
        "bundle": record.bundle,
        "annotations": record.annotations,
    });
    let context = || "hooks: memfd".to_owned();
    let mut file = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC).context(context)?);
    file.write_all(state.to_string().as_bytes()).and_then(|()| file.rewind()).context(context)?;
    Ok(file.into())
}

/// Its most milliseconds, 0 for no limit.
pub fn timeout(hook: &Hook) -> u32 {
    hook.timeout().and_then(|seconds| u32::try_from(seconds.saturating_mul(1000)).ok()).unwrap_or_default()
}

/// Every hook of a config, each with its field.
pub fn all(hooks: &Hooks) -> Vec<(String, &Hook)> {
    let lists = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    lists.into_iter().flat_map(|(kind, list)| named(kind, list)).collect()
}

fn named<'a>(kind: &str, list: &'a Option<Vec<Hook>>) -> Vec<(String, &'a Hook)> {
    list.iter().flatten().enumerate().map(|(at, hook)| (format!("hooks.{kind}[{at}]"), hook)).collect()
}

fn wait(child: &mut Child, hook: &Hook, field: &str, signals: Option<BorrowedFd<'_>>) -> Result<ExitStatus> {
    if hook.timeout().is_some() || signals.is_some() {
        let pidfd = pidfd::open(Pid::from_raw(child.id() as i32)).context(|| field.into())?;
        if let Err(why) = end(&pidfd, hook.timeout(), signals)? {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::System, field, format!("{why}, and was killed")));
        }
    }
    child.wait().context(|| format!("{field}: wait"))
}

/// Waits for the end of a process, or why there is none to wait for any more.
fn end(pidfd: &OwnedFd, seconds: Option<i64>, signals: Option<BorrowedFd<'_>>) -> Result<Result<(), String>> {
    let limit = seconds.map(|seconds| PollTimeout::try_from(seconds.saturating_mul(1000)).unwrap_or(PollTimeout::MAX));
    let fds: Vec<_> = std::iter::once(pidfd.as_fd()).chain(signals).collect();
    Ok(match process::first(&fds, limit.unwrap_or(PollTimeout::NONE))? {
        Some(0) => Ok(()),
        Some(_) => Err("did not end before a signal came".into()),
        None => Err(format!("did not end within {} s", seconds.unwrap_or_default())),
    })
}
