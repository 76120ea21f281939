// SPDX-License-Identifier: Apache-2.0
//! `wsbox install-docker`

use std::path::PathBuf;

use serde_json::json;

use super::{Global, log, output};
use crate::docker::{self, Installation, RUNTIMES};
use crate::error::{Context, Result};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print what the file would hold, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Docker's settings
    #[arg(long, value_name = "FILE", default_value = docker::CONFIG)]
    config: PathBuf,
    /// The program to register [default: the one that is running]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Replace runtimes of these names that have other settings, and go on without the ids of userns-remap
    #[arg(long)]
    force: bool,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Runtimes are among what dockerd reads again on SIGHUP (dockerd(8)): containers go on.
const RELOAD: &str = "systemctl reload docker";
const RELOAD_BY_HAND: &str = "kill -HUP $(cat /var/run/docker.pid)";

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let binary = match arguments.binary.clone() {
        Some(binary) => binary,
        None => std::env::current_exe().context(|| "/proc/self/exe".into())?,
    };
    let installation = Installation::plan(&arguments.config, &binary, arguments.force)?;
    installation.warnings.iter().for_each(|warning| log::warning(warning));
    let changes = installation.changes();
    if changes && !arguments.dry_run {
        installation.write()?;
    }
    if arguments.format == "json" {
        return output::json(&json!({
            "config": installation.path.display().to_string(),
            "changed": changes && !arguments.dry_run,
            "added": installation.added,
            "replaced": installation.replaced,
            "reload": changes.then_some(RELOAD),
            "content": installation.after,
        }));
    }
    if arguments.dry_run { output::text(&installation.after) } else { output::text(&told(&installation, changes)) }
}

fn told(installation: &Installation, changes: bool) -> String {
    let path = installation.path.display();
    if !changes {
        return format!("{path}: has {} already, nothing changed\n", RUNTIMES.join(" and "));
    }
    let list = |what: &str, names: &[&str]| {
        if names.is_empty() { String::new() } else { format!("{path}: {what} {}\n", names.join(", ")) }
    };
    let then = format!("then: {RELOAD}, or without systemd: {RELOAD_BY_HAND} (containers go on)\n");
    list("added", &installation.added) + &list("replaced", &installation.replaced) + &then
}
