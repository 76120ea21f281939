// SPDX-License-Identifier: Apache-2.0
//! Bad input: one clear message that names the field or file, and nothing left behind.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Bundle, Canary, Engine, Outcome, TempDir, leftover, unique};

/// Runs a bundle whose payload leaves a marker, and looks for what it left.
fn attempt(bundle: &Bundle) -> Outcome {
    bundle.write();
    attempt_at(bundle.path())
}

fn attempt_at(path: &Path) -> Outcome {
    let (engine, id) = (Engine::new(), unique("bad"));
    let outcome = engine.wsbox(&["run", "--bundle", &path.display().to_string(), &id]);
    leftover::assert_nothing_left(engine.root(), &id);
    outcome
}

fn bundle() -> Bundle {
    Bundle::hardened().args(&["echo", "RAN"])
}

/// The config with `value` at `pointer` fails with these words, before the payload.
fn refused(pointer: &str, value: Value, words: &[&str]) {
    let outcome = attempt(&bundle().set(pointer, value)).fails(1, words);
    assert!(!outcome.stdout.contains("RAN"));
}

#[test]
fn a_missing_or_broken_config() {
    let empty = TempDir::new("empty");
    attempt_at(empty.path()).fails(1, &["config.json", "no such file or directory", "wsbox spec"]);
    attempt_at(Path::new("/no/such/bundle")).fails(1, &["/no/such/bundle"]);
    for text in ["", "{", "[]", "null", "{\"ociVersion\": 3}"] {
        fs::write(empty.path().join("config.json"), text).unwrap();
        let outcome = attempt_at(empty.path());
        assert_eq!(outcome.code, 1, "{text}: {outcome:?}");
        assert!(outcome.stderr.contains("config.json") || outcome.stderr.contains("ociVersion"), "{text}: {outcome:?}");
    }
}

#[test]
fn unknown_fields_are_named_and_the_container_runs() {
    let outcome = attempt(&bundle().set("/linux/resources/memmory", json!({"limit": 1}))).ok();
    assert_eq!(outcome.stdout, "RAN\n");
    assert!(outcome.stderr.contains("warning: linux.resources.memmory"), "{outcome:?}");
}

/// Those of a newer kernel, say: not granted, and no reason to fail.
#[test]
fn capabilities_that_nobody_knows_are_named_and_the_container_runs() {
    let outcome = attempt(&bundle().set("/process/capabilities/bounding", json!(["CAP_NEW"]))).ok();
    assert_eq!(outcome.stdout, "RAN\n");
    assert!(outcome.stderr.contains("process.capabilities.bounding: \"CAP_NEW\""), "{outcome:?}");
}

#[test]
fn ids_are_names_not_paths() {
    let (engine, bundle) = (Engine::new(), bundle());
    bundle.write();
    let path = bundle.path().display().to_string();
    for id in ["..", ".", "a/b", "../x", "a b", &"x".repeat(300)] {
        for command in ["run", "create"] {
            engine.wsbox(&[command, "--bundle", &path, id]).fails(1, &["container id"]);
        }
        for command in ["state", "start", "kill", "delete"] {
            engine.wsbox(&[command, id]).fails(1, &["container id"]);
        }
    }
    assert_eq!(fs::read_dir(engine.root()).unwrap().count(), 0);
}

#[test]
fn a_root_that_is_no_folder() {
    refused("/root/path", json!("config.json"), &["root.path", "not a directory"]);
    refused("/root/path", json!("nothing"), &["root.path", "no such file or directory"]);
    attempt(&bundle().remove("/root")).fails(1, &["root: is missing"]);
}

#[test]
fn a_mount_that_leads_out_of_the_root() {
    let canary = Canary::new();
    let bundle = bundle()
        .mount(json!({"destination": "/out/new/deep", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}));
    symlink(canary.path(), bundle.root().join("out")).unwrap();
    let outcome = attempt(&bundle);
    canary.assert_untouched();
    // The link is taken as one of the container's own root: the place is made inside, or not at all.
    assert!(outcome.code == 0 || outcome.stderr.contains("mounts[8].destination"), "{outcome:?}");
}

#[test]
fn fields_that_can_not_be() {
    refused("/linux/cgroupsPath", json!("/a/../../b"), &["linux.cgroupsPath", ".."]);
    refused(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 5, "hostID": 200_000, "size": 1}]),
        &["linux.gidMappings"],
    );
    let overlapping =
        json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 5, "hostID": 200_000, "size": 1}]);
    let two = bundle().set("/linux/gidMappings", overlapping.clone()).set("/linux/uidMappings", overlapping);
    attempt(&two).fails(1, &["linux.uidMappings[1]", "overlaps"]);
    let without_root = json!([{"containerID": 1, "hostID": 100_000, "size": 10}]);
    let both = bundle().set("/linux/gidMappings", without_root.clone()).set("/linux/uidMappings", without_root);
    attempt(&both).fails(1, &["linux.uidMappings", "container id 0"]);
    refused("/process/user/uid", json!(70_000), &["process.user.uid", "no id 70000, only 0 to 65535"]);
    refused("/process/user/additionalGids", json!([1, 70_000]), &["process.user.additionalGids[1]", "70000"]);
    refused("/linux/seccomp/defaultErrnoRet", json!(65536), &["linux.seccomp.defaultErrnoRet", "65536"]);
    refused("/linux/seccomp/syscalls/0/errnoRet", json!(0x7ffa_0000), &["linux.seccomp.syscalls[0].errnoRet"]);
    let notify =
        bundle().remove("/linux/seccomp/defaultErrnoRet").set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
    attempt(&notify).fails(1, &["linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY"]);
    refused("/process/args", json!([]), &["process.args"]);
    refused("/process/cwd", json!("relative"), &["process.cwd"]);
    refused("/process/env", json!(["NOEQUALS"]), &["process.env[0]"]);
    refused("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]), &["process.rlimits[0]"]);
    refused("/linux/namespaces", json!([{"type": "pid"}, {"type": "pid"}]), &["linux.namespaces[1]"]);
    refused("/linux/namespaces", json!([{"type": "pid"}]), &["linux.namespaces", "mount namespace"]);
    refused("/hooks", json!({"createContainer": [{"path": "bin/true"}]}), &["hooks.createContainer[0].path"]);
    refused("/hooks", json!({"prestart": [{"path": "true"}]}), &["hooks.prestart[0].path", "absolute"]);
    refused("/hooks", json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}), &["hooks.poststop[0].timeout"]);
    refused("/linux/resources/blockIO", json!({"weight": 5}), &["linux.resources.blockIO.weight", "10 to 1000"]);
    refused("/ociVersion", json!("2.0.0"), &["ociVersion"]);
    let device = |path: &str, major: i64| json!([{"path": path, "type": "c", "major": major, "minor": 3}]);
    refused("/linux/devices", device("/dev/x", 4097), &["linux.devices[0]", "4097:3"]);
    refused("/linux/devices", device("/dev/", 1), &["linux.devices[0].path", "directory"]);
    refused("/linux/devices", device("/proc/../proc/x", 1), &["linux.devices[0].path", "/proc"]);
    refused("/linux/sysctl", json!({"net.ipv4.ip_forward": "0\u{0}1"}), &["linux.sysctl"]);
    refused("/linux/sysctl", json!({"kernel.domainname": "x".repeat(65)}), &["kernel.domainname", "64 bytes"]);
    refused("/mounts/6/type", json!("tmpfs\u{0}x"), &["mounts[6].type"]);
    let host = json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}, {"type": "uts", "path": "/proc/self/ns/uts"}]);
    let joined = bundle().remove("/hostname").set("/linux/namespaces", host.clone());
    attempt(&joined.set("/linux/sysctl", json!({"net.ipv4.tcp_fin_timeout": "61"})))
        .fails(1, &["linux.sysctl", "host"]);
    attempt(&bundle().set("/linux/namespaces", host).set("/hostname", json!("hijacked"))).fails(1, &["hostname"]);
    refused("/mounts/1/options/0", json!("nosuchoption=1"), &["mounts[1].options[0]", "nosuchoption"]);
    refused("/mounts/6/type", json!("nosuchfs"), &["mounts[6].type", "nosuchfs"]);
    refused(
        "/mounts/6",
        json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
        &["mounts[6].source", "/no/such/source"],
    );
}

#[test]
fn a_syscall_that_nobody_knows() {
    let bundle = bundle();
    let mut names = bundle.config["linux"]["seccomp"]["syscalls"][0]["names"].clone();
    names.as_array_mut().unwrap().push(json!("no_such_call"));
    let told = attempt(&bundle.set("/linux/seccomp/syscalls/0/names", names)).ok();
    assert!(
        told.stderr.contains("no_such_call") && told.stderr.contains("linux.seccomp.syscalls[0].names"),
        "{told:?}"
    );
}

#[test]
fn programs_that_can_not_be_executed() {
    let run = |args: &[&str]| {
        let bundle = Bundle::hardened().args(args);
        fs::write(bundle.root().join("bin/text"), "no program").unwrap();
        fs::write(bundle.root().join("bin/script"), "#!/no/such/interpreter\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bundle.root().join("bin/script"), mode).unwrap();
        attempt(&bundle)
    };
    run(&["nothing"]).fails(127, &["exec: \"nothing\": executable file not found in $PATH"]);
    run(&["/bin/nothing"]).fails(127, &["stat /bin/nothing: no such file or directory"]);
    run(&["/bin/text"]).fails(126, &["permission denied"]);
    run(&["text"]).fails(126, &["permission denied"]);
    run(&["/bin"]).fails(126, &["is a directory"]);
    run(&["/bin/script"]).fails(127, &["no such file or directory", "interpreter"]);
}

/// By then nothing can be said any more, and an init that only tried to exit would never end.
#[test]
fn a_filter_that_denies_all_but_the_start() {
    let filter = |names: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let bundle = Bundle::hardened().args(&["/bin/script"]).set("/linux/seccomp", filter(json!(["execve"])));
    fs::write(bundle.root().join("bin/script"), "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.root().join("bin/script"), mode).unwrap();
    assert_ne!(attempt(&bundle).code, 0);
    let closed = Bundle::hardened().set("/linux/seccomp", filter(json!(["read"])));
    attempt(&closed).fails(1, &["linux.seccomp: denies execve(2)"]);
}

#[test]
fn create_and_start_tell_it_too() {
    let (engine, bundle, id) = (Engine::new(), Bundle::hardened().args(&["nothing"]), unique("create"));
    bundle.write();
    engine
        .wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id])
        .fails(127, &["executable file not found in $PATH"]);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn a_state_root_that_can_not_be_written() {
    for options in ["ro", "size=4k,nr_inodes=3"] {
        let (mount, bundle, id) = (TempDir::new("full"), bundle(), unique("full"));
        bundle.write();
        let script = format!(
            "mount -t tmpfs -o size=64k none {root} && mount -o remount,{options} {root}; {wsbox} --root {root} run --bundle {bundle} {id}; code=$?; ls {root}; exit $code",
            root = mount.path().display(),
            wsbox = wsbox_path(),
            bundle = bundle.path().display(),
        );
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let outcome = finish(child).fails(1, &[&mount.path().display().to_string()]);
        assert_eq!(outcome.stdout, "", "{outcome:?}");
        assert_eq!(leftover::cgroups(&id), Vec::<PathBuf>::new());
    }
}

#[test]
fn without_the_rights_for_it_nothing_is_begun() {
    let dir = TempDir::new("user");
    let wsbox = dir.path().join("wsbox").display().to_string();
    fs::copy(wsbox_path(), &wsbox).unwrap();
    chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let cases = [(Bundle::hardened(), "linux.cgroupsPath"), (Bundle::plain(), "linux.namespaces")];
    for (bundle, named) in cases {
        let (id, state) = (unique("user"), dir.path().join("state"));
        bundle.write();
        let run = [
            &wsbox,
            "--root",
            &state.display().to_string(),
            "run",
            "--bundle",
            &bundle.path().display().to_string(),
            &id,
        ];
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(run);
        let child = nobody.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child).fails(1, &[named]);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "{named}");
        assert_eq!(leftover::cgroups(&id), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_broken_record_is_named_and_can_be_deleted() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let file = engine.root().join(&id).join("state.json");
    let good = fs::read(&file).unwrap();
    for bad in ["", "{", "{\"version\": 99}"] {
        fs::write(&file, bad).unwrap();
        engine.wsbox(&["state", &id]).fails(1, &["state.json"]);
    }
    fs::write(&file, good).unwrap();
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn a_record_that_is_no_file_keeps_nobody_waiting() {
    for make in ["mkfifo", "mkdir"] {
        let engine = Engine::new();
        let (_bundle, id) = engine.sleeping(Bundle::hardened());
        let (_other, beside) = engine.sleeping(Bundle::hardened());
        let file = engine.root().join(&id).join("state.json");
        fs::remove_file(&file).unwrap();
        assert!(Command::new(make).arg(&file).status().unwrap().success());
        engine.wsbox(&["state", &id]).fails(1, &["state.json", "delete --force"]);
        let listed = engine.wsbox(&["list"]).ok();
        assert!(listed.stdout.contains(&beside) && listed.stderr.contains("state.json"), "{listed:?}");
        engine.wsbox(&["delete", "--force", &id]).ok();
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

/// They may be those of a namesake below another root.
#[test]
fn processes_without_a_record_are_told_and_left_alone() {
    let (engine, name) = (Engine::new(), unique("group"));
    let (_bundle, id) = engine.sleeping(Bundle::hardened().set("/linux/cgroupsPath", json!(format!("/wsbox/{name}"))));
    let (folder, pid) = (engine.root().join(&id), engine.state(&id)["pid"].as_i64().unwrap());
    let (record, config) =
        (fs::read(folder.join("state.json")).unwrap(), fs::read(folder.join("config.json")).unwrap());
    fs::remove_file(folder.join("state.json")).unwrap();
    engine.wsbox(&["delete", &id]).fails(1, &[&id, "no record", &name]);
    let told = engine.wsbox(&["delete", "--force", &id]).ok();
    assert!(told.stderr.contains("no record") && !folder.exists(), "{told:?}");
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    // As it was, so that it can be ended.
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("state.json"), record).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// The form of the systemd manager says nothing without it.
#[test]
fn a_cgroup_that_nobody_knows_any_more_is_told() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let folder = engine.root().join(&id);
    let record = fs::read(folder.join("state.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["linux"]["cgroupsPath"] = json!("a.slice:wsbox:b");
    let config = serde_json::to_vec(&config).unwrap();
    fs::write(folder.join("config.json"), &config).unwrap();
    fs::write(folder.join("state.json"), "{").unwrap();
    let told = engine.wsbox(&["delete", "--force", &id]).ok();
    assert!(told.stderr.contains("systemd manager") && !folder.exists(), "{told:?}");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    engine.wsbox(&["delete", &id]).fails(1, &[&id, "systemd manager"]);
    fs::write(folder.join("state.json"), record).unwrap();
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn a_name_with_a_line_end_is_one_line() {
    refused("/root/path", json!("no\nwsbox: such"), &["root.path", "no\\nwsbox"]);
}

/// Also one of another version, as after an upgrade: its processes must not go on behind the back of `delete`.
#[test]
fn delete_force_ends_what_it_can_not_read() {
    for cut in [false, true] {
        let engine = Engine::new();
        let name = unique("group");
        let bundle = Bundle::hardened();
        let bundle = if cut { bundle } else { bundle.set("/linux/cgroupsPath", json!(format!("/wsbox/{name}"))) };
        let (_bundle, id) = engine.sleeping(bundle);
        let pid = engine.state(&id)["pid"].as_i64().unwrap();
        let file = engine.root().join(&id).join("state.json");
        let text = fs::read_to_string(&file).unwrap().replace("\"version\":1", "\"version\":2");
        fs::write(&file, if cut { &text[..text.len() / 2] } else { &text }).unwrap();
        engine.wsbox(&["state", &id]).fails(1, &["state.json"]);
        engine.wsbox(&["delete", "--force", &id]).ok();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "cut {cut}: {stat}");
        assert_eq!(leftover::cgroups(if cut { &id } else { &name }), Vec::<PathBuf>::new());
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

/// Its --log is not ours.
#[test]
fn the_payloads_words_are_no_flags() {
    let (engine, place) = (Engine::new(), wsbox_integration::TempDir::new("log"));
    let (theirs, ours) =
        (place.path().join("theirs").display().to_string(), place.path().join("ours").display().to_string());
    assert_eq!(engine.wsbox(&["exec", "--oops", "web", "prog", "--log", &theirs]).code, 1);
    assert!(!std::path::Path::new(&theirs).exists());
    engine.wsbox(&["--log-format", "json", "--log", &ours, "exec", "--oops", "web", "prog", "--log", &theirs]);
    let log = fs::read_to_string(&ours).unwrap();
    assert!(log.starts_with('{') && log.contains("--oops") && !std::path::Path::new(&theirs).exists(), "{log}");
}

#[test]
fn the_same_id_twice() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]).fails(1, &["already exists"]);
    assert_eq!(engine.state(&id)["status"], "running");
}
