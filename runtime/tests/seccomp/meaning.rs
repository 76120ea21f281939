// SPDX-License-Identifier: Apache-2.0
//! What profiles mean, case by case, with the answers written out.

use serde_json::json;
use wsbox::seccomp::{Insn, X32_BIT, to_bytes};

use super::*;

fn errno(number: u16) -> u32 {
    Verdict::errno(number).raw()
}

/// A filter with one rule for `name`, with these arguments.
fn one(default: &str, name: &str, action: &str, args: Value) -> Filter {
    let rule = json!([{ "names": [name], "action": format!("SCMP_ACT_{action}"), "args": args }]);
    compiled(&profile(&format!("SCMP_ACT_{default}"), rule), &ON_X86)
}

fn arg(index: usize, op: &str, value: u64, two: u64) -> Value {
    json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}") })
}

#[test]
fn every_action() {
    let cases = [
        ("ALLOW", ALLOW),
        ("LOG", Verdict::LOG.raw()),
        ("TRACE", Verdict::trace(1).raw()),
        ("ERRNO", EPERM),
        ("TRAP", Verdict::TRAP.raw()),
        ("KILL", Verdict::KILL_THREAD.raw()),
        ("KILL_THREAD", Verdict::KILL_THREAD.raw()),
        ("KILL_PROCESS", KILL),
    ];
    for (action, verdict) in cases {
        for default in ["ALLOW", "KILL_PROCESS"] {
            assert_eq!(ask(&one(default, "read", action, json!([])), Abi::X86_64, "read", &[]), verdict, "{action}");
        }
        let as_default = compiled(&profile(&format!("SCMP_ACT_{action}"), json!([])), &ON_X86);
        assert_eq!(ask(&as_default, Abi::X86, "read", &[]), verdict, "{action}");
    }
}

#[test]
fn every_operator_on_64_bits() {
    let v = 0x5_0000_0007;
    let (low, high) = (v - 1, v + 1);
    let cases = [
        ("NE", [true, false, true]),
        ("LT", [true, false, false]),
        ("LE", [true, true, false]),
        ("EQ", [false, true, false]),
        ("GE", [false, true, true]),
        ("GT", [false, false, true]),
    ];
    for (op, wanted) in cases {
        for (default, action, hit) in [("ERRNO", "ALLOW", ALLOW), ("ALLOW", "ERRNO", EPERM)] {
            let filter = one(default, "mmap", action, json!([arg(1, op, v, 0)]));
            let got = [low, v, high].map(|x| ask(&filter, Abi::X86_64, "mmap", &[9, x]) == hit);
            assert_eq!(got, wanted, "{op} {action}");
        }
    }
}

#[test]
fn masked_equality() {
    let filter = one("ERRNO", "clone", "ALLOW", json!([arg(0, "MASKED_EQ", 0x7e02_0000, 0)]));
    for (flags, wanted) in [(0x11, ALLOW), (0x1000_0000, EPERM), (0x2_0011, EPERM), (0x4000_0000, EPERM)] {
        assert_eq!(ask(&filter, Abi::X86_64, "clone", &[flags]), wanted, "{flags:#x}");
        assert_eq!(ask(&filter, Abi::X86_64, "clone", &[flags | 1 << 32]), wanted, "{flags:#x}, dirty");
        assert_eq!(ask(&filter, Abi::X86, "clone", &[flags | 1 << 32]), wanted, "{flags:#x}, x86");
    }
}

/// CVE-2019-10063: the kernel takes `ioctl`'s command from the low half.
#[test]
fn a_dirty_upper_half_bypasses_no_denial() {
    const TIOCSTI: u64 = 0x5412;
    let dirt = [1 << 32, 1 << 63, 0xffff_ffff << 32];
    let denied = one("ALLOW", "ioctl", "ERRNO", json!([arg(1, "EQ", TIOCSTI, 0)]));
    let only_below = one("ERRNO", "ioctl", "ALLOW", json!([arg(1, "LT", TIOCSTI, 0)]));
    let only_above = one("ERRNO", "ioctl", "ALLOW", json!([arg(1, "GT", TIOCSTI, 0)]));
    let only_others = one("ERRNO", "ioctl", "ALLOW", json!([arg(1, "NE", TIOCSTI, 0)]));
    for filter in [&denied, &only_below, &only_above, &only_others] {
        for abi in [Abi::X86_64, Abi::X32, Abi::X86] {
            assert_eq!(ask(filter, abi, "ioctl", &[0, TIOCSTI]), EPERM);
            assert!(dirt.iter().all(|dirt| ask(filter, abi, "ioctl", &[0, TIOCSTI | dirt]) == EPERM), "{abi:?}");
        }
    }
    assert_eq!(ask(&denied, Abi::X86_64, "ioctl", &[0, 0x5413]), ALLOW);
    assert_eq!(ask(&only_above, Abi::X86_64, "ioctl", &[0, 0x8000_0000]), ALLOW);
}

/// Docker's profile denies AF_ALG (38) and AF_VSOCK (40) by letting through what is less, between and more.
#[test]
fn dockers_denied_socket_families_stay_denied_with_dirt() {
    let filter = compiled(DOCKER_29, &ON_X86);
    for family in [38, 40] {
        for dirt in [0, 1 << 32, 0xffff_ffff << 32] {
            assert_eq!(ask(&filter, Abi::X86_64, "socket", &[family | dirt, 5, 0]), EPERM, "{family} {dirt:#x}");
        }
    }
    for family in [1, 2, 10, 16, 39, 41] {
        assert_eq!(ask(&filter, Abi::X86_64, "socket", &[family, 5, 0]), ALLOW, "{family}");
    }
}

#[test]
fn a_negative_int_is_one_with_either_upper_half() {
    const AT_FDCWD: u64 = -100_i64 as u64;
    let filter = one("ALLOW", "openat", "ERRNO", json!([arg(0, "EQ", AT_FDCWD, 0)]));
    for fd in [AT_FDCWD, AT_FDCWD & 0xffff_ffff] {
        assert_eq!(ask(&filter, Abi::X86_64, "openat", &[fd]), EPERM);
        assert_eq!(ask(&filter, Abi::X86, "openat", &[fd]), EPERM);
    }
    assert_eq!(ask(&filter, Abi::X86_64, "openat", &[5]), ALLOW);
}

#[test]
fn one_argument_twice_means_or() {
    let args = json!([arg(0, "EQ", 1, 0), arg(0, "EQ", 3, 0), arg(1, "EQ", 7, 0)]);
    let filter = one("ERRNO", "read", "ALLOW", args);
    let cases = [([1, 0], ALLOW), ([3, 0], ALLOW), ([2, 7], ALLOW), ([2, 0], EPERM)];
    for (args, wanted) in cases {
        assert_eq!(ask(&filter, Abi::X86_64, "read", &args), wanted, "{args:?}");
    }
    let and = one("ERRNO", "read", "ALLOW", json!([arg(0, "EQ", 1, 0), arg(1, "EQ", 7, 0)]));
    assert_eq!([[1, 7], [1, 0], [0, 7]].map(|args| ask(&and, Abi::X86_64, "read", &args)), [ALLOW, EPERM, EPERM]);
}

#[test]
fn the_strictest_rule_that_holds_wins() {
    let rules = json!([
        { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, "GE", 0, 0)] },
        { "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": [arg(0, "GT", 2, 0)] },
        { "names": ["read"], "action": "SCMP_ACT_KILL_PROCESS", "args": [arg(0, "EQ", 5, 0)] },
        { "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 8, "args": [arg(0, "GT", 6, 0)] }
    ]);
    let filter = compiled(&profile("SCMP_ACT_TRAP", rules), &ON_X86);
    let got = [2, 3, 5, 7].map(|fd| ask(&filter, Abi::X86_64, "read", &[fd]));
    assert_eq!(got, [ALLOW, errno(9), KILL, errno(9)]);
    // Whether 1 << 32 is above 2 depends on how many bits count: then neither laxer rule applies.
    assert_eq!(ask(&filter, Abi::X86_64, "read", &[1 << 32]), Verdict::TRAP.raw());
}

#[test]
fn the_first_rule_without_arguments_wins() {
    let rules = json!([
        { "names": ["read"], "action": "SCMP_ACT_LOG", "args": [arg(0, "EQ", 1, 0)] },
        { "names": ["read"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["read"], "action": "SCMP_ACT_TRAP" },
        { "names": ["read"], "action": "SCMP_ACT_ALLOW" }
    ]);
    // The one that says the default is no rule.
    let filter = compiled(&profile("SCMP_ACT_ERRNO", rules), &ON_X86);
    assert_eq!(ask(&filter, Abi::X86_64, "read", &[1]), Verdict::TRAP.raw());
}

#[test]
fn newer_calls_do_not_exist_and_holes_are_denied() {
    for (default, hole) in [("ERRNO", EPERM), ("KILL", 0), ("TRAP", Verdict::TRAP.raw()), ("KILL_PROCESS", KILL)] {
        let rules = json!([{ "names": ["read", "close", "execve", "statx"], "action": "SCMP_ACT_ALLOW" }]);
        let filter = compiled(&profile(&format!("SCMP_ACT_{default}"), rules), &ON_X86);
        let x86_64 = |nr| ask_nr(&filter, Abi::X86_64.audit_arch(), nr, &[]);
        assert_eq!([0, 1, 3, 331, 332].map(x86_64), [ALLOW, hole, ALLOW, hole, ALLOW]);
        assert_eq!([333, 435, 512, 520, 9999, X32_BIT - 1].map(x86_64), [ENOSYS; 6]);
        // x32 has its own execve, 520, after a gap in which nothing is.
        assert_eq!([332, 520].map(|nr| x86_64(nr + X32_BIT)), [ALLOW; 2]);
        assert_eq!([333, 511, 521, 548].map(|nr| x86_64(nr + X32_BIT)), [ENOSYS; 4]);
        assert_eq!([331, 515].map(|nr| x86_64(nr + X32_BIT)), [hole; 2]);
        assert_eq!(x86_64(u32::MAX), ENOSYS, "a call that a tracer skips");
    }
    for default in ["ALLOW", "LOG", "TRACE"] {
        let filter = compiled(&profile(&format!("SCMP_ACT_{default}"), json!([])), &ON_X86);
        assert_ne!(ask_nr(&filter, Abi::X86_64.audit_arch(), 9999, &[]), ENOSYS);
    }
}

#[test]
fn a_profile_without_calls_denies_all_that_exist() {
    let filter = compiled(&profile("SCMP_ACT_ERRNO", json!([])), &ON_ARM);
    let got = [0, 471, 472].map(|nr| ask_nr(&filter, Abi::Aarch64.audit_arch(), nr, &[]));
    assert_eq!(got, [EPERM, EPERM, ENOSYS]);
}

#[test]
fn foreign_abis_are_killed() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_AARCH64","SCMP_ARCH_MIPS"]}"#;
    let filter = compiled(json, &ON_X86);
    assert_eq!(ask(&filter, Abi::X86_64, "read", &[]), ALLOW, "the native ABI needs no listing");
    assert_eq!(ask(&filter, Abi::X32, "read", &[]), KILL);
    for abi in [Abi::X86, Abi::Aarch64, Abi::Arm] {
        assert_eq!(ask(&filter, abi, "read", &[]), KILL, "{abi:?}");
    }
    let native = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NATIVE"]}"#;
    assert_eq!(compiled(native, &ON_X86), filter);
}

/// 32-bit x86 reaches `socket` by `socketcall(1)` too, whose arguments a filter cannot see.
#[test]
fn no_way_round_through_socketcall_and_ipc() {
    let alg = one("ALLOW", "socket", "ERRNO", json!([arg(0, "EQ", 38, 0)]));
    assert_eq!([1, 2].map(|call| ask(&alg, Abi::X86, "socketcall", &[call])), [EPERM, ALLOW]);
    assert_eq!([38, 1].map(|family| ask(&alg, Abi::X86, "socket", &[family])), [EPERM, ALLOW]);
    let shm = one("ALLOW", "shmget", "KILL_PROCESS", json!([]));
    assert_eq!([23, 23 | 1 << 16, 24].map(|call| ask(&shm, Abi::X86, "ipc", &[call])), [KILL, KILL, ALLOW]);
    let allowed = one("ERRNO", "connect", "ALLOW", json!([]));
    assert_eq!([3, 4].map(|call| ask(&allowed, Abi::X86, "socketcall", &[call])), [ALLOW, EPERM]);
    let some = one("ERRNO", "socket", "ALLOW", json!([arg(0, "EQ", 1, 0)]));
    assert_eq!(ask(&some, Abi::X86, "socketcall", &[1]), EPERM);
}

#[test]
fn instructions_in_memory() {
    let program = [Insn { code: 0x15, jt: 1, jf: 2, k: 0x0403_0201 }, Insn { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
    let bytes = to_bytes(&program);
    assert_eq!(bytes.len(), 16);
    if cfg!(target_endian = "little") {
        assert_eq!(bytes[..8], [0x15, 0, 1, 2, 1, 2, 3, 4]);
    }
}

#[test]
fn docker_s_profile_stays_small() {
    let length = |options| compiled(DOCKER_29, options).program.len();
    assert!(length(&ON_X86) <= 400 && length(&ON_ARM) <= 150, "{} {}", length(&ON_X86), length(&ON_ARM));
}
