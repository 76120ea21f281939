// SPDX-License-Identifier: Apache-2.0
//! wsbox for a user who is not root: the layers, the ids, the devices and the limits that are in force, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use wsbox_integration::cgroup::on_v1;
use wsbox_integration::user::{RANGE, UID, User};
use wsbox_integration::{Bundle, leftover, unique};

/// Where the controllers are on v1 a user can have no limits, for no cgroup of theirs is handed over safely (cgroups(7)).
fn bundle() -> Bundle {
    let bundle = Bundle::hardened();
    if on_v1() { bundle.remove("/linux/resources") } else { bundle }
}

fn delegated() -> User {
    User::new().delegated("+memory +pids +cpu")
}

fn sleeping(user: &User, bundle: Bundle) -> (Bundle, String) {
    let (bundle, id) = (bundle.args(&["sleep", "1000"]), unique("r"));
    user.run(&bundle, &["--detach"], &id).ok();
    (bundle, id)
}

fn left(user: &User, id: &str) -> (Vec<String>, bool) {
    let below = std::process::Command::new("find").arg(user.cgroup()).args(["-type", "d", "-name", "*wsbt-*"]).output();
    let below = String::from_utf8_lossy(&below.expect("findutils").stdout).into_owned();
    let cgroups = below.lines().filter(|dir| dir.ends_with(id)).map(str::to_owned).collect();
    (cgroups, user.root().join(id).exists())
}

#[test]
fn all_layers_are_in_force() {
    let user = delegated();
    let (_bundle, id) = sleeping(&user, bundle());
    let inspected: Value =
        serde_json::from_str(&user.wsbox(&["inspect", "--format", "json", &id]).ok().stdout).unwrap();
    let layers = inspected["layers"].as_array().unwrap();
    let lacking: Vec<_> =
        layers.iter().filter(|layer| layer["inForce"] != true).map(|layer| layer["id"].clone()).collect();
    assert_eq!(lacking, if on_v1() { vec![json!("L5"), json!("L6")] } else { vec![] }, "{inspected}");
    assert!(layers[6]["evidence"].as_str().unwrap().contains(&format!("host uid {UID}")), "{inspected}");
    let state: Value = serde_json::from_str(&user.wsbox(&["state", &id]).ok().stdout).unwrap();
    let pid = state["pid"].as_i64().unwrap();
    let map = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let numbers = |text: String| text.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<u32>>();
    for file in ["uid_map", "gid_map"] {
        assert_eq!(numbers(map(file)), [0, UID, 1, 1, RANGE.0, RANGE.1], "{file}");
    }
    let list: Value = serde_json::from_str(&user.wsbox(&["list", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(id), &json!("running")));
    let cgroup = map("cgroup");
    let name = user.cgroup().file_name().unwrap().to_str().unwrap();
    assert!(cgroup.lines().any(|line| line == format!("0::/{name}/wsbox/{id}")), "{cgroup}");
}

#[test]
fn the_life_of_a_container() {
    let user = delegated();
    let (bundle, id) = sleeping(&user, bundle());
    let says = |args: &[&str]| {
        user.wsbox(&[&["exec"], args, &[&id, "sh", "-c", "id -u; id -G; cat /proc/1/comm"]].concat()).ok().stdout
    };
    assert_eq!(says(&[]), "0\n0\nsleep\n");
    assert_eq!(says(&["--user", "7:8", "--additional-gids", "9"]), "7\n8 9\nsleep\n");
    user.wsbox(&["pause", &id]).ok();
    assert!(user.wsbox(&["state", &id]).ok().stdout.contains("\"paused\""));
    user.wsbox(&["resume", &id]).ok();
    let pids: Vec<i64> = serde_json::from_str(&user.wsbox(&["ps", "--format", "json", &id]).ok().stdout).unwrap();
    assert_eq!(pids.len(), 1);
    if !on_v1() {
        user.wsbox(&["update", "--pids-limit", "77", &id]).ok();
        let file = user.cgroup().join(format!("wsbox/{id}/pids.max"));
        assert_eq!(fs::read_to_string(file).unwrap().trim(), "77");
    }
    user.wsbox(&["kill", &id, "KILL"]).ok();
    wsbox_integration::engine::until("its end", || user.wsbox(&["state", &id]).stdout.contains("\"stopped\""));
    user.wsbox(&["delete", &id]).ok();
    assert_eq!(left(&user, &id), (vec![], false));
    let path = bundle.path().display().to_string();
    user.wsbox(&["create", "--bundle", &path, &id]).ok();
    user.wsbox(&["start", &id]).ok();
    user.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(left(&user, &id), (vec![], false));
}

#[test]
fn limits_hold() {
    if on_v1() {
        // Here the limits of a user are refused, and that is what is to be seen.
        let (user, id) = (delegated(), unique("v1"));
        user.run(&Bundle::hardened(), &[], &id).fails(1, &["linux.resources", "only root"]);
        return assert_eq!(left(&user, &id), (vec![], false));
    }
    let user = delegated();
    let eats = Bundle::hardened().set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
    let outcome = user.run(&eats.script("yes | tr '\\n' x | head -c 64m | grep n"), &[], &unique("oom"));
    assert_eq!(outcome.code, 137, "{outcome:?}");
    assert!(outcome.stderr.contains("memory"), "{outcome:?}");
    let forks = Bundle::hardened().set("/linux/resources/pids", json!({"limit": 4}));
    let outcome = user.run(&forks.script("for i in 1 2 3 4 5 6; do sleep 5 & done"), &[], &unique("pids"));
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

/// What a delegated controller has is in force as root's is, from the start and by update.
#[test]
fn every_field_of_a_delegated_controller() {
    if on_v1() {
        return limits_hold();
    }
    let user = delegated();
    let cpu = json!({"shares": 1024, "quota": 50_000, "period": 100_000, "burst": 10_000});
    let memory = json!({"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432});
    let unified = json!({"memory.high": "50331648"});
    let resources = json!({"memory": memory, "cpu": cpu, "pids": {"limit": 50}, "unified": unified});
    let (_bundle, id) = sleeping(&user, Bundle::hardened().set("/linux/resources", resources));
    let has = |file: &str| {
        let path = user.cgroup().join(format!("wsbox/{id}/{file}"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    };
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpu.weight", "100"),
        ("pids.max", "50"),
    ] {
        assert_eq!(has(file), value, "{file}");
    }
    user.wsbox(&[
        "update",
        "--memory",
        "96m",
        "--memory-swap",
        "96m",
        "--cpu-quota",
        "30000",
        "--pids-limit",
        "60",
        &id,
    ])
    .ok();
    assert_eq!(
        (has("memory.max"), has("cpu.max"), has("pids.max")),
        ("100663296".into(), "30000 100000".into(), "60".into())
    );
    // None of these is in the scope that systemd gives a user, nor in what was handed over here.
    for (field, value) in [
        ("/linux/resources/cpu", json!({"cpus": "0"})),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}])),
        ("/linux/resources/blockIO", json!({"weight": 500})),
    ] {
        let id = unique("lacks");
        let outcome = user.run(&Bundle::hardened().set(field, value).args(&["true"]), &[], &id);
        assert!(outcome.code == 1 && outcome.stderr.contains("linux.resources."), "{field}: {outcome:?}");
        assert_eq!(left(&user, &id), (vec![], false));
    }
}

#[test]
fn without_a_cgroup_the_way_out_is_told() {
    let (user, id) = (User::new(), unique("none"));
    let words =
        ["linux.cgroupsPath: make", "is not delegated to this user", "systemd-run --user --scope -p Delegate=yes"];
    user.run(&bundle().args(&["true"]), &[], &id).fails(1, &words);
    assert!(!user.root().join(&id).exists());
}

#[test]
fn a_controller_that_is_not_delegated_is_named() {
    if on_v1() {
        return limits_hold();
    }
    let (user, id) = (delegated(), unique("lacks"));
    // Handed over without the memory controller: another level between.
    let inner = user.cgroup().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(user.cgroup().join("cgroup.subtree_control"), "+pids").unwrap();
    let path = format!("{}/inner/{id}", user.cgroup().file_name().unwrap().to_str().unwrap());
    user.own(&inner);
    let bundle = Bundle::hardened().set("/linux/cgroupsPath", json!(format!("/{path}"))).args(&["true"]);
    fs::set_permissions(
        user.cgroup().join("cgroup.subtree_control"),
        std::os::unix::fs::PermissionsExt::from_mode(0o444),
    )
    .unwrap();
    std::os::unix::fs::chown(user.cgroup().join("cgroup.subtree_control"), Some(0), Some(0)).unwrap();
    let outcome = user.run(&bundle, &[], &id);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("linux.resources."), "{outcome:?}");
    assert!(outcome.stderr.contains("delegate"), "{outcome:?}");
    assert!(!inner.join(&id).exists() && !user.root().join(&id).exists());
}

#[test]
fn one_id_is_enough() {
    let user = delegated().without_range();
    // A terminal's group is none of the ids then.
    let mut one = bundle().script("id -u; cat /proc/self/uid_map | wc -l; stat -c %u /bin; id -G");
    for mount in one.config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    let outcome = user.run(&one, &[], &unique("one")).ok();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("0\n1\n0\n0\n", ""));
    let mut member = delegated().without_range();
    member.groups = vec![27, 100];
    let outcome = member.run(&one, &[], &unique("member")).ok();
    assert!(outcome.stderr.contains("the payload keeps 2 other groups"), "{outcome:?}");
    let two = one.set("/process/user", json!({"uid": 1, "gid": 0}));
    member.run(&two, &[], &unique("two")).fails(1, &["process.user"]);
}

/// With a range of ids the user's other groups are given up.
#[test]
fn groups_are_given_up() {
    let mut user = delegated();
    user.groups = vec![27, 100];
    let outcome = user.run(&bundle().args(&["cat", "/proc/self/status"]), &[], &unique("groups")).ok();
    assert!(
        outcome.stdout.contains("\nGroups:\t \n") || outcome.stdout.contains("\nGroups:\t\n"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stderr.contains("groups"), "{}", outcome.stderr);
}

#[test]
fn maps_are_the_users_own() {
    let user = delegated();
    let map = |outside: u32, size: u32| json!([{"containerID": 0, "hostID": outside, "size": size}]);
    let with = |uids: Value, gids: Value| {
        bundle().set("/linux/uidMappings", uids).set("/linux/gidMappings", gids).args(&["cat", "/proc/self/uid_map"])
    };
    // The root file system is nobody's in there: what is to be mounted in it has to be there.
    let part = with(map(RANGE.0 + 10, 1000), map(RANGE.0, 1000));
    for mount in part.config["mounts"].as_array().unwrap() {
        fs::create_dir_all(part.root().join(mount["destination"].as_str().unwrap().trim_start_matches('/'))).unwrap();
    }
    fs::create_dir_all(part.root().join("dev")).unwrap();
    let part = user.run(&part, &[], &unique("part")).ok().stdout;
    assert_eq!(part.split_whitespace().nth(2), Some("1000"), "{part}");
    for (uids, gids, field) in [
        (map(0, 1), map(RANGE.0, 1), "linux.uidMappings[0]: 1 ids from 0 on are not"),
        (map(RANGE.0, 1), map(RANGE.0 + 65_535, 2), "linux.gidMappings[0]: 2 ids"),
        (map(UID, 2), map(RANGE.0, 1), "linux.uidMappings[0]"),
    ] {
        let id = unique("maps");
        user.run(&with(uids, gids), &[], &id).fails(1, &[field, "/etc/sub"]);
        assert_eq!(left(&user, &id), (vec![], false));
    }
    for field in ["uidMappings", "gidMappings"] {
        let one = bundle().set(&format!("/linux/{field}"), map(UID, 1)).args(&["true"]);
        user.run(&one, &[], &unique("one")).fails(1, &["Mappings: is missing beside the other one", "give both"]);
    }
    user.run(&bundle().user_namespace(false), &[], &unique("no")).fails(1, &["linux.namespaces", "spec --rootless"]);
}

#[test]
fn devices_are_those_of_dev_and_no_others() {
    let user = delegated();
    let host_dev = json!({"destination": "/mnt", "type": "bind", "source": "/dev", "options": ["rbind", "dev"]});
    let script = "echo x >/dev/null && head -c 4 /dev/zero | od -An -tx1 && ls -l /dev/tty | cut -c 1 && cat /mnt/zero; mknod /tmp/n c 1 5";
    let outcome = user.run(&bundle().mount(host_dev).script(script), &[], &unique("dev"));
    assert!(outcome.stdout.starts_with(" 00 00 00 00\nc\n"), "{outcome:?}");
    assert!(
        outcome.stderr.contains("/mnt/zero: Permission denied") || outcome.stderr.contains("'/mnt/zero'"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("mknod: /tmp/n: Operation not permitted"), "{outcome:?}");
    let device = |major: u32, mode: u32| json!([{"path": "/dev/kmsg", "type": "c", "major": major, "minor": 11, "fileMode": mode}]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata("/dev/kmsg").unwrap().permissions()) & 0o777;
    let run = |devices: Value, rules: Value| {
        let bundle = bundle().set("/linux/devices", devices).script("ls -l /dev/kmsg | cut -c 1");
        let resources = bundle.config["linux"]["resources"].as_object().cloned().unwrap_or_default();
        let bundle = bundle.set("/linux/resources", resources.into()).set("/linux/resources/devices", rules);
        user.run(&bundle, &[], &unique("kmsg"))
    };
    let deny = json!({"allow": false, "access": "rwm"});
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    assert_eq!(run(device(1, mode), json!([deny, allow])).ok().stdout, "c\n");
    run(device(1, mode), json!([deny])).fails(1, &["linux.devices[0]: /dev/kmsg is denied by linux.resources.devices"]);
    run(device(7, mode), json!([])).fails(1, &["linux.devices[0]: /dev/kmsg is not that device on the host"]);
    run(device(1, mode ^ 0o200), json!([])).fails(1, &["linux.devices[0].fileMode", "leave fileMode out"]);
    let given = |device: Value| run(json!([device]), json!([]));
    let null = |key: &str, value: u32| json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, key: value});
    given(null("fileMode", 0o666)).ok();
    given(null("fileMode", 0o600)).fails(1, &["linux.devices[0].fileMode: /dev/null has the mode 666"]);
    // As engines give it: what stat(2) says there.
    given(null("uid", 65534)).ok();
    given(null("uid", 7)).fails(1, &["linux.devices[0].uid: /dev/null is 65534's here, not 7's", "leave uid out"]);
    given(null("gid", 7)).fails(1, &["linux.devices[0].gid"]);
}

/// A node that is bound is under the rules too.
#[test]
fn rules_hold_for_bound_nodes() {
    let user = delegated();
    let run = |source: &str, rules: Value| {
        let bind = json!({"destination": "/mnt/node", "type": "bind", "source": source, "options": ["bind"]});
        let bundle = bundle().mount(bind).script("stat -c %F /mnt/node; head -c 1 /mnt/node | wc -c");
        let resources = bundle.config["linux"]["resources"].as_object().cloned().unwrap_or_default();
        let bundle = bundle.set("/linux/resources", resources.into()).set("/linux/resources/devices", rules);
        user.run(&bundle, &[], &unique("bound"))
    };
    let deny = json!({"allow": false, "access": "rwm"});
    let rule =
        |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": access});
    assert_eq!(run("/dev/zero", json!([deny])).ok().stdout, "character special file\n1\n", "one of the usual");
    let words = ["mounts[", "its source is denied by linux.resources.devices"];
    for rules in [json!([deny]), json!([rule(false, "w")]), json!([deny, rule(true, "r")]), json!([rule(true, "m")])] {
        run("/dev/kmsg", rules).fails(1, &words);
    }
    for rules in [json!([]), json!([deny, rule(true, "rwm")])] {
        assert!(run("/dev/kmsg", rules).ok().stdout.starts_with("character special file\n"));
    }
}

/// What keeps devices away are flags of mounts, which this capability may change.
#[test]
fn no_rules_for_who_may_remount() {
    let user = delegated();
    let bind = json!({"destination": "/mnt", "type": "bind", "source": "/dev", "options": ["rbind"]});
    let script = "mount -o remount,bind,dev /mnt && head -c 1 /mnt/zero | wc -c";
    let run = |rules: Value| {
        let bundle = bundle()
            .mount(bind.clone())
            .set(
                "/process/capabilities",
                json!({"bounding": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"]}),
            )
            .remove("/linux/seccomp")
            .script(script);
        let resources = bundle.config["linux"]["resources"].as_object().cloned().unwrap_or_default();
        let bundle = bundle.set("/linux/resources", resources.into()).set("/linux/resources/devices", rules);
        user.run(&bundle, &[], &unique("admin"))
    };
    let deny = json!([{"allow": false, "access": "rwm"}]);
    run(deny.clone()).fails(1, &["process.capabilities: CAP_SYS_ADMIN could remount away", "linux.resources.devices"]);
    let allow = json!({"allow": true, "access": "rwm"});
    for rules in [json!([]), json!([deny[0], allow])] {
        assert_eq!(run(rules).ok().stdout, "1\n", "without rules it may");
    }
    run(json!([allow, {"allow": false, "type": "c", "major": 1, "minor": 5, "access": "w"}]))
        .fails(1, &["CAP_SYS_ADMIN"]);
    let bundle = bundle();
    let resources = bundle.config["linux"]["resources"].as_object().cloned().unwrap_or_default();
    let bundle = bundle.set("/linux/resources", resources.into()).set("/linux/resources/devices", deny);
    let (_bundle, id) = sleeping(&user, bundle);
    user.wsbox(&["exec", "--cap", "CAP_SYS_ADMIN", &id, "true"]).fails(255, &["CAP_SYS_ADMIN could remount away"]);
    user.wsbox(&["exec", &id, "true"]).ok();
    user.wsbox(&["delete", "--force", &id]).ok();
}

/// Where root's own ids are those of the host's, in a user namespace all the same: what a container there is under does not hang on its id.
#[test]
fn root_of_a_namespace_with_the_hosts_ids() {
    let (bundle, id) = (bundle().user_namespace(false).args(&["sleep", "1000"]), unique("ident"));
    let bundle = bundle.without_mount("/dev/pts");
    let root = wsbox_integration::TempDir::new("ident");
    let script = "w=\"$0 --root $1\"; $w run --detach --bundle $2 $3 && $w exec $3 id -G; $w delete --force $3";
    let wsbox = wsbox_integration::engine::wsbox_path();
    let (state, path) = (root.path().display().to_string(), bundle.write().path().display().to_string());
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--mount", "--map-root-user", "sh", "-c", script, &wsbox, &state, &path, &id]);
    let outcome = wsbox_integration::engine::captured(&mut command).ok();
    assert_eq!(outcome.stdout, "0\n", "{outcome:?}");
    leftover::assert_nothing_left(root.path(), &id);
}

/// Others of the user's cgroup step aside, and stay there: to enable and disable controllers again would take away the limits of what came
/// beside them. Nobody's of another cgroup does.
#[test]
fn who_steps_aside() {
    if on_v1() {
        return limits_hold();
    }
    let (user, id) = (delegated(), unique("aside"));
    let leaf = user.cgroup().join("wsbox@callers");
    let procs = |dir: &Path| fs::read_to_string(dir.join("cgroup.procs")).unwrap();
    let mut idle = user.command(&["sleep", "1000"]).spawn().unwrap();
    wsbox_integration::engine::until("it to be there", || !procs(user.cgroup()).is_empty());
    let fails = bundle().args(&["/none"]);
    user.run(&fails, &[], &id).fails(127, &["/none"]);
    assert_eq!((procs(user.cgroup()).as_str(), procs(&leaf).trim()), ("", idle.id().to_string().as_str()));
    let beside = user.cgroup().join("beside");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("cgroup.procs"), idle.id().to_string()).unwrap();
    user.own(&beside);
    let name = user.cgroup().file_name().unwrap().to_str().unwrap().to_owned();
    let inside = bundle().set("/linux/cgroupsPath", json!(format!("/{name}/beside/{id}"))).args(&["true"]);
    user.run(&inside, &[], &id).fails(1, &["has processes of its own", "choose another linux.cgroupsPath"]);
    assert_eq!(procs(&beside).trim(), idle.id().to_string());
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn the_hosts_files_are_the_users_or_nobodys() {
    let user = delegated();
    let shared = wsbox_integration::TempDir::new("shared");
    fs::write(shared.path().join("roots"), "secret").unwrap();
    fs::set_permissions(shared.path().join("roots"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mine = shared.path().join("mine");
    fs::create_dir(&mine).unwrap();
    user.own(&mine);
    let bind = json!({"destination": "/mnt", "type": "bind", "source": shared.path(), "options": ["bind"]});
    let script = "cat /mnt/roots; echo ok >/mnt/mine/file; stat -c %u /mnt/roots /mnt/mine/file";
    let outcome = user.run(&bundle().mount(bind).script(script), &[], &unique("files")).ok();
    assert_eq!(outcome.stdout, "65534\n0\n");
    assert!(outcome.stderr.contains("Permission denied"), "{outcome:?}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(mine.join("file")).unwrap());
    assert_eq!(owner, UID);
}

#[test]
fn what_spec_rootless_writes_runs() {
    let user = delegated();
    let home = wsbox_integration::TempDir::new("bundle");
    wsbox_integration::bundle::fill(&home.path().join("rootfs"));
    user.own(home.path());
    let path = home.path().display().to_string();
    user.wsbox(&["spec", "--rootless", "--bundle", &path]).ok();
    let config = fs::read_to_string(home.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["process"]["args"] = json!(["id", "-u"]);
    config["process"]["terminal"] = json!(false);
    fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(user.wsbox(&["run", "--bundle", &path, &unique("spec")]).ok().stdout, "0\n");
    assert_eq!(leftover::mounts(&path), Vec::<String>::new());
    assert!(Path::new(&path).join("rootfs/bin/busybox").exists());
}

#[test]
fn violations_are_counted() {
    let user = delegated();
    let (_bundle, id) = {
        let bundle = bundle().script("mount -t tmpfs x /tmp; sleep 1000");
        let id = unique("v");
        user.run(&bundle, &["--detach", "--count-violations"], &id).ok();
        (bundle, id)
    };
    wsbox_integration::engine::until("a count", || {
        user.wsbox(&["inspect", &id]).ok().stdout.contains("blocked: mount")
    });
    user.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(left(&user, &id), (vec![], false));
}
