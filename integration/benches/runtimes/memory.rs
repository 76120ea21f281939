// SPDX-License-Identifier: Apache-2.0
//! Everything that is not time: resident memory, the smallest limit a run fits in, and system calls.

use crate::Outcome;
use crate::bundle::Variant;
use crate::engine::{Call, Engine, Op, command, last_words, wait_gone};
use crate::host::{Site, kill_cgroup, remove_cgroups};
use crate::report::Report;
use crate::timing::crowd_id;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const TRIES: usize = 3;
/// Of a crowd, so many are looked at.
const LOOKED_AT: usize = 20;
const SMALLEST_KB: u64 = 64;
const LARGEST_KB: u64 = 65_536;
const STEP_KB: u64 = 8;
const READY: &[&str] = &["/bin/sh", "-c", "echo ready; exec sleep 1000"];

type Probe = fn(&Site, &Engine) -> Outcome<f64>;

const PROBES: [(&str, &str, Probe); 5] = [
    ("peak RSS of run", "KB", peak_rss),
    ("PSS of a created init", "KB", init_pss),
    ("PSS of the foreground parent", "KB", parent_pss),
    ("smallest limit a run fits in", "KB", smallest_limit),
    ("system calls of a run", "", system_calls),
];

/// All probes for all runtimes; one that cannot be had is a note, not a failure.
pub fn measure(site: &Site, engines: &[Engine], report: &mut Report) -> Outcome<()> {
    for (name, unit, probe) in PROBES {
        for engine in engines {
            match probe(site, engine) {
                Ok(value) => report.measure(name, unit, &engine.name, value),
                Err(error) => report.notes.push(format!("{name}, {}: {error}", engine.name)),
            }
        }
    }
    Ok(())
}

/// PSS of inits that share their pages with a crowd.
pub fn crowd(site: &Site, engines: &[Engine], containers: usize, report: &mut Report) -> Outcome<()> {
    for engine in engines {
        let inits = (0..containers)
            .step_by((containers / LOOKED_AT).max(1))
            .map(|number| engine.pid(site, &crowd_id(engine, number)));
        let values: Vec<f64> = inits.filter_map(|pid| pss(pid.ok()?.as_raw()).ok()).collect();
        if let Some(middle) = median(values) {
            report.measure("PSS of a created init, crowded", "KB", &engine.name, middle);
        }
    }
    Ok(())
}

fn run<'a>(id: &'a str, args: &'a [&'a str]) -> Call<'a> {
    Call { op: Op::Run, variant: Variant::Plain, id, args }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn pss(pid: i32) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss line")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}

/// The floor starts it: a child's peak includes its parent's size at the fork, and the bench is large.
fn peak_rss(site: &Site, engine: &Engine) -> Outcome<f64> {
    let id = format!("{}-rss", engine.name);
    let call = run(&id, &["/bin/true"]);
    engine.prepare(site, &call)?;
    let words =
        [vec![site.dir.join("floor").display().to_string(), "rusage".into()], engine.words(site, &call)].concat();
    let mut values = Vec::new();
    for _ in 0..TRIES {
        let output = command(site, &words)?.stdout(Stdio::piped()).output()?;
        if !output.status.success() {
            return Err(last_words(site).into());
        }
        values.push(String::from_utf8_lossy(&output.stdout).trim().parse()?);
    }
    median(values).ok_or_else(|| "no values".into())
}

fn init_pss(site: &Site, engine: &Engine) -> Outcome<f64> {
    let id = format!("{}-pss", engine.name);
    let call = |op, args| Call { op, variant: Variant::Plain, id: &id, args };
    engine.time(site, &call(Op::Create, &["/bin/true"]))?;
    let pid = engine.pid(site, &id)?;
    let value = pss(pid.as_raw());
    engine.time(site, &call(Op::Kill, &[]))?;
    wait_gone(pid)?;
    engine.time(site, &call(Op::Delete, &[]))?;
    value
}

fn parent_pss(site: &Site, engine: &Engine) -> Outcome<f64> {
    let id = format!("{}-parent", engine.name);
    let mut parent = engine.command(site, &run(&id, READY))?.stdout(Stdio::piped()).spawn()?;
    let value = wait_ready(&mut parent).and_then(|()| pss(parent.id().try_into()?));
    kill_cgroup(&site.cgroup.join(&id));
    parent.wait()?;
    value
}

fn wait_ready(parent: &mut Child) -> Outcome<()> {
    let mut said = [0; 5];
    parent.stdout.as_mut().ok_or("no output")?.read_exact(&mut said)?;
    if &said == b"ready" { Ok(()) } else { Err("the payload did not get ready".into()) }
}

fn smallest_limit(site: &Site, engine: &Engine) -> Outcome<f64> {
    let memory = site.memory.as_deref().ok_or("this host has no v1 memory hierarchy")?;
    let (mut fails, mut fits) = (SMALLEST_KB, LARGEST_KB);
    if !fits_in(site, engine, memory, fits)? {
        return Err(format!("a run does not fit in {fits} KB: {}", last_words(site)).into());
    }
    while fits - fails > STEP_KB {
        let middle = fails.midpoint(fits);
        if fits_in(site, engine, memory, middle)? { fits = middle } else { fails = middle }
    }
    Ok(fits as f64)
}

fn fits_in(site: &Site, engine: &Engine, memory: &Path, limit_kb: u64) -> Outcome<bool> {
    for attempt in 0..TRIES {
        // A run that was killed leaves state behind, so no id is used twice.
        let id = format!("{}-limit-{limit_kb}-{attempt}", engine.name);
        let cgroup = memory.join(&id);
        fs::create_dir(&cgroup)?;
        let fits = limited(site, engine, &cgroup, &id, limit_kb);
        clear(site, &cgroup, &id);
        if !fits? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn limited(site: &Site, engine: &Engine, cgroup: &Path, id: &str, limit_kb: u64) -> Outcome<bool> {
    let call = run(id, &["/bin/true"]);
    engine.prepare(site, &call)?;
    fs::write(cgroup.join("memory.limit_in_bytes"), (limit_kb << 10).to_string())?;
    let join = ["/bin/busybox", "sh", "-c", "echo 0 > \"$0\"/cgroup.procs && exec \"$@\""].map(String::from).to_vec();
    let words = [join, vec![cgroup.display().to_string()], engine.words(site, &call)].concat();
    succeeds(command(site, &words)?.spawn()?, Duration::from_secs(3))
}

/// A runtime whose child was killed may wait for it for ever.
fn succeeds(mut child: Child, patience: Duration) -> Outcome<bool> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

fn clear(site: &Site, cgroup: &Path, id: &str) {
    kill_cgroup(&site.cgroup.join(id));
    for pid in
        fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines().filter_map(|pid| pid.parse().ok())
    {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    remove_cgroups(&site.cgroup.join(id));
    remove_cgroups(cgroup);
}

fn system_calls(site: &Site, engine: &Engine) -> Outcome<f64> {
    let id = format!("{}-calls", engine.name);
    let call = run(&id, &["/bin/true"]);
    engine.prepare(site, &call)?;
    let counts = site.dir.join("counts");
    let strace = ["strace", "-f", "-c", "-o", &counts.display().to_string()].map(String::from).to_vec();
    let status = command(site, &[strace, engine.words(site, &call)].concat())?.status()?;
    if !status.success() {
        return Err(format!("under strace: {status}: {}", last_words(site)).into());
    }
    let text = fs::read_to_string(&counts)?;
    let total = text.lines().find(|line| line.ends_with("total")).ok_or("strace counted nothing")?;
    Ok(total.split_whitespace().nth(3).unwrap_or_default().parse()?)
}
