// SPDX-License-Identifier: Apache-2.0
//! `wsbox doctor`

use std::path::PathBuf;

use super::{Global, output};
use crate::docker;
use crate::doctor::{self, Check, Report, Status};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Docker's settings
    #[arg(long, value_name = "FILE", default_value = docker::CONFIG)]
    config: PathBuf,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let report = doctor::examine(&arguments.config);
    if arguments.format == "json" {
        output::json(&report)?
    } else {
        output::text(&table(&report))?
    };
    Ok(u8::from(!report.enforceable))
}

/// A line for each check; below one that is not well, how to mend it.
fn table(report: &Report) -> String {
    let mut text = String::new();
    for layer in &report.layers {
        let can = if layer.enforceable { "yes" } else { "NO" };
        text += &format!("{} {:<16} {can}\n", layer.id, layer.name);
        text += &layer.checks.iter().map(line).collect::<String>();
    }
    text += "host\n";
    text += &report.host.iter().map(line).collect::<String>();
    let verdict =
        if report.enforceable { "all eight layers can be enforced" } else { "not all eight layers can be enforced" };
    text + verdict + "\n"
}

fn line(check: &Check) -> String {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Note => "note",
        Status::Failed => "FAILED",
    };
    let fix = check.fix.as_ref().map_or(String::new(), |fix| format!("           fix: {fix}\n"));
    format!("   {status:<7} {}: {}\n{fix}", check.name, check.evidence)
}
