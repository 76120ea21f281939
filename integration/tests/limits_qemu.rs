// SPDX-License-Identifier: Apache-2.0
//! What user-mode Linux lacks: CPUs to choose from, huge pages, pressure. For the guest in qemu: `make test-guest-qemu`.

use std::fs;

use serde_json::{Value, json};
use wsbox_integration::cgroup::{Group, text};
use wsbox_integration::{Bundle, Engine, leftover, unique};

fn has(id: &str, file: &str) -> String {
    text(&format!("wsbox/{id}"), [file, file])
}

fn plain(resources: Value) -> Bundle {
    Bundle::plain().set("/linux/resources", resources)
}

#[test]
#[ignore = "two CPUs on cgroup v2: make test-guest-qemu"]
fn cpus_and_nodes() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(plain(json!({"cpu": {"cpus": "1", "mems": "0"}})));
    let seen = |what: &str| {
        let said = engine.wsbox(&["exec", &id, "grep", what, "/proc/self/status"]).ok().stdout;
        said.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!((has(&id, "cpuset.cpus"), has(&id, "cpuset.mems")), ("1".into(), "0".into()));
    assert_eq!((seen("Cpus_allowed_list"), seen("Mems_allowed_list")), ("1".into(), "0".into()));
    engine.wsbox(&["update", "--cpuset-cpus", "0", &id]).ok();
    assert_eq!((seen("Cpus_allowed_list"), has(&id, "cpuset.cpus")), ("0".into(), "0".into()));
    engine.wsbox(&["update", "--cpuset-cpus", "4000", &id]).fails(1, &["linux.resources.cpu.cpus: write \"4000\" to"]);
    assert_eq!(has(&id, "cpuset.cpus"), "0");
}

/// The kernel takes the list, and gives what the cgroup above has.
#[test]
#[ignore = "two CPUs on cgroup v2: make test-guest-qemu"]
fn cpus_that_the_cgroup_above_lacks_are_refused() {
    let (engine, top, id) = (Engine::new(), unique("cpus"), unique("lacks"));
    let _top = Group::new(&top, &["cpuset"], &[(["cpuset.cpus", "cpuset.cpus"], "0")]);
    let bundle =
        plain(json!({"cpu": {"cpus": "1"}})).set("/linux/cgroupsPath", json!(format!("/{top}/{id}"))).args(&["true"]);
    bundle.write();
    let outcome = engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]);
    let file = format!("{top}/{id}/cpuset.cpus.effective");
    outcome.fails(1, &["linux.resources.cpu.cpus: \"1\" gives \"0\": see", &file, "choose some that they have"]);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
#[ignore = "weights of block devices on cgroup v2: make test-guest-qemu"]
fn weights_of_block_devices() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(plain(json!({"blockIO": {"weight": 500}})));
    assert_eq!(has(&id, "io.weight").lines().next(), Some("default 4950"));
    engine.wsbox(&["update", "--blkio-weight", "1000", &id]).ok();
    assert_eq!(has(&id, "io.weight").lines().next(), Some("default 10000"));
}

#[test]
#[ignore = "huge pages on cgroup v2: make test-guest-qemu"]
fn huge_pages_and_their_reservations() {
    let engine = Engine::new();
    let limit = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
    let (_bundle, id) = engine.sleeping(plain(limit));
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(has(&id, file), (4 << 20).to_string());
    }
    let more = engine.root().join("more.json");
    fs::write(&more, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8 << 20}]}).to_string()).unwrap();
    engine.wsbox(&["update", "-r", &more.display().to_string(), &id]).ok();
    assert_eq!(has(&id, "hugetlb.2MB.rsvd.max"), (8 << 20).to_string());
    let (bundle, other) =
        (plain(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})).args(&["true"]), unique("size"));
    bundle.write();
    let outcome = engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &other]);
    outcome.fails(1, &["linux.resources.hugepageLimits[0].limit: write \"1\" to", "hugetlb.3MB.max", "no such limit"]);
    leftover::assert_nothing_left(engine.root(), &other);
}

#[test]
#[ignore = "pressure on cgroup v2: make test-guest-qemu"]
fn pressure_is_told() {
    let engine = Engine::new();
    let bundle = plain(json!({"cpu": {"quota": 10000, "period": 100_000}, "memory": {"limit": 64 << 20}}));
    let (_bundle, id) = engine.sleeping(bundle);
    engine.wsbox(&["exec", &id, "timeout", "2", "yes"]);
    let event: Value = serde_json::from_str(&engine.wsbox(&["events", "--stats", &id]).ok().stdout).unwrap();
    assert!(event["data"]["cpu"]["psi"]["some"]["total"].as_u64().unwrap() > 0, "{event}");
    for kind in ["memory", "blkio"] {
        assert!(event["data"][kind]["psi"]["full"]["avg10"].is_f64(), "{kind}: {event}");
    }
    assert!(
        event["data"]["memory"]["event_count"]["oom_kill"] == 0 && event["data"]["limits_met"][0]["limit"] == "cpu"
    );
}
