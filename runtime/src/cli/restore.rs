// SPDX-License-Identifier: Apache-2.0
//! `wsbox restore`

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::checkpoint::Images;
use super::interrupt::Interrupt;
use super::{Global, create, foreground, log, stdin};
use crate::bundle::Bundle;
use crate::criu::{self, Restore};
use crate::error::{Error, Result};
use crate::launch::Process;
use crate::state::lifecycle;
use crate::validate;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The new container's id
    #[arg(value_name = "ID")]
    id: String,
    /// A directory with a config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    images: Images,
    /// Send the master of its terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Leave it running and return
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    tell: create::Tell,
    /// Changes nothing: wsbox never becomes a subreaper
    #[arg(long)]
    no_subreaper: bool,
    /// Changes nothing: criu always uses pivot_root(2)
    #[arg(long)]
    no_pivot: bool,
    /// TYPE:NAME of another LSM profile
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// Another LSM context for mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
}

impl Arguments {
    fn restore(&self, global: &Global, bundle: &Bundle, interrupt: &Interrupt) -> Result<Process> {
        if self.console_socket.is_some() {
            return Err(Error::invalid(
                "--console-socket",
                "is of no use: a container with a terminal has no checkpoint",
            ));
        }
        let wanted = Restore {
            settings: self.images.settings(global)?,
            systemd_cgroup: global.systemd_cgroup,
            profile: global.profile,
            lsm: (self.lsm_profile.clone(), self.lsm_mount_context.clone()),
        };
        criu::restore(&global.root(), &self.id, bundle, &wanted, interrupt.as_fd())
    }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    validate::container_id(&arguments.id)?;
    let bundle = create::open_bundle(&arguments.bundle)?;
    let signals = if arguments.detach { None } else { Some(foreground::Signals::block()?) };
    let _given = stdin::keep_unwritten();
    // criu may hang: then they end it, and after that they are the payload's.
    let interrupt = Interrupt::hold()?;
    let (root, id) = (global.root(), &arguments.id);
    let process = arguments.restore(global, &bundle, &interrupt)?;
    process.warnings.iter().for_each(|warning| log::warning(warning));
    let told = arguments.tell.tell(&process).and_then(|()| global.trail.started());
    told.inspect_err(|_| drop(lifecycle::delete(&root, id, true)))?;
    let Some(signals) = signals else { return Ok(0) };
    let exit = foreground::follow(&process, &signals);
    let logged = exit.as_ref().map_or(Ok(()), |exit| global.trail.exited(exit));
    lifecycle::delete(&root, id, true)?.iter().for_each(|warning| log::warning(warning));
    logged?;
    Ok(exit?.code() as u8)
}
