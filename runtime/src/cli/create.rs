// SPDX-License-Identifier: Apache-2.0
//! `wsbox create`

use std::path::{Path, PathBuf};

use super::output::Replacing;
use super::{Global, listen, log, stdin};
use crate::bundle::Bundle;
use crate::error::{Context, Result};
use crate::launch::{self, Options, Process, console};
use crate::rootless;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The new container's id: letters, digits and _ + - .
    #[arg(value_name = "ID")]
    id: String,
    /// A directory with a config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    start: StartOptions,
}

/// What `create` and `run` share.
#[derive(Debug, clap::Args)]
pub struct StartOptions {
    #[command(flatten)]
    pub tell: Tell,
    /// Send the master of the container's terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Pass this many descriptors from 3 on to the payload
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Count the calls that the filter denies: `wsbox inspect` shows them
    #[arg(long)]
    count_violations: bool,
    /// Changes nothing: wsbox always uses pivot_root(2)
    #[arg(long)]
    no_pivot: bool,
}

/// Who else is told of a new process.
#[derive(Debug, clap::Args)]
pub struct Tell {
    /// Write its pid to this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Send a pidfd of it to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
}

impl Tell {
    pub fn tell(&self, process: &Process) -> Result<()> {
        write_pid_file(self.pid_file.as_deref(), process.pid)?;
        self.pidfd_socket.as_deref().map_or(Ok(()), |socket| console::send_pidfd(socket, process))
    }
}

impl StartOptions {
    pub fn options(&self, global: &Global, bundle: &Bundle) -> Result<Options> {
        let (passed, env) = listen::passed(&bundle.spec)?;
        Ok(Options {
            profile: global.profile,
            console_socket: self.console_socket.clone(),
            notify_socket: super::notify_socket(),
            preserve_fds: self.preserve_fds.saturating_add(passed),
            env,
            no_new_keyring: self.no_new_keyring,
            systemd_cgroup: global.systemd_cgroup,
            count_violations: self.count_violations,
        })
    }
}

/// Opens a bundle and says what is odd in it. A user's is run in a user namespace, which this process is in from here on.
pub fn open_bundle(path: &Path) -> Result<Bundle> {
    let bundle = rootless::enter(Bundle::open(path)?)?;
    bundle.warnings.iter().for_each(|warning| log::warning(warning));
    Ok(bundle)
}

/// Writes a pid, whole or not at all: an engine reads the file as soon as it is there.
fn write_pid_file(path: Option<&Path>, pid: nix::unistd::Pid) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    Replacing::new(path)
        .and_then(|file| file.finish(pid.to_string().as_bytes()))
        .context(|| format!("--pid-file {}", path.display()))
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    log::leave_stderr();
    let bundle = open_bundle(&arguments.bundle)?;
    let root = global.root();
    let options = arguments.start.options(global, &bundle)?;
    if options.console_socket.is_none() && super::run::wants_terminal(&bundle) {
        let error =
            crate::Error::invalid("process.terminal", "needs --console-socket here: nobody would hold the terminal");
        return Err(error);
    }
    let _given = stdin::keep_unwritten();
    let process = launch::create(&root, &arguments.id, &bundle, &options)?;
    process.warnings.iter().for_each(|warning| log::warning(warning));
    arguments
        .start
        .tell
        .tell(&process)
        // What can not be logged is not done.
        .and_then(|()| global.trail.started())
        .inspect_err(|_| drop(crate::state::lifecycle::delete(&root, &arguments.id, true)))?;
    Ok(0)
}
