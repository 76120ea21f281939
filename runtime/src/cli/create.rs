// SPDX-License-Identifier: Apache-2.0
//! `wsbox create`

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Global, log};
use crate::bundle::Bundle;
use crate::error::{Context, Result};
use crate::launch::{self, Options, Process, console};

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
    /// Write the pid of the container's first process to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the master of the container's terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the container's first process to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Pass this many descriptors from 3 on to the payload
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Accepted for runc's sake; wsbox always uses pivot_root(2)
    #[arg(long, hide = true)]
    no_pivot: bool,
}

impl StartOptions {
    pub fn options(&self, global: &Global) -> Options {
        Options {
            profile: global.profile,
            console_socket: self.console_socket.clone(),
            preserve_fds: self.preserve_fds,
            no_new_keyring: self.no_new_keyring,
        }
    }
}

/// Opens a bundle and says what is odd in it.
pub fn open_bundle(path: &Path) -> Result<Bundle> {
    let bundle = Bundle::open(path)?;
    bundle.warnings.iter().for_each(|warning| log::warning(warning));
    Ok(bundle)
}

/// Writes a pid, whole or not at all: an engine reads the file as soon as it is there.
pub fn write_pid_file(path: Option<&Path>, pid: nix::unistd::Pid) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(hidden);
    let _ = std::fs::remove_file(&temporary);
    // Not through a link that somebody laid there (O_EXCL, open(2)).
    std::fs::File::create_new(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .context(|| format!("--pid-file {}", path.display()))
}

/// Who is to get a process's pidfd, if anybody is: connected to before anything is made.
pub struct PidfdSocket(Option<OwnedFd>);

impl PidfdSocket {
    /// As runc, whose word for an init is standard and for a process of `exec` setns.
    pub const INIT: &str = "standard";
    pub const EXEC: &str = "setns";

    pub fn connect(path: Option<&Path>) -> Result<Self> {
        path.map(|path| console::connect_to("--pidfd-socket", path)).transpose().map(Self)
    }

    pub fn send(&self, word: &str, process: &Process) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |socket| console::send("--pidfd-socket", socket, word, &process.pidfd))
    }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let bundle = open_bundle(&arguments.bundle)?;
    let root = global.root();
    let options = arguments.start.options(global);
    if options.console_socket.is_none() && super::run::wants_terminal(&bundle) {
        let error =
            crate::Error::invalid("process.terminal", "needs --console-socket here: nobody would hold the terminal");
        return Err(error);
    }
    let pidfd_socket = PidfdSocket::connect(arguments.start.pidfd_socket.as_deref())?;
    let process = launch::create(&root, &arguments.id, &bundle, &options)?;
    process.warnings.iter().for_each(|warning| log::warning(warning));
    write_pid_file(arguments.start.pid_file.as_deref(), process.pid)
        .and_then(|()| pidfd_socket.send(PidfdSocket::INIT, &process))
        .inspect_err(|_| drop(crate::state::lifecycle::delete(&root, &arguments.id, true)))?;
    Ok(0)
}
