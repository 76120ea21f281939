// SPDX-License-Identifier: Apache-2.0
//! Attacks with files: hostile images, mount destinations and shared volumes, each through every door.

#[path = "attacks_files/console.rs"]
mod console;
#[path = "attacks_files/devices.rs"]
mod devices;
#[path = "attacks_files/host.rs"]
mod host;
#[path = "attacks_files/image.rs"]
mod image;
#[path = "attacks_files/races.rs"]
mod races;

use std::fs;

use wsbox_integration::{Bundle, Door, Engine, Outcome, leftover, unique};

/// What a payload exits with that found everything as it should be: no failure of wsbox has this code.
const SAFE: i32 = 42;

/// Says that it ran, and that all is well.
const PAYLOAD: &str = "echo PAYLOAD-RAN; exit 42";

/// Exits with 42 when every masked path is empty and can't be written.
const MASKED: &str = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/acpi /proc/scsi /sys/firmware; do \
    [ -d $p ] && [ -n \"$(ls $p)\" ] && exit 3; \
    [ -f $p ] && [ -n \"$(head -c 1 $p)\" ] && exit 4; \
    [ -f $p ] && (echo x >> $p) 2>/dev/null && exit 5; \
    done; \
    (echo x > /proc/sysrq-trigger) 2>/dev/null && exit 6; \
    [ \"$(stat -f -c %T /proc)\" = proc ] || exit 7; exit 42";

/// The bundle as the door has it.
fn through(door: Door, bundle: Bundle) -> Bundle {
    bundle.user_namespace(door != Door::Root)
}

/// Runs it; whatever came of it, nothing may be left.
fn run(bundle: &Bundle, door: Door) -> Outcome {
    let engine = Engine::new();
    bundle.write();
    let id = unique("c");
    let outcome = match door {
        Door::Library => engine.run(bundle, door),
        _ => engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]),
    };
    leftover::assert_nothing_left(engine.root(), &id);
    assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new(), "{door:?}: a process, or a mount on the host");
    let states = fs::read_dir(engine.root()).expect("the state root").flatten().map(|entry| entry.path());
    assert_eq!(
        states.filter(|path| path.is_dir()).collect::<Vec<_>>(),
        Vec::<std::path::PathBuf>::new(),
        "{door:?}: left"
    );
    outcome
}

/// Panics unless wsbox refused before the payload ran.
fn assert_closed(what: &str, door: Door, outcome: &Outcome) {
    let payloads = outcome.code == SAFE || (2..10).contains(&outcome.code);
    assert!(outcome.code != 0 && !payloads, "{what} through {door:?} did not fail: {outcome:?}");
    assert!(!outcome.stdout.contains("PAYLOAD-RAN"), "{what} through {door:?}: the payload ran: {outcome:?}");
}

/// Panics unless the payload found everything safe.
fn assert_safe(what: &str, door: Door, outcome: &Outcome) {
    assert_eq!(outcome.code, SAFE, "{what} through {door:?}: {outcome:?}");
}

/// Panics unless wsbox refused, or the payload found everything safe.
fn assert_closed_or_safe(what: &str, door: Door, outcome: &Outcome) {
    if outcome.code != SAFE {
        assert_closed(what, door, outcome);
    }
}
