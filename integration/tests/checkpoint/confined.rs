// SPDX-License-Identifier: Apache-2.0
//! What is restored is confined as before: rights, mounts, namespaces, limits.

use std::fs;
use std::process::Command;

use serde_json::json;
use wsbox_integration::cgroup::has;
use wsbox_integration::{TempDir, leftover, unique};

use super::common::{World, confined, hook};

const RIGHTS: [&str; 8] =
    ["NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn rights(world: &World, id: &str) -> Vec<String> {
    let status = world.proc(id, "status");
    let wanted = |line: &&str| RIGHTS.iter().any(|name| line.split(':').next() == Some(name));
    status.lines().filter(wanted).map(str::to_owned).collect()
}

fn mounts(world: &World, id: &str) -> Vec<String> {
    let text = world.proc(id, "mountinfo");
    let mut places: Vec<String> =
        text.lines().map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" ")).collect();
    places.sort();
    places
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn rights_and_mounts_are_the_same() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    let before = (rights(&world, &id), mounts(&world, &id));
    world.checkpoint(&id, &[]).ok();
    world.restore(&up, &[]).ok();
    assert_eq!((rights(&world, &up), mounts(&world, &up)), before);
    assert_eq!(before.0.len(), RIGHTS.len());
    assert!(before.0.contains(&"NoNewPrivs:\t1".to_owned()) && before.0.contains(&"Seccomp:\t2".to_owned()));
    let fails = |script: &str, words: &str| {
        let said = world.engine.wsbox(&["exec", &up, "sh", "-c", script]);
        assert!(said.code != 0 && said.stderr.contains(words), "{script}: {said:?}");
    };
    fails("touch /x", "Read-only file system");
    fails("echo 1 > /proc/sysrq-trigger", "Read-only file system");
    fails("unshare -m true", "not permitted");
    assert_eq!(world.engine.wsbox(&["exec", &up, "cat", "/proc/kcore"]).ok().stdout, "");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let pid = world.engine.state(&up)["pid"].as_i64().unwrap();
        let inode = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/{kind}")).unwrap();
        assert_ne!(inode("self"), inode(&pid.to_string()), "{kind}");
    }
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn limits_are_the_configs_again() {
    let script =
        "dd if=/dev/zero of=/tmp/f bs=1M count=16 2>/dev/null; i=9; while :; do echo $i > /run/n; sleep 0.1; done";
    let (world, up) = (World::new(confined().script(script)), unique("up"));
    world.checkpointed();
    world.restore(&up, &[]).ok();
    let number = |file: &str| has(&up, [file, file]).parse::<u64>().unwrap();
    assert_eq!((number("pids.max"), number("memory.max")), (256, 512 << 20));
    assert_eq!(has(&up, ["cpu.max", "cpu.max"]), "100000 100000");
    // What was restored counts: in the 16 MiB of the file and of all else.
    assert!(number("memory.current") > 16 << 20, "{}", number("memory.current"));
    let outcome = world.engine.wsbox(&["exec", &up, "cat", "/dev/mem"]);
    assert!(outcome.code != 0, "{outcome:?}");
    assert_eq!(world.engine.wsbox(&["exec", &up, "wc", "-c", "/tmp/f"]).ok().stdout, "16777216 /tmp/f\n");
    world.engine.wsbox(&["delete", "--force", &up]).ok();
    // Fewer at the restore: then those count, and too little memory is an error.
    let world = world.with("/linux/resources/memory/limit", json!(8 << 20));
    let outcome = world.restore(&up, &[]);
    assert!(outcome.code != 0, "{outcome:?}");
    world.nothing_left(&up);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn binds_and_networks_are_those_of_the_restore() {
    let (one, other, network) = (TempDir::new("bind"), TempDir::new("bind"), unique("n"));
    fs::write(one.path().join("f"), "one").unwrap();
    fs::write(other.path().join("f"), "other").unwrap();
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
    ip(&["netns", "add", &network]);
    let bind = |dir: &TempDir| json!({"destination": "/data", "type": "bind", "source": dir.path(), "options": ["bind", "ro", "nosuid"]});
    let bundle =
        confined().set("/linux/namespaces/0", json!({"type": "network", "path": format!("/run/netns/{network}")}));
    fs::create_dir(bundle.root().join("data")).unwrap();
    let (world, up) = (World::new(bundle.mount(bind(&one))), unique("up"));
    let number = world.checkpointed();
    let at = world.bundle.config["mounts"].as_array().unwrap().len() - 1;
    let world = world.with(&format!("/mounts/{at}"), bind(&other));
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
    assert_eq!(world.engine.wsbox(&["exec", &up, "cat", "/data/f"]).ok().stdout, "other");
    let said = world.engine.wsbox(&["exec", &up, "touch", "/data/f"]);
    assert!(said.stderr.contains("Read-only"), "{said:?}");
    let inode = |path: String| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let pid = world.engine.state(&up)["pid"].as_i64().unwrap();
    assert_eq!(inode(format!("/proc/{pid}/ns/net")), inode(format!("/run/netns/{network}")));
    world.engine.wsbox(&["delete", "--force", &up]).ok();
    ip(&["netns", "delete", &network]);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn in_a_scope_of_systemds() {
    let world = World::new(confined());
    let (id, up) = (unique("scope"), unique("scope"));
    let path = world.path();
    world.engine.wsbox(&["--systemd-cgroup", "run", "--detach", "--bundle", &path, &id]).ok();
    wsbox_integration::engine::until("the first number", || world.count(&id) > 3);
    let number = world.count(&id);
    world.checkpoint(&id, &[]).ok();
    let images = world.images("one");
    let restore = ["--systemd-cgroup", "restore", "--detach", "--bundle", &path, "--image-path", &images, &up];
    world.engine.wsbox(&restore).ok();
    world.goes_on(&up, number);
    assert!(world.proc(&up, "cgroup").contains(&format!("wsbox-{up}.scope")), "{}", world.proc(&up, "cgroup"));
    world.engine.wsbox(&["delete", "--force", &up]).ok();
    world.nothing_left(&up);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn hooks_run_as_for_a_new_one() {
    let log = TempDir::new("log");
    let file = log.path().join("log").display().to_string();
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let hooks: serde_json::Map<_, _> = kinds.iter().map(|kind| ((*kind).to_owned(), hook(kind, &file, 0))).collect();
    let (world, up) = (World::new(confined().set("/hooks", hooks.into())), unique("up"));
    world.checkpointed();
    let names = || fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(), kinds);
    world.restore(&up, &[]).ok();
    world.engine.wsbox(&["delete", "--force", &up]).ok();
    assert_eq!(names(), [kinds, kinds].concat());
    leftover::assert_nothing_left(world.engine.root(), &up);
}
