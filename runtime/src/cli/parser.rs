// SPDX-License-Identifier: Apache-2.0
//! The parser of the command line, and what becomes of one that it does not take.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Command};

use super::{COMMANDS, Entry, Global, VERSION, log};

fn subcommand(entry: &Entry) -> Command {
    // Of a flag that is given twice the last stands, as with runc; not of those before the command, which raise the floor.
    let command =
        (entry.augment)(Command::new(entry.name)).about(entry.about).hide(entry.hidden).args_override_self(true);
    if entry.examples.is_empty() { command } else { command.after_help(format!("Examples:\n{}", entry.examples)) }
}

/// The parser. With `only`, it knows that one command: building all of them costs more than `state` does.
pub fn parser(only: Option<&Entry>) -> Command {
    let command = Global::augment_args(Command::new("wsbox"))
        .version(VERSION)
        .disable_version_flag(true)
        .about("Runs untrusted workspaces in hardened Linux containers")
        .subcommand_required(true)
        .arg_required_else_help(true);
    match only {
        Some(entry) => command.subcommand(subcommand(entry)),
        None => command.subcommands(COMMANDS.iter().map(subcommand)),
    }
}

/// The command that the arguments can only mean: the first word that is neither a flag nor a flag's value.
pub fn named(args: &[OsString]) -> Option<&'static Entry> {
    let mut args = args.iter().skip(1).map(|arg| arg.to_str().unwrap_or_default());
    while let Some(arg) = args.next() {
        match arg {
            "--root" | "--log" | "--log-format" | "--rootless" | "--profile" | "--criu" | "--audit-log"
            | "--audit-options" => drop(args.next()),
            arg if arg.starts_with("--") && arg.contains('=') => {}
            "--debug" | "--systemd-cgroup" => {}
            arg => return COMMANDS.iter().find(|entry| entry.name == arg),
        }
    }
    None
}

/// Help and versions are printed as they are. All else is an error like others, with runc's exit code, and also in the file of `--log`,
/// for engines look nowhere else.
pub fn wrong_usage(args: &[OsString], error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() || args.len() == 1 && error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ExitCode::SUCCESS;
    }
    // Those before the command alone: behind it are the payload's words.
    let global = args.iter().take_while(|arg| COMMANDS.iter().all(|entry| *arg != entry.name));
    let global: Vec<_> = global.filter_map(|arg| arg.to_str()).collect();
    let flag = |name: &str| {
        global.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix(name)? {
            "" => global.get(at + 1).copied(),
            value => value.strip_prefix('='),
        })
    };
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    log::to_file("error", &message, flag("--log").map(PathBuf::from).as_deref(), flag("--log-format") == Some("json"));
    ExitCode::FAILURE
}
