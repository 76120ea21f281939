// SPDX-License-Identifier: Apache-2.0
//! Runs the cases side by side: every step for every runtime before the next step, in an order that changes each round.

use crate::Outcome;
use crate::args::Args;
use crate::bundle::Variant;
use crate::engine::{Call, Engine, Op, last_words, wait_gone};
use crate::host::Site;
use crate::memory;
use crate::report::Report;
use crate::steps::{CHAINS, CROWD, CROWDED, Step};

/// The crowd's cases take long and vary little.
const CROWD_SHARE: usize = 5;
const SCRIPT: &[&str] = &["/bin/sh", "-c", "grep Seccomp: /proc/self/status; cat /proc/self/uid_map; exit 42"];
const SLEEP: &[&str] = &["/bin/sleep", "1000"];

struct Race<'a> {
    site: &'a Site,
    engines: &'a [Engine],
    report: &'a mut Report,
    /// Runtimes that failed a variant take no further part in it.
    out: Vec<(String, Variant)>,
}

/// The cases of an empty machine.
pub fn rounds(args: &Args, site: &Site, engines: &[Engine], report: &mut Report) -> Outcome<()> {
    let chains: Vec<_> = wanted(args, CHAINS);
    let mut race = Race { site, engines, report, out: Vec::new() };
    let used = |variant| chains.iter().any(|chain| chain.iter().any(|step| step.variant == variant));
    Variant::ALL.into_iter().filter(|variant| used(*variant)).for_each(|variant| race.prove_all(variant));
    for round in 0..args.rounds {
        chains.iter().for_each(|chain| race.chain(chain, round));
    }
    Ok(())
}

/// The cases of a machine full of containers.
pub fn crowd(args: &Args, site: &Site, engines: &[Engine], report: &mut Report) -> Outcome<()> {
    let chains = wanted(args, CROWDED);
    if chains.is_empty() || args.containers == 0 {
        return Ok(());
    }
    report.crowd = args.containers;
    let mut race = Race { site, engines, report, out: Vec::new() };
    (0..args.containers).for_each(|number| race.add_to_crowd(number));
    race.check_crowd(args.containers);
    for round in 0..(args.rounds / CROWD_SHARE).max(2) {
        chains.iter().for_each(|chain| race.chain(chain, round));
    }
    memory::crowd(site, engines, args.containers, race.report)
}

fn wanted(args: &Args, chains: &'static [&'static [Step]]) -> Vec<&'static [Step]> {
    chains
        .iter()
        .copied()
        .filter(|chain| chain.iter().any(|step| step.name.is_some_and(|name| args.wants(name))))
        .collect()
}

/// The id of one of a crowd.
pub fn crowd_id(engine: &Engine, number: usize) -> String {
    format!("{}-crowd-{number}", engine.name)
}

impl<'a> Race<'a> {
    fn runs(&self, engine: &Engine, variant: Variant) -> bool {
        engine.can(variant) && !self.out.iter().any(|(name, failed)| *name == engine.name && *failed == variant)
    }

    fn chain(&mut self, chain: &[Step], round: usize) {
        for step in chain {
            for engine in order(self.engines, round) {
                if self.runs(engine, step.variant) {
                    let id = format!("{}-{}", engine.name, step.variant.name());
                    let result = step_once(self.site, engine, step, &id);
                    self.note(engine, step, result);
                }
            }
        }
    }

    fn note(&mut self, engine: &Engine, step: &Step, result: Outcome<f64>) {
        match (result, step.name) {
            (Ok(took), Some(name)) => self.report.sample(name, &engine.name, took),
            (Ok(_), None) => {}
            (Err(error), _) => self.fail(engine, step.variant, &error.to_string()),
        }
    }

    fn fail(&mut self, engine: &Engine, variant: Variant, why: &str) {
        self.report.failures.push(format!("{} ({}): {why}", engine.name, variant.name()));
        self.out.push((engine.name.clone(), variant));
    }

    fn prove_all(&mut self, variant: Variant) {
        let engines = self.engines;
        for engine in engines.iter().filter(|engine| engine.can(variant)) {
            if let Err(error) = prove(self.site, engine, variant) {
                self.fail(engine, variant, &error.to_string());
            }
        }
    }

    fn add_to_crowd(&mut self, number: usize) {
        for engine in order(self.engines, number) {
            if self.runs(engine, CROWD.variant) {
                let result = step_once(self.site, engine, &CROWD, &crowd_id(engine, number));
                self.note(engine, &CROWD, result);
            }
        }
    }

    /// Each runtime lists all of its own.
    fn check_crowd(&mut self, containers: usize) {
        let engines = self.engines;
        for engine in engines.iter().filter(|engine| engine.can(Variant::Plain)) {
            let printed = engine.ask(self.site, &Call { op: Op::List, variant: Variant::Plain, id: "", args: &[] });
            let listed = printed.map(|(_, text)| text.lines().filter(|line| line.contains("-crowd-")).count());
            if !matches!(listed, Ok(count) if count == containers) {
                self.fail(engine, Variant::Plain, &format!("list shows {listed:?} of {containers} containers"));
            }
        }
    }
}

/// Rotated each round and turned round every second, so that nobody always follows the same one.
fn order(engines: &[Engine], round: usize) -> impl Iterator<Item = &Engine> {
    let count = engines.len();
    (0..count).map(move |place| {
        &engines[(if round.is_multiple_of(2) { place } else { count - 1 - place } + round / 2) % count]
    })
}

fn step_once(site: &Site, engine: &Engine, step: &Step, id: &str) -> Outcome<f64> {
    let ends = matches!(step.op, Op::Kill | Op::DeleteForce);
    let init = if ends { Some(engine.pid(site, id)?) } else { None };
    let took = engine.time(site, &Call { op: step.op, variant: step.variant, id, args: step.args })?;
    init.map_or(Ok(()), wait_gone)?;
    Ok(took)
}

/// One container's whole life, looked at from inside and outside: a runtime that skips work is not quick but wrong.
fn prove(site: &Site, engine: &Engine, variant: Variant) -> Outcome<()> {
    let id = format!("{}-{}", engine.name, variant.name());
    let call = |op, args| Call { op, variant, id: &id, args };
    look_inside(site, engine, &call(Op::Run, SCRIPT))?;
    for (op, args, status) in [(Op::Create, SLEEP, Some("created")), (Op::Start, &[], Some("running"))] {
        engine.time(site, &call(op, args))?;
        expect("state", engine.status(site, &id)?.as_deref(), status)?;
    }
    look_inside(site, engine, &call(Op::Exec, SCRIPT))?;
    expect("counting", engine.counts(&id), variant == Variant::Counted)?;
    let init = engine.pid(site, &id)?;
    engine.time(site, &call(Op::Kill, &[]))?;
    wait_gone(init)?;
    expect("state after kill", engine.status(site, &id)?.as_deref(), Some("stopped"))?;
    engine.time(site, &call(Op::Delete, &[]))?;
    expect("state after delete", engine.status(site, &id)?, None)?;
    prove_force(site, engine, &id, variant)
}

fn prove_force(site: &Site, engine: &Engine, id: &str, variant: Variant) -> Outcome<()> {
    let call = |op, args| Call { op, variant, id, args };
    engine.time(site, &call(Op::Create, SLEEP))?;
    engine.time(site, &call(Op::Start, &[]))?;
    let init = engine.pid(site, id)?;
    engine.time(site, &call(Op::DeleteForce, &[]))?;
    wait_gone(init)?;
    expect("state after delete -f", engine.status(site, id)?, None)
}

/// A process inside has the filter and the id map that the variant asks, and its exit code comes out.
fn look_inside(site: &Site, engine: &Engine, call: &Call) -> Outcome<()> {
    let said = engine.ask(site, call)?;
    if sees(call.variant, &said) {
        Ok(())
    } else {
        Err(format!("{:?}: the payload said {said:?}; {}", call.op, last_words(site)).into())
    }
}

fn sees(variant: Variant, (code, text): &(i32, String)) -> bool {
    let mapped = text.split_whitespace().any(|word| word == "100000");
    *code == 42
        && text.contains("Seccomp:\t2") == matches!(variant, Variant::Seccomp | Variant::Counted)
        && mapped == (variant == Variant::Userns)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Outcome<()> {
    if is == should { Ok(()) } else { Err(format!("{what}: {is:?}, expected {should:?}").into()) }
}
