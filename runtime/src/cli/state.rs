// SPDX-License-Identifier: Apache-2.0
//! `wsbox state`

use super::Global;
use crate::error::Result;
use crate::state::lifecycle;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    super::output::json(&lifecycle::state(&global.root().read(&arguments.id)?)?)
}
