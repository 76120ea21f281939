// SPDX-License-Identifier: Apache-2.0
//! Which devices a container may open and make: by a program of its v2 cgroup, on a v1 host too.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

fn deny_all() -> Value {
    json!({"allow": false, "access": "rwm"})
}

fn kmsg(allow: bool) -> Value {
    json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "w"})
}

/// Root with CAP_MKNOD, in the host's user namespace, and a node that only the program keeps it from opening for writing.
fn bundle(rules: &[Value]) -> Bundle {
    let mut bundle = Bundle::plain().set("/linux/resources", json!({"devices": rules})).set(
        "/linux/devices",
        json!([{"path": "/dev/log-of-kernel", "type": "c", "major": 1, "minor": 11, "fileMode": 438}]),
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_MKNOD"]));
    }
    bundle
}

/// What happens when `script` is run in it: its output, errors too.
fn tried(engine: &Engine, id: &str, script: &str) -> String {
    engine.wsbox(&["exec", id, "sh", "-c", &format!("{{ {script}; }} 2>&1")]).stdout.trim().to_owned()
}

const OPEN: &str = "true >/dev/log-of-kernel && echo opened";

#[test]
fn allowed_ones_open_and_denied_ones_do_not() {
    let engine = Engine::new();
    let (_allowed, allowed) = engine.sleeping(bundle(&[deny_all(), kmsg(true)]));
    let (_denied, denied) = engine.sleeping(bundle(&[deny_all()]));
    assert_eq!(tried(&engine, &allowed, OPEN), "opened");
    assert!(tried(&engine, &denied, OPEN).ends_with("Operation not permitted"));
    // For reading it was not allowed.
    assert!(tried(&engine, &allowed, "true </dev/log-of-kernel").ends_with("Operation not permitted"));
    for id in [&allowed, &denied] {
        let usual = "for name in null zero full random urandom; do true </dev/$name && echo $name; done";
        assert_eq!(tried(&engine, id, usual).lines().count(), 5);
        // To make a node is harmless, to open it is not: of a disk, and of what /dev/log-of-kernel is.
        let made = tried(&engine, id, "mknod /dev/disk b 8 0 && mknod /dev/log c 1 11 && echo made; true </dev/disk");
        assert!(made.starts_with("made\n") && made.ends_with("Operation not permitted"), "{made}");
    }
    assert_eq!(tried(&engine, &allowed, "true >/dev/log && echo opened"), "opened");
    assert!(tried(&engine, &denied, "true >/dev/log").ends_with("Operation not permitted"));
}

/// What the config says of one of the usual six stands.
#[test]
fn one_of_the_usual_given_again() {
    let device =
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8}]);
    let bundle = Bundle::plain().set("/linux/devices", device).script("stat -c '%a %u %g' /dev/null");
    assert_eq!(Engine::new().run(&bundle, wsbox_integration::Door::Root).ok().stdout, "600 7 8\n");
}

/// Below what is mounted in /dev, and outside of it: bound there once all is mounted, whatever the image has in that place.
#[test]
fn places_that_are_not_in_the_tmpfs_of_dev() {
    let zero = |path: &str, mode: u32| json!({"path": path, "type": "c", "major": 1, "minor": 5, "fileMode": mode, "uid": 7, "gid": 8});
    let shm = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]});
    for door in wsbox_integration::Door::ALL {
        let bundle = Bundle::hardened()
            .user_namespace(door != wsbox_integration::Door::Root)
            .without_mount("/dev/shm")
            .mount(shm.clone())
            .set("/linux/devices", json!([zero("/dev/shm/a/zero", 0o604), zero("/etc/passwd", 0o606), zero("/made/zero", 0o666)]))
            .script("is() { [ \"$(stat -c '%a %u %g %t:%T' $1; head -c 3 $1 | wc -c)\" = \"$(printf '%s 7 8 1:5\\n3' $2)\" ]; }
                is /dev/shm/a/zero 604 && is /etc/passwd 606 && is /made/zero 666 && exit 42");
        assert_eq!(Engine::new().run(&bundle, door).code, 42, "{door:?}");
    }
}

/// Nothing is made in what is bound into /dev: it may be the host's.
#[test]
fn a_folder_that_is_bound_below_dev_stays_as_it_is() {
    for door in wsbox_integration::Door::ALL {
        let folder = TempDir::new("bound");
        let bound =
            json!({"destination": "/dev/bound", "type": "bind", "source": folder.path(), "options": ["rbind", "rw"]});
        let device = json!([{"path": "/dev/bound/a/zero", "type": "c", "major": 1, "minor": 5}]);
        let bundle = Bundle::hardened()
            .user_namespace(door != wsbox_integration::Door::Root)
            .mount(bound)
            .set("/linux/devices", device)
            .script("[ -d /dev/bound ] && [ ! -e /dev/bound/a ] && exit 42");
        assert_eq!(Engine::new().run(&bundle, door).code, 42, "{door:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{door:?}");
    }
}

#[test]
fn update_changes_what_opens() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(bundle(&[deny_all()]));
    let file = engine.root().join("rules.json");
    let update = |rules: Value| {
        fs::write(&file, json!({"devices": rules}).to_string()).unwrap();
        engine.wsbox(&["update", "-r", &file.display().to_string(), &id])
    };
    for allow in [true, false, true] {
        update(json!([deny_all(), kmsg(allow)])).ok();
        assert_eq!(tried(&engine, &id, OPEN) == "opened", allow);
    }
    // One that is refused leaves those before in force; so does another limit that is.
    update(json!([deny_all(), {"allow": true, "type": "c", "major": -7}]))
        .fails(1, &["linux.resources.devices[1].major"]);
    fs::write(&file, json!({"devices": [deny_all()], "cpu": {"cpus": "4000"}}).to_string()).unwrap();
    engine.wsbox(&["update", "-r", &file.display().to_string(), &id]).fails(1, &["linux.resources.cpu.cpus"]);
    assert_eq!(tried(&engine, &id, OPEN), "opened");
    // What an engine sends along that it sent before is no change.
    update(json!([deny_all(), kmsg(true)])).ok();
    assert_eq!(tried(&engine, &id, OPEN), "opened");
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// Of a container without rules too, which has no program yet.
#[test]
fn update_brings_rules_where_none_were() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(bundle(&[]));
    let file = engine.root().join("rules.json");
    fs::write(&file, json!({"devices": [deny_all()]}).to_string()).unwrap();
    engine.wsbox(&["update", "-r", &file.display().to_string(), &id]).ok();
    assert!(tried(&engine, &id, OPEN).ends_with("Operation not permitted"));
}

/// A profile has settled them.
#[test]
fn a_profile_keeps_its_rules() {
    let (engine, bundle, id) = (Engine::new(), Bundle::plain().args(&["sleep", "1000"]), unique("strict"));
    bundle.write();
    engine.wsbox(&["--profile", "production", "run", "-d", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    let file = engine.root().join("rules.json");
    fs::write(&file, json!({"devices": [deny_all(), kmsg(true)]}).to_string()).unwrap();
    let outcome = engine.wsbox(&["update", "-r", &file.display().to_string(), &id]);
    outcome.fails(1, &["linux.resources.devices", "profile"]);
}

/// While programs take each other's place, a denied node never opens, and an allowed one always does (BPF_F_REPLACE).
#[test]
fn there_is_no_gap() {
    let engine = Engine::new();
    let script = "n=0; until test -e /dev/stop; do true >/dev/log-of-kernel && echo denied; true </dev/null || echo allowed; n=$((n+1)); done 2>/dev/null; echo $n";
    let id = unique("gap");
    let bundle = bundle(&[deny_all()]).script(script);
    bundle.write();
    let mut command = engine.command(&["run", "--bundle", &bundle.path().display().to_string(), &id]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("it runs", || engine.wsbox(&["state", &id]).stdout.contains("running"));
    let root = wsbox::Root::new(Some(engine.root().to_owned()));
    for round in 0..200 {
        let other = json!({"allow": true, "type": "c", "major": 10, "minor": round, "access": "r"});
        let resources = serde_json::from_value(json!({"devices": [deny_all(), other]})).unwrap();
        wsbox::update::update(&root, &id, &resources, None).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    // The end of the container may be that of `touch` as well.
    let stopped = engine.wsbox(&["exec", &id, "touch", "/dev/stop"]);
    assert!([0, 137].contains(&stopped.code), "{stopped:?}");
    let outcome = wsbox_integration::engine::finish(child).ok();
    let tries: u32 = outcome.stdout.trim().parse().unwrap_or_else(|_| panic!("{outcome:?}"));
    println!("{tries} tries during 200 updates");
    assert!(tries >= 200, "{tries} tries are too few to tell");
}
