// SPDX-License-Identifier: Apache-2.0
//! kill -9 of wsbox at each step of create and run: `delete` leaves nothing. A debug build stops itself before the step that
//! WSBOX_PAUSE_AT names.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use wsbox_integration::engine::{until, wsbox_path};
use wsbox_integration::{Bundle, Engine, leftover, unique};

fn steps() -> Vec<String> {
    let output = Command::new(wsbox_path()).arg("debug-steps").output().unwrap();
    assert!(output.status.success(), "the quick build pauses: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Kills `wsbox VERB` before `step`; false if it never came there.
#[expect(clippy::zombie_processes, reason = "waitpid reaps it")]
fn kill_at(engine: &Engine, verb: &str, step: &str, bundle: &Bundle, id: &str) -> bool {
    let mut command = engine.command(&[verb, "--bundle", &bundle.path().display().to_string(), id]);
    let child = command.env("WSBOX_PAUSE_AT", step).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let stopped =
        matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap(), WaitStatus::Stopped(_, Signal::SIGSTOP));
    if stopped {
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
    }
    stopped
}

fn crash(verb: &str, bundle: &Bundle) -> Vec<String> {
    let mut reached = Vec::new();
    for step in steps() {
        let (engine, id) = (Engine::new(), unique("crash"));
        if kill_at(&engine, verb, &step, bundle, &id) {
            reached.push(step.clone());
        }
        engine.wsbox(&["delete", "--force", &id]).ok();
        until(&format!("nothing left of {verb} at {step}"), || {
            leftover::processes(&id).is_empty() && leftover::cgroups(&id).is_empty()
        });
        leftover::assert_nothing_left(engine.root(), &id);
        assert_eq!(
            std::fs::read_dir(engine.root()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>(),
            Vec::<PathBuf>::new(),
            "{verb} at {step}"
        );
    }
    reached
}

#[test]
fn create_killed_at_each_step() {
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    let reached = crash("create", &bundle);
    assert_eq!(reached.len(), steps().len() - 2, "all but running and exited: {reached:?}");
}

#[test]
fn run_killed_at_each_step() {
    // It ends by itself, so that the last step is reached; a payload that outlives wsbox is delete's to kill.
    let bundle = Bundle::hardened().args(&["sleep", "0.1"]);
    bundle.write();
    assert_eq!(crash("run", &bundle), steps());
}

#[test]
fn a_payload_that_outlives_wsbox_is_deleted() {
    let (engine, id) = (Engine::new(), unique("outlive"));
    let bundle = Bundle::plain().args(&["sleep", "1000"]);
    bundle.write();
    assert!(kill_at(&engine, "run", "running", &bundle, &id));
    assert!(!leftover::cgroups(&id).is_empty());
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}
