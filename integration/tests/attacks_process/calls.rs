// SPDX-License-Identifier: Apache-2.0
//! System calls that the default filter refuses, and ways around it by another ABI.

use wsbox_integration::{Bundle, Door};

use crate::common::{assert_says, on_host, run, unfiltered};

/// Row 38: socket families that have no place in a sandbox.
#[test]
fn socket_families_are_refused() {
    assert!(on_host("socket 16").contains("socket 16: ok"), "the probe can do it on the host");
    let families = ["38", "40", "16", "17", "31", "2"];
    let script = families.map(|family| format!("probe socket {family}")).join(";");
    for door in Door::ALL {
        let outcome = run(Bundle::hardened().script(&script), door).ok();
        for family in families {
            assert_says(&outcome.stdout, &format!("socket {family}"), &["EPERM"]);
        }
    }
    let free = run(unfiltered(Bundle::hardened()).script(&script), Door::Userns).ok();
    assert!(free.stdout.contains("socket 16: ok"), "it is the filter that refuses: {}", free.stdout);
}

/// Rows 38 and 40: another ABI of the same kernel, where the numbers mean something else.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_abi_kills() {
    for door in Door::ALL {
        for words in [
            &["probe", "int80-getpid"][..],
            &["probe", "int80", "102"],
            &["probe", "syscall", "0x40000027"],
            &["probe", "syscall", "0x40000029", "38", "5"],
        ] {
            let outcome = run(Bundle::hardened().args(words), door);
            assert_eq!(outcome.code, 159, "{door:?} {words:?}: {outcome:?}");
        }
    }
    let free = run(unfiltered(Bundle::hardened()).args(&["probe", "int80-getpid"]), Door::Userns);
    assert!(free.stdout.contains("int80-getpid: ok"), "it is the filter that kills: {free:?}");
}

/// Rows 38 and 40: what a libc falls back from is ENOSYS; io_uring would get around the socket rules.
#[test]
fn unknown_calls_are_unknown() {
    for door in Door::ALL {
        let outcome =
            run(Bundle::hardened().script("probe syscall 9999; probe clone3; probe syscall 425 8 0"), door).ok();
        assert_says(&outcome.stdout, "syscall 9999", &["ENOSYS"]);
        assert_says(&outcome.stdout, "clone3", &["ENOSYS"]);
        assert_says(&outcome.stdout, "syscall 425 8 0", &["EPERM", "ENOSYS"]);
    }
    assert!(!on_host("clone3").contains("ENOSYS"), "the host's kernel has clone3");
}
