// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp test`

use serde_json::json;

use super::explain::words;
use super::source::Source;
use crate::cli::output;
use crate::error::Result;
use crate::seccomp::Options;
use crate::seccomp::check::{self, Difference};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file, a bundle, or one of: workspace, docker-default
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Exit code 1 if the program is not what the profile says.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let profile = Source::read(&arguments.profile)?.profile()?;
    let (count, differences) = check::check(&profile, &Options::default())?;
    let lines = differences.iter().map(line).collect::<Vec<_>>();
    if arguments.format == "json" {
        output::json(&json!({ "calls": count, "differences": lines }))?;
    } else {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let end =
            if lines.is_empty() { "the program does what the profile says" } else { "the program is not the profile" };
        output::text(&format!("{text}{count} calls tried: {end}\n"))?;
    }
    Ok(u8::from(!lines.is_empty()))
}

fn line(difference: &Difference) -> String {
    let name = difference.name.map(|name| format!(" ({name})")).unwrap_or_default();
    let (call, got) = (&difference.call, words(difference.got));
    format!(
        "call {:#x}{name} of architecture {:#x} with {:x?}: {got}, wanted {}",
        call.nr, call.arch, call.args, difference.wanted
    )
}
