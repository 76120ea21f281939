// SPDX-License-Identifier: Apache-2.0
//! Prints how long the filters of Docker's and wsbox's profiles are, and how long compiling takes (microseconds).

use std::hint::black_box;
use std::time::Instant;

use oci_spec::runtime::LinuxSeccomp;
use wsbox::seccomp::{Arch, Options, compile, workspace};

const ROUNDS: usize = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let docker: LinuxSeccomp = serde_json::from_str(include_str!("../tests/data/docker29-seccomp.json"))?;
    println!("{:34} {:>12} {:>8} {:>8} {:>8}", "", "instructions", "first", "min", "median");
    for (name, profile) in [("Docker 29", &docker), ("workspace", &workspace())] {
        for (suffix, deny_set_id) in [("", false), (", no set-id bits", true)] {
            for host in [Arch::X86_64, Arch::Aarch64] {
                measure(&format!("{name}{suffix}, {host:?}"), profile, &Options { deny_set_id, host })?;
            }
        }
    }
    Ok(())
}

fn measure(name: &str, profile: &LinuxSeccomp, options: &Options) -> wsbox::Result<()> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(compile(black_box(profile), options)?);
        times.push(start.elapsed().as_micros());
    }
    let first = times[0];
    times.sort_unstable();
    let length = compile(profile, options)?.program.len();
    println!("{name:34} {length:12} {first:8} {:8} {:8}", times[0], times[ROUNDS / 2]);
    Ok(())
}
