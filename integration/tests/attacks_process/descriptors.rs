// SPDX-License-Identifier: Apache-2.0
//! Descriptors that the caller left open, and paths through them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use wsbox_integration::{Bundle, Canary, Door, Engine, Outcome};

use crate::common::{behind, run_words, shell};

/// Runs a bundle from a shell that leaks `/`, a folder of the host and the kernel's log.
fn leaking(canary: &Canary, bundle: &Bundle, door: Door, options: &str) -> Outcome {
    let engine = Engine::new();
    let words = run_words(&engine, bundle, door, options);
    shell(&format!("exec 3<{0}/marker 7</ 8<{0} 9<>/dev/kmsg 20<{0}; exec {words}", canary.path().display()))
}

/// The numbers that `probe fds` tells of.
fn numbers(outcome: &Outcome) -> Vec<String> {
    let line = outcome
        .stdout
        .lines()
        .find_map(|line| Some(line.split_once("fds: ok ")?.1))
        .unwrap_or_else(|| panic!("{outcome:?}"));
    line.split(' ').filter_map(|fd| Some(fd.split_once('=')?.0.to_owned())).collect()
}

/// Row 36: the payload has its stdio and what the caller wanted it to have.
#[test]
fn no_descriptor_leaks() {
    let canary = Canary::new();
    let control = shell(&format!("exec 7</; {} fds", crate::common::probe_path().display()));
    assert!(numbers(&control).contains(&"7".to_owned()), "the probe sees a leak: {control:?}");
    for door in Door::ALL {
        for bundle in [Bundle::hardened(), Bundle::plain()] {
            let bundle = behind(door, bundle.args(&["probe", "fds"]));
            assert_eq!(numbers(&leaking(&canary, &bundle, door, "").ok()), ["0", "1", "2"], "{door:?}");
            if door != Door::Library {
                assert_eq!(
                    numbers(&leaking(&canary, &bundle, door, "--preserve-fds 1").ok()),
                    ["0", "1", "2", "3"],
                    "{door:?}"
                );
            }
        }
    }
    canary.assert_untouched();
}

/// Row 36: nor into a process that is added.
#[test]
fn no_descriptor_leaks_into_exec() {
    let canary = Canary::new();
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let (_bundle, id) = engine.sleeping(behind(door, Bundle::hardened()));
        let exec = |options: &str| {
            let words = format!(
                "{} --root {} exec {options} {id} probe fds",
                wsbox_integration::engine::wsbox_path(),
                engine.root().display()
            );
            shell(&format!("exec 3<{0}/marker 7</ 8<{0} 9<>/dev/kmsg; exec {words}", canary.path().display())).ok()
        };
        assert_eq!(numbers(&exec("")), ["0", "1", "2"], "{door:?}");
        assert_eq!(numbers(&exec("--preserve-fds 1")), ["0", "1", "2", "3"], "{door:?}");
    }
}

/// Exits 99 in a folder of the host.
const OUTSIDE: &str = "for up in . .. ../.. ../../..; do if test -e $up/marker || test -e $up/work || test -e $up/usr/share; then exit 99; fi; done; exit 98";

/// Row 11: a working directory through a descriptor, named by the config or by the image.
#[test]
fn the_working_directory_is_inside() {
    let canary = Canary::new();
    let outside = shell(&format!("cd {}; {OUTSIDE}", canary.path().display()));
    assert_eq!(outside.code, 99, "the payload knows the host");
    for door in Door::ALL {
        for n in 3..64 {
            let bundle = behind(door, Bundle::hardened().script(OUTSIDE));
            symlink(format!("/proc/self/fd/{n}"), bundle.root().join("wd")).expect("a link");
            let bundle = bundle.set("/process/cwd", json!(format!("/proc/self/fd/{n}")));
            let direct = leaking(&canary, &bundle, door, "");
            let bundle = bundle.set("/process/cwd", json!("/wd"));
            let linked = leaking(&canary, &bundle, door, "");
            for outcome in [direct, linked] {
                assert!(outcome.code != 99 && outcome.code != 0, "{door:?} {n}: {outcome:?}");
            }
        }
    }
    canary.assert_untouched();
}

/// Row 11: a program of the host through a descriptor.
#[test]
fn the_program_is_inside() {
    let canary = Canary::new();
    let tool = canary.path().join("sub/bin/tool");
    assert!(fs::exists(&tool).expect("the canary"));
    for door in Door::ALL {
        for n in 3..64 {
            for program in [
                format!("/proc/self/fd/{n}/sub/bin/tool"),
                format!("/proc/self/fd/{n}/usr/bin/true"),
                format!("/proc/self/fd/{n}/../../../../usr/bin/true"),
            ] {
                let bundle = behind(door, Bundle::hardened().args(&[&program]));
                let outcome = leaking(&canary, &bundle, door, "");
                assert_ne!(outcome.code, 0, "{door:?} {program}: {outcome:?}");
            }
        }
    }
}

/// Row 11: the same for a process that is added.
#[test]
fn the_working_directory_of_exec_is_inside() {
    let canary = Canary::new();
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let (_bundle, id) = engine.sleeping(behind(door, Bundle::hardened()));
        for n in 3..64 {
            let words = format!(
                "{} --root {} exec --cwd /proc/self/fd/{n} {id} sh -c",
                wsbox_integration::engine::wsbox_path(),
                engine.root().display()
            );
            let outcome = shell(&format!(
                "exec 7</ 8<{0} 9<>/dev/kmsg 20<{0}; exec {words} '{OUTSIDE}'",
                canary.path().display()
            ));
            assert!(outcome.code != 99 && outcome.code != 0, "{door:?} {n}: {outcome:?}");
        }
    }
}
