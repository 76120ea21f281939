// SPDX-License-Identifier: Apache-2.0
//! `wsbox completion`

use clap_complete::Shell;

use super::{Global, output, parser};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut parser(None), "wsbox", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
