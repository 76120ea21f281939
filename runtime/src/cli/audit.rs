// SPDX-License-Identifier: Apache-2.0
//! `wsbox audit`

use std::path::PathBuf;

use super::{Global, output};
use crate::audit::chain;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check that no line of an audit log was changed or removed
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The current file; FILE.1, FILE.2 and so on are read before it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// "LINES HASH" that must be in it; the journal's: journalctl -o cat --output-fields=WSBOX_AUDIT_ANCHOR WSBOX_AUDIT_LOG=/path/of/FILE
    #[arg(long, value_name = "ANCHOR")]
    anchor: Option<String>,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let What::Verify(verify) = arguments.what;
    let head = chain::verify(&verify.file, verify.anchor.as_deref())?;
    if verify.format == "json" {
        return output::json(&serde_json::json!({"lines": head.lines, "head": head.hash}));
    }
    output::text(&format!("{} lines, unbroken; the last is {}\n", head.lines, head.hash))
}
