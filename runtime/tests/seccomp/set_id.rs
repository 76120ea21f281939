// SPDX-License-Identifier: Apache-2.0
//! `deny_set_id`: no call may give a file set-user-id or set-group-id bits.

use serde_json::json;

use super::random::{self, Random};
use super::*;

const DENYING: Options = Options { deny_set_id: true, host: Arch::X86_64 };
const ALL: [Abi; 3] = [Abi::X86_64, Abi::X32, Abi::X86];
const O_CREAT: u64 = 0o100;
const O_TMPFILE: u64 = 0o20_200_000;

/// Each call with the place of its mode.
const MODES: [(&str, usize); 8] = [
    ("chmod", 1),
    ("fchmod", 1),
    ("fchmodat", 2),
    ("mknod", 1),
    ("mknodat", 2),
    ("mkdir", 1),
    ("mkdirat", 2),
    ("creat", 1),
];

fn args(at: usize, mode: u64) -> [u64; 4] {
    let mut args = [0; 4];
    args[at] = mode;
    args
}

#[test]
fn modes_with_set_id_bits_are_denied() {
    for json in [DOCKER_29, &profile("SCMP_ACT_ALLOW", json!([]))] {
        let filter = compiled(json, &DENYING);
        for abi in ALL {
            for (name, at) in MODES {
                for mode in [0o4755, 0o2755, 0o6000, 0o104644, 0o4755 | 1 << 32, 0o2000 | 1 << 16] {
                    assert_eq!(ask(&filter, abi, name, &args(at, mode)), EPERM, "{abi:?} {name} {mode:o}");
                }
                for mode in [0, 0o755, 0o1777, 0o100644, 1 << 32] {
                    assert_eq!(ask(&filter, abi, name, &args(at, mode)), ALLOW, "{abi:?} {name} {mode:o}");
                }
            }
        }
    }
}

#[test]
fn open_counts_only_where_it_makes_a_file() {
    let filter = compiled(DOCKER_29, &DENYING);
    for abi in ALL {
        for (name, flags_at) in [("open", 1), ("openat", 2)] {
            let open = |flags: u64, mode: u64| {
                let mut args = [0; 4];
                (args[flags_at], args[flags_at + 1]) = (flags, mode);
                ask(&filter, abi, name, &args)
            };
            for flags in [O_CREAT, O_TMPFILE, O_CREAT | 1, O_CREAT | 1 << 32, O_TMPFILE | 2] {
                assert_eq!([0o4755, 0o2755, 0o6000 | 1 << 40].map(|mode| open(flags, mode)), [EPERM; 3], "{name}");
                assert_eq!([0, 0o644, 0o1755].map(|mode| open(flags, mode)), [ALLOW; 3], "{name}");
            }
            // O_DIRECTORY is in O_TMPFILE, but makes nothing; a mode without a file to make is not looked at.
            assert_eq!([0, 1, 0o200_000].map(|flags| open(flags, 0o6755)), [ALLOW; 3], "{name}");
        }
    }
}

#[test]
fn what_a_filter_cannot_see_does_not_exist() {
    for json in [DOCKER_29, &profile("SCMP_ACT_ALLOW", json!([]))] {
        let filter = compiled(json, &DENYING);
        for abi in ALL {
            assert_eq!(["openat2", "fchmodat2"].map(|name| ask(&filter, abi, name, &[])), [ENOSYS; 2]);
            let attributes = ["setxattr", "lsetxattr", "fsetxattr"].map(|name| ask(&filter, abi, name, &[]));
            assert_eq!(attributes, [Verdict::errno(95).raw(); 3]);
        }
    }
    let allowing = compiled(&profile("SCMP_ACT_ALLOW", json!([])), &DENYING);
    assert_eq!(ask(&allowing, Abi::X86_64, "io_uring_setup", &[]), ENOSYS);
    // A call that this wsbox does not know could give modes too; one that no profile names could not.
    assert_eq!(ask_nr(&allowing, Abi::X86_64.audit_arch(), 472, &[]), ENOSYS);
    assert_eq!(ask(&allowing, Abi::X32, "execve", &[]), ALLOW);
    assert_eq!(ask(&compiled(DOCKER_29, &DENYING), Abi::X86_64, "io_uring_setup", &[]), EPERM);
}

#[test]
fn a_stricter_profile_stays() {
    let rules = json!([
        { "names": ["chmod", "openat2"], "action": "SCMP_ACT_KILL_PROCESS" },
        { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30 },
        { "names": ["fchmod"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 0, "value": 9, "op": "SCMP_CMP_EQ" }] },
        { "names": ["creat"], "action": "SCMP_ACT_LOG" }
    ]);
    let filter = compiled(&profile("SCMP_ACT_ALLOW", rules), &DENYING);
    let ask = |name, args: [u64; 2]| ask(&filter, Abi::X86_64, name, &args);
    assert_eq!([ask("chmod", [0, 0o4755]), ask("chmod", [0, 0]), ask("openat2", [0, 0])], [KILL; 3]);
    assert_eq!(ask("mkdir", [0, 0o4755]), Verdict::errno(30).raw());
    assert_eq!([ask("fchmod", [9, 0o4755]), ask("fchmod", [9, 0o755])], [Verdict::TRAP.raw(); 2]);
    assert_eq!([ask("fchmod", [8, 0o4755]), ask("fchmod", [8, 0o755])], [EPERM, ALLOW]);
    assert_eq!([ask("creat", [0, 0o4755]), ask("creat", [0, 0o755])], [EPERM, Verdict::LOG.raw()]);
}

#[test]
fn a_default_that_kills_stays() {
    let args = json!([{ "index": 0, "value": 9, "op": "SCMP_CMP_EQ" }]);
    let rules = json!([{ "names": ["fchmod"], "action": "SCMP_ACT_ALLOW", "args": args }]);
    let filter = compiled(&profile("SCMP_ACT_KILL_PROCESS", rules), &DENYING);
    let got = [[9, 0o755], [9, 0o4755], [8, 0o755], [8, 0o4755]].map(|args| ask(&filter, Abi::X86_64, "fchmod", &args));
    assert_eq!(got, [ALLOW, EPERM, KILL, KILL]);
}

#[test]
fn nothing_else_changes() {
    for json in [DOCKER_29, WORKSPACE] {
        for host in [Arch::X86_64, Arch::Aarch64] {
            let plain = compiled(json, &Options { deny_set_id: false, host });
            let denying = compiled(json, &Options { deny_set_id: true, host });
            for abi in Abi::ALL {
                for nr in (0..1024).map(|nr| nr + abi.base()) {
                    let ask = |filter| ask_nr(filter, abi.audit_arch(), nr, &[]);
                    let is_one = |names: &[&str]| names.iter().any(|name| table::number(name, abi) == Some(nr));
                    let hidden = is_one(&["openat2", "fchmodat2"]) && ask(&denying) == ENOSYS;
                    let attribute = is_one(&["setxattr", "lsetxattr", "fsetxattr", "setxattrat"])
                        && ask(&denying) == Verdict::errno(95).raw();
                    assert!(ask(&plain) == ask(&denying) || hidden || attribute, "{abi:?} {nr}");
                }
            }
        }
    }
}

#[test]
fn over_random_profiles() {
    let mut random = Random(4755);
    for _ in 0..200 {
        // Crowd the guarded calls with rules.
        let json = random::profile(&mut random).replace("\"ioctl\"", "\"fchmod\"").replace("\"clone\"", "\"openat\"");
        let (plain, denying) = (compiled(&json, &ON_X86), compiled(&json, &DENYING));
        for _ in 0..300 {
            let args = [0; 4]
                .map(|_| *random.pick(&[0, 1, 2, 5, 0o100, 0o644, 0o4755, 0o2000, 0o20_200_000, 1 << 32, u64::MAX]));
            let abi = *random.pick(&ALL);
            for (name, set_id) in
                [("fchmod", args[1] & 0o6000 != 0), ("openat", opens_set_id(&args)), ("openat2", true)]
            {
                let before = ask(&plain, abi, name, &args);
                let denial = if name == "openat2" { ENOSYS } else { EPERM };
                let denied = ![0x7fff, 0x7ffc, 0x7ff0].contains(&(before >> 16));
                let wanted = if set_id && !denied { denial } else { before };
                assert_eq!(ask(&denying, abi, name, &args), wanted, "{abi:?} {name} {args:x?} {json}");
            }
        }
    }
}

fn opens_set_id(args: &[u64; 4]) -> bool {
    args[2] & 0o20_000_100 != 0 && args[3] & 0o6000 != 0
}
