// SPDX-License-Identifier: Apache-2.0
//! `wsbox restore`

use std::path::PathBuf;

use super::checkpoint::{Images, without_criu};
use super::{Global, create};
use crate::error::Result;
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
    /// Write its pid to this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted for runc's sake
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Accepted for runc's sake
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// TYPE:NAME of another LSM profile
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// Another LSM context for mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    validate::container_id(&arguments.id)?;
    create::open_bundle(&arguments.bundle)?;
    Err(without_criu("restore", &global.criu))
}
