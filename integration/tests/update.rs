// SPDX-License-Identifier: Apache-2.0
//! `wsbox update`: what it changes, as the kernel has it; what it refuses, and that nothing has changed then.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use wsbox_integration::engine::finish;
use wsbox_integration::{Bundle, Engine, unique};

/// A running container in a cgroup with a name, so that it is in every hierarchy, and how to read its files.
fn running(engine: &Engine) -> (Bundle, String, impl Fn(&str, &str) -> String) {
    let path = format!("/wsbox-update/{}", unique("u"));
    let bundle = Bundle::hardened().set("/linux/cgroupsPath", json!(path));
    let (bundle, id) = engine.sleeping(bundle);
    let read = move |controller: &str, file: &str| {
        let file = Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')).join(file);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
    };
    (bundle, id, read)
}

fn layers(engine: &Engine, id: &str) -> String {
    let said: Value = serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", id]).ok().stdout).unwrap();
    said["layers"].to_string()
}

#[test]
fn flags_change_what_they_name() {
    let engine = Engine::new();
    let (_bundle, id, read) = running(&engine);
    let args = "update --memory 64m --memory-swap 64m --pids-limit 33 --cpu-quota 20000 --cpu-period 100000 --cpu-share 512 --cpuset-cpus 0";
    engine.wsbox(&[&args.split(' ').collect::<Vec<_>>()[..], &[&id]].concat()).ok();
    assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "67108864");
    assert_eq!(read("pids", "pids.max"), "33");
    assert_eq!((read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.shares")), ("20000".into(), "512".into()));
    assert_eq!(read("cpuset", "cpuset.cpus"), "0");
    let inspected = layers(&engine, &id);
    assert!(inspected.contains("67108864") && inspected.contains("33"), "{inspected}");
    // Both grow and shrink, together: the kernel takes them in one order only.
    for (limit, bytes) in [("128m", "134217728"), ("32m", "33554432"), ("96m", "100663296")] {
        engine.wsbox(&["update", "--memory", limit, "--memory-swap", limit, &id]).ok();
        assert_eq!((read("memory", "memory.limit_in_bytes"), read("pids", "pids.max")), (bytes.into(), "33".into()));
    }
    engine.wsbox(&["update", "--pids-limit", "-1", &id]).ok();
    assert_eq!(read("pids", "pids.max"), "max");
}

#[test]
fn resources_from_stdin_and_from_a_file_as_engines_send_them() {
    let engine = Engine::new();
    let (bundle, id, read) = running(&engine);
    let zeros = json!({"blockIO": {"weight": 0}, "cpu": {"shares": 0, "cpus": "", "mems": "", "period": 0, "quota": 30000},
        "memory": {"limit": 0, "reservation": 0}, "pids": {"limit": 44}});
    let mut child = engine.command(&["update", "--resources", "-", &id]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(zeros.to_string().as_bytes()).unwrap();
    assert_eq!(finish(child).code, 0);
    assert_eq!((read("pids", "pids.max"), read("cpu", "cpu.cfs_quota_us")), ("44".into(), "30000".into()));
    assert_eq!(read("memory", "memory.limit_in_bytes"), "536870912", "as it was");
    let file = bundle.path().join("resources.json");
    std::fs::write(&file, json!({"memory": {"limit": 50_003_968, "swap": 50_003_968, "swappiness": 7}}).to_string())
        .unwrap();
    engine.wsbox(&["update", &format!("--resources={}", file.display()), &id]).ok();
    assert_eq!(
        (read("memory", "memory.limit_in_bytes"), read("memory", "memory.swappiness")),
        ("50003968".into(), "7".into())
    );
}

#[test]
fn a_created_and_a_paused_container_can_be_updated_and_a_stopped_one_not() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    let id = unique("u");
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let update = ["update", "--pids-limit", "77", &id];
    engine.wsbox(&update).ok();
    engine.wsbox(&["start", &id]).ok();
    engine.wsbox(&["pause", &id]).ok();
    engine.wsbox(&["update", "--pids-limit", "78", &id]).ok();
    assert!(layers(&engine, &id).contains("78"));
    engine.wsbox(&["resume", &id]).ok();
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    wsbox_integration::engine::until("it has stopped", || engine.state(&id)["status"] == "stopped");
    engine.wsbox(&update).fails(1, &["container not running"]);
    engine.wsbox(&["update", "--pids-limit", "77", "nobody"]).fails(1, &["does not exist"]);
}

#[test]
fn nonsense_changes_nothing() {
    let engine = Engine::new();
    let (_bundle, id, read) = running(&engine);
    let all = || {
        ["memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us"].map(|file| {
            let (controller, file) = file.split_once('/').unwrap();
            read(controller, file)
        })
    };
    let before = all();
    for (resources, words) in [
        (json!({"memory": {"limit": "1G"}}), "memory.limit"),
        (json!({"memory": {"limit": 100, "swap": 50}, "pids": {"limit": 9}}), "linux.resources.memory.swap"),
        (json!({"pids": {"limit": 9}, "unified": {"memory.high": "1"}}), "linux.resources.unified"),
        (
            json!({"pids": {"limit": 9}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
            "linux.resources.hugepageLimits",
        ),
        (json!({"devices": [{"allow": true, "access": "rwm"}]}), "linux.resources.devices"),
        (json!({"memory": {"kernel": 4096}}), "linux.resources.memory.kernel"),
    ] {
        let mut child = engine.command(&["update", "-r", "-", &id]);
        let mut child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(resources.to_string().as_bytes()).unwrap();
        finish(child).fails(1, &[words]);
        assert_eq!(all(), before, "{resources}");
    }
    engine.wsbox(&["update", &id]).fails(1, &["needs a limit"]);
    assert_eq!(engine.wsbox(&["update", "--memory", "1x", &id]).code, 2);
    engine.wsbox(&["update", "--l3-cache-schema", "L3:0=f", &id]).fails(1, &["linux.intelRdt"]);
}

#[test]
fn a_profile_stays_the_floor() {
    let engine = Engine::new();
    let (bundle, id) = (Bundle::plain().args(&["sleep", "1000"]), unique("u"));
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["--profile", "production", "run", "--detach", "--bundle", &path, &id]).ok();
    let before = layers(&engine, &id);
    engine.wsbox(&["update", "--pids-limit", "100000", "--memory", "8g", "--cpu-quota", "-1", &id]).ok();
    assert_eq!(layers(&engine, &id), before);
    engine.wsbox(&["update", "--pids-limit", "50", &id]).ok();
    assert_ne!(layers(&engine, &id), before);
}
