// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a profile is said by its JSON path.

use serde_json::json;

use super::*;

fn error(json: &Value) -> String {
    compile(&serde_json::from_value(json.clone()).unwrap(), &ON_X86).unwrap_err().to_string()
}

/// The error for a profile with one rule.
fn rule_error(rule: Value) -> String {
    error(
        &json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_LOG" }, rule] }),
    )
}

#[test]
fn an_error_number_never_reaches_the_action() {
    // 0x7ffa_0000 or-ed into ERRNO would make it ALLOW.
    for number in [65536_u32, 0x7ffa_0000, u32::MAX] {
        let rule = json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": number });
        let wanted = format!("linux.seccomp.syscalls[1].errnoRet: {number} is larger than 65535");
        assert_eq!(rule_error(rule), wanted);
        let default = json!({ "defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": number });
        assert_eq!(error(&default), format!("linux.seccomp.defaultErrnoRet: {number} is larger than 65535"));
    }
}

#[test]
fn only_errno_and_trace_take_a_number() {
    for action in ["ALLOW", "KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG"] {
        let rule = json!({ "names": ["read"], "action": format!("SCMP_ACT_{action}"), "errnoRet": 1 });
        let wanted = format!("linux.seccomp.syscalls[1].errnoRet: SCMP_ACT_{action} takes no error number");
        assert!(rule_error(rule).starts_with(&wanted));
    }
    let default = json!({ "defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1 });
    assert!(error(&default).starts_with("linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL takes no"));
}

#[test]
fn arguments_are_counted_to_five() {
    for index in [6, 7, usize::MAX] {
        let args = json!([{ "index": 5, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": index, "value": 1, "op": "SCMP_CMP_EQ" }]);
        let rule = json!({ "names": ["read"], "action": "SCMP_ACT_KILL", "args": args });
        let wanted = format!("linux.seccomp.syscalls[1].args[1].index: {index}: arguments are counted 0 to 5");
        assert_eq!(rule_error(rule), wanted);
    }
}

#[test]
fn a_listener_can_not_be_handed_over_by_calls_that_wait_for_it() {
    let rule = |name: &str| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": [name], "action": "SCMP_ACT_NOTIFY" }] });
    for name in ["read", "write"] {
        assert!(error(&rule(name)).contains(&format!("SCMP_ACT_NOTIFY can not be for {name:?}")));
    }
    let default = error(&json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
    assert!(default.starts_with("linux.seccomp: SCMP_ACT_NOTIFY needs read to be allowed"), "{default}");
}

#[test]
fn words_that_are_no_actions_fail_while_parsing() {
    for rule in [
        json!({ "names": ["read"], "action": "SCMP_ACT_MAYBE" }),
        json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_SO" }] }),
        json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": [{ "index": -1, "value": 1, "op": "SCMP_CMP_EQ" }] }),
    ] {
        let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        assert!(serde_json::from_value::<LinuxSeccomp>(profile).is_err());
    }
}

#[test]
fn too_many_rules() {
    let rule = |value: u64| {
        let args = json!([{ "index": 0, "value": value << 32, "op": "SCMP_CMP_EQ" }]);
        json!({ "names": ["read"], "action": "SCMP_ACT_KILL", "args": args })
    };
    let with =
        |count| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": (1..=count).map(rule).collect::<Vec<_>>() });
    let text = error(&with(1000));
    assert!(text.starts_with("linux.seccomp.syscalls: the filter has 50"), "{text}");
    assert!(text.contains("the kernel takes 4096"), "{text}");
    let fits = compile(&serde_json::from_value(with(800)).unwrap(), &ON_X86).unwrap();
    assert!((4000..=4096).contains(&fits.program.len()), "{}", fits.program.len());
    assert_eq!(ask(&fits, Abi::X86_64, "read", &[800 << 32]), 0);
    assert_eq!(ask(&fits, Abi::X86_64, "read", &[801 << 32]), ALLOW);
}

#[test]
fn a_name_that_nobody_knows_is_told() {
    // Known, known to 32-bit x86 only, known to RISC-V only, unknown.
    let rules = json!([{ "names": ["read", "waitpid", "riscv_hwprobe", "raed"], "action": "SCMP_ACT_ALLOW" }]);
    let filter = compiled(&profile("SCMP_ACT_ERRNO", rules), &ON_X86);
    assert_eq!(filter.warnings, ["linux.seccomp.syscalls[0].names[3]: no kernel has a call \"raed\", skipped"]);
    for json in [DOCKER_29, DOCKER_20, WORKSPACE] {
        assert_eq!(compiled(json, &ON_X86).warnings, [""; 0]);
    }
}

#[test]
fn a_rule_without_effect_is_told() {
    let args = json!([{ "index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ" }]);
    let rules = json!([
        { "names": ["ioctl"], "action": "SCMP_ACT_KILL", "args": args },
        { "names": ["ioctl"], "action": "SCMP_ACT_ALLOW" },
        { "names": [], "action": "SCMP_ACT_ALLOW" }
    ]);
    let filter = compiled(&profile("SCMP_ACT_ERRNO", rules), &ON_X86);
    assert_eq!(
        filter.warnings,
        [
            "linux.seccomp.syscalls[2].names: no name, so the rule says nothing",
            "linux.seccomp.syscalls[0]: without effect on \"ioctl\": syscalls[1] has no args and wins"
        ]
    );
    assert_eq!(ask(&filter, Abi::X86_64, "ioctl", &[0, 0x5412]), ALLOW);
}

#[test]
fn flags_are_those_of_the_profile() {
    let flags = |list: Value| {
        let json = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": list });
        compile(&serde_json::from_value(json).unwrap(), &ON_X86).unwrap()
    };
    assert_eq!(flags(json!([])).flags, 0);
    let all = flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]));
    assert_eq!((all.flags, all.warnings.len()), (0b111, 0));
    let killable = flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    assert_eq!(killable.flags, 0b10);
    assert!(killable.warnings[0].starts_with("linux.seccomp.flags: "), "{:?}", killable.warnings);
}

#[test]
fn the_listener_is_not_handed_over_by_what_it_is_for() {
    let when = json!([{ "index": 0, "value": 9, "op": "SCMP_CMP_EQ" }]);
    let error = rule_error(json!({ "names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY", "args": when }));
    assert!(
        error.starts_with("linux.seccomp.syscalls[1].names[1]: SCMP_ACT_NOTIFY can not be for \"write\""),
        "{error}"
    );
}
