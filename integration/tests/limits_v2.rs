// SPDX-License-Identifier: Apache-2.0
//! cgroup v2 by hand: what each field becomes, and what is refused. For hosts that have their controllers there: `make test-guest`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::cgroup::Group;
use wsbox_integration::engine::{finish, until, wsbox_path};
use wsbox_integration::{Bundle, Engine, Outcome, leftover, unique};

const MIB: u64 = 1 << 20;
const ROOT: &str = "/sys/fs/cgroup";

fn at(path: &str, file: &str) -> PathBuf {
    Path::new(ROOT).join(path).join(file)
}

fn text(path: &str, file: &str) -> String {
    let file = at(path, file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

fn put(path: &str, file: &str, value: &str) {
    let file = at(path, file);
    fs::write(&file, value).unwrap_or_else(|error| panic!("{} {value:?}: {error}", file.display()));
}

fn plain(resources: Value) -> Bundle {
    Bundle::plain().set("/linux/resources", resources).args(&["sleep", "1000"])
}

/// The disk of the root file system, whose I/O can be limited.
fn disk() -> (u64, u64) {
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata("/").unwrap());
    (nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

fn start(engine: &Engine, bundle: &Bundle, id: &str) -> Outcome {
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), id])
}

fn update(engine: &Engine, id: &str, resources: &Value) -> Outcome {
    let file = engine.root().join("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    engine.wsbox(&["update", "-r", &file.display().to_string(), id])
}

/// Fields, and the files of v2 with what they are to hold.
fn fields() -> Vec<(Value, Vec<(&'static str, String)>)> {
    let (major, minor) = disk();
    let throttle = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let owned =
        |pairs: &[(&'static str, &str)]| pairs.iter().map(|(file, value)| (*file, (*value).to_owned())).collect();
    vec![
        (
            json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB}}),
            owned(&[
                ("memory.max", "67108864"),
                ("memory.swap.max", "33554432"),
                ("memory.low", "16777216"),
                ("memory.oom.group", "1"),
            ]),
        ),
        (json!({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}), owned(&[("memory.swap.max", "0")])),
        (json!({"memory": {"limit": 64 * MIB, "swap": -1}}), owned(&[("memory.swap.max", "max")])),
        (json!({"memory": {"limit": -1}}), owned(&[("memory.max", "max")])),
        (json!({"pids": {"limit": 33}}), owned(&[("pids.max", "33")])),
        (json!({"pids": {"limit": -1}}), owned(&[("pids.max", "max")])),
        (
            json!({"cpu": {"shares": 2048, "quota": 30000, "period": 60000, "burst": 10000}}),
            owned(&[("cpu.weight", "174"), ("cpu.max", "30000 60000"), ("cpu.max.burst", "10000")]),
        ),
        (
            json!({"cpu": {"shares": 1024, "quota": -1, "period": 100_000}}),
            owned(&[("cpu.weight", "100"), ("cpu.max", "max 100000")]),
        ),
        (json!({"cpu": {"idle": 1}}), owned(&[("cpu.idle", "1")])),
        (json!({"cpu": {"idle": 0}}), owned(&[("cpu.idle", "0")])),
        (
            json!({"blockIO": {"throttleReadBpsDevice": throttle(1 << 20), "throttleWriteBpsDevice": throttle(2 << 20),
                "throttleReadIOPSDevice": throttle(30), "throttleWriteIOPSDevice": throttle(40)}}),
            vec![("io.max", format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=30 wiops=40"))],
        ),
        (
            json!({"unified": {"memory.high": "50331648", "memory.min": "1048576", "cpu.weight.nice": "-5",
                "io.max": format!("{major}:{minor} rbps=4096 wbps=max riops=max\n{major}:{minor} wiops=7"), "memory.oom.group": "0"}}),
            vec![
                ("memory.high", "50331648".into()),
                ("memory.min", "1048576".into()),
                ("cpu.weight.nice", "-5".into()),
                ("io.max", format!("{major}:{minor} rbps=4096 wbps=max riops=max wiops=7")),
                ("memory.oom.group", "0".into()),
            ],
        ),
    ]
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn every_field_is_in_force_from_the_start() {
    let engine = Engine::new();
    for (resources, files) in fields() {
        let id = unique("field");
        start(&engine, &plain(resources.clone()), &id).ok();
        for (file, value) in files {
            assert_eq!(text(&format!("wsbox/{id}"), file), value, "{file} of {resources}");
        }
        engine.wsbox(&["delete", "--force", &id]).ok();
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn and_by_update() {
    let engine = Engine::new();
    // Memory that is not counted from the start can not be limited later.
    let (_bundle, id) = engine.sleeping(plain(json!({"memory": {"limit": -1}})));
    for (resources, files) in fields() {
        update(&engine, &id, &resources).ok();
        for (file, value) in files {
            assert_eq!(text(&format!("wsbox/{id}"), file), value, "{file} of {resources}");
        }
    }
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn at_any_depth_only_the_controllers_that_are_needed() {
    let (engine, top, id) = (Engine::new(), unique("top"), unique("deep"));
    let path = format!("{top}/a/b/{id}");
    start(&engine, &plain(json!({"pids": {"limit": 5}})).set("/linux/cgroupsPath", json!(format!("/{path}"))), &id)
        .ok();
    for level in [&top, &format!("{top}/a"), &format!("{top}/a/b")] {
        assert_eq!(text(level, "cgroup.subtree_control"), "pids", "{level}");
    }
    assert_eq!(text(&path, "cgroup.controllers"), "pids");
    engine.wsbox(&["delete", "--force", &id]).ok();
    assert!(!at(&path, "").exists());
    for level in ["a/b", "a", ""] {
        fs::remove_dir(at(&format!("{top}/{level}"), "")).unwrap();
    }
}

/// Fails, says these words, and leaves nothing below `top` or anywhere.
fn refused(engine: &Engine, resources: Value, path: &str, words: &[&str]) {
    let id = unique("refused");
    let bundle = plain(resources).set("/linux/cgroupsPath", json!(format!("/{path}/{id}")));
    start(engine, &bundle, &id).fails(1, words);
    leftover::assert_nothing_left(engine.root(), &id);
    assert!(!at(&format!("{path}/{id}"), "").exists());
}

fn limits() -> Value {
    json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}})
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn a_parent_with_processes_is_named_with_the_way_out() {
    let (engine, top) = (Engine::new(), unique("busy"));
    let group = Group::new(&top, &["memory", "pids"], &[]);
    let mut child = group.spawn(&["/bin/busybox", "sleep", "1000"]);
    until("it is in there", || text(&top, "cgroup.procs") == child.id().to_string());
    let pid = child.id().to_string();
    let file = format!(
        "linux.resources.memory.limit: write \"+memory\" to {ROOT}/{top}/cgroup.subtree_control: device or resource busy"
    );
    refused(
        &engine,
        limits(),
        &top,
        &[&file, &format!("processes of its own, such as {pid}"), "another linux.cgroupsPath"],
    );
    // A limit of a kind that takes threads would make it threaded for good.
    let file = format!("linux.resources.pids.limit: write \"+pids\" to {ROOT}/{top}/cgroup.subtree_control");
    refused(&engine, json!({"pids": {"limit": 9}}), &top, &[&file, "processes of its own"]);
    assert_eq!(text(&top, "cgroup.subtree_control"), "");
    // Levels that were made for it are gone as well.
    refused(&engine, limits(), &format!("{top}/x/y"), &["device or resource busy"]);
    assert!(!at(&format!("{top}/x"), "").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn a_threaded_parent_is_named() {
    let (engine, top) = (Engine::new(), unique("threaded"));
    let _top = Group::new(&top, &["pids"], &[]);
    let below = format!("{top}/threads");
    let _below = Group::new(&below, &[], &[]);
    fs::create_dir(at(&below, "")).unwrap();
    put(&below, "cgroup.type", "threaded");
    refused(&engine, json!({}), &below, &["clone3", &below, "is threaded", "cgroup.type", "linux.cgroupsPath"]);
    refused(
        &engine,
        limits(),
        &below,
        &["linux.resources.memory.limit: write \"+memory\" to", "not supported", "threaded", "linux.cgroupsPath"],
    );
    fs::remove_dir(at(&below, "")).unwrap();
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn no_more_cgroups_are_allowed_below() {
    let (engine, top) = (Engine::new(), unique("descendants"));
    let _top = Group::new(&top, &["pids"], &[]);
    put(&top, "cgroup.max.descendants", "0");
    refused(&engine, json!({}), &top, &["linux.cgroupsPath: make", "cgroup.max.descendants"]);
}

/// Runs wsbox in a mount namespace of its own, after `before`.
fn elsewhere(engine: &Engine, bundle: &Bundle, id: &str, before: &str) -> Outcome {
    bundle.write();
    let script = format!("{before} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh", &wsbox_path(), "--root"]).arg(engine.root());
    command.args(["run", "--bundle", &bundle.path().display().to_string(), id]);
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// A cgroup that somebody delegated, as the root of what there is to see.
#[test]
#[ignore = "cgroup v2: make test-guest"]
fn a_controller_that_is_not_delegated_is_named() {
    let (engine, top, id) = (Engine::new(), unique("delegated"), unique("lacks"));
    let _top = Group::new(&top, &["pids", "memory"], &[]);
    let below = format!("{top}/mine");
    put(&top, "cgroup.subtree_control", "+pids");
    fs::create_dir(at(&below, "")).unwrap();
    let before = format!("mount --bind {ROOT}/{below} {ROOT}");
    let outcome = elsewhere(&engine, &plain(limits()), &id, &before);
    let words = [
        "linux.resources.memory.limit: needs the memory controller, which /sys/fs/cgroup/cgroup.controllers does not list",
        "remove the limit",
    ];
    outcome.fails(1, &words);
    leftover::assert_nothing_left(engine.root(), &id);
    // What is delegated is used.
    let bundle = plain(json!({"pids": {"limit": 9}})).args(&["true"]);
    elsewhere(&engine, &bundle, &id, &before).ok();
    fs::remove_dir(at(&below, "wsbox")).unwrap();
    fs::remove_dir(at(&below, "")).unwrap();
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn a_read_only_hierarchy_is_named() {
    let (engine, id) = (Engine::new(), unique("ro"));
    let outcome = elsewhere(&engine, &plain(limits()), &id, &format!("mount -o remount,bind,ro {ROOT}"));
    outcome.fails(1, &[ROOT, "read-only file system", "mount -o remount,rw /sys/fs/cgroup"]);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn nonsense_in_unified_is_named_with_file_and_value() {
    let engine = Engine::new();
    for (key, value, words) in [
        ("memory.nonsense", "7", &["write \"7\" to", "/memory.nonsense: no such file", "cgroup-v2.rst"][..]),
        ("foo.bar", "7", &["needs the foo controller", "/sys/fs/cgroup/cgroup.controllers"]),
        ("memory.high", "many", &["write \"many\" to", "/memory.high: invalid argument", "does not take this value"]),
        ("cpu.max", "5", &["write \"5\" to", "/cpu.max: invalid argument"]),
        (
            "io.max",
            "400:400 rbps=1",
            &["write \"400:400 rbps=1\" to", "/io.max: no such device", "no device of this number"],
        ),
        ("cgroup.procs", "1", &["is no limit"]),
        ("nonsense", "1", &["is no limit"]),
    ] {
        let id = unique("unified");
        let outcome = start(&engine, &plain(json!({"unified": {key: value}})), &id);
        let field = format!("linux.resources.unified[{key:?}]");
        outcome.fails(1, &[&[field.as_str()], words].concat());
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

/// The kernel would kill for it.
#[test]
#[ignore = "cgroup v2: make test-guest"]
fn a_limit_below_what_is_in_use_is_refused() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["exec", &id, "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=30"]).ok();
    let path = format!("wsbox/{id}");
    let words = [
        "linux.resources.memory.limit: write \"10485760\" to",
        &format!("{path}/memory.max"),
        "device or resource busy",
        "higher limit",
    ];
    engine.wsbox(&["update", "--memory", "10m", "--memory-swap", "10m", "--pids-limit", "20", &id]).fails(1, &words);
    assert_eq!((text(&path, "memory.max"), text(&path, "pids.max")), ((512 * MIB).to_string(), "256".into()));
    assert_eq!(engine.state(&id)["status"], "running");
    // What can be given back is: 100 MiB of a file's pages are no hindrance.
    let (_bundle, other) = engine.sleeping(
        Bundle::plain()
            .set("/linux/resources", json!({"memory": {"limit": 512 * MIB}}))
            .set("/root/readonly", json!(false)),
    );
    engine.wsbox(&["exec", &other, "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=100 && sync"]).ok();
    assert!(text(&format!("wsbox/{other}"), "memory.current").parse::<u64>().unwrap() > 50 * MIB);
    engine.wsbox(&["update", "--memory", "20m", &other]).ok();
    assert_eq!(text(&format!("wsbox/{other}"), "memory.max"), (20 * MIB).to_string());
    assert_eq!(engine.state(&other)["status"], "running");
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn exec_into_cgroups_below() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(plain(json!({"memory": {"limit": 512 * MIB}})));
    let path = format!("wsbox/{id}");
    fs::create_dir(at(&path, "sub")).unwrap();
    let placed = |args: &[&str]| {
        let said =
            engine.wsbox(&[&["exec"], args, &[&id, "cat", "/proc/1/cgroup", "/proc/self/cgroup"]].concat()).ok().stdout;
        said.lines().last().unwrap().to_owned()
    };
    assert_eq!(placed(&[]), "0::/");
    assert_eq!(placed(&["--cgroup", "sub"]), "0::/sub");
    engine.wsbox(&["exec", "--cgroup", "../x", &id, "true"]).fails(255, &["leads out of the container's cgroup"]);
    // A limit below is the payload's own affair, and is told so.
    put(&path, "sub/cgroup.procs", &engine.state(&id)["pid"].to_string());
    put(&path, "cgroup.subtree_control", "+memory");
    put(&path, "sub/memory.max", "20971520");
    put(&path, "sub/memory.swap.max", "0");
    // The container's own cgroup takes nobody any more: the first process is followed.
    assert_eq!(placed(&[]), "0::/sub");
    assert_eq!(engine.wsbox(&["exec", &id, "dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]).code, 137);
    let seen: Value = serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", &id]).ok().stdout).unwrap();
    assert_eq!(seen["limitsMet"][0]["level"], "below", "{seen}");
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
#[ignore = "cgroup v2: make test-guest"]
fn frozen_ones_are_waited_for_and_can_be_killed() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(plain(json!({})));
    let path = format!("wsbox/{id}");
    for _ in 0..3 {
        engine.wsbox(&["exec", "--detach", &id, "sh", "-c", "while true; do true; done"]).ok();
    }
    engine.wsbox(&["pause", &id]).ok();
    assert!(text(&path, "cgroup.events").contains("frozen 1"));
    engine.wsbox(&["resume", &id]).ok();
    assert!(text(&path, "cgroup.events").contains("frozen 0"));
    engine.wsbox(&["pause", &id]).ok();
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}
