// SPDX-License-Identifier: Apache-2.0
//! Scheduling, CPU affinity, NUMA memory policy and personality, as the payload itself sees them in the kernel.

use std::fs;

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine, leftover, unique};

const GETPRIORITY: &str = "140";
const SCHED_GETSCHEDULER: &str = "145";
const IOPRIO_GET: &str = "252";
const RESET_ON_FORK: u64 = 0x4000_0000;

/// A bundle without a limit of CPU: a v1 cgroup of its own has no real-time share.
fn bundle() -> Bundle {
    Bundle::hardened().remove("/linux/resources/cpu")
}

/// The number that a system call of the payload gives.
fn asked(bundle: Bundle, call: &[&str]) -> u64 {
    let bundle = bundle.args(&[&["probe", "syscall"], call].concat());
    number(&Engine::new().run(&bundle, Door::Userns).ok().stdout)
}

fn number(said: &str) -> u64 {
    said.split_once(": ok ").unwrap_or_else(|| panic!("{said}")).1.trim().parse().expect("a number")
}

fn refused(bundle: Bundle, words: &[&str]) {
    let (engine, id) = (Engine::new(), unique("attributes"));
    bundle.write();
    engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]).fails(1, words);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn nice() {
    for nice in [-7, 11] {
        let bundle = bundle().set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": nice}));
        assert_eq!(asked(bundle, &[GETPRIORITY, "0", "0"]), (20 - nice) as u64);
    }
}

#[test]
fn policies() {
    for (scheduler, number) in [
        (json!({"policy": "SCHED_BATCH", "nice": 1}), 3),
        (json!({"policy": "SCHED_IDLE"}), 5),
        (json!({"policy": "SCHED_FIFO", "priority": 7}), 1),
        (json!({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), 2 | RESET_ON_FORK),
        (json!({"policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 20_000_000, "period": 20_000_000}), 6),
    ] {
        let bundle = bundle().set("/process/scheduler", scheduler.clone());
        assert_eq!(asked(bundle, &[SCHED_GETSCHEDULER, "0"]), number, "{scheduler}");
    }
}

/// Also where the payload is born into the PID namespace, and what it has would not have been inherited.
#[test]
fn a_process_that_joins_has_its_own() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(bundle().set("/process/scheduler", json!({"policy": "SCHED_BATCH"})));
    let mut process = bundle.config["process"].clone();
    let mut exec = |field: &str, value: Value, call: &[&str]| {
        process.as_object_mut().expect("an object").remove("scheduler");
        process[field] = value;
        process["args"] = json!([&["probe", "syscall"], call].concat());
        let file = bundle.path().join("process.json");
        fs::write(&file, process.to_string()).expect("a file");
        number(&engine.wsbox(&["exec", "--process", &file.display().to_string(), &id]).ok().stdout)
    };
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    assert_eq!(exec("scheduler", fifo, &[SCHED_GETSCHEDULER, "0"]), 1 | RESET_ON_FORK);
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 20_000_000});
    assert_eq!(exec("scheduler", deadline, &[SCHED_GETSCHEDULER, "0"]), 6);
    let idle = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    assert_eq!(exec("ioPriority", idle, &[IOPRIO_GET, "1", "0"]), 3 << 13);
    let own = engine.wsbox(&["exec", &id, "probe", "syscall", SCHED_GETSCHEDULER, "0"]).ok().stdout;
    assert_eq!(number(&own), 3, "without a file it is as the container's own");
}

#[test]
fn io_priority() {
    for (class, number) in [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let bundle = bundle().set("/process/ioPriority", json!({"class": class, "priority": 6}));
        assert_eq!(asked(bundle, &[IOPRIO_GET, "1", "0"]), number << 13 | 6, "{class}");
    }
}

#[test]
fn affinity_is_of_processes_that_join() {
    let engine = Engine::new();
    let own = fs::read_to_string("/proc/self/status").expect("/proc");
    let list = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("a list").trim().to_owned()
    };
    let (bundle, id) = engine.sleeping(bundle().set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"})));
    let pid = engine.state(&id)["pid"].clone();
    assert_eq!(list(&fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs")), list(&own));
    assert_eq!(list(&engine.wsbox(&["exec", &id, "cat", "/proc/self/status"]).ok().stdout), "1");
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["cat", "/proc/self/status"]);
    let file = bundle.path().join("process.json");
    let mut exec = |affinity: Value| {
        process["execCPUAffinity"] = affinity;
        fs::write(&file, process.to_string()).expect("a file");
        engine.wsbox(&["exec", "--process", &file.display().to_string(), &id])
    };
    assert_eq!(list(&exec(json!({"initial": "0"})).ok().stdout), "0");
    exec(json!({"final": "1000"})).fails(255, &["process.execCPUAffinity.final"]);
    exec(json!({"initial": "1000"})).fails(255, &["process.execCPUAffinity.initial"]);
    exec(json!({"final": "3-1"})).fails(255, &["process.execCPUAffinity.final"]);
}

#[test]
fn memory_policy() {
    for (policy, words) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
        (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}), "prefer (many):0"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
    ] {
        let engine = Engine::new();
        let maps = "head -n 1 /proc/self/numa_maps";
        let bundle = Bundle::hardened().set("/linux/memoryPolicy", policy);
        let said = engine.run(&bundle.script(maps), Door::Userns).ok().stdout;
        assert!(said.contains(words), "{said}");
    }
    let engine = Engine::new();
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
    let (_bundle, id) = engine.sleeping(Bundle::hardened().set("/linux/memoryPolicy", policy));
    let said = engine.wsbox(&["exec", &id, "head", "-n", "1", "/proc/self/numa_maps"]).ok().stdout;
    assert!(said.contains("bind:0"), "{said}");
}

#[test]
fn personality() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened().set("/linux/personality", json!({"domain": "LINUX32"})));
    let pid = engine.state(&id)["pid"].clone();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/personality")).expect("it runs").trim(), "00000008");
    assert_eq!(engine.wsbox(&["exec", &id, "cat", "/proc/self/personality"]).ok().stdout.trim(), "00000008");
}

#[test]
fn what_can_not_be_had_is_refused_by_name() {
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 7});
    // Its v1 cgroup has no real-time share.
    refused(Bundle::hardened().set("/process/scheduler", fifo), &["process.scheduler", "realtimeRuntime"]);
    let late = json!({"policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 2_000_000});
    refused(bundle().set("/process/scheduler", late), &["process.scheduler"]);
    refused(
        bundle().set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 99})),
        &["process.scheduler.nice"],
    );
    refused(
        bundle().set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})),
        &["process.ioPriority"],
    );
    let nowhere = json!({"mode": "MPOL_BIND", "nodes": "900"});
    refused(bundle().set("/linux/memoryPolicy", nowhere), &["linux.memoryPolicy", "nodes"]);
    let flags = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    refused(bundle().set("/linux/personality", flags), &["linux.personality.flags"]);
}
