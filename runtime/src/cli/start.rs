// SPDX-License-Identifier: Apache-2.0
//! `wsbox start`

use super::{Global, log};
use crate::error::Result;
use crate::launch;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let started = launch::start(&global.root(), &arguments.id, super::notify_socket().as_deref())?;
    started.warnings.iter().for_each(|warning| log::warning(warning));
    started.until_ready().map(|()| 0)
}
