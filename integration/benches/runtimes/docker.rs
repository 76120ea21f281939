// SPDX-License-Identifier: Apache-2.0
//! `docker run --rm` with each runtime: what is left of the difference behind the engine's own time.

use std::time::Instant;

use wsbox_integration::docker::{Daemon, IMAGE};

use crate::args::Args;
use crate::engine::Engine;
use crate::report::Report;

const CASE: &str = "docker run --rm";
/// A run takes most of a second.
const SHARE: usize = 5;

/// Debian's dockerd, started and ended by the bench; the floor is no runtime.
pub fn measure(args: &Args, engines: &[Engine], report: &mut Report) {
    if !args.wants(CASE) {
        return;
    }
    let daemon = Daemon::plain();
    let names = engines.iter().map(|engine| engine.name.as_str()).filter(|name| *name != "floor");
    let runtimes: Vec<&str> = names.filter(|runtime| works(daemon, runtime, report)).collect();
    for round in 0..(args.rounds / SHARE).max(2) {
        for at in 0..runtimes.len() {
            let runtime = runtimes[(at + round) % runtimes.len()];
            let begun = Instant::now();
            match run(daemon, runtime) {
                Ok(()) => report.sample(CASE, runtime, begun.elapsed().as_secs_f64() * 1000.0),
                Err(why) => report.failures.push(format!("{CASE}: {runtime}: {why}")),
            }
        }
    }
}

/// Another's runtime may not work here with this engine (crun wants to raise RLIMIT_MEMLOCK); wsbox has to.
fn works(daemon: &Daemon, runtime: &str, report: &mut Report) -> bool {
    let tried = run(daemon, runtime);
    if let Err(why) = &tried {
        let list = if runtime == "wsbox" { &mut report.failures } else { &mut report.notes };
        list.push(format!("{CASE}: {runtime} does not work here: {why}"));
    }
    tried.is_ok()
}

fn run(daemon: &Daemon, runtime: &str) -> Result<(), String> {
    let outcome =
        daemon.docker(&["run", "--rm", "--network", "none", "--runtime", runtime, IMAGE, "sh", "-c", "exit 42"]);
    if outcome.code == 42 { Ok(()) } else { Err(outcome.stderr.trim().to_owned()) }
}
