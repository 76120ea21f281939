// SPDX-License-Identifier: Apache-2.0
//! `wsbox events`: numbers as the kernel has them, in runc's shape; kills for want of memory; its end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, unique};

fn named(bundle: Bundle) -> Bundle {
    bundle.set("/linux/cgroupsPath", json!(format!("/wsbox-events/{}", unique("e"))))
}

fn stats(engine: &Engine, id: &str) -> Value {
    serde_json::from_str(&engine.wsbox(&["events", "--stats", id]).ok().stdout).expect("one line of JSON")
}

/// Every path to a value.
fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| paths(value, &format!("{at}.{key}"), found)),
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn numbers_are_the_kernels() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(named(Bundle::hardened()));
    let said = stats(&engine, &id);
    assert_eq!((&said["type"], &said["id"]), (&json!("stats"), &json!(id)));
    assert_eq!(said["data"]["pids"], json!({"current": 1, "limit": 256}));
    assert_eq!(said["data"]["memory"]["usage"]["limit"], json!(512 << 20));
    let path = bundle.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let usage = std::fs::read_to_string(format!("/sys/fs/cgroup/memory{path}/memory.usage_in_bytes")).unwrap();
    let (told, kernel) =
        (said["data"]["memory"]["usage"]["usage"].as_u64().unwrap(), usage.trim().parse::<u64>().unwrap());
    assert!(told.abs_diff(kernel) < 1 << 20, "{told} {kernel}");
    engine.wsbox(&["exec", &id, "timeout", "0.3", "yes"]).stdout.clear();
    let later = stats(&engine, &id);
    let total = |said: &Value| said["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(total(&later) > total(&said) + 100_000_000, "in nanoseconds");
}

/// What runc tells, wsbox tells under the same name.
#[test]
fn the_shape_is_runcs() {
    let engine = Engine::new();
    let bundle = named(Bundle::plain()).args(&["sleep", "1000"]);
    let (bundle, id) = engine.sleeping(bundle);
    let ours = stats(&engine, &id);
    let other = unique("runc");
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/wsbox-events/{other}")));
    bundle.write();
    let runc = |args: &[&str]| outcome(Command::new("runc").args(args).stdin(Stdio::null()));
    let path = bundle.path().display().to_string();
    let mut run = Command::new("runc");
    run.args(["run", "--detach", "--bundle", &path, &other]).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(run.status().unwrap().success());
    let theirs: Value = serde_json::from_str(&runc(&["events", "--stats", &other]).ok().stdout).unwrap();
    runc(&["delete", "--force", &other]).ok();
    let (mut wanted, mut told) = (Vec::new(), Vec::new());
    paths(&theirs, "", &mut wanted);
    paths(&ours, "", &mut told);
    // Of each CPU in each mode, and of cpuset's flags, wsbox tells nothing.
    let left_out = |path: &&String| !path.contains(".percpu_") && (!path.contains(".cpuset.") || path.ends_with('s'));
    let missing: Vec<_> = wanted.iter().filter(left_out).filter(|path| !told.contains(path)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "{ours}");
}

#[test]
fn lines_until_the_end() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(named(Bundle::hardened()));
    let mut child = engine.command(&["events", "--interval", "50ms", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    lines.by_ref().for_each(drop);
    assert!(child.wait().unwrap().success());
    engine.wsbox(&["events", &id]).fails(1, &["container not running"]);
    engine.wsbox(&["events", "--stats", "nobody"]).fails(1, &["does not exist"]);
    assert_eq!(engine.wsbox(&["events", "--interval", "0s", &id]).code, 2);
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    let engine = Engine::new();
    let limit = json!({"limit": 16 << 20, "swap": 16 << 20});
    let bundle = named(Bundle::hardened().set("/linux/resources/memory", limit));
    let (_bundle, id) = engine.sleeping(bundle);
    let mut child = engine.command(&["events", "--interval", "1h", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hog = engine.wsbox(&["exec", &id, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    assert_eq!(hog.code, 137, "{hog:?}");
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event, json!({"type": "oom", "id": id}));
    engine.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(lines.map_while(Result::ok).count(), 0, "its removal is no kill");
    assert!(child.wait().unwrap().success());
}
