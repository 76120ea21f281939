// SPDX-License-Identifier: Apache-2.0
//! Docker's profile as a BPF program for the floor: one range search per ABI, the quickest shape to install that is known.

use crate::{Outcome, bundle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
const NR: u32 = 0; // offsets in struct seccomp_data
const ARCH: u32 = 4;
const ARGS: u32 = 16;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// What becomes of one call: code that ends in a return on every path.
type Verdict = Vec<Insn>;
type Names = BTreeMap<String, u32>;

fn op(code: u16, k: u32) -> Insn {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// The program as seccomp(2) takes it; None where the kernel's headers know no x86.
pub fn docker_default() -> Outcome<Option<Vec<u8>>> {
    let headers = ["64", "32", "x32"].map(numbers);
    let [Some(native), Some(i386), Some(x32)] = headers else { return Ok(None) };
    let profile: Value = serde_json::from_str(bundle::PROFILE)?;
    let mut wide = verdicts(&profile, &native)?;
    wide.extend(verdicts(&profile, &x32)?);
    let code = program(&search(&wide), &search(&verdicts(&profile, &i386)?))?;
    Ok(Some(code.iter().flat_map(bytes).collect()))
}

fn bytes(insn: &Insn) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (insn.code.to_ne_bytes(), insn.k.to_ne_bytes());
    [a, b, insn.jt, insn.jf, c, d, e, f]
}

/// Names and numbers of one ABI, from the header that the kernel ships.
fn numbers(abi: &str) -> Option<Names> {
    let text = fs::read_to_string(format!("/usr/include/x86_64-linux-gnu/asm/unistd_{abi}.h")).ok()?;
    let number = |text: &str| match text.strip_prefix("(__X32_SYSCALL_BIT + ") {
        Some(rest) => rest.trim_end_matches(')').parse().ok().map(|low: u32| low | X32_BIT),
        None => text.parse().ok(),
    };
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number(value)?))
    };
    Some(text.lines().filter_map(line).collect())
}

/// Numbers to verdicts; rules of one call are tried in order, and a call that passes none gets EPERM.
fn verdicts(profile: &Value, names: &Names) -> Outcome<BTreeMap<u32, Verdict>> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for group in profile["syscalls"].as_array().into_iter().flatten() {
        let rule = rule(group)?;
        let listed = group["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for number in listed.filter_map(|name| names.get(name)) {
            verdicts.entry(*number).or_default().extend(&rule);
        }
    }
    verdicts.values_mut().filter(|code| code.len() > 1).for_each(|code| code.push(op(RET, ERRNO | EPERM)));
    Ok(verdicts)
}

fn rule(group: &Value) -> Outcome<Verdict> {
    let action = match group["action"].as_str() {
        Some("SCMP_ACT_ALLOW") => op(RET, ALLOW),
        Some("SCMP_ACT_ERRNO") => op(RET, ERRNO | u32::try_from(group["errnoRet"].as_u64().unwrap_or(1))?),
        other => return Err(format!("the floor knows no action {other:?}").into()),
    };
    let args = group["args"].as_array().map(Vec::as_slice).unwrap_or_default();
    match args {
        [] => Ok(vec![action]),
        [one] => Ok([condition(one)?, vec![action]].concat()),
        _ => Err("the floor knows one argument a rule".into()),
    }
}

/// A 64-bit comparison by halves: holds, falls through to the return behind it; fails, jumps over that.
fn condition(arg: &Value) -> Outcome<Vec<Insn>> {
    let offset = ARGS + 8 * u32::try_from(arg["index"].as_u64().unwrap_or(0))?;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(arg["value"].as_u64().unwrap_or(0));
    let (want_high, want_low) = halves(arg["valueTwo"].as_u64().unwrap_or(0));
    let (load_high, load_low) = (op(LOAD, offset + 4), op(LOAD, offset));
    Ok(match arg["op"].as_str() {
        Some("SCMP_CMP_EQ") => vec![load_high, jump(JEQ, high, 0, 3), load_low, jump(JEQ, low, 0, 1)],
        Some("SCMP_CMP_GT") => {
            vec![load_high, jump(JGT, high, 3, 0), jump(JEQ, high, 0, 3), load_low, jump(JGT, low, 0, 1)]
        }
        Some("SCMP_CMP_LT") => {
            vec![load_high, jump(JGE, high, 0, 3), jump(JEQ, high, 0, 3), load_low, jump(JGE, low, 1, 0)]
        }
        Some("SCMP_CMP_MASKED_EQ") => {
            let test = |mask, want, skip| [op(AND, mask), jump(JEQ, want, 0, skip)];
            [&[load_high][..], &test(high, want_high, 4), &[load_low], &test(low, want_low, 1)].concat()
        }
        other => return Err(format!("the floor knows no operator {other:?}").into()),
    })
}

/// Neighbours with one verdict become a range; then halve and halve again.
fn search(verdicts: &BTreeMap<u32, Verdict>) -> Vec<Insn> {
    let refused = || vec![op(RET, ERRNO | EPERM)];
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, refused())];
    for (number, verdict) in verdicts {
        ranges.push((*number, verdict.clone()));
        ranges.push((number + 1, refused()));
    }
    // A gap of no numbers is no range: the later start of two equal ones wins.
    ranges.dedup_by(|later, earlier| {
        later.0 == earlier.0 && {
            std::mem::swap(later, earlier);
            true
        }
    });
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    halve(&ranges)
}

fn halve(ranges: &[(u32, Verdict)]) -> Vec<Insn> {
    let (left, right) = ranges.split_at(ranges.len() / 2);
    if left.is_empty() {
        return right.first().map(|(_, verdict)| verdict.clone()).unwrap_or_default();
    }
    let (below, above) = (halve(left), halve(right));
    let split = right.first().map_or(0, |(start, _)| *start);
    match u8::try_from(below.len()) {
        Ok(skip) => [vec![jump(JGE, split, skip, 0)], below, above].concat(),
        // Conditional jumps reach 255 instructions; a plain one goes on from there.
        Err(_) => [vec![jump(JGE, split, 0, 1), op(JA, below.len() as u32)], below, above].concat(),
    }
}

/// ```text
/// arch == x86-64 ? -> 64-bit and x32 numbers
/// arch == i386   ? -> 32-bit numbers
/// else kill
/// ```
fn program(wide: &[Insn], narrow: &[Insn]) -> Outcome<Vec<Insn>> {
    let start = [
        op(LOAD, ARCH),
        jump(JEQ, X86_64, 0, 1),
        op(JA, 3),
        jump(JEQ, I386, 0, 1),
        op(JA, 2 + u32::try_from(wide.len())?),
    ];
    Ok([&start[..], &[op(RET, KILL_PROCESS), op(LOAD, NR)], wide, &[op(LOAD, NR)], narrow].concat())
}
