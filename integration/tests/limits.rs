// SPDX-License-Identifier: Apache-2.0
//! The limits of a container, as they bite and as the user is told: on v1 and on v2 alike.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use wsbox_integration::cgroup::{self, Group, on_v1};
use wsbox_integration::engine::{until, wsbox_path};
use wsbox_integration::{Bundle, Engine, Outcome, leftover, unique};

const MIB: u64 = 1 << 20;

/// More memory than any limit here.
const GREEDY: [&str; 5] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"];

fn limited(resources: Value) -> Bundle {
    let mut bundle = Bundle::hardened();
    for (name, value) in resources.as_object().expect("an object") {
        bundle = bundle.set(&format!("/linux/resources/{name}"), value.clone());
    }
    bundle
}

fn memory(mib: u64) -> Value {
    json!({"memory": {"limit": mib * MIB, "swap": mib * MIB}})
}

/// Runs it under this id; nothing of it is left.
fn run(engine: &Engine, bundle: &Bundle, id: &str) -> Outcome {
    bundle.write();
    let outcome = engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), id]);
    leftover::assert_nothing_left(engine.root(), id);
    outcome
}

/// What a person at a terminal sees.
fn on_terminal(engine: &Engine, bundle: &Bundle, id: &str) -> String {
    bundle.write();
    let (root, path) = (engine.root().display().to_string(), bundle.path().display().to_string());
    let line = [wsbox_path().as_str(), "--root", &root, "run", "--bundle", &path, id].join(" ");
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    String::from_utf8_lossy(&output.expect("script runs").stdout).into_owned()
}

#[test]
fn memory_is_enforced_and_the_kill_told_in_one_line() {
    let (engine, id) = (Engine::new(), unique("memory"));
    let outcome = run(&engine, &limited(memory(20)).args(&GREEDY), &id);
    assert_eq!(outcome.code, 137, "{outcome:?}");
    let told =
        "wsbox: warning: out of memory: the container's limit of 20 MiB was reached, and the kernel killed 1 process\n";
    assert_eq!(outcome.stderr, told);
}

#[test]
fn nothing_is_said_of_limits_that_nobody_met() {
    let engine = Engine::new();
    let bundle = limited(memory(20)).script("kill -9 $$");
    assert_eq!(run(&engine, &bundle.set("/process/args/0", json!("sh")), &unique("fine")).stderr, "");
    let said = on_terminal(&engine, &limited(memory(20)).args(&["true"]), &unique("fine"));
    assert_eq!(said, "");
}

#[test]
fn pids_are_enforced() {
    let engine = Engine::new();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done";
    let (bundle, id) = (limited(json!({"pids": {"limit": 6}})).script(script), unique("pids"));
    let outcome = run(&engine, &bundle, &id);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    let said = on_terminal(&engine, &bundle, &id);
    assert!(said.contains("warning: too many processes: the container's limit of 6 was reached, and "), "{said}");
}

/// Two processes that want a CPU each get a tenth of one.
#[test]
fn cpu_is_enforced() {
    let (engine, id) = (Engine::new(), unique("cpu"));
    let resources = json!({"cpu": {"quota": 10000, "period": 100_000}});
    let bundle =
        limited(resources).script("timeout 1 yes >/dev/null & timeout 1 yes >/dev/null; wait; exec sleep 1000");
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let stat = |key: &str| cgroup::counter(&format!("wsbox/{id}"), ["cpu.stat", "cpu.stat"], key);
    until("it is held back", || stat("nr_throttled") >= 3);
    let event: Value = serde_json::from_str(&engine.wsbox(&["events", "--stats", &id]).ok().stdout).unwrap();
    let met = &event["data"]["limits_met"][0];
    assert_eq!(met["limit"], "cpu", "{event}");
    let waited = met["microseconds"].as_u64().unwrap();
    let now = if on_v1() { stat("throttled_time") / 1000 } else { stat("throttled_usec") };
    assert!(met["throttled"].as_u64().unwrap() >= 3 && 0 < waited && waited <= now, "{met}, now {now}");
    assert!(met["text"].as_str().unwrap().starts_with("held back by its CPU limit for "), "{met}");
    let bundle = limited(json!({"cpu": {"quota": 10000, "period": 100_000}})).script("timeout 1 yes >/dev/null; true");
    let said = on_terminal(&engine, &bundle, &unique("cpu"));
    assert!(said.contains("warning: held back by its CPU limit for "), "{said}");
}

#[test]
fn a_full_tmpfs_is_told() {
    let engine = Engine::new();
    let fill = "sleep 0.5; dd if=/dev/zero of=/tmp/x bs=1M; true";
    let said = on_terminal(&engine, &Bundle::hardened().script(fill), &unique("tmpfs"));
    assert!(said.contains("warning: /tmp is full: it may hold 64 MiB"), "{said}");
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    // A slow machine may have held it back as well.
    let met = || {
        let all = inspect(&engine, &id)["limitsMet"].as_array().unwrap().clone();
        all.into_iter().filter(|met| met["limit"] != "cpu").collect::<Value>()
    };
    assert_eq!(met(), json!([]));
    engine.wsbox(&["exec", &id, "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M; true"]);
    let want = json!([{"limit": "tmpfs", "mount": "/dev/shm", "size": 64 * MIB, "inodes": false, "text": "/dev/shm is full: it may hold 64 MiB"}]);
    assert_eq!(met(), want);
    let table = engine.wsbox(&["inspect", &id]).ok().stdout;
    assert!(table.contains("\nlimit met: /dev/shm is full: it may hold 64 MiB\n"), "{table}");
}

fn inspect(engine: &Engine, id: &str) -> Value {
    serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", id]).ok().stdout).unwrap()
}

/// A container that was left behind says what ended it; and whoever watched it is told at the time.
#[test]
fn inspect_and_events_tell_of_memory_and_pids() {
    let (engine, id) = (Engine::new(), unique("told"));
    let resources = json!({"memory": memory(20)["memory"], "pids": {"limit": 6}});
    let script = "while ! test -e /tmp/go; do sleep 0.05; done; (sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9); exec dd if=/dev/zero of=/dev/null bs=96M count=1";
    let bundle = limited(resources).script(script);
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let events = engine.command(&["events", "--interval", "1h", &id]).stdout(Stdio::piped()).spawn().unwrap();
    // It waits for the end, or for word of the kernel: user-mode Linux has no /proc/PID/syscall.
    let fds = format!("/proc/{}/fd", events.id());
    let watches = |name: &str| name.contains("eventfd") || name.ends_with("/memory.events");
    until("events waits", || {
        let names = fs::read_dir(&fds).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        names.filter(|name| watches(&name.to_string_lossy())).count() > 0
            && fs::read_to_string(format!("/proc/{}/stat", events.id())).is_ok_and(|stat| stat.contains(") S "))
    });
    engine.wsbox(&["exec", &id, "touch", "/tmp/go"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    let told = wsbox_integration::engine::finish(events).ok().stdout;
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Which limit is met first, and is told before the end, is for the kernel to say.
    let oom = lines.iter().find(|line| line["type"] == "oom").unwrap_or_else(|| panic!("{told}"));
    let data = &oom["data"];
    assert_eq!(
        (&data["limit"], &data["level"], &data["max"]),
        (&json!("memory"), &json!("container"), &json!(20 * MIB))
    );
    let seen = inspect(&engine, &id);
    let limits: Vec<&Value> = seen["limitsMet"].as_array().unwrap().iter().map(|met| &met["limit"]).collect();
    assert_eq!(limits[..2], [&json!("memory"), &json!("pids")], "{seen}");
    assert_eq!((&seen["pid"], &seen["layers"]), (&json!(0), &json!([])));
    let last = lines.iter().rfind(|line| line["type"] == "limits").unwrap_or_else(|| panic!("{told}"));
    assert_eq!((&last["type"], &last["data"]["limits_met"][1]["max"]), (&json!("limits"), &json!(6)), "{told}");
    let table = engine.wsbox(&["inspect", &id]).ok().stdout;
    assert!(table.contains("limit met: out of memory: the container's limit of 20 MiB was reached"), "{table}");
}

/// The container may use 512 MiB, all that are in the cgroup above 30.
#[test]
fn a_limit_above_is_told_from_the_containers_own() {
    let (engine, id) = (Engine::new(), unique("above"));
    let parent = unique("parent");
    let swap = fs::exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").unwrap_or_default();
    let mut limits = vec![(["memory.limit_in_bytes", "memory.max"], "31457280")];
    if swap || !on_v1() {
        limits.push((["memory.memsw.limit_in_bytes", "memory.swap.max"], if on_v1() { "31457280" } else { "0" }));
    }
    let group = Group::new(&parent, &["memory"], &limits);
    let bundle = limited(memory(512)).set("/linux/cgroupsPath", json!(format!("/{parent}/{id}"))).args(&GREEDY);
    let outcome = run(&engine, &bundle, &id);
    assert_eq!(outcome.code, 137, "{outcome:?}");
    let dir = cgroup::dir("memory", &parent);
    let told = format!(
        "the limit of memory of 30 MiB of a cgroup above, {}, was reached, and the kernel killed",
        dir.display()
    );
    assert!(outcome.stderr.contains(&told), "{outcome:?}");
    drop(group);
    // On v1 the container is in every hierarchy, and so the cgroup above is too.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(&parent));
    }
    assert_eq!(leftover::cgroups(&parent), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_library_tells_too() {
    let (engine, id) = (Engine::new(), unique("lib"));
    let bundle = limited(memory(20)).args(&GREEDY);
    bundle.write();
    let root = wsbox::Root::new(Some(engine.root().to_owned()));
    let bundle = wsbox::Bundle::open(bundle.path()).unwrap();
    let process = wsbox::run(&root, &id, &bundle, &wsbox::Options::default()).unwrap();
    let watch = wsbox::LimitWatch::new(&root, &id).unwrap();
    assert_eq!(process.wait().unwrap().code(), 137);
    let met = wsbox::Met::Memory { level: wsbox::Level::Container, kills: 1, max: Some(20 * MIB) };
    assert_eq!(watch.met(), [met]);
    wsbox::delete(&root, &id, true).unwrap();
    assert_eq!(watch.met(), []);
}

/// 4 MiB are enough for busybox, for nothing of wsbox is charged to the container.
#[test]
fn small_limits_work() {
    let engine = Engine::new();
    for mib in [4, 2] {
        let outcome = run(&engine, &limited(memory(mib)).args(&["busybox", "true"]), &unique("small"));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{mib} MiB");
    }
    let outcome = run(
        &engine,
        &limited(memory(4)).set("/linux/cgroupsPath", json!(format!("/wsbox/{}", unique("small")))).script("id | cat"),
        &unique("small"),
    );
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

/// What is charged right after the start, beside what busybox alone costs in a cgroup like it.
#[test]
fn nothing_of_wsbox_stays_charged() {
    let engine = Engine::new();
    let (usage, name) = (["memory.usage_in_bytes", "memory.current"], unique("alone"));
    let (_bundle, id) = engine.sleeping(limited(memory(64)));
    let in_use = |path: &str| {
        // The first readings have pages of the init that are given back a little later.
        let read = || cgroup::text(path, usage).parse::<u64>().unwrap();
        (0..20)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                read()
            })
            .min()
            .unwrap()
    };
    let group = Group::new(&format!("wsbox/{name}"), &["memory"], &[]);
    let mut alone = group.spawn(&["/bin/busybox", "sleep", "1000"]);
    until("busybox sleeps", || {
        fs::read_to_string(format!("/proc/{}/cmdline", alone.id())).is_ok_and(|line| line.contains("1000"))
    });
    let (container, alone_in_use) = (in_use(&format!("wsbox/{id}")), in_use(&format!("wsbox/{name}")));
    alone.kill().unwrap();
    alone.wait().unwrap();
    println!("container {container} bytes, busybox alone {alone_in_use}");
    // Namespaces, mounts and nodes are the container's; charges come in batches of 64 pages a CPU (mm/memcontrol.c).
    assert!(container < alone_in_use + MIB, "container {container}, busybox alone {alone_in_use}");
}
