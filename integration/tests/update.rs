// SPDX-License-Identifier: Apache-2.0
//! `update`: the limits of a container that is there, as the kernel has them afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until, wsbox_path};
use wsbox_integration::{Bundle, Engine, leftover, unique};

/// A file of the container's cgroup on v1, or of the v2 cgroup where that has the controllers.
fn file(id: &str, name: &str) -> PathBuf {
    let controller = name.split('.').next().unwrap();
    [format!("/sys/fs/cgroup/{controller}/wsbox/{id}/{name}"), format!("/sys/fs/cgroup/wsbox/{id}/{name}")]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{id} has no {name}"))
}

fn has(id: &str, name: &str) -> String {
    fs::read_to_string(file(id, name)).unwrap().trim().to_owned()
}

/// Everything that `update` could change.
fn all(id: &str) -> Vec<String> {
    let files = [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "pids.max",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "cpu.shares",
    ];
    files.iter().map(|name| has(id, name)).collect()
}

fn on_v1() -> bool {
    PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

const MIB: u64 = 1 << 20;

#[test]
fn every_flag_reaches_the_kernel() {
    assert!(on_v1(), "this test knows the files of v1");
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    for (flags, files) in [
        (
            &["--memory", "300m", "--memory-swap", "400MiB"][..],
            &[("memory.limit_in_bytes", 300 * MIB), ("memory.memsw.limit_in_bytes", 400 * MIB)][..],
        ),
        // Both fall: the limit of memory first. Both rise: that of memory and swap first.
        (
            &["--memory", "100m", "--memory-swap", "100m"],
            &[("memory.limit_in_bytes", 100 * MIB), ("memory.memsw.limit_in_bytes", 100 * MIB)],
        ),
        (
            &["--memory", "1g", "--memory-swap", "2g"],
            &[("memory.limit_in_bytes", 1024 * MIB), ("memory.memsw.limit_in_bytes", 2048 * MIB)],
        ),
        (&["--memory-reservation", "20m"], &[("memory.soft_limit_in_bytes", 20 * MIB)]),
        (&["--kernel-memory-tcp", "30m"], &[("memory.kmem.tcp.limit_in_bytes", 30 * MIB)]),
        (&["--pids-limit", "33"], &[("pids.max", 33)]),
        (
            &["--cpu-quota", "30000", "--cpu-period", "60000"],
            &[("cpu.cfs_quota_us", 30000), ("cpu.cfs_period_us", 60000)],
        ),
        (&["--cpu-period", "50000"], &[("cpu.cfs_quota_us", 30000), ("cpu.cfs_period_us", 50000)]),
        (&["--cpu-burst", "10000"], &[("cpu.cfs_burst_us", 10000)]),
        // The quota may not be below the burst: the burst goes first.
        (&["--cpu-quota", "5000", "--cpu-burst", "0"], &[("cpu.cfs_quota_us", 5000), ("cpu.cfs_burst_us", 0)]),
        (&["--cpu-share", "512"], &[("cpu.shares", 512)]),
        (&["--cpu-idle", "1"], &[("cpu.idle", 1)]),
        (&["--cpu-idle", "0"], &[("cpu.idle", 0)]),
        (&["--blkio-weight", "700"], &[("blkio.bfq.weight", 700)]),
        (&["--cpuset-cpus", "1", "--cpuset-mems", "0"], &[("cpuset.cpus", 1), ("cpuset.mems", 0)]),
        (&["--cpu-rt-period", "900000"], &[("cpu.rt_period_us", 900_000)]),
    ] {
        let mut args = vec!["update"];
        args.extend(flags);
        engine.wsbox(&[&args[..], &[&id]].concat()).ok();
        for (name, value) in files {
            assert_eq!(has(&id, name), value.to_string(), "{flags:?}");
        }
    }
    // The payload and whoever comes later are under the limits of the new kinds as well.
    let pids = fs::read_to_string(file(&id, "cpuset.cpus").with_file_name("cgroup.procs")).unwrap();
    assert_eq!(pids.trim(), engine.state(&id)["pid"].to_string());
    let seen = engine.wsbox(&["exec", &id, "grep", "Cpus_allowed_list", "/proc/self/status"]).ok().stdout;
    assert_eq!(seen.split_whitespace().last(), Some("1"), "{seen}");
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// As containerd's shim calls it for `docker update`, with zeros for what is to stay.
#[test]
fn resources_on_stdin_as_docker_sends_them() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let before = all(&id);
    let docker = json!({
        "memory": {"limit": 0, "reservation": 0, "swap": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "pids": {"limit": 44},
        "blockIO": {"weight": 0},
        "devices": [],
    });
    update_from_stdin(&engine, &["update", "--resources", "-", &id], &docker);
    assert_eq!(has(&id, "pids.max"), "44");
    let mut now = all(&id);
    now[3].clone_from(&before[3]);
    assert_eq!(now, before);
    update_from_stdin(&engine, &["update", "--resources=-", &id], &json!({"memory": {"limit": -1}}));
    // Who takes the limit of memory away does not mean to keep the one of memory and swap.
    assert_eq!(has(&id, "memory.memsw.limit_in_bytes"), has(&id, "memory.limit_in_bytes"));
    assert!(has(&id, "memory.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    let file = engine.root().join("resources.json");
    fs::write(&file, r#"{"memory": {"limit": 104857600}, "unknwon": 1}"#).unwrap();
    let told = engine.wsbox(&["update", "-r", &file.display().to_string(), &id]).ok();
    assert!(told.stderr.contains("warning: unknwon"), "{told:?}");
    assert_eq!(has(&id, "memory.limit_in_bytes"), (100 * MIB).to_string());
}

fn update_from_stdin(engine: &Engine, args: &[&str], resources: &Value) {
    let mut child =
        engine.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), resources.to_string().as_bytes()).unwrap();
    wsbox_integration::engine::finish(child).ok();
}

#[test]
fn created_and_paused_ones_too_and_inspect_sees_it() {
    let (engine, bundle, id) = (Engine::new(), Bundle::hardened().args(&["sleep", "1000"]), unique("update"));
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    engine.wsbox(&["update", "--pids-limit", "20", &id]).ok();
    engine.wsbox(&["start", &id]).ok();
    engine.wsbox(&["pause", &id]).ok();
    engine.wsbox(&["update", "--memory", "50m", "--memory-swap", "50m", "--cpuset-cpus", "0", &id]).ok();
    assert_eq!(engine.state(&id)["status"], "paused");
    engine.wsbox(&["resume", &id]).ok();
    assert_eq!((has(&id, "pids.max"), has(&id, "memory.limit_in_bytes")), ("20".into(), (50 * MIB).to_string()));
    let seen = engine.wsbox(&["inspect", &id]).ok().stdout;
    assert!(seen.contains("20") && seen.contains(&(50 * MIB).to_string()), "{seen}");
    // A later update stands on this one: 60 MiB of memory do not fit into 50 of memory and swap.
    engine.wsbox(&["update", "--memory", "60m", &id]).fails(1, &["linux.resources.memory.swap"]);
    assert_eq!(has(&id, "memory.limit_in_bytes"), (50 * MIB).to_string());
}

/// Nothing is changed by an update that is refused, early or late.
#[test]
fn nonsense_is_refused_by_field_and_changes_nothing() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let before = all(&id);
    let config = fs::read(engine.root().join(&id).join("config.json")).unwrap();
    for (flags, words) in [
        (&["--memory", "-5"][..], &["--memory"][..]),
        (&["--memory", "10x"], &["--memory", "10x"]),
        (&["--memory", "4096"], &["linux.resources.memory.limit", "in use"]),
        (&["--memory-swap", "1m"], &["linux.resources.memory.swap", "below limit"]),
        (&["--pids-limit", "7", "--cpu-quota", "5"], &["linux.resources.cpu.quota", "1000"]),
        (&["--cpu-period", "5"], &["linux.resources.cpu.period"]),
        (&["--pids-limit", "7", "--cpu-burst", "999999999"], &["linux.resources.cpu.burst"]),
        (&["--pids-limit", "7", "--cpuset-cpus", "0-9999"], &["linux.resources.cpu.cpus"]),
        (&["--cpuset-cpus", "x"], &["linux.resources.cpu.cpus"]),
        (&["--cpu-idle", "3"], &["linux.resources.cpu.idle"]),
        (&["--blkio-weight", "5"], &["linux.resources.blockIO.weight"]),
        (&["--kernel-memory", "1g"], &["linux.resources.memory.kernel"]),
        (&["--cpu-rt-runtime", "900000"], &["linux.resources.cpu.realtimeRuntime", "realtime"]),
        (&["--l3-cache-schema", "L3:0=f"], &["--l3-cache-schema"]),
        (&["--mem-bw-schema", "MB:0=20"], &["--mem-bw-schema"]),
    ] {
        let outcome = engine.wsbox(&[&["update"], flags, &[&id]].concat());
        assert_ne!(outcome.code, 0, "{flags:?}");
        words.iter().for_each(|word| assert!(outcome.stderr.contains(word), "{flags:?}: {word} is not in {outcome:?}"));
        assert_eq!(all(&id), before, "{flags:?}");
        assert_eq!(fs::read(engine.root().join(&id).join("config.json")).unwrap(), config, "{flags:?}");
    }
    let file = engine.root().join("resources.json");
    for (text, words) in [
        ("", "resources.json"),
        ("{\"memory\": 7}", "memory"),
        ("{\"memory\": {\"limit\": \"1g\"}}", "memory.limit"),
        (
            "{\"pids\": {\"limit\": 7}, \"memory\": {\"limit\": 4096, \"swap\": 4096, \"checkBeforeUpdate\": true}}",
            "bytes in use",
        ),
        (
            "{\"pids\": {\"limit\": 7}, \"devices\": [{\"allow\": true, \"access\": \"rwx\"}]}",
            "linux.resources.devices[0].access",
        ),
        ("{\"pids\": {\"limit\": 7}, \"unified\": {\"memory.high\": \"1\"}}", "linux.resources.unified"),
        (
            "{\"pids\": {\"limit\": 7}, \"hugepageLimits\": [{\"pageSize\": \"2MB\", \"limit\": 1}]}",
            "linux.resources.hugepageLimits",
        ),
    ] {
        fs::write(&file, text).unwrap();
        engine.wsbox(&["update", "-r", &file.display().to_string(), &id]).fails(1, &[words]);
        assert_eq!(all(&id), before, "{text}");
    }
    engine.wsbox(&["update", "-r", "/no/such/file", &id]).fails(1, &["--resources /no/such/file", "no such file"]);
    engine.wsbox(&["update", "--pids-limit", "9", "nobody"]).fails(1, &["does not exist"]);
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    engine.wsbox(&["update", "--pids-limit", "9", &id]).fails(1, &["container not running"]);
    engine.wsbox(&["delete", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// What a payload has in use by then would not count.
#[test]
fn memory_is_counted_from_the_start_or_not_at_all() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened().remove("/linux/resources/memory"));
    engine.wsbox(&["update", "--memory", "1g", &id]).fails(1, &["linux.resources.memory.limit", "not counted"]);
    engine.wsbox(&["update", "--pids-limit", "21", &id]).ok();
    assert_eq!(has(&id, "pids.max"), "21");
}

/// A container of wsbox-strict stays in its profile.
#[test]
fn a_profile_is_kept() {
    let (engine, bundle, id) = (Engine::new(), Bundle::plain().args(&["sleep", "1000"]), unique("strict"));
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["--profile", "production", "run", "--detach", "--bundle", &path, &id]).ok();
    let told = engine.wsbox(&["update", "--pids-limit", "-1", "--memory", "64g", "--memory-swap", "-1", &id]).ok();
    assert!(told.stderr.contains("warning: linux.resources"), "{told:?}");
    assert_eq!(
        (has(&id, "pids.max"), has(&id, "memory.memsw.limit_in_bytes")),
        ("256".into(), (512 * MIB).to_string())
    );
    engine.wsbox(&["update", "--pids-limit", "30", &id]).ok();
    assert_eq!(has(&id, "pids.max"), "30");
    // No swap, up or down.
    for limit in [100 * MIB, 300 * MIB] {
        engine.wsbox(&["update", "--memory", &limit.to_string(), &id]).ok();
        let limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].map(|name| has(&id, name));
        assert_eq!(limits, [limit.to_string(), limit.to_string()]);
    }
}

/// What v1 itself says of a cgroup without one.
#[test]
fn a_memory_limit_that_is_none() {
    let (engine, id) = (Engine::new(), unique("none"));
    let bundle = Bundle::plain().args(&["sleep", "1000"]);
    let bundle = bundle.set("/linux/resources/memory", json!({"limit": i64::MAX, "swap": i64::MAX}));
    bundle.write();
    engine.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert_eq!(has(&id, "memory.limit_in_bytes"), (i64::MAX - 4095).to_string());
    engine.wsbox(&["update", "--memory", "64m", "--memory-swap", "64m", &id]).ok();
    assert_eq!(has(&id, "memory.limit_in_bytes"), (64 * MIB).to_string());
}

/// Whoever is born while the container goes into a cgroup of another kind goes there too.
#[test]
fn nobody_is_left_outside_a_new_limit() {
    for round in 0..5 {
        let engine = Engine::new();
        let (_bundle, id) = engine.sleeping(Bundle::hardened());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..4 {
                            engine.wsbox(&["exec", "--detach", &id, "sleep", "1000"]).ok();
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(round * 10));
            engine.wsbox(&["update", "--cpuset-cpus", "0", &id]).ok();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        });
        let sorted = |text: String| text.lines().map(|pid| pid.parse::<i32>().unwrap()).collect::<BTreeSet<_>>();
        let inside = sorted(fs::read_to_string(file(&id, "cpuset.cpus").with_file_name("cgroup.procs")).unwrap());
        let all: BTreeSet<i32> =
            serde_json::from_str(&engine.wsbox(&["ps", "--format", "json", &id]).ok().stdout).unwrap();
        assert_eq!((inside.len(), inside), (13, all), "round {round}");
        assert_eq!(engine.state(&id)["status"], "running");
    }
}

#[test]
fn the_same_fields_are_in_force_from_the_start() {
    let engine = Engine::new();
    let resources = json!({
        "cpu": {"quota": 50000, "period": 100_000, "burst": 20000, "idle": 1, "realtimePeriod": 800_000},
        "blockIO": {"weight": 300},
    });
    let (_bundle, id) = engine.sleeping(Bundle::plain().set("/linux/resources", resources));
    for (name, value) in
        [("cpu.cfs_burst_us", "20000"), ("cpu.idle", "1"), ("cpu.rt_period_us", "800000"), ("blkio.bfq.weight", "300")]
    {
        assert_eq!(has(&id, name), value);
    }
}

/// A host with nothing but cgroup v2, whose controllers are elsewhere: what can not be limited is refused, and the rest goes on.
#[test]
fn on_v2_a_controller_that_is_not_there_is_named() {
    let (engine, bundle, id) =
        (Engine::new(), Bundle::plain().remove("/linux/resources").args(&["sleep", "1000"]), unique("v2"));
    bundle.write();
    let script = r#"
mount -t cgroup2 none /sys/fs/cgroup || exit 99
run="$WSBOX --root $ROOT"
$run run --detach --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1 || exit 98
$run events --stats "$ID"
$run update --pids-limit 5 "$ID" && exit 97
$run update --memory 100m "$ID" && exit 96
$run update --cpu-rt-runtime 5 "$ID" && exit 95
$run update "$ID" || exit 94
$run delete --force "$ID"
"#;
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .env("WSBOX", wsbox_path())
        .env("ROOT", engine.root())
        .env("BUNDLE", bundle.path());
    let child =
        command.env("ID", &id).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let outcome = finish(child).ok();
    let errors: Vec<&str> = outcome.stderr.lines().collect();
    for (error, field) in errors.iter().zip(["pids.limit", "memory.limit", "cpu.realtimeRuntime"]) {
        assert!(error.contains(&format!("linux.resources.{field}")), "{error}");
    }
    assert_eq!(errors.len(), 3, "{errors:?}");
    let event: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
    assert_eq!(event["data"]["pids"], json!({"current": 1}));
    leftover::assert_nothing_left(engine.root(), &id);
}

/// The other limits of v1, by update too; and what a refused one had before is put back.
#[test]
fn block_devices_and_the_habits_of_memory() {
    let engine = Engine::new();
    let name = unique("io");
    let (_bundle, id) = engine.sleeping(Bundle::hardened().set("/linux/cgroupsPath", json!(format!("/wsbox/{name}"))));
    let device = fs::metadata("/").map(|metadata| std::os::unix::fs::MetadataExt::dev(&metadata)).unwrap();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let limits = |bps: u64, other: Value| {
        let mut json = json!({"blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": bps}]}});
        json.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        json
    };
    let read = |file: &str| has(&name, file);
    update_from_stdin(&engine, &["update", "-r", "-", &id], &limits(1 << 20, json!({"memory": {"swappiness": 7}})));
    assert_eq!(read("blkio.throttle.read_bps_device"), format!("{major}:{minor} {}", 1 << 20));
    assert_eq!(read("memory.swappiness"), "7");
    let refused = limits(2 << 20, json!({"cpu": {"cpus": "4000"}, "memory": {"disableOOMKiller": true}}));
    let file = engine.root().join("refused.json");
    fs::write(&file, refused.to_string()).unwrap();
    engine.wsbox(&["update", "-r", &file.display().to_string(), &id]).fails(1, &["linux.resources.cpu.cpus"]);
    assert_eq!(read("blkio.throttle.read_bps_device"), format!("{major}:{minor} {}", 1 << 20));
    assert!(read("memory.oom_control").starts_with("oom_kill_disable 0"));
}
