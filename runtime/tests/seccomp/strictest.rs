// SPDX-License-Identifier: Apache-2.0
//! Joined profiles: for every call the strictest verdict of the filters that each would be alone.

use wsbox::seccomp::compile_strictest;
use wsbox::seccomp::interpret::Call;

use super::random::{self, Random, VALUES};
use super::*;

fn strictness(verdict: u32) -> i32 {
    !((verdict & libc::SECCOMP_RET_ACTION_FULL) as i32)
}

/// Tries calls of every architecture; arguments are those at which the rules of random profiles change.
fn check(first: &str, second: &str, options: &Options, random: &mut Random) -> usize {
    let Ok(both) = compile_strictest(&parse(first), &[parse(second)], options) else {
        // Products of many conditions may be too long for the kernel: an error, never a laxer filter.
        return 0;
    };
    let (one, other) = (compiled(first, options), compiled(second, options));
    for arch in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0] {
        for nr in (0..600).chain(0x4000_0000..0x4000_0240).chain([u32::MAX]) {
            for _ in 0..4 {
                let args = [0; 6].map(|_| *random.pick(&VALUES));
                let call = Call { nr, arch, args, ..Call::default() };
                let [got, one, other] =
                    [&both, &one, &other].map(|filter| run(&filter.program, &call).expect("a filter returns"));
                let wanted = if strictness(other) > strictness(one) { other } else { one };
                assert_eq!(got, wanted, "{call:x?}: {one:#x} and {other:#x}\n{first}\n{second}");
            }
        }
    }
    1
}

#[test]
fn the_shipped_profiles_joined() {
    for first in [DOCKER_29, DOCKER_20, WORKSPACE] {
        for second in [DOCKER_29, WORKSPACE] {
            for options in [ON_X86, ON_ARM] {
                assert_eq!(check(first, second, &options, &mut Random(3)), 1);
            }
        }
    }
}

#[test]
fn random_profiles_joined() {
    let mut random = Random(77);
    let mut checked = 0;
    for _ in 0..150 {
        let (first, second) = (random::profile(&mut random), random::profile(&mut random));
        checked += check(&first, &second, &ON_X86, &mut random);
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn a_profile_joined_with_itself_is_itself() {
    let alone = compiled(DOCKER_29, &ON_X86);
    assert_eq!(compile_strictest(&parse(DOCKER_29), &[parse(DOCKER_29)], &ON_X86).unwrap(), alone);
}

#[test]
fn conditions_of_both_must_hold() {
    let rule = |index: usize, value: u64| {
        let args = serde_json::json!([{ "index": index, "value": value, "op": "SCMP_CMP_EQ" }]);
        profile(
            "SCMP_ACT_ERRNO",
            serde_json::json!([{ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args }]),
        )
    };
    let both = compile_strictest(&parse(&rule(0, 1)), &[parse(&rule(1, 2))], &ON_X86).unwrap();
    for (args, wanted) in [([1, 2], ALLOW), ([1, 3], EPERM), ([0, 2], EPERM)] {
        assert_eq!(ask(&both, Abi::X86_64, "socket", &args), wanted, "{args:?}");
    }
}

#[test]
fn set_id_bits_stay_denied_and_no_mitigation_is_lifted() {
    let options = Options { deny_set_id: true, ..ON_X86 };
    let both = compile_strictest(&parse(DOCKER_29), &[parse(WORKSPACE)], &options).unwrap();
    assert_eq!(ask(&both, Abi::X86_64, "fchmod", &[3, 0o4755]), EPERM);
    assert_eq!(ask(&both, Abi::X86_64, "fchmod", &[3, 0o755]), ALLOW);
    let mut lax = parse(DOCKER_29);
    lax.set_flags(serde_json::from_str(r#"["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]"#).unwrap());
    let flags = compile_strictest(&lax, &[parse(WORKSPACE)], &ON_X86).unwrap().flags;
    assert_eq!(flags, libc::SECCOMP_FILTER_FLAG_LOG as u32);
}
