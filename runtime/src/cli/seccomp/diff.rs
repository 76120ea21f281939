// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp diff`

use serde_json::json;

use super::explain::words;
use super::lint;
use super::source::Source;
use crate::cli::output;
use crate::error::Result;
use crate::seccomp::check::{self, Change};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file, a bundle, or one of: workspace, docker-default
    #[arg(value_name = "OLD")]
    old: String,
    /// The same
    #[arg(value_name = "NEW")]
    new: String,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Exit code 1 if they differ, as of diff(1).
pub fn run(arguments: &Arguments) -> Result<u8> {
    let (old, new) = (Source::read(&arguments.old)?.profile()?, Source::read(&arguments.new)?.profile()?);
    let changes = check::changes(&old, &new)?;
    match arguments.format.as_str() {
        "json" => output::json(&changes.iter().map(json).collect::<Vec<_>>())?,
        _ => output::text(&changes.iter().map(line).collect::<String>())?,
    };
    Ok(u8::from(!changes.is_empty()))
}

/// `ptrace: fails with EPERM -> allowed; it reaches into other processes`
pub fn line(change: &Change) -> String {
    let with = change.args.map(|args| format!(" with arguments such as {}", shown(&args))).unwrap_or_default();
    let (old, new) = (words(change.verdicts.0), words(change.verdicts.1));
    let danger = lint::danger(change.name).filter(|_| new == "allowed").map(|why| format!("; it {why}"));
    format!("{}{with}: {old} -> {new}{}\n", change.name, danger.unwrap_or_default())
}

/// Without the zeros at the end.
fn shown(args: &[u64; 6]) -> String {
    let count = args.iter().rposition(|arg| *arg != 0).map_or(1, |last| last + 1);
    args[..count].iter().map(|arg| format!("{arg:#x}")).collect::<Vec<_>>().join(" ")
}

fn json(change: &Change) -> serde_json::Value {
    let (old, new) = (words(change.verdicts.0), words(change.verdicts.1));
    json!({ "syscall": change.name, "args": change.args, "old": old, "new": new, "danger": lint::danger(change.name) })
}
