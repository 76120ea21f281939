// SPDX-License-Identifier: Apache-2.0
//! Random numbers from a seed, and random profiles.

use serde_json::{Value, json};
use wsbox::seccomp::{Abi, table};

/// splitmix64 (Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const ACTIONS: [&str; 8] = ["ERRNO", "ALLOW", "KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "TRACE", "LOG"];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHES: [&str; 6] = ["X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64"];
/// Values at which something changes: signs, halves, and commands that are 32 bits wide.
pub const VALUES: [u64; 14] = [
    0,
    1,
    2,
    5,
    0x5412,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0xffff_0000_0000_0000,
    0xffff_ffff_7fff_ffff,
    0xffff_ffff_ffff_ff9c,
    u64::MAX,
];
/// Calls that get many rules, so that these meet.
const CROWDED: [&str; 10] =
    ["ioctl", "clone", "socket", "socketcall", "ipc", "semop", "personality", "execve", "set_tls", "no_such_call"];

fn action(random: &mut Random, field: &str, rule: &mut Value) -> String {
    let action = *random.pick(&ACTIONS);
    if matches!(action, "ERRNO" | "TRACE") && random.below(2) == 0 {
        rule[field] = (*random.pick(&[0, 1, 2, 13, 38, 4095, 65535])).into();
    }
    format!("SCMP_ACT_{action}")
}

fn name(random: &mut Random) -> String {
    if random.below(3) > 0 {
        return (*random.pick(&CROWDED)).into();
    }
    loop {
        let (nr, abi) = (random.below(480) as u32, *random.pick(&Abi::ALL));
        if let Some(name) = table::name(nr + abi.base(), abi) {
            return name.into();
        }
    }
}

fn arg(random: &mut Random) -> Value {
    let value = if random.below(8) == 0 { random.next() >> random.below(64) } else { *random.pick(&VALUES) };
    let op = format!("SCMP_CMP_{}", random.pick(&OPERATORS));
    json!({ "index": random.below(4), "value": value, "valueTwo": *random.pick(&VALUES), "op": op })
}

fn rule(random: &mut Random) -> Value {
    let names: Vec<String> = (0..1 + random.below(5)).map(|_| name(random)).collect();
    let args: Vec<Value> = (0..random.below(4)).map(|_| arg(random)).collect();
    let mut rule = json!({ "names": names, "args": args });
    rule["action"] = action(random, "errnoRet", &mut rule).into();
    rule
}

/// A valid profile, the same for the same state of `random`.
pub fn profile(random: &mut Random) -> String {
    let arches: Vec<String> =
        ARCHES.iter().filter(|_| random.below(2) == 0).map(|arch| format!("SCMP_ARCH_{arch}")).collect();
    let rules: Vec<Value> = (0..random.below(25)).map(|_| rule(random)).collect();
    let mut profile = json!({ "architectures": arches, "syscalls": rules });
    profile["defaultAction"] = action(random, "defaultErrnoRet", &mut profile).into();
    profile.to_string()
}
