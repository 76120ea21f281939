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
    let runtimes: Vec<&str> =
        engines.iter().map(|engine| engine.name.as_str()).filter(|name| *name != "floor").collect();
    for round in 0..(args.rounds / SHARE).max(2) {
        for at in 0..runtimes.len() {
            let runtime = runtimes[(at + round) % runtimes.len()];
            let begun = Instant::now();
            let run = ["run", "--rm", "--network", "none", "--runtime", runtime, IMAGE, "sh", "-c", "exit 42"];
            let outcome = daemon.docker(&run);
            if outcome.code == 42 {
                report.sample(CASE, runtime, begun.elapsed().as_secs_f64() * 1000.0);
            } else {
                report.failures.push(format!("{CASE}: {runtime}: {}", outcome.stderr.trim()));
            }
        }
    }
}
