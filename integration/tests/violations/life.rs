// SPDX-License-Identifier: Apache-2.0
//! The monitor killed, stopped, frozen out; wsbox killed at each step: calls fail all the same, and nothing hangs.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use wsbox_integration::engine::{until, wsbox_path};
use wsbox_integration::{Bundle, Engine, leftover, unique};

use crate::common::{Counted, monitors, runs, until_counted};

fn signal(counted: &Counted, signal: Signal) {
    kill(Pid::from_raw(counted.monitor()), signal).expect("it runs");
}

fn in_time(what: &str, wait: Duration, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    assert!(began.elapsed() < wait, "{what} took {:?}", began.elapsed());
}

const SOON: Duration = Duration::from_secs(3);

/// It makes denied calls without end, and writes down what else than EPERM it saw.
fn flooding() -> Counted {
    let counted = Counted::new(Bundle::hardened().args(&["probe", "deny", "4", "2", "1000000"]));
    until_counted(&counted, 100);
    counted
}

#[test]
fn killed_it_leaves_calls_denied() {
    let counted = Counted::new(
        Bundle::hardened()
            .script("until test -e /tmp/go; do sleep 0.01; done; probe deny 1 2 5 > /tmp/said; sleep 1000"),
    );
    counted.probe(&["deny", "1", "1", "3"]);
    signal(&counted, Signal::SIGKILL);
    until("it is dead", || !runs(counted.monitor()));
    counted.engine.wsbox(&["exec", &counted.id, "touch", "/tmp/go"]).ok();
    until("the payload has called", || {
        let said = counted.engine.wsbox(&["exec", &counted.id, "cat", "/tmp/said"]).stdout;
        said.contains("ENOSYS 10")
    });
    // What is executed from then on is not counted, and sees the filter's own number.
    assert!(counted.probe(&["deny", "1", "1", "2"]).contains("EPERM 2"));
    let violations = counted.violations();
    assert_eq!((&violations["counting"], &violations["total"]), (&json!("stopped"), &json!(3)));
    let said = counted.engine.wsbox(&["inspect", &counted.id]).ok().stdout;
    assert!(said.contains("counting has stopped: the monitor was killed"), "{said}");
    in_time("pause", SOON, || drop(counted.engine.wsbox(&["pause", &counted.id]).ok()));
    counted.engine.wsbox(&["resume", &counted.id]).ok();
    in_time("delete", SOON, || counted.delete());
}

/// A flood that waits for it goes on with ENOSYS at once.
#[test]
fn killed_it_holds_nobody_up() {
    let counted = Counted::new(Bundle::hardened().script("probe deny 1 8 20000; sleep 1000"));
    until_counted(&counted, 100);
    signal(&counted, Signal::SIGKILL);
    in_time("the flood's end", Duration::from_secs(5), || {
        until("the flood has ended", || counted.engine.wsbox(&["ps", &counted.id]).ok().stdout.contains("sleep"));
    });
    counted.delete();
}

#[test]
fn stopped_it_stops_neither_pause_nor_kill_nor_delete() {
    let counted = flooding();
    signal(&counted, Signal::SIGSTOP);
    until("it has stopped", || counted.violations()["counting"] == "stopped");
    assert!(counted.violations()["reason"].as_str().is_some_and(|reason| reason.contains("stopped by a signal")));
    in_time("pause", SOON, || drop(counted.engine.wsbox(&["pause", &counted.id]).ok()));
    assert_eq!(counted.engine.state(&counted.id)["status"], "paused");
    in_time("resume", SOON, || drop(counted.engine.wsbox(&["resume", &counted.id]).ok()));
    signal(&counted, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(50));
    in_time("kill", SOON, || drop(counted.engine.wsbox(&["kill", &counted.id, "KILL"]).ok()));
    until("it has ended", || counted.engine.state(&counted.id)["status"] == "stopped");
    in_time("delete", SOON, || counted.delete());

    let counted = flooding();
    signal(&counted, Signal::SIGSTOP);
    in_time("delete --force", SOON, || counted.delete());
}

/// A freeze waits for callers that wait for the monitor, which goes on: by cgroup v2, as `pause` does it.
#[test]
fn a_flood_can_be_paused() {
    let counted = flooding();
    for _ in 0..5 {
        in_time("pause", Duration::from_secs(1), || drop(counted.engine.wsbox(&["pause", &counted.id]).ok()));
        let before = counted.violations()["total"].clone();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(counted.violations()["total"], before);
        in_time("resume", Duration::from_secs(1), || drop(counted.engine.wsbox(&["resume", &counted.id]).ok()));
        until_counted(&counted, before.as_u64().expect("a number") + 10);
    }
    counted.delete();
}

/// And by the freezer of cgroup v1, where this host has one.
#[test]
fn a_flood_can_be_frozen_on_v1() {
    let freezer = PathBuf::from("/sys/fs/cgroup/freezer");
    if PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert!(!freezer.exists());
        return;
    }
    let counted = flooding();
    let group = freezer.join(&counted.id);
    fs::create_dir(&group).expect("a cgroup");
    for pid in
        counted.engine.wsbox(&["ps", "--format", "json", &counted.id]).ok().stdout.split(|c: char| !c.is_ascii_digit())
    {
        if !pid.is_empty() {
            fs::write(group.join("cgroup.procs"), pid).expect("it runs");
        }
    }
    let is = |state: &str| fs::read_to_string(group.join("freezer.state")).is_ok_and(|text| text.trim() == state);
    for _ in 0..5 {
        fs::write(group.join("freezer.state"), "FROZEN").expect("frozen");
        in_time("a v1 freeze", Duration::from_secs(1), || until("it is frozen", || is("FROZEN")));
        fs::write(group.join("freezer.state"), "THAWED").expect("thawed");
        until("it is thawed", || is("THAWED"));
    }
    counted.engine.wsbox(&["delete", "--force", &counted.id]).ok();
    fs::remove_dir(&group).expect("an empty cgroup");
    leftover::assert_nothing_left(counted.engine.root(), &counted.id);
}

/// It ends with the container, whether or not anybody deletes that.
#[test]
fn it_ends_by_itself() {
    let counted = Counted::sleeping();
    let monitor = counted.monitor();
    counted.engine.wsbox(&["kill", &counted.id, "KILL"]).ok();
    until("the monitor has ended", || !runs(monitor));
    counted.delete();
    // One that is never started, too.
    let (engine, id, bundle) = (Engine::new(), unique("counted"), Bundle::hardened());
    bundle.write();
    engine.wsbox(&["create", "--count-violations", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert_eq!(monitors(engine.root()).len(), 1);
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("the monitor has ended", || monitors(engine.root()).is_empty());
    engine.wsbox(&["delete", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// What is created, and started later, is counted; without its monitor it is not started.
#[test]
fn create_and_start() {
    let bundle = Bundle::hardened().script("unshare -U true; sleep 1000");
    bundle.write();
    let path = bundle.path().display().to_string();
    let create =
        |engine: &Engine, id: &str| drop(engine.wsbox(&["create", "--count-violations", "--bundle", &path, id]).ok());
    let (engine, id) = (Engine::new(), unique("counted"));
    create(&engine, &id);
    engine.wsbox(&["start", &id]).ok();
    until("it is counted", || engine.wsbox(&["inspect", &id]).ok().stdout.contains("unshare 1 (unshare)"));
    engine.wsbox(&["delete", "--force", &id]).ok();
    until("its monitor has ended", || monitors(engine.root()).is_empty());
    create(&engine, &id);
    let [monitor] = &monitors(engine.root())[..] else { panic!("one monitor") };
    let pid: i32 = monitor.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    until("it is dead", || !runs(pid));
    engine.wsbox(&["start", &id]).fails(1, &["monitor", "gone"]);
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// A host program that is its parent keeps no zombie of it.
#[test]
fn a_library_host_reaps_it() {
    let (engine, id) = (Engine::new(), unique("counted"));
    let bundle = Bundle::hardened().args(&["true"]).set("/annotations", json!({"dev.wsbox.violations": "true"}));
    bundle.write();
    let root = wsbox::Root::new(Some(engine.root().to_owned()));
    let process =
        wsbox::run(&root, &id, &wsbox::Bundle::open(bundle.path()).expect("a bundle"), &wsbox::Options::default());
    process.expect("it runs").wait().expect("our child");
    let record = fs::read_to_string(engine.root().join(&id).join("state.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(wsbox::violations(&root, &id).expect("counts").counting, wsbox::Counting::On);
    wsbox::delete(&root, &id, true).expect("deleted");
    assert!(!PathBuf::from(format!("/proc/{}", record["monitor"]["process"]["pid"])).exists(), "a zombie is left");
}

/// kill -9 of wsbox at each step: the monitor ends with what there was of the container.
#[test]
#[expect(clippy::zombie_processes, reason = "waitpid(2) waits for it, and tells of its stop")]
fn wsbox_killed_at_each_step_leaves_no_monitor() {
    let steps = std::process::Command::new(wsbox_path()).arg("debug-steps").output().expect("wsbox runs").stdout;
    let steps = String::from_utf8(steps).expect("text");
    assert!(steps.contains("monitor"));
    for verb in ["create", "run"] {
        let bundle = Bundle::hardened().args(&["sleep", "0.1"]);
        bundle.write();
        for step in steps.lines() {
            let (engine, id) = (Engine::new(), unique("counted"));
            let path = bundle.path().display().to_string();
            let mut command = engine.command(&[verb, "--count-violations", "--bundle", &path, &id]);
            let child = command
                .env("WSBOX_PAUSE_AT", step)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it runs");
            let pid = Pid::from_raw(child.id() as i32);
            if let WaitStatus::Stopped(..) = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("our child") {
                kill(pid, Signal::SIGKILL).expect("our child");
                waitpid(pid, None).expect("our child");
            }
            engine.wsbox(&["delete", "--force", &id]).ok();
            until(&format!("no monitor is left of {verb} at {step}"), || monitors(engine.root()).is_empty());
            assert!(fs::read_dir(engine.root()).expect("the root").next().is_none(), "{verb} at {step}");
        }
    }
}
