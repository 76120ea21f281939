// SPDX-License-Identifier: Apache-2.0
//! `wsbox run`: of a bundle, or as runc has it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::create::{StartOptions, open_bundle};
use super::summary::Summary;
use super::{Global, foreground, log, stdin};
use crate::bundle::Bundle;
use crate::cgroup::Met;
use crate::error::{Context, Error, Result};
use crate::launch;
use crate::plan::harden;
use crate::profile::{self, Profile};
use crate::state::met::LimitWatch;
use crate::state::{Root, lifecycle};
use crate::sys::pidfd::Exit;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A bundle (a path with a `/`, or a directory with a config.json); else the new container's id
    #[arg(value_name = "BUNDLE|ID")]
    what: String,
    /// The bundle, if an id is given [default: .]
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The id, if a bundle is given [default: a random one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Leave it running and return
    #[arg(short, long)]
    detach: bool,
    /// Do not delete it when it ends
    #[arg(long)]
    keep: bool,
    /// Write how it ended, and what its filter denied, to this file, as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    summary: Option<PathBuf>,
    /// Changes nothing: wsbox never becomes a subreaper
    #[arg(long)]
    no_subreaper: bool,
    #[command(flatten)]
    start: StartOptions,
}

impl Arguments {
    /// The bundle and the id, by the rule of the command's help.
    fn names(&self) -> Result<(PathBuf, String)> {
        let path = Path::new(&self.what);
        if self.bundle.is_none() && (self.what.contains('/') || path.join("config.json").is_file()) {
            return Ok((path.to_owned(), self.id.clone().map_or_else(random_id, Ok)?));
        }
        if self.id.is_some() {
            return Err(Error::invalid("--id", format!("{:?} is no bundle, so it is the id already", self.what)));
        }
        Ok((self.bundle.clone().unwrap_or_else(|| ".".into()), self.what.clone()))
    }
}

fn random_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/uuid";
    let uuid = std::fs::read_to_string(file).context(|| file.into())?;
    Ok(format!("ws-{}", uuid.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>()))
}

/// Whether the payload is to have a terminal.
pub fn wants_terminal(bundle: &Bundle) -> bool {
    bundle.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or_default()
}

/// Tells a person, but no program, what somebody else's bundle leaves open.
fn name_lacking_layers(bundle: &Bundle, profile: Option<Profile>) {
    let lacking = harden::lacking(&bundle.spec);
    // A profile adds them.
    if !lacking.is_empty() && std::io::stderr().is_terminal() && !profile::in_force(profile).unwrap_or_default() {
        let hint = "`wsbox spec` writes a config with all eight layers";
        log::warning(&format!("this bundle does not have {} ({hint})", lacking.join(", ")));
    }
}

/// The limits that were met; a person is told, and everybody why the payload was killed if that was for want of memory. Nothing is
/// read where nobody asks, of a payload that was not killed.
fn limits_met(root: &Root, id: &str, watch: Option<LimitWatch>, exit: Option<Exit>) -> Vec<Met> {
    let killed = exit.is_some_and(|exit| exit.code() == 128 + libc::SIGKILL);
    let watch = watch.or_else(|| if killed { LimitWatch::new(root, id).ok() } else { None });
    let met = watch.map(|watch| watch.met()).unwrap_or_default();
    let person = std::io::stderr().is_terminal();
    let worth = |met: &&Met| match met {
        Met::Memory { .. } => true,
        // Less than a tenth of a second nobody has waited.
        Met::Cpu { microseconds, .. } => person && *microseconds >= 100_000,
        Met::Pids { .. } | Met::Tmpfs { .. } => person,
    };
    met.iter().filter(worth).for_each(|met| log::warning(&met.to_string()));
    met
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let (path, id) = arguments.names()?;
    global.trail.container(&id);
    let bundle = open_bundle(&path)?;
    let (root, options) = (global.root(), arguments.start.options(global, &bundle)?);
    if arguments.detach && options.console_socket.is_none() && wants_terminal(&bundle) {
        return Err(Error::invalid(
            "--detach",
            "a terminal (process.terminal) needs --console-socket: nobody would hold it",
        ));
    }
    name_lacking_layers(&bundle, options.profile);
    let signals = if arguments.detach { None } else { Some(foreground::Signals::block()?) };
    let _given = stdin::keep_unwritten();
    let summary = Summary::begin(arguments.summary.as_deref())?;
    let mut process = launch::run(&root, &id, &bundle, &options)?;
    process.warnings.iter().for_each(|warning| log::warning(warning));
    let told = arguments.start.tell.tell(&process).and_then(|()| global.trail.started());
    told.inspect_err(|_| drop(lifecycle::delete(&root, &id, true)))?;
    let undo = || drop(lifecycle::delete(&root, &id, true));
    let Some(signals) = signals else { return process.until_ready().map(|()| 0).inspect_err(|_| undo()) };
    let passing = process.pass_notifications().inspect_err(|_| undo())?;
    let asked = std::io::stderr().is_terminal() || arguments.summary.is_some();
    let watch = if asked { LimitWatch::new(&root, &id).ok() } else { None };
    let exit = foreground::follow(&process, &signals);
    // Its last word too.
    passing.map(std::thread::JoinHandle::join);
    crate::launch::pause::before("exited");
    let met = limits_met(&root, &id, watch, exit.as_ref().ok().copied());
    let summed_up = exit.as_ref().map_or(Ok(()), |exit| summary.end(&root, &id, *exit, &met));
    let logged = exit.as_ref().map_or(Ok(()), |exit| global.trail.exited(exit));
    if !arguments.keep {
        lifecycle::delete(&root, &id, true)?.iter().for_each(|warning| log::warning(warning));
    }
    summed_up.and(logged)?;
    Ok(exit?.code() as u8)
}
