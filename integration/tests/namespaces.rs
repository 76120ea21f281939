// SPDX-License-Identifier: Apache-2.0
//! Namespaces that exist: joined by path, of the right kind, and left alone by the end of who joined.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine, leftover, unique};

/// A container with explicit maps, whose namespaces the others join, and the path of one of them.
fn host(engine: &Engine) -> (Bundle, String, impl Fn(&str) -> String) {
    let (bundle, id) = engine.sleeping(mapped(Bundle::hardened()));
    let pid = engine.state(&id)["pid"].clone();
    (bundle, id, move |kind| format!("/proc/{pid}/ns/{kind}"))
}

fn mapped(bundle: Bundle) -> Bundle {
    let maps = json!([{"containerID": 0, "hostID": 300_000, "size": 65536}]);
    owned(bundle).set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps)
}

/// Files are taken as they are: so the ids of the namespace may reach and own the root.
fn owned(bundle: Bundle) -> Bundle {
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["", "proc", "sys", "dev", "tmp", "run"] {
        let path = bundle.root().join(folder);
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(300_000), Some(300_000)).unwrap();
    }
    bundle
}

fn joining(bundle: Bundle, joined: &[(&str, String)]) -> Bundle {
    with_namespaces(owned(bundle), joined)
}

fn with_namespaces(bundle: Bundle, joined: &[(&str, String)]) -> Bundle {
    let new = ["mount", "pid", "ipc", "uts", "network", "user"];
    let new = new.into_iter().filter(|kind| joined.iter().all(|(joined, _)| joined != kind));
    let new = new.map(|kind| json!({"type": kind})).collect::<Vec<_>>();
    let joined = joined.iter().map(|(kind, path)| json!({"type": kind, "path": path}));
    let all: Vec<Value> = new.into_iter().chain(joined).collect();
    bundle.set("/linux/namespaces", json!(all))
}

fn joiners(path: &impl Fn(&str) -> String) -> Vec<(&'static str, String)> {
    vec![("user", path("user")), ("pid", path("pid"))]
}

#[test]
fn user_and_pid_namespaces() {
    let engine = Engine::new();
    let (_host, _, path) = host(&engine);
    let script = "tr -s ' ' </proc/self/uid_map; id -u; cat /proc/1/cmdline | tr '\\0' ' '; [ $$ != 1 ] && echo other; stat -c %u /dev/null";
    let bundle = joining(Bundle::hardened(), &joiners(&path)).script(script);
    assert_eq!(engine.run(&bundle, Door::Root).ok().stdout, " 0 300000 65536\n0\nsleep 1000 other\n0\n");
    let library = joining(Bundle::hardened(), &joiners(&path)).script("kill -0 1 && exit 42");
    assert_eq!(engine.run(&library, Door::Library).code, 42);
}

fn without_mounts(bundle: Bundle, places: &[&str]) -> Bundle {
    let mut bundle = bundle;
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !places.iter().any(|place| mount["destination"] == *place));
    bundle
}

/// As podman has it for `--network container:X --uidmap …`: they are joined while wsbox still has the right to.
#[test]
fn others_in_a_user_namespace_of_its_own() {
    let engine = Engine::new();
    let (_host, _, path) = host(&engine);
    let all = [("network", "net"), ("uts", "uts"), ("ipc", "ipc")];
    let joined = all.map(|(kind, name)| (kind, path(name)));
    let bundle =
        without_mounts(with_namespaces(Bundle::hardened(), &joined), &["/sys", "/sys/fs/cgroup", "/dev/mqueue"])
            .remove("/hostname");
    let (_bundle, id) = engine.sleeping(bundle);
    for (_, name) in all.iter().chain(&[("user", "user")]) {
        let seen = engine.wsbox(&["exec", &id, "readlink", &format!("/proc/self/ns/{name}")]).ok().stdout;
        let first = fs::read_link(path(name)).unwrap().display().to_string();
        assert_eq!(seen.trim() == first, *name != "user", "{name}");
    }
    engine.wsbox(&["exec", &id, "hostname", "other"]).fails(1, &["not permitted"]);
}

/// As podman has it for `--pid host --uidmap …`.
#[test]
fn settings_by_the_hosts_proc() {
    let mut bundle = without_mounts(mapped(Bundle::hardened()), &["/proc"]);
    let proc = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "rw", "nosuid", "noexec", "nodev"]});
    bundle.config["mounts"].as_array_mut().unwrap().insert(0, proc);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    let bundle = bundle.set("/linux/sysctl", json!({"net.ipv4.ping_group_range": "7 9", "kernel.msgmax": "4321"}));
    let script =
        "tr '\\t' ' ' </proc/sys/net/ipv4/ping_group_range; cat /proc/sys/kernel/msgmax; [ $$ = 1 ] || echo host";
    assert_eq!(Engine::new().run(&bundle.script(script), Door::Userns).ok().stdout, "7 9\n4321\nhost\n");
}

#[test]
fn exec_and_delete_where_a_pid_namespace_is_shared() {
    let engine = Engine::new();
    let (_host, id, path) = host(&engine);
    let (_other, joined) = engine
        .sleeping(joining(Bundle::hardened(), &[("user", path("user")), ("pid", path("pid")), ("ipc", path("ipc"))]));
    let count = "ps | grep -c '[s]leep 1000'";
    assert_eq!(engine.wsbox(&["exec", &joined, "sh", "-c", count]).ok().stdout, "2\n");
    // The joiner is in that PID namespace itself: nothing else could see its own /proc there.
    engine.wsbox(&["exec", &joined, "sh", "-c", "kill -0 1 && test -d /proc/$$ && test $$ -lt 100"]).ok();
    engine.wsbox(&["exec", "--detach", &joined, "sh", "-c", "sleep 2066"]).ok();
    engine.wsbox(&["delete", "--force", &joined]).ok();
    assert_eq!(leftover::processes("sleep 2066"), Vec::<i32>::new());
    assert_eq!(engine.wsbox(&["exec", &id, "sh", "-c", count]).ok().stdout, "1\n");
    leftover::assert_nothing_left(engine.root(), &joined);
}

#[test]
fn what_can_not_be_joined_is_told_by_its_field() {
    let engine = Engine::new();
    let (_host, _, path) = host(&engine);
    let own = |kind: &str| format!("/proc/self/ns/{kind}");
    // What is joined by who has a user namespace of its own is refused before it is looked at.
    let rooted = |joined: &[(&str, String)]| joining(Bundle::hardened(), joined).user_namespace(false);
    let other = json!([{"containerID": 0, "hostID": 400_000, "size": 65536}]);
    let with_maps =
        |bundle: Bundle| bundle.set("/linux/uidMappings", other.clone()).set("/linux/gidMappings", other.clone());
    for (bundle, words) in [
        (joining(Bundle::hardened(), &[("pid", path("pid"))]), ["linux.namespaces[5].path", "another user namespace"]),
        (joining(Bundle::hardened(), &[("network", path("net"))]), ["linux.namespaces[5].path", "whose sysfs can not"]),
        (joining(Bundle::hardened(), &[("ipc", path("uts"))]), ["linux.namespaces[5].path", "of that kind"]),
        (rooted(&[("pid", path("ipc"))]), ["linux.namespaces[4].path", "of that kind"]),
        (joining(Bundle::hardened(), &[("user", own("user"))]), ["linux.namespaces[5].path", "wsbox's own"]),
        (joining(Bundle::hardened(), &[("user", "/nowhere".into())]), ["linux.namespaces[5].path", "no such file"]),
        (rooted(&[("pid", "/etc/passwd".into())]), ["linux.namespaces[4].path", "invalid argument"]),
        (joining(Bundle::hardened(), &[("mount", own("mnt"))]), ["linux.namespaces[5].path", "can not be joined"]),
        (with_maps(joining(Bundle::hardened(), &[("user", path("user"))])), ["linux.uidMappings", "are not those"]),
    ] {
        let id = unique("c");
        bundle.write();
        let run = ["run", "--bundle", &bundle.path().display().to_string(), &id];
        engine.wsbox(&run).fails(1, &words);
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

fn with_time(bundle: Bundle, offsets: Value) -> Bundle {
    let mut bundle = bundle.set("/linux/timeOffsets", offsets);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle
}

#[test]
fn clocks_of_its_own() {
    let engine = Engine::new();
    let offsets = json!({"boottime": {"secs": 864_000, "nanosecs": 5}, "monotonic": {"secs": 86400}});
    let script = "cut -d. -f1 /proc/uptime; tr -s ' ' </proc/self/timens_offsets";
    for door in [Door::Root, Door::Userns] {
        let bundle = with_time(Bundle::hardened().user_namespace(door == Door::Userns), offsets.clone()).script(script);
        let said = engine.run(&bundle, door).ok().stdout;
        let (uptime, lines) = said.split_once('\n').unwrap();
        assert!(uptime.parse::<u64>().unwrap() > 864_000, "{said}");
        assert_eq!(lines, "monotonic 86400 0\nboottime 864000 5\n", "{door:?}");
    }
    let host = fs::read_link("/proc/self/ns/time").unwrap().display().to_string();
    let own = with_time(Bundle::hardened(), json!({}));
    let (_bundle, id) = engine.sleeping(own);
    let seen = engine.wsbox(&["exec", &id, "readlink", "/proc/self/ns/time"]).ok().stdout;
    // The payload itself, not only its children: before Linux 6.3 an execve did not enter it.
    let payload = engine.wsbox(&["exec", &id, "readlink", "/proc/1/ns/time"]).ok().stdout;
    assert!(seen == payload && seen.trim() != host, "{seen} {payload} {host}");
}

#[test]
fn clocks_that_can_not_be() {
    for (bundle, words) in [
        (
            Bundle::hardened().set("/linux/timeOffsets", json!({"boottime": {"secs": 1}})),
            ["linux.timeOffsets", "time namespace"],
        ),
        (
            with_time(Bundle::hardened(), json!({"realtime": {"secs": 1}})),
            ["linux.timeOffsets[\"realtime\"]", "monotonic"],
        ),
        (with_time(Bundle::hardened(), json!({"monotonic": {"secs": i64::MAX}})), ["linux.timeOffsets", "write"]),
    ] {
        Engine::new().run(&bundle.script("true"), Door::Userns).fails(1, &words);
    }
}

/// Many threads of a host program, as the library's has: the go-between is a copy of one.
#[test]
fn from_many_threads_at_once() {
    let engine = Engine::new();
    let (_host, _, path) = host(&engine);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let bundle = joining(Bundle::hardened(), &joiners(&path)).script("kill -0 1 && exit 42");
                    assert_eq!(engine.run(&bundle, Door::Library).code, 42);
                }
            });
        }
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("CoreDumping:\t0"), "{status}");
}
