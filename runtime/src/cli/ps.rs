// SPDX-License-Identifier: Apache-2.0
//! `wsbox ps`

use std::process::Command;

use super::{Global, output};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Kind, Result};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Options for ps(1) [default: -ef]
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let record = global.root().read(&arguments.id)?;
    let mut pids: Vec<i32> = Cgroup::open(&record.cgroup)?.procs()?.into_iter().map(nix::unistd::Pid::as_raw).collect();
    pids.sort_unstable();
    if arguments.format == "json" { output::json(&pids) } else { output::text(&table(&arguments.options, &pids)?) }
}

/// ps(1)'s lines that are the container's: the host's ps knows how to print a process.
fn table(options: &[String], pids: &[i32]) -> Result<String> {
    let mut ps = Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(options)
    };
    let printed = ps.output().context(|| "ps".into())?;
    let text = String::from_utf8_lossy(&printed.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::new(Kind::Invalid, "ps", "prints no PID column with these options"))?;
    let ours = |line: &&str| {
        line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}
