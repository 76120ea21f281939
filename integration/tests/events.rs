// SPDX-License-Identifier: Apache-2.0
//! `events`: the numbers are the kernel's, the shape is runc's.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until};
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

fn stats(engine: &Engine, id: &str) -> Value {
    serde_json::from_str(&engine.wsbox(&["events", "--stats", id]).ok().stdout).expect("one line of JSON")
}

/// In every v1 hierarchy, as engines ask for it.
fn everywhere(bundle: Bundle, name: &str) -> Bundle {
    bundle.set("/linux/cgroupsPath", json!(format!("/wsbox/{name}")))
}

fn number(path: &str) -> u64 {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().parse().unwrap()
}

#[test]
fn the_numbers_are_the_kernels() {
    let (engine, name) = (Engine::new(), unique("stats"));
    let bundle = everywhere(Bundle::hardened(), &name);
    let (_bundle, id) = engine.sleeping(bundle);
    engine.wsbox(&["exec", &id, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/tmp/x bs=1M count=8; ping -c 1 -W 1 127.0.0.1; true"]);
    // Nothing but `sleep` is in it now: the numbers stand still.
    let event = stats(&engine, &id);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    let data = &event["data"];
    let in_cgroup = |controller: &str, file: &str| number(&format!("/sys/fs/cgroup/{controller}/wsbox/{name}/{file}"));
    assert_eq!(data["cpu"]["usage"]["total"], in_cgroup("cpuacct", "cpuacct.usage"));
    let percpu = data["cpu"]["usage"]["percpu"].as_array().unwrap();
    assert_eq!(percpu.iter().map(|cpu| cpu.as_u64().unwrap()).sum::<u64>(), in_cgroup("cpuacct", "cpuacct.usage"));
    assert!(data["cpu"]["usage"]["user"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["memory"]["usage"]["limit"], 512 << 20);
    // Pages of the processes that ended are given back a little later.
    let usage = data["memory"]["usage"]["usage"].as_u64().unwrap();
    assert!(usage.abs_diff(in_cgroup("memory", "memory.usage_in_bytes")) < 1 << 20, "{usage}");
    assert_eq!(data["memory"]["usage"]["max"], in_cgroup("memory", "memory.max_usage_in_bytes"));
    assert_eq!(data["memory"]["swap"]["limit"], in_cgroup("memory", "memory.memsw.limit_in_bytes"));
    assert!(data["memory"]["raw"]["shmem"].as_u64().unwrap() >= 8 << 20, "{data}");
    assert_eq!(data["pids"], json!({"current": 1, "limit": 256}));
    assert_eq!(data["cpuset"]["cpus"].as_array().unwrap().len(), std::thread::available_parallelism().unwrap().get());
    let lo = &data["network_interfaces"][0];
    assert_eq!(lo["Name"], "lo");
    assert_eq!(lo["RxBytes"], lo["TxBytes"]);
    assert!(data["cpu"]["psi"]["some"]["total"].is_u64(), "{data}");
}

/// Every key that runc prints of the same bundle is there, with the same kind of value.
#[test]
fn the_shape_is_runcs() {
    let (engine, name, state) = (Engine::new(), unique("shape"), TempDir::new("runc"));
    let limits =
        json!({"memory": {"limit": 100 << 20}, "pids": {"limit": 50}, "cpu": {"quota": 5000, "period": 100_000}});
    // It is throttled, and so has something to tell of that.
    let bundle = everywhere(Bundle::plain().set("/linux/resources", limits), &name)
        .script("timeout 1 yes >/dev/null; exec sleep 1000");
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["run", "--detach", "--bundle", &path, &name]).ok();
    let runc = |args: &[&str]| {
        Command::new("runc").arg("--root").arg(state.path()).args(args).stdin(Stdio::null()).output().unwrap()
    };
    let twin = everywhere(bundle, &format!("{name}-runc"));
    twin.write();
    let id = format!("{name}-runc");
    let ran = Command::new("runc")
        .arg("--root")
        .arg(state.path())
        .args(["run", "-d", "--bundle", &path, &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(ran.success());
    std::thread::sleep(Duration::from_millis(1200));
    let theirs: Value = serde_json::from_slice(&runc(&["events", "--stats", &id]).stdout).expect("runc's JSON");
    runc(&["delete", "--force", &id]);
    let ours = stats(&engine, &name);
    let (ours, theirs) = (keys("", &ours), keys("", &theirs));
    // runc 1.1 knows of no pressure, and of no interfaces but those of its own making.
    let own = ["/data/network_interfaces null", "/data/blkio object"];
    // Of the two, one may have found all of its files in memory.
    let disk = |key: &str| key.starts_with("/data/blkio/");
    let same = |key: &&String| disk(key) && !ours.iter().any(|key| disk(key));
    let missing = theirs.difference(&ours).filter(|key| !own.contains(&key.as_str()) && !key.starts_with("/id "));
    let missing: Vec<&String> = missing.filter(|key| !same(key)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "ours: {ours:?}");
    assert!(theirs.contains("/data/cpu/throttling/throttledTime number"), "{theirs:?}");
}

/// The paths of all values, with their kinds.
fn keys(path: &str, value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().flat_map(|(key, value)| keys(&format!("{path}/{key}"), value)).collect()
        }
        Value::Array(list) if !list.is_empty() => keys(&format!("{path}/0"), &list[0]),
        Value::Object(_) => [format!("{path} object")].into(),
        Value::Array(_) => [format!("{path} array")].into(),
        Value::Number(_) => [format!("{path} number")].into(),
        Value::Null => [format!("{path} null")].into(),
        other => [format!("{path} {other}")].into(),
    }
}

#[test]
fn they_come_at_the_interval_and_end_with_the_container() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let mut child = engine.command(&["events", "--interval", "100ms", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    lines.for_each(drop);
    assert_eq!(finish(child).code, 0);
}

#[test]
fn running_out_of_memory_is_told() {
    let (engine, id) = (Engine::new(), unique("oom"));
    let limits = json!({"limit": 20 << 20, "swap": 20 << 20});
    // A child dies of it, at a word; the payload stays.
    let bundle = Bundle::hardened()
        .set("/linux/resources/memory", limits)
        .script("while ! test -e /tmp/go; do sleep 0.05; done; (exec dd if=/dev/zero of=/dev/null bs=64M count=1); touch /tmp/done; exec sleep 1000");
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let mut child = engine.command(&["events", "--interval", "1h", &id]).stdout(Stdio::piped()).spawn().unwrap();
    // The watch is set once events waits in poll.
    let wchan = format!("/proc/{}/syscall", child.id());
    until("events waits", || {
        fs::read_to_string(&wchan).is_ok_and(|text| text.starts_with("7 ") || text.starts_with("271 "))
    });
    engine.wsbox(&["exec", &id, "touch", "/tmp/go"]).ok();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["id"], &event["data"]["level"]),
        (&json!("oom"), &json!(id), &json!("container"))
    );
    engine.wsbox(&["delete", "--force", &id]).ok();
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert!(rest.iter().all(|line| ["oom", "limits", "state"].iter().any(|kind| line.contains(kind))), "{rest:?}");
    assert_eq!(finish(child).code, 0);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn denied_calls_and_states_are_told() {
    let (engine, id) = (Engine::new(), unique("told"));
    let bundle =
        Bundle::hardened().set("/annotations", json!({"dev.wsbox.violations": "true"})).args(&["sleep", "1000"]);
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let mut child = engine.command(&["events", "--interval", "1h", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    engine.wsbox(&["exec", &id, "unshare", "true"]);
    let denied = next();
    assert_eq!((&denied["type"], &denied["data"]["total"]), (&json!("violations"), &json!(1)), "{denied}");
    assert_eq!(denied["data"]["blocked"][0]["syscall"], "unshare");
    for (command, status) in [("pause", "paused"), ("resume", "running")] {
        engine.wsbox(&[command, &id]).ok();
        assert_eq!(next(), json!({"type": "state", "id": id, "data": {"status": status}}));
    }
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    assert_eq!(next()["data"]["status"], "stopped");
    assert_eq!(finish(child).code, 0);
    engine.wsbox(&["delete", "--force", &id]).ok();
}

#[test]
fn what_is_not_there_or_no_duration() {
    let engine = Engine::new();
    engine.wsbox(&["events", "nobody"]).fails(1, &["does not exist"]);
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    assert!(engine.wsbox(&["events", "--interval", "soon", &id]).stderr.contains("no duration"));
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    engine.wsbox(&["events", "--stats", &id]).fails(1, &["is not running"]);
}
