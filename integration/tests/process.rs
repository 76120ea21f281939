// SPDX-License-Identifier: Apache-2.0
//! How a payload is scheduled and whose memory and numbers it is given; and what `exec` may be told.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use wsbox_integration::engine::receive_file;
use wsbox_integration::{Bundle, Door, Engine, Outcome, TempDir};

/// /proc/self/stat's fields 18, 19, 40 and 41 (proc_pid_stat(5)): priority, nice, realtime priority, policy.
const SCHEDULED: &str = "sed 's/.*) //' /proc/self/stat | cut -d' ' -f17,38,39";

fn run(pointer: &str, value: Value, script: &str) -> Outcome {
    Engine::new().run(&Bundle::hardened().set(pointer, value).script(script), Door::Userns)
}

#[test]
fn scheduling() {
    for (scheduler, wanted) in [
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "7 0 3\n"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5\n"),
        (json!({"policy": "SCHED_OTHER", "nice": -3}), "-3 0 0\n"),
        (json!({"policy": "SCHED_RR", "priority": 9}), "0 9 2\n"),
    ] {
        // Without a cgroup of the cpu controller: a kernel with realtime groups gives a new one no time for it.
        let bundle = Bundle::plain().set("/process/scheduler", scheduler.clone()).script(SCHEDULED);
        assert_eq!(Engine::new().run(&bundle, Door::Root).ok().stdout, wanted, "{scheduler}");
    }
    run("/process/scheduler", json!({"policy": "SCHED_FIFO"}), "true").fails(1, &["process.scheduler.priority"]);
    run("/process/scheduler", json!({"policy": "SCHED_DEADLINE", "runtime": 9}), "true")
        .fails(1, &["process.scheduler"]);
}

#[test]
fn io_priority() {
    let probe = |class: &str, priority: i64| {
        let wanted = json!({"class": class, "priority": priority});
        let number = if cfg!(target_arch = "x86_64") { "252" } else { "31" };
        let bundle = Bundle::plain().set("/process/ioPriority", wanted).args(&["probe", "syscall", number, "1", "0"]);
        Engine::new().run(&bundle, Door::Root).ok().stdout
    };
    assert!(
        probe("IOPRIO_CLASS_IDLE", 4).ends_with(&format!(": ok {}\n", 3 << 13 | 4)),
        "{}",
        probe("IOPRIO_CLASS_IDLE", 4)
    );
    assert!(probe("IOPRIO_CLASS_BE", 1).ends_with(&format!(": ok {}\n", 2 << 13 | 1)));
    run("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 8}), "true")
        .fails(1, &["process.ioPriority"]);
}

#[test]
fn personality_and_memory_policy() {
    let outcome = run("/linux/personality", json!({"domain": "LINUX32"}), "cat /proc/self/personality");
    assert_eq!(outcome.ok().stdout, "00000008\n");
    run("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "true")
        .fails(1, &["linux.personality.flags"]);
    let numa = std::path::Path::new("/proc/self/numa_maps").exists();
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
    let outcome = run("/linux/memoryPolicy", policy, "head -1 /proc/self/numa_maps | cut -d' ' -f2");
    match numa {
        true => assert_eq!(outcome.ok().stdout, "bind:0\n"),
        false => drop(outcome.fails(1, &["linux.memoryPolicy", "not implemented"])),
    }
    run("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-"}), "true")
        .fails(1, &["linux.memoryPolicy.nodes"]);
}

#[test]
fn what_this_kernel_lacks_is_refused_by_field() {
    for (pointer, value, field) in [
        ("/process/apparmorProfile", json!("docker-default"), "process.apparmorProfile: this kernel has no AppArmor"),
        ("/process/selinuxLabel", json!("a:b:c"), "process.selinuxLabel: this kernel has no SELinux"),
        ("/process/selinuxLabel", json!("a b"), "process.selinuxLabel: \"a b\" holds white space"),
        ("/linux/mountLabel", json!("a:b:c"), "linux.mountLabel"),
        (
            "/linux/intelRdt",
            json!({"closID": "x"}),
            "linux.intelRdt: this kernel has no resctrl file system mounted at",
        ),
    ] {
        run(pointer, value, "true").fails(1, &[field]);
    }
}

#[test]
fn exec_runs_on_the_cpus_it_is_told() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    let exec = |affinity: Value| {
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "execCPUAffinity": affinity,
            "args": ["sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2"], "noNewPrivileges": true});
        let file = bundle.path().join("process.json");
        std::fs::write(&file, process.to_string()).unwrap();
        engine.wsbox(&["exec", "--process", &file.display().to_string(), &id])
    };
    assert_eq!(exec(json!({"initial": "0"})).ok().stdout, "0\n");
    assert_eq!(exec(json!({"initial": "0", "final": "1"})).ok().stdout, "1\n");
    exec(json!({"final": "x"})).fails(255, &["execCPUAffinity.final"]);
}

#[test]
fn exec_hands_over_a_pidfd_and_refuses_what_it_can_not_do() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let folder = TempDir::new("socket");
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    engine.wsbox(&["exec", "--detach", "--pidfd-socket", &socket, &id, "sleep", "2077"]).ok();
    let pidfd = receive_file(&listener.accept().unwrap().0);
    let info = std::fs::File::open(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd))).unwrap();
    let line = BufReader::new(info).lines().map_while(Result::ok).find(|line| line.starts_with("Pid:")).unwrap();
    let pid = line.split_whitespace().last().unwrap();
    assert_eq!(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"sleep\x002077\0");
    drop(listener);
    engine.wsbox(&["exec", "--pidfd-socket", &socket, &id, "true"]).fails(255, &["--pidfd-socket"]);
    engine.wsbox(&["exec", "--apparmor", "p", &id, "true"]).fails(255, &["process.apparmorProfile"]);
    engine.wsbox(&["exec", "--cgroup", "sub", &id, "true"]).fails(255, &["--cgroup", "no such file or directory"]);
}
