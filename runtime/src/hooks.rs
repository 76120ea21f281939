// SPDX-License-Identifier: Apache-2.0
//! Hooks that run on the host (config.md, "POSIX-platform Hooks"): the state on stdin, arguments and environment as they are
//! given, killed when their time is over.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::PollTimeout;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Hooks};
use serde_json::{Value, json};

use crate::error::{Context, Error, Kind, Result};
use crate::state::{Record, process};
use crate::sys::pidfd;

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
        let lists = match self {
            Moment::Creating => vec![("prestart", hooks.prestart()), ("createRuntime", hooks.create_runtime())],
            Moment::Started => vec![("poststart", hooks.poststart())],
            Moment::Stopped => vec![("poststop", hooks.poststop())],
        };
        let named = |(kind, list): (&str, &'_ Option<Vec<Hook>>)| {
            let count = list.as_ref().map_or(0, Vec::len);
            (0..count).map(|at| format!("hooks.{kind}[{at}]")).collect::<Vec<_>>()
        };
        let names: Vec<String> = lists.iter().copied().flat_map(named).collect();
        names.into_iter().zip(lists.into_iter().flat_map(|(_, list)| list.iter().flatten())).collect()
    }

    fn status(self) -> &'static str {
        match self {
            Moment::Creating => "creating",
            Moment::Started => "running",
            Moment::Stopped => "stopped",
        }
    }
}

/// Runs the hooks of `moment` in order, up to the first that fails.
///
/// # Errors
/// The hook that failed, by its field, and what it said.
pub fn run(moment: Moment, hooks: Option<&Hooks>, record: &Record) -> Result<()> {
    moment.of(hooks).iter().try_for_each(|(field, hook)| one(field, hook, moment, record))
}

/// Runs all hooks of `moment`, whose failures change nothing any more: one sentence for each.
pub fn run_all(moment: Moment, hooks: Option<&Hooks>, record: &Record) -> Vec<String> {
    let failed =
        |(field, hook): &(String, &Hook)| one(field, hook, moment, record).err().map(|error| error.to_string());
    moment.of(hooks).iter().filter_map(failed).collect()
}

fn one(field: &str, hook: &Hook, moment: Moment, record: &Record) -> Result<()> {
    let stderr = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).context(|| format!("{field}: memfd"))?;
    let mut said = File::from(stderr);
    let mut child = spawn(hook, &said).context(|| format!("{field}: {}", hook.path().display()))?;
    // Whether it reads its stdin is its own affair: EPIPE is no error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(state(moment, record).to_string().as_bytes()));
    let status = wait(&mut child, hook, field)?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    let _ = said.seek(SeekFrom::Start(0)).and_then(|_| said.take(WORDS).read_to_string(&mut words));
    let why = format!("{} failed: {status}, stderr: {:?}", hook.path().display(), words.trim_end());
    Err(Error::new(Kind::System, field, why))
}

fn spawn(hook: &Hook, stderr: &File) -> std::io::Result<Child> {
    let (first, rest) = match hook.args().as_deref() {
        Some([first, rest @ ..]) => (OsStr::new(first), rest),
        _ => (hook.path().as_os_str(), Default::default()),
    };
    let variables = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    let mut command = Command::new(hook.path());
    command.arg0(first).args(rest).env_clear().envs(variables);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
    command.spawn()
}

/// runtime.md, "State".
fn state(moment: Moment, record: &Record) -> Value {
    let pid = record.process.as_ref().filter(|_| moment != Moment::Stopped).map_or(0, |process| process.pid);
    json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": moment.status(),
        "pid": pid,
        "bundle": record.bundle,
        "annotations": record.annotations,
    })
}

fn wait(child: &mut Child, hook: &Hook, field: &str) -> Result<ExitStatus> {
    if let Some(seconds) = hook.timeout() {
        let pidfd = pidfd::open(Pid::from_raw(child.id() as i32)).context(|| field.into())?;
        let limit = PollTimeout::try_from(seconds.saturating_mul(1000)).unwrap_or(PollTimeout::MAX);
        if !process::wait(&pidfd, limit)? {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::System, field, format!("did not end within {seconds} s, and was killed")));
        }
    }
    child.wait().context(|| format!("{field}: wait"))
}
