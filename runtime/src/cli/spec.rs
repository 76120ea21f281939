// SPDX-License-Identifier: Apache-2.0
//! `wsbox spec`

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::Global;
use crate::error::{Context, Error, Result};
use crate::plan::harden;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where config.json is written
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let path = arguments.bundle.join("config.json");
    let json =
        serde_json::to_string_pretty(&harden::config()?).map_err(|error| Error::invalid("spec", error.to_string()))?;
    let context = || path.display().to_string();
    let mut file = File::create_new(&path)
        .context(context)
        .map_err(|error| error.hint("an existing config.json is never overwritten"))?;
    file.write_all((json + "\n").as_bytes()).context(context)?;
    Ok(0)
}
