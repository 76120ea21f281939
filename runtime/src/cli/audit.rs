// SPDX-License-Identifier: Apache-2.0
//! `wsbox audit`

use std::path::PathBuf;

use super::{Global, output};
use crate::audit::verify::{self, Anchor};
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
    /// "LINE HASH" that must be in it, may be repeated; the journal's, as root wrote them: journalctl -o cat --output-fields=WSBOX_AUDIT_ANCHOR _UID=0 WSBOX_AUDIT_LOG=/path/of/FILE
    #[arg(long, value_name = "ANCHOR")]
    anchor: Vec<Anchor>,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let What::Verify(arguments) = arguments.what;
    let verified = verify::verify(&arguments.file, &arguments.anchor)?;
    let (last, hash) = verified.head.map_or((0, None), |head| (head.lines, Some(head.hash)));
    let count = if last == 0 { 0 } else { last - verified.first + 1 };
    if arguments.format == "json" {
        return output::json(&serde_json::json!({
            "lines": count, "first": verified.first, "last": last, "head": hash, "remarks": verified.remarks,
        }));
    }
    let remarks: String = verified.remarks.iter().map(|remark| format!("warning: {remark}\n")).collect();
    let what =
        hash.map_or_else(String::new, |hash| format!(", unbroken: {} to {last}; the last is {hash}", verified.first));
    output::text(&format!("{count} lines{what}\n{remarks}"))
}
