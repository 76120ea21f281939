// SPDX-License-Identifier: Apache-2.0
//! `make bench`: wsbox beside crun, runc and the floor, same bundles, same minute.
//!
//! Layout, in the order a run takes them: `args` what was asked; `host` the private view of the machine, and its clean-up;
//! `bundle` and `filter` what the containers are; `engine` how each runtime is told; `steps` the cases; `timing` runs them
//! side by side; `docker` the same behind an engine; `unpack` images to files; `memory` everything that is not time; `report` the tables.
// clippy.toml's list is for launch/, where paths lead into a container's root; nothing here does.
#![allow(clippy::disallowed_methods)]

mod args;
mod bundle;
mod docker;
mod engine;
mod filter;
mod host;
mod memory;
mod report;
mod steps;
mod timing;
mod unpack;

use args::Args;
use host::Site;
use report::Report;
use std::process::ExitCode;

/// Why the bench, or a runtime in it, could not do its work.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Outcome<ExitCode> {
    match &args.site {
        _ if args.help => print!("{}", args::USAGE),
        // `cargo test --all-targets` runs bench programs too; only `cargo bench` says --bench.
        None if !args.bench => eprintln!("bench: nothing to do without --bench"),
        None => return host::guard(),
        Some(site) => return measure(&args, &Site::at(site)),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args, site: &Site) -> Outcome<ExitCode> {
    // Without its guard the bench must not go on.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let engines = engine::find(args, site)?;
    let mut report = Report::new(&engines);
    timing::rounds(args, site, &engines, &mut report)?;
    if args.wants("memory") {
        memory::measure(site, &engines, &mut report)?;
    }
    timing::crowd(args, site, &engines, &mut report)?;
    docker::measure(args, &engines, &mut report);
    unpack::measure(args, &mut report)?;
    report.print(args.json);
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
