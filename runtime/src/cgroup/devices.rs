// SPDX-License-Identifier: Apache-2.0
//! Device access by eBPF (BPF_PROG_TYPE_CGROUP_DEVICE, kernel's cgroup-v2.rst "Device controller"): the rules as a program,
//! attached to the container's v2 cgroup, on hybrid hosts too.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Context, Error, Result};
use crate::sys::bpf;

/// linux/bpf.h: BPF_DEVCG_ACC_*
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
/// linux/bpf.h: BPF_DEVCG_DEV_*
const BLOCK: u8 = 1;
const CHAR: u8 = 2;

/// One rule; None matches any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: Option<u8>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// What every container may use, as in runc: it comes after the config's rules, and so stands. Making any node is harmless:
/// opening it is what is ruled.
const DEFAULTS: [(u8, Option<u32>, Option<u32>, u8); 12] = [
    (CHAR, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHAR, Some(1), Some(3), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(5), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(7), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(8), READ | WRITE | MKNOD),
    (CHAR, Some(1), Some(9), READ | WRITE | MKNOD),
    (CHAR, Some(5), Some(0), READ | WRITE | MKNOD),
    (CHAR, Some(5), Some(2), READ | WRITE | MKNOD),
    (CHAR, Some(136), None, READ | WRITE | MKNOD),
    (CHAR, Some(5), Some(1), READ | WRITE | MKNOD),
    // net/tun: an interface by it takes CAP_NET_ADMIN, and images of VPNs make the node themselves.
    (CHAR, Some(10), Some(200), READ | WRITE | MKNOD),
];

/// The rules of a config and the usual devices. No rules are no program, unless the plan asks for [`only`].
pub fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    if config.is_empty() {
        return Ok(Vec::new());
    }
    let mut rules = Vec::with_capacity(config.len() + DEFAULTS.len());
    for (at, rule) in config.iter().enumerate() {
        rules.push(parse(rule, &format!("linux.resources.devices[{at}]"))?);
    }
    rules.extend(defaults());
    Ok(rules)
}

fn defaults() -> impl Iterator<Item = Rule> {
    let rule = |(kind, major, minor, access)| Rule { allow: true, kind: Some(kind), major, minor, access };
    DEFAULTS.into_iter().map(rule)
}

/// The usual devices and `given`, nothing else.
pub fn only(given: &[LinuxDevice]) -> Vec<Rule> {
    let given = given.iter().filter_map(|device| {
        let kind = match device.typ() {
            LinuxDeviceType::B => BLOCK,
            LinuxDeviceType::P => return None,
            _ => CHAR,
        };
        let (major, minor) = (u32::try_from(device.major()).ok()?, u32::try_from(device.minor()).ok()?);
        Some(Rule {
            allow: true,
            kind: Some(kind),
            major: Some(major),
            minor: Some(minor),
            access: READ | WRITE | MKNOD,
        })
    });
    given.chain(defaults()).collect()
}

/// Whether rules allow the device of this kind and number to be read and written, as the program that is made of them would say.
pub fn allowed(rules: &[Rule], block: bool, (major, minor): (u64, u64)) -> bool {
    let kind = if block { BLOCK } else { CHAR };
    let is = |of: Option<u32>, number: u64| of.is_none_or(|of| u64::from(of) == number);
    let names = |rule: &&Rule| rule.kind.is_none_or(|of| of == kind) && is(rule.major, major) && is(rule.minor, minor);
    [READ, WRITE, READ | WRITE].iter().all(|access| {
        let reaches = |rule: &&Rule| if rule.allow { access & !rule.access == 0 } else { access & rule.access != 0 };
        rules.iter().filter(names).rfind(reaches).is_some_and(|rule| rule.allow)
    })
}

fn parse(rule: &LinuxDeviceCgroup, field: &str) -> Result<Rule> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
        Some(LinuxDeviceType::P) => return Err(Error::invalid(format!("{field}.type"), "a FIFO is no device")),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(Error::invalid(format!("{field}.access"), format!("{other:?} is none of r, w, m"))),
        };
    }
    // -1 means any, as in runc.
    let number = |number: Option<i64>, name: &str| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| Error::invalid(format!("{field}.{name}"), format!("{number} is no device number"))),
    };
    let access = if access == 0 { READ | WRITE | MKNOD } else { access };
    Ok(Rule {
        allow: rule.allow(),
        kind,
        major: number(rule.major(), "major")?,
        minor: number(rule.minor(), "minor")?,
        access,
    })
}

/// Attaches the rules to a cgroup.
pub fn attach(cgroup: impl AsFd, rules: &[Rule]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let field = || "linux.resources.devices".to_owned();
    let program = bpf::load_device_program(&compile(rules)).context(field)?;
    bpf::attach_device_program(cgroup, program).context(field)
}

/// What took a program's place.
pub struct Replaced {
    /// The program that is in force, and the one before, if there was one
    programs: Option<(OwnedFd, Option<OwnedFd>)>,
}

impl Replaced {
    /// Puts the one before in force again.
    pub fn undo(&self, cgroup: impl AsFd) {
        let _ = match &self.programs {
            None => Ok(()),
            Some((now, Some(before))) => bpf::replace_device_program(cgroup, before, now),
            Some((now, None)) => bpf::detach_device_program(cgroup, now),
        };
    }
}

/// Puts other rules in the place of those that a cgroup has, at once: there is no moment without (BPF_F_REPLACE). No rules change
/// nothing.
pub fn replace(cgroup: impl AsFd, rules: &[Rule]) -> Result<Replaced> {
    if rules.is_empty() {
        return Ok(Replaced { programs: None });
    }
    let field = || "linux.resources.devices".to_owned();
    let program = bpf::load_device_program(&compile(rules)).context(field)?;
    let before = bpf::device_program(&cgroup).context(field)?;
    let replaced = match &before {
        Some(before) => bpf::replace_device_program(&cgroup, &program, before),
        None => bpf::attach_device_program(&cgroup, &program),
    };
    replaced.context(field)?;
    Ok(Replaced { programs: Some((program, before)) })
}

/// An instruction: opcode, destination and source register, offset, immediate (linux/bpf.h, struct bpf_insn).
fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    let mut bytes = [code, from << 4 | to, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

/// r2 type, r3 access, r4 major, r5 minor, r6 scratch. The last rule that matches decides, so it is asked first; a denial
/// matches any of its accesses, a permission all that are wanted. What nothing matches is denied.
fn compile(rules: &[Rule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [u64; 2] {
    [instruction(MOVE_IMMEDIATE, 0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// The tests of one rule, each a jump over the rest of it.
fn compile_rule(rule: &Rule) -> Vec<u64> {
    let mut tests: Vec<(u8, u8, i32)> = Vec::new();
    let fields = [(2, rule.kind.map(u32::from)), (4, rule.major), (5, rule.minor)];
    tests.extend(
        fields
            .into_iter()
            .filter_map(|(register, value)| value.map(|value| (JUMP_UNLESS_EQUAL, register, value as i32))),
    );
    let mask = if rule.allow { i32::from(!rule.access & 7) } else { i32::from(rule.access) };
    let access = if rule.allow { JUMP_UNLESS_EQUAL } else { JUMP_IF_EQUAL };
    tests.push((access, 6, 0));
    let mut code = vec![instruction(MOVE, 6, 3, 0, 0), instruction(AND, 6, 0, 0, mask)];
    let count = tests.len();
    for (at, (jump, register, value)) in tests.into_iter().enumerate() {
        let rest = count - 1 - at + 2;
        code.push(instruction(jump, register, 0, rest as i16, value));
    }
    code.extend(answer(rule.allow));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What another's machine makes of the program; r1 points to struct bpf_cgroup_dev_ctx of linux/bpf.h.
    fn run(program: &[u64], kind: u8, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | u32::from(kind), major, minor];
        let code: Vec<u8> = program.iter().flat_map(|instruction| instruction.to_ne_bytes()).collect();
        let mut memory: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let machine = rbpf::EbpfVmRaw::new(Some(&code)).expect("a program that can be run");
        match machine.execute_program(&mut memory).expect("an answer") {
            0 => false,
            1 => true,
            other => panic!("{other} is no answer"),
        }
    }

    fn naive(rules: &[Rule], kind: u8, access: u8, major: u32, minor: u32) -> bool {
        let place = |rule: &&Rule| {
            rule.kind.is_none_or(|is| is == kind)
                && rule.major.is_none_or(|is| is == major)
                && rule.minor.is_none_or(|is| is == minor)
        };
        let reach = |rule: &&Rule| if rule.allow { access & !rule.access == 0 } else { access & rule.access != 0 };
        rules.iter().rev().filter(place).find(reach).is_some_and(|rule| rule.allow)
    }

    fn config(json: serde_json::Value) -> Vec<Rule> {
        rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(json).unwrap()).unwrap()
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        for json in [
            serde_json::json!([{"allow": false, "access": "rwm"}]),
            serde_json::json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "r"}]),
            serde_json::json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"}]),
            serde_json::json!([{"allow": false, "type": "a"}, {"allow": true, "type": "c", "major": 10, "access": "rw"}]),
        ] {
            let rules = config(json);
            let program = compile(&rules);
            for (kind, major, minor) in [
                (CHAR, 1, 3),
                (CHAR, 1, 11),
                (BLOCK, 8, 0),
                (BLOCK, 1, 3),
                (CHAR, 10, 229),
                (CHAR, 10, 1),
                (CHAR, 136, 7),
            ] {
                for access in 1..=7 {
                    let told = run(&program, kind, access, major, minor);
                    assert_eq!(told, naive(&rules, kind, access, major, minor), "{kind} {major}:{minor} {access}");
                }
            }
        }
    }

    #[test]
    fn usual_devices_are_open_and_others_are_not() {
        let program = compile(&config(serde_json::json!([{"allow": false, "access": "rwm"}])));
        assert!(run(&program, CHAR, READ | WRITE, 1, 3), "/dev/null");
        assert!(!run(&program, CHAR, READ, 1, 11), "/dev/kmsg");
        assert!(!run(&program, BLOCK, READ, 254, 0), "a disk");
        assert!(run(&program, BLOCK, MKNOD, 254, 0), "mknod of it");
    }

    #[test]
    fn bad_rules_are_named() {
        let parse =
            |json| rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(json).unwrap()).unwrap_err().to_string();
        let error = parse(serde_json::json!([{"allow": true}, {"allow": true, "access": "rx"}]));
        assert!(error.starts_with("linux.resources.devices[1].access:"), "{error}");
        let error = parse(serde_json::json!([{"allow": true, "major": -2}]));
        assert!(error.starts_with("linux.resources.devices[0].major:"), "{error}");
    }
}
