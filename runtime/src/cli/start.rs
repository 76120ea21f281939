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
    launch::start(&global.root(), &arguments.id)?.iter().for_each(|warning| log::warning(warning));
    Ok(0)
}
