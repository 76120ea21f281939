// SPDX-License-Identifier: Apache-2.0
//! Down and up again: the payload goes on where it was, and its container is one like any other.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use wsbox_integration::engine::{finish, until};
use wsbox_integration::{Bundle, unique};

use super::common::{World, confined};

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn it_goes_on_from_its_number() {
    let (world, id) = (World::new(confined()), unique("up"));
    let number = world.checkpointed();
    world.engine.wsbox(&["state", &id]).fails(1, &["does not exist"]);
    world.restore(&id, &[]).ok();
    assert_eq!(world.engine.state(&id)["status"], "running");
    world.goes_on(&id, number);
    // Once more, from the restored one; and images can be restored more than once.
    let number = world.count(&id);
    world.checkpoint(&id, &[]).ok();
    world.nothing_left(&id);
    for copy in [unique("copy"), unique("copy")] {
        world.restore(&copy, &[]).ok();
        world.goes_on(&copy, number);
    }
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn commands_work_on_the_restored() {
    let (world, id) = (World::new(confined()), unique("up"));
    world.checkpointed();
    let file = world.images("pid");
    world.restore(&id, &["--pid-file", &file]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), world.engine.state(&id)["pid"].to_string());
    let said = world.engine.wsbox(&["exec", &id, "cat", "/proc/1/comm", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(said, "sh\n0::/\n");
    world.engine.wsbox(&["pause", &id]).ok();
    assert_eq!(world.engine.state(&id)["status"], "paused");
    world.engine.wsbox(&["resume", &id]).ok();
    assert!(world.engine.wsbox(&["ps", &id]).ok().stdout.contains("sh -c i=0"));
    world.engine.wsbox(&["delete", &id]).fails(1, &["not stopped"]);
    world.engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("its end", || world.engine.state(&id)["status"] == "stopped");
    world.engine.wsbox(&["delete", &id]).ok();
    world.nothing_left(&id);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn it_may_be_left_running_or_paused() {
    let world = World::new(confined());
    let id = world.running();
    let number = world.count(&id);
    world.checkpoint(&id, &["--leave-running"]).ok();
    world.goes_on(&id, number);
    let copy = unique("copy");
    world.restore(&copy, &[]).ok();
    world.goes_on(&copy, number);
    world.engine.wsbox(&["pause", &id]).ok();
    world.checkpoint(&id, &["--leave-running"]).ok();
    assert_eq!(world.engine.state(&id)["status"], "paused");
    world.checkpoint(&id, &[]).ok();
    world.engine.wsbox(&["state", &id]).fails(1, &["does not exist"]);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn most_of_the_memory_goes_before() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    let before = world.images("before");
    world.engine.wsbox(&["checkpoint", "--pre-dump", "--image-path", &before, &id]).ok();
    let number = world.count(&id);
    world.goes_on(&id, number);
    world.checkpoint(&id, &["--parent-path", &before]).fails(1, &["--parent-path: has to be relative"]);
    world.checkpoint(&id, &["--parent-path", "../before"]).ok();
    assert!(std::path::Path::new(&world.images("one")).join("parent").is_symlink());
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}

/// A command in the foreground whose output we read.
fn foreground(world: &World, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = world.engine.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn next(lines: &mut BufReader<ChildStdout>) -> u64 {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim().parse().unwrap_or_else(|_| panic!("{line:?}"))
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn in_the_foreground_its_output_goes_on() {
    let script = "i=0; while [ ! -e /run/stop ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7";
    let (world, id, up) = (World::new(confined().script(script)), unique("down"), unique("up"));
    let path = world.path();
    let (child, mut lines) = foreground(&world, &["run", "--bundle", &path, &id]);
    while next(&mut lines) < 5 {}
    world.checkpoint(&id, &[]).ok();
    let mut last = 5;
    for line in lines.lines() {
        last = line.unwrap().trim().parse().unwrap();
    }
    assert_eq!(finish(child).code, 137);
    let (child, mut lines) =
        foreground(&world, &["restore", "--bundle", &path, "--image-path", &world.images("one"), &up]);
    assert_eq!(next(&mut lines), last + 1);
    // Its processes go on before wsbox says so.
    until("the record", || world.engine.state(&up)["status"] == "running");
    world.engine.wsbox(&["exec", &up, "touch", "/run/stop"]).ok();
    while lines.read_line(&mut String::new()).unwrap() > 0 {}
    assert_eq!(finish(child).code, 7);
    world.nothing_left(&up);
}

/// As other runtimes' bundles are: without a filter, with capabilities, on a root that can be written.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_plain_bundle() {
    let script = "cd /; i=0; while :; do i=$((i+1)); echo $i > /n; mkdir -p /run; cp /n /run/n; sleep 0.1; done";
    let bundle = Bundle::plain().set("/root/readonly", false.into()).script(&script.replace("cp /n", "cat /n >"));
    let (world, up) = (World::new(bundle), unique("up"));
    let number = world.checkpointed();
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}
