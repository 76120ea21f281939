// SPDX-License-Identifier: Apache-2.0
//! The command line: a table of commands, each in a file of its own: arguments, one library call, output.

mod audit;
#[cfg(feature = "bundles")]
mod bundle;
mod checkpoint;
mod completion;
mod create;
mod debug_steps;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod foreground;
mod go_flags;
mod inspect;
mod install_docker;
mod interrupt;
mod kill;
mod list;
mod listen;
mod log;
mod metrics;
mod output;
mod parser;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod seccomp;
mod spec;
mod start;
mod state;
mod stdin;
mod summary;
mod temporary;
mod trail;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::audit as audit_log;
use crate::error::Result;
use crate::profile::Profile;
use crate::state::Root;
pub use crate::sys::arena::Arena;
use parser::{named, parser, wrong_usage};

/// Behind the name: docker and podman look for the word in the first line of `--version`.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Flags before the command, as runc has them.
#[derive(Debug, Args)]
struct Global {
    /// Where the state of containers is kept [default: /run/wsbox, for a user $XDG_RUNTIME_DIR/wsbox]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Append errors and warnings to this file as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Say more
    #[arg(long)]
    debug: bool,
    /// Let systemd make the cgroup of a new container: linux.cgroupsPath is SLICE:PREFIX:NAME then
    #[arg(long)]
    systemd_cgroup: bool,
    /// The criu program of checkpoint and restore
    #[arg(long, value_name = "PATH", default_value = "criu")]
    criu: PathBuf,
    /// Raise every bundle to this floor: development, staging or production; /etc/wsbox/wsbox.env and $WSBOX_PROFILE may ask more
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// Log what is done to containers, one JSON object a line: a file, journald or syslog
    #[arg(long, value_name = "FILE|journald|syslog")]
    audit_log: Option<audit_log::Target>,
    /// How: max-size=SIZE, max-files=N, sync=always|never, on-error=refuse|continue, with commas between
    #[arg(long, value_name = "OPTIONS", default_value = "")]
    audit_options: audit_log::Policy,
    #[arg(skip)]
    trail: trail::Trail,
    /// Changes nothing: wsbox finds out by itself
    #[arg(long, value_name = "WHETHER")]
    rootless: Option<String>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: (),
}

impl Global {
    fn root(&self) -> Root {
        Root::new(self.root.clone())
    }
}

/// A command of the table.
struct Entry {
    name: &'static str,
    about: &'static str,
    examples: &'static str,
    hidden: bool,
    augment: fn(Command) -> Command,
    run: fn(&Global, &ArgMatches) -> Result<u8>,
}

macro_rules! entry {
    ($module:ident, $name:literal, $about:literal, $examples:literal, $hidden:literal) => {
        Entry {
            name: $name,
            about: $about,
            examples: $examples,
            hidden: $hidden,
            augment: <$module::Arguments as Args>::augment_args,
            run: |global, matches| match $module::Arguments::from_arg_matches(matches) {
                Ok(arguments) => $module::run(global, arguments),
                Err(error) => error.exit(),
            },
        }
    };
}

const COMMANDS: &[Entry] = &[
    entry!(
        run,
        "run",
        "Create a container, run its payload, delete it",
        "  wsbox run ./bundle/\n  wsbox run --bundle ./bundle web1\n  wsbox run --detach --pid-file web1.pid ./bundle/ --id web1\n  wsbox run --count-violations --summary ran.json ./bundle/",
        false
    ),
    entry!(
        create,
        "create",
        "Create a container; its payload waits for start",
        "  wsbox create --bundle ./bundle web1",
        false
    ),
    entry!(start, "start", "Start the payload of a created container", "  wsbox start web1", false),
    entry!(state, "state", "Print what a container is doing, as JSON", "  wsbox state web1", false),
    #[cfg(feature = "bundles")]
    entry!(
        bundle,
        "bundle",
        "From an image to a hardened bundle, checked and kept",
        "  wsbox bundle create app.tar ./app --user 1001:1001\n  wsbox bundle ls\n  wsbox bundle gc",
        false
    ),
    entry!(
        exec,
        "exec",
        "Run another process in a container",
        "  wsbox exec web1 ps\n  wsbox exec -t web1 sh\n  wsbox exec --user 1000:1000 --env A=1 web1 id",
        false
    ),
    entry!(
        kill,
        "kill",
        "Send a signal to a container",
        "  wsbox kill web1\n  wsbox kill web1 KILL\n  wsbox kill --all web1 9",
        false
    ),
    entry!(delete, "delete", "Delete a container", "  wsbox delete web1\n  wsbox delete --force web1", false),
    entry!(list, "list", "List the containers", "  wsbox list\n  wsbox list --format json", false),
    entry!(ps, "ps", "List the processes of a container", "  wsbox ps web1\n  wsbox ps --format json web1", false),
    entry!(pause, "pause", "Freeze a container", "  wsbox pause web1", false),
    entry!(resume, "resume", "Let a paused container go on", "  wsbox resume web1", false),
    entry!(
        events,
        "events",
        "Print what a container uses every few seconds, and when it runs out of memory, as JSON",
        "  wsbox events --stats web1\n  wsbox events --interval 1s web1",
        false
    ),
    entry!(
        update,
        "update",
        "Change the limits of a container",
        "  wsbox update --memory 256m --memory-swap 256m web1\n  echo '{\"pids\": {\"limit\": 50}}' | wsbox update --resources - web1",
        false
    ),
    entry!(
        checkpoint,
        "checkpoint",
        "Write a container with its processes and their memory to files, with criu; they are as trusted as the program in them: nobody else may write them",
        "  wsbox checkpoint --image-path ./images web1\n  wsbox checkpoint --pre-dump --image-path ./one web1 && wsbox checkpoint --parent-path ../one --image-path ./two web1",
        false
    ),
    entry!(
        restore,
        "restore",
        "Make a container from such files, with criu; they are as trusted as the program in them, and criu carries them out as root: nobody else may write them",
        "  wsbox restore --image-path ./images --bundle ./bundle web1\n  wsbox restore --detach --image-path ./images --bundle ./bundle web2",
        false
    ),
    entry!(
        inspect,
        "inspect",
        "Show the eight layers of a container as the kernel has them in force, and what its filter denied",
        "  wsbox inspect web1\n  wsbox inspect --format json web1",
        false
    ),
    entry!(
        seccomp,
        "seccomp",
        "Explain a seccomp profile, and change it",
        "  wsbox seccomp explain workspace ptrace\n  wsbox seccomp explain ./bundle socket 2\n  wsbox seccomp allow ./bundle io_setup io_submit\n  wsbox seccomp lint profile.json\n  wsbox seccomp compile workspace",
        false
    ),
    entry!(
        metrics,
        "metrics",
        "Serve the metrics of every container to Prometheus",
        "  wsbox metrics\n  wsbox metrics --listen 127.0.0.1:9999\n  wsbox metrics --textfile /var/lib/prometheus/node-exporter/wsbox.prom",
        false
    ),
    entry!(
        plan,
        "plan",
        "Print the program that a bundle becomes, without running anything",
        "  wsbox plan ./bundle/",
        false
    ),
    entry!(
        spec,
        "spec",
        "Write a config.json that has all eight layers",
        "  mkdir -p bundle/rootfs && cd bundle && wsbox spec",
        false
    ),
    entry!(
        features,
        "features",
        "Print what this runtime can do, as JSON (runtime-spec, features.md)",
        "  wsbox features",
        false
    ),
    entry!(
        doctor,
        "doctor",
        "Try what this host can enforce, layer by layer, and say how to mend what it can not",
        "  wsbox doctor\n  wsbox doctor --format json",
        false
    ),
    entry!(
        install_docker,
        "install-docker",
        "Register wsbox in Docker's daemon.json",
        "  wsbox install-docker --dry-run\n  wsbox install-docker && systemctl reload docker\n  docker run --rm --runtime=wsbox-strict IMAGE",
        false
    ),
    entry!(
        completion,
        "completion",
        "Print completions for a shell",
        "  wsbox completion bash > /etc/bash_completion.d/wsbox",
        false
    ),
    entry!(
        audit,
        "audit",
        "Check an audit log",
        "  wsbox --audit-log /var/log/wsbox/audit.jsonl run ./bundle/\n  wsbox audit verify /var/log/wsbox/audit.jsonl",
        false
    ),
    entry!(debug_steps, "debug-steps", "Print the steps that WSBOX_PAUSE_AT can name (debug builds)", "", true),
];

/// Where a service manager listens (sd_notify(3)).
fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// A warning from below the commands.
pub(crate) fn warn(message: &str) {
    log::warning(message);
}

/// Parses the arguments, runs the command, prints one error; the exit code is the command's.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let parser = parser(named(&args));
    let args = go_flags::spelled_out(&parser, args);
    let command = named(&args);
    let matches = match parser.try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return wrong_usage(&args, &error),
    };
    let mut global = match Global::from_arg_matches(&matches) {
        Ok(global) => global,
        Err(error) => return wrong_usage(&args, &error),
    };
    log::open(global.log.as_deref(), global.log_format == "json", global.debug);
    log::debug(&format!("wsbox {}: {}", env!("CARGO_PKG_VERSION"), command.map_or("", |entry| entry.name)));
    let done = begin_trail(&mut global, &matches, &args).and_then(|()| {
        let done = dispatch(&global, &matches);
        end_trail(&global, done)
    });
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            log::error(&error.to_string());
            crate::metrics::counters::failed(error.kind());
            // As runc: 1 may be the payload's own.
            let code = match (error.exit_code(), command.map(|entry| entry.name)) {
                (1, Some("exec")) => 255,
                (code, _) => code,
            };
            (code as u8).into()
        }
    }
}

fn begin_trail(global: &mut Global, matches: &ArgMatches, args: &[OsString]) -> Result<()> {
    let (true, Some(entry), Some((_, own))) = (global.audit_log.is_some(), named(args), matches.subcommand()) else {
        return Ok(());
    };
    let args = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    global.trail = trail::Trail::open(global, entry.name, own, args)?;
    Ok(())
}

/// What the command came to; that it could not be logged is an error of its own, and hides none of the command's.
fn end_trail(global: &Global, done: Result<u8>) -> Result<u8> {
    match (global.trail.finish(&done), done) {
        (Ok(()), done) => done,
        (Err(unlogged), Ok(_)) => Err(unlogged),
        (Err(unlogged), Err(error)) => {
            if unlogged != error {
                log::error(&unlogged.to_string());
            }
            Err(error)
        }
    }
}

fn dispatch(global: &Global, matches: &ArgMatches) -> Result<u8> {
    match matches.subcommand() {
        Some((name, matches)) => match COMMANDS.iter().find(|entry| entry.name == name) {
            Some(entry) => (entry.run)(global, matches),
            None => Ok(1),
        },
        None => Ok(1),
    }
}
