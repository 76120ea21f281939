// SPDX-License-Identifier: Apache-2.0
//! What fails leaves nothing: no process, no cgroup, no folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use wsbox_integration::unique;

use super::common::{World, confined, hook};

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn images_that_are_not_whole() {
    let (world, up) = (World::new(confined()), unique("up"));
    world.restore(&up, &[]).fails(1, &["--image-path", "wsbox.json", "no such file"]);
    world.nothing_left(&up);
    world.checkpointed();
    let description = fs::read(format!("{}/wsbox.json", world.images("one"))).unwrap();
    for file in ["pages-1.img", "core-1.img", "mountpoints-", "inventory.img"] {
        let file = fs::read_dir(world.images("one"))
            .unwrap()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(file));
        let path = file.unwrap().path();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        world.restore(&up, &[]).fails(1, &["--image-path ", " bytes, criu wrote "]);
        world.nothing_left(&up);
        // As long as it was, and nonsense: then criu says so.
        if !path.display().to_string().contains("pages") {
            fs::write(&path, vec![b'x'; whole.len()]).unwrap();
            world.restore(&up, &[]).fails(1, &["restore: criu restore failed", "restore.log"]);
            world.nothing_left(&up);
        }
        fs::write(&path, whole).unwrap();
    }
    world.describe(|all| all["images"] = json!(null));
    world.restore(&up, &[]).fails(1, &["wsbox.json: images: is missing"]);
    world.nothing_left(&up);
    fs::write(format!("{}/wsbox.json", world.images("one")), &description).unwrap();
    world.restore(&up, &[]).ok();
}

/// Who can write the images could have written any program.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn images_that_others_can_write() {
    let (world, up) = (World::new(confined()), unique("up"));
    world.checkpointed();
    let folder = world.images("one");
    for path in [format!("{folder}/core-1.img"), folder] {
        let mode = |mode: u32| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        world.restore(&up, &[]).fails(1, &[&format!("{path}: can be written by others (mode 0777)")]);
        world.nothing_left(&up);
        mode(0o700);
    }
    world.restore(&up, &[]).ok();
}

/// One that ends well without having asked whether what it brought back is right.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_criu_that_does_not_ask() {
    let (world, up, log) = (World::new(confined()), unique("up"), unique("log"));
    world.checkpointed();
    let (criu, log) = (world.images("criu"), world.images(&log));
    let asks = "while [ $# -gt 0 ]; do [ $1 != --action-script ] || script=$2; shift; done; sleep 1000 &\n\
                CRTOOLS_SCRIPT_ACTION=setup-namespaces CRTOOLS_INIT_PID=$! $script";
    fs::write(&criu, format!("#!/bin/sh\n[ $1 != check ] || exit 0\n{asks}\n")).unwrap();
    fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).unwrap();
    let world = world.with("/hooks", json!({"createRuntime": hook("createRuntime", &log, 0)}));
    world.bundle.write();
    let (path, images) = (world.path(), world.images("one"));
    let restore = ["--criu", &criu, "restore", "--detach", "--bundle", &path, "--image-path", &images, &up];
    world.engine.wsbox(&restore).fails(1, &["restore: criu says that it is done, and did not ask before"]);
    assert_eq!(fs::read_to_string(log).unwrap(), "createRuntime\n");
    world.nothing_left(&up);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn an_id_that_is_in_use() {
    let world = World::new(confined());
    let id = world.running();
    world.checkpoint(&id, &["--leave-running"]).ok();
    world.restore(&id, &[]).fails(1, &["already exists"]);
    let number = world.count(&id);
    world.goes_on(&id, number);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn another_config_than_it_was_dumped_with() {
    let (mut world, up) = (World::new(confined()), unique("up"));
    world.checkpointed();
    for (pointer, value, field) in [
        ("/process/noNewPrivileges", json!(false), "process.noNewPrivileges"),
        ("/process/capabilities/bounding", json!(["CAP_KILL"]), "process.capabilities"),
        ("/process/user/uid", json!(1000), "process.user"),
        ("/linux/seccomp/defaultErrnoRet", json!(2), "linux.seccomp"),
        ("/linux/maskedPaths", json!([]), "linux.maskedPaths"),
        ("/linux/namespaces/0", json!({"type": "network", "path": "/proc/self/ns/net"}), "linux.namespaces"),
        ("/mounts/7/options", json!(["nosuid"]), "mounts"),
        ("/root/readonly", json!(false), "root.readonly"),
        ("/process/oomScoreAdj", json!(-7), "process.oomScoreAdj"),
        ("/hostname", json!("other"), "hostname"),
    ] {
        let own = world.bundle.config.clone();
        world = world.with(pointer, value);
        world.restore(&up, &[]).fails(1, &[&format!("{field}: is not what the container was checkpointed with")]);
        world.nothing_left(&up);
        world.bundle.config = own;
    }
    world.restore(&up, &[]).ok();
}

/// What came back is not what was noted: the container ends before it runs.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn what_criu_does_not_restore() {
    let (world, up) = (World::new(confined()), unique("up"));
    world.checkpointed();
    let fails = |words: &str| {
        world.restore(&up, &[]).fails(1, &[words, "was killed before it ran"]);
        world.nothing_left(&up);
    };
    let description = fs::read(format!("{}/wsbox.json", world.images("one"))).unwrap();
    world.describe(|all| all["rights"]["1"]["Seccomp_filters"] = json!("2"));
    fails("process: criu did not restore it: Seccomp_filters of thread 1 was 2, and is 1");
    fs::write(format!("{}/wsbox.json", world.images("one")), &description).unwrap();
    // The profile's mode is in force, too.
    world.describe(|all| all["rights"]["1"]["AppArmor"] = json!("box (complain)"));
    fails("process: criu did not restore it: AppArmor of thread 1 was box (complain), and is unconfined");
    fs::write(format!("{}/wsbox.json", world.images("one")), &description).unwrap();
    world.describe(|all| all["mounts"][0][1] = json!("rw"));
    fails("mounts: criu did not restore it: / was rw, and is ro");
    fs::write(format!("{}/wsbox.json", world.images("one")), &description).unwrap();
    world.restore(&up, &[]).ok();
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_hook_that_fails() {
    let (world, up) = (World::new(confined()), unique("up"));
    world.checkpointed();
    let log = world.images("log");
    let hooks = json!({"createRuntime": hook("createRuntime", &log, 1), "poststop": hook("poststop", &log, 0)});
    let world = world.with("/hooks", hooks);
    world.restore(&up, &[]).fails(1, &["hooks.createRuntime[0]", "exit status: 1"]);
    assert_eq!(fs::read_to_string(log).unwrap(), "createRuntime\npoststop\n");
    world.nothing_left(&up);
}

/// An `exec` would be lost; the container goes on.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_container_with_more_than_its_own() {
    let world = World::new(confined());
    let id = world.running();
    world.engine.wsbox(&["exec", "--detach", &id, "sleep", "1000"]).ok();
    world.checkpoint(&id, &[]).fails(1, &["checkpoint: process", "criu would lose it"]);
    let number = world.count(&id);
    world.goes_on(&id, number);
}

/// A daemon of an `exec` with more rights: its restore would be refused, so it is the dump that is.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_process_with_more_than_the_config_gives() {
    let world = World::new(confined());
    let id = world.running();
    let daemon = "setsid tail -f /dev/null </dev/null >/dev/null 2>&1 &";
    world.engine.wsbox(&["exec", "--cap", "CAP_SYS_PTRACE", &id, "sh", "-c", daemon]).ok();
    let words =
        ["process.capabilities.bounding: CapBnd of thread ", "of the container is ", "it would not be restored"];
    world.checkpoint(&id, &["--leave-running"]).fails(1, &words);
    world.checkpoint(&id, &[]).fails(1, &words);
    let number = world.count(&id);
    world.goes_on(&id, number);
    world.engine.wsbox(&["exec", &id, "sh", "-c", "kill $(pidof tail)"]).ok();
    world.checkpoint(&id, &[]).ok();
    let up = unique("up");
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}
