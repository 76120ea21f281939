// SPDX-License-Identifier: Apache-2.0
//! What criu could not bring back as the config has it: by its field, before criu is looked for.

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Engine, leftover, unique};

fn refused(bundle: &Bundle, words: &[&str]) {
    let (engine, id) = (Engine::new(), unique("no"));
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["--criu", "/no/such", "restore", "--bundle", &path, &id]).fails(1, words);
    leftover::assert_nothing_left(engine.root(), &id);
}

fn confined() -> Bundle {
    Bundle::hardened().user_namespace(false)
}

#[test]
fn fields_by_their_names() {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let tmp = |more: Value| {
        let mut mount = json!({"destination": "/data", "type": "bind", "source": "/tmp", "options": ["bind"]});
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mount
    };
    let new = |bundle: Bundle, pointer: &str, value: Value| bundle.set(pointer, value);
    let lines = [
        (Bundle::hardened(), "linux.namespaces: the root and the binds of a user namespace without maps are id-mapped"),
        (new(confined(), "/process/terminal", json!(true)), "process.terminal: criu's command line"),
        (
            new(confined(), "/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 1})),
            "process.ioPriority: ",
        ),
        (
            new(
                confined(),
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "ipc"}]),
            ),
            "linux.namespaces: there is no new pid namespace",
        ),
        (new(confined(), "/linux/seccomp/listenerPath", json!("/run/agent.sock")), "linux.seccomp.listenerPath: "),
        (
            confined().mount(tmp(json!({"uidMappings": maps, "gidMappings": maps}))),
            "mounts[8].uidMappings: the mount is id-mapped",
        ),
        (
            new(confined(), "/annotations", json!({"dev.wsbox.violations": "true"})),
            "annotations[\"dev.wsbox.violations\"]: the filter has a listener",
        ),
    ];
    for (bundle, words) in lines {
        refused(&bundle, &[words]);
    }
}

#[test]
fn a_running_container_is_left_alone() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine
        .wsbox(&["--criu", "/no/such", "checkpoint", &id])
        .fails(1, &["linux.namespaces: ", "criu could not restore it"]);
    let (other, counted) = (confined().args(&["sleep", "1000"]), unique("counted"));
    other.write();
    engine
        .wsbox(&["run", "--detach", "--count-violations", "--bundle", &other.path().display().to_string(), &counted])
        .ok();
    engine.wsbox(&["--criu", "/no/such", "checkpoint", &counted]).fails(1, &["linux.seccomp: ", "counts violations"]);
    for id in [id, counted] {
        assert_eq!(engine.state(&id)["status"], "running");
    }
}

#[test]
fn flags_that_criu_does_not_take() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(confined());
    for (flags, words) in [
        (["--empty-ns", "mount"], "--empty-ns: \"mount\""),
        (["--page-server", "nobody"], "--page-server: \"nobody\" is not ADDRESS:PORT"),
        (["--page-server", "host:0"], "--page-server: "),
        (["--parent-path", "/absolute"], "--parent-path: has to be relative"),
        (["--manage-cgroups-mode", "ignore"], "--manage-cgroups-mode: "),
    ] {
        engine.wsbox(&[&["--criu", "/no/such", "checkpoint"], &flags[..], &[&id]].concat()).fails(1, &[words]);
    }
    assert_eq!(engine.state(&id)["status"], "running");
}
