// SPDX-License-Identifier: Apache-2.0
//! `wsbox delete`

use super::{Global, log};
use crate::error::Result;
use crate::state::lifecycle;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// Kill it first; a container that does not exist is no error
    #[arg(short, long)]
    force: bool,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let warnings = lifecycle::delete(&global.root(), &arguments.id, arguments.force)?;
    warnings.iter().for_each(|warning| log::warning(warning));
    Ok(0)
}
