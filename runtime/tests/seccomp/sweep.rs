// SPDX-License-Identifier: Apache-2.0
//! Every number on every architecture, with arguments around every value that the rules name.

use wsbox::seccomp::interpret::Call;

use super::random::{self, Random, VALUES};
use super::*;
use wsbox::seccomp::check::Oracle;

const ARCHES: [u32; 7] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0, u32::MAX];
const EXTREMES: [u32; 9] =
    [0x3fff_ffff, 0x4000_0400, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xbfff_ffff, 0xc000_0000, u32::MAX - 1, u32::MAX];

fn numbers() -> impl Iterator<Item = u32> {
    let x32 = (0..1024).map(|nr| nr | 0x4000_0000);
    (0..1024).chain(x32).chain(0x000e_fff0..0x000f_0010).chain(EXTREMES)
}

/// Checks `filter` against `oracle` for every call; the number of calls.
pub fn sweep(json: &str, options: &Options, random: &mut Random) -> usize {
    let (filter, oracle) = (compiled(json, options), Oracle::new(&serde_json::from_str(json).unwrap(), options.host));
    let mut count = 0;
    for arch in ARCHES {
        for nr in numbers() {
            let call = Call { nr, arch, ..Call::default() };
            for args in arguments(&oracle, &call, random) {
                check(&filter, &oracle, &Call { args, ..call }, json);
                count += 1;
            }
        }
    }
    count
}

fn check(filter: &Filter, oracle: &Oracle, call: &Call, json: &str) {
    let got = run(&filter.program, call).expect("a filter returns");
    let wanted = oracle.wanted(call);
    assert!(wanted.admits(got), "{call:x?}: got {got:#x}, wanted {wanted:x?}, profile {json}");
}

/// Argument lists worth trying: each rule's values and their neighbours, with and without a dirty upper half.
fn arguments(oracle: &Oracle, call: &Call, random: &mut Random) -> Vec<[u64; 6]> {
    let mut lists = vec![[0; 6]];
    let Some(abi) = oracle.abi(call) else { return lists };
    let Some(name) = oracle.name(abi, call.nr) else { return lists };
    let rules = oracle.rules(abi, name);
    let values: Vec<(usize, u64)> = rules
        .iter()
        .flat_map(|rule| &rule.args)
        .flat_map(|arg| [(arg.index, arg.value), (arg.index, arg.two)])
        .collect();
    for &(index, value) in &values {
        for near in around(value) {
            let mut args = [0; 6];
            args[index] = near;
            lists.push(args);
        }
    }
    // Rules with several conditions hold only where several arguments are right.
    for _ in 0..values.len().min(60) {
        let mut args = [0; 6].map(|_| *random.pick(&VALUES));
        for _ in 0..3 {
            let (index, value) = *random.pick(&values);
            args[index] = *random.pick(&around(value));
        }
        lists.push(args);
    }
    lists
}

fn around(value: u64) -> [u64; 9] {
    let (below, above) = (value.wrapping_sub(1), value.wrapping_add(1));
    let low = value & 0xffff_ffff;
    [below, value, above, low, low | 1 << 32, (low + 1) | 1 << 32, below | 1 << 63, low | 0xffff_ffff << 32, !value]
}

#[test]
fn the_shipped_profiles_on_every_number() {
    for json in [DOCKER_29, DOCKER_20, WORKSPACE] {
        for options in [ON_X86, ON_ARM] {
            assert!(sweep(json, &options, &mut Random(1)) > 14_000);
        }
    }
}

#[test]
fn random_profiles_on_every_number() {
    let mut random = Random(2026);
    for _ in 0..200 {
        let json = random::profile(&mut random);
        for options in [ON_X86, ON_ARM] {
            sweep(&json, &options, &mut random);
        }
    }
}
