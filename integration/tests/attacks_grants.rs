// SPDX-License-Identifier: Apache-2.0
//! Attacks by what the caller grants: a writable root, a writable folder, standard streams, a session, a count.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Bundle, Canary, Door, Engine, Outcome, TempDir, unique};

/// Where the container has ids of its own, but its files are the host's.
const MAPPED: [Door; 2] = [Door::Userns, Door::Library];

/// Every way to the bits that a program has without capabilities; the numbers are x86_64's and aarch64's for fchmodat2 and openat2.
const MAKE_SET_ID: &str = "cd $0; cat /bin/busybox > by_chmod; chmod 6755 by_chmod; cat /bin/busybox > by_steps; chmod u+s by_steps; \
    chmod g+s by_steps; mkdir folder; chmod 2777 folder; touch by_install; chmod 4777 by_install; true";

/// Files below `dir` that carry set-id bits.
fn set_id_files(dir: &Path) -> Vec<(PathBuf, u32, u32)> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let facts = entries.map(|entry| (entry.path(), entry.metadata().expect("metadata")));
    facts
        .filter(|(_, metadata)| metadata.mode() & 0o6000 != 0 && !metadata.is_symlink())
        .map(|(path, metadata)| (path, metadata.uid(), metadata.mode() & 0o7777))
        .collect()
}

/// The payload tries in `place`, which is the host's `dir`.
fn no_set_id(what: &str, bundle: Bundle, place: &str, dir: &Path) {
    let bundle = bundle.args(&["sh", "-c", MAKE_SET_ID, place]);
    for door in MAPPED {
        Engine::new().run(&bundle, door);
        assert!(dir.join("by_chmod").exists(), "{what} through {door:?}: the payload could write");
        assert_eq!(set_id_files(dir), [], "{what} through {door:?}: made on the host");
        for name in ["by_chmod", "by_steps", "by_install"] {
            fs::remove_file(dir.join(name)).expect("made by the payload");
        }
        fs::remove_dir(dir.join("folder")).expect("made by the payload");
    }
}

/// Decision 8, for the root: with a writable one, the container's root is the owner of what lies in the bundle.
#[test]
fn a_writable_root_takes_no_set_id_file() {
    for seccomp in [true, false] {
        let bundle = Bundle::hardened().set("/root/readonly", json!(false));
        let bundle = if seccomp { bundle } else { bundle.remove("/linux/seccomp") };
        let root = bundle.root();
        no_set_id(&format!("a writable root, seccomp {seccomp}"), bundle, "/", &root);
    }
}

/// Decision 8, for binds: of contradicting options the same holds for the mount and for the filter.
#[test]
fn a_writable_bind_takes_no_set_id_file() {
    let options: [&[&str]; 4] = [&["rbind"], &["rbind", "rw"], &["rbind", "ro", "rw"], &["bind", "ro", "rrw"]];
    for options in options {
        let folder = TempDir::new("work");
        let mount = json!({"destination": "/work", "type": "bind", "source": folder.path(), "options": options});
        no_set_id(&format!("{options:?}"), Bundle::hardened().mount(mount), "/work", folder.path());
    }
}

/// The control: on a tmpfs of the container's own the same script does make them.
#[test]
fn the_set_id_script_works_where_it_may() {
    let script = format!("{MAKE_SET_ID}; stat -c %a /tmp/by_chmod /tmp/folder");
    let outcome = Engine::new().run(&Bundle::hardened().args(&["sh", "-c", &script, "/tmp"]), Door::Userns).ok();
    assert_eq!(outcome.stdout, "6755\n2777\n", "{outcome:?}");
}

/// `wsbox ARGS` with a stream of the host's.
fn with_stream(engine: &Engine, args: &[&str], number: i32, what: &Path) -> Outcome {
    let redirection = if number == 0 { "<" } else { "<>" };
    // bash opens a folder for reading only, whatever the number.
    let redirection = if what.is_dir() { "<" } else { redirection };
    let line = format!(
        "exec {number}{redirection}{}; exec {} --root {} \"$@\"",
        what.display(),
        wsbox_path(),
        engine.root().display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &line, "bash"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().expect("bash runs"))
}

fn reads_canary(number: i32) -> String {
    // Each stream that is left gets what was read.
    format!(
        "m=$(cat /proc/self/fd/{number}/marker; cd /proc/self/fd/{number} && cat marker); echo \"$m\"; echo \"$m\" >&2; exit 0"
    )
}

fn assert_unread(what: &str, outcome: &Outcome, canary: &Canary) {
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(!said.contains("HOST-MARKER"), "{what}: the host's folder was read: {outcome:?}");
    canary.assert_untouched();
}

/// Row 11's class: a folder as a standard stream is a way out of the root for whoever walks `..` from it.
#[test]
fn a_folder_as_a_stream_is_no_way_out() {
    for door in [Door::Root, Door::Userns] {
        for number in [0, 1, 2] {
            let (canary, engine) = (Canary::new(), Engine::new());
            let bundle = Bundle::hardened().user_namespace(door != Door::Root).script(&reads_canary(number));
            bundle.write();
            let path = bundle.path().display().to_string();
            let outcome = with_stream(&engine, &["run", "--bundle", &path, &unique("c")], number, canary.path());
            assert_unread(&format!("run through {door:?} with a folder on {number}"), &outcome, &canary);
        }
    }
}

/// The same for a process that is added.
#[test]
fn a_folder_as_a_stream_of_exec_is_no_way_out() {
    let (canary, engine) = (Canary::new(), Engine::new());
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    for number in [0, 1, 2] {
        let script = reads_canary(number);
        let outcome = with_stream(&engine, &["exec", &id, "sh", "-c", &script], number, canary.path());
        assert_unread(&format!("exec with a folder on {number}"), &outcome, &canary);
    }
}

/// Row 42 for `exec`: the added process is in the container's session, not the caller's.
#[test]
fn exec_brings_no_key_of_the_caller() {
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let bundle = Bundle::hardened().remove("/linux/seccomp").user_namespace(door != Door::Root);
        let (_bundle, id) = engine.sleeping(bundle);
        let (wsbox, root, probe) =
            (wsbox_path(), engine.root().display(), Path::new(&wsbox_path()).with_file_name("probe"));
        let line = format!(
            "serial=$(keyctl add user secret value @s) || exit 9; {} keyring-read $serial; echo HOST; \
             {wsbox} --root {root} exec {id} probe keyring-read $serial",
            probe.display()
        );
        let mut command = Command::new("keyctl");
        command.args(["session", "-", "sh", "-c", &line]).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("keyutils is installed");
        let outcome = finish(child).ok();
        let (host, inside) = outcome.stdout.split_once("HOST\n").unwrap_or_else(|| panic!("{outcome:?}"));
        assert!(host.contains(": ok"), "the control: the caller reads its key: {outcome:?}");
        assert!(inside.contains("keyring-read") && !inside.contains(": ok"), "{door:?}: {inside}");
    }
}

/// A count of descriptors that is no count: an error that names it, or as many as there are.
#[test]
fn descriptors_without_end() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().args(&["echo", "RAN"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    for count in ["4294967295", "4294967293", "4294967296"] {
        let outcome = engine.wsbox(&["run", "--preserve-fds", count, "--bundle", &path, &unique("c")]);
        assert!([0, 1, 2].contains(&outcome.code), "{count}: {outcome:?}");
        assert!(outcome.code == 0 || outcome.stderr.contains("preserve-fds"), "{count}: {outcome:?}");
        assert_eq!(outcome.code == 0, outcome.stdout == "RAN\n", "{count}: {outcome:?}");
    }
}

/// Dispositions, masks and variables of the caller are not the payload's.
#[test]
fn the_callers_signals_and_environment_stay_outside() {
    let script = "grep -E 'Sig(Ign|Blk)' /proc/self/status; env";
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let bundle = Bundle::hardened().user_namespace(door != Door::Root).script(script);
        bundle.write();
        let line = format!(
            "trap '' TERM HUP INT; umask 0; WSBT_SECRET=1 env --block-signal=USR1 {} --root {} run --bundle {} {}",
            wsbox_path(),
            engine.root().display(),
            bundle.path().display(),
            unique("c")
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let outcome = finish(command.spawn().expect("bash runs")).ok();
        assert_eq!(outcome.stdout.matches("\t0000000000000000").count(), 2, "{door:?}: {outcome:?}");
        assert!(outcome.stdout.contains("PATH=") && !outcome.stdout.contains("WSBT_SECRET"), "{door:?}: {outcome:?}");
    }
}

/// Streams that are files of the host keep their owner and mode through `exec` too (row 35).
#[test]
fn streams_of_exec_keep_their_owner() {
    let (engine, folder) = (Engine::new(), TempDir::new("streams"));
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let file = folder.path().join("stream");
    fs::write(&file, "").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let facts = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid(), m.mode())).expect("metadata");
    let before = facts(&file);
    let mut command = engine.command(&["exec", "--user", "1000", &id, "echo", "RAN"]);
    command.stdout(File::options().append(true).open(&file).expect("a file"));
    assert!(command.status().expect("wsbox runs").success());
    assert_eq!(fs::read_to_string(&file).expect("a file"), "RAN\n");
    assert_eq!(facts(&file), before);
}

/// Decision 8, for file capabilities: on the host's disk they would be the host's (capabilities(7), "Namespaced file capabilities").
#[test]
fn no_file_capability_is_made_on_the_host() {
    for door in MAPPED {
        for writable in [true, false] {
            let folder = TempDir::new("caps");
            let option = if writable { "rw" } else { "ro" };
            let mount =
                json!({"destination": "/work", "type": "bind", "source": folder.path(), "options": ["bind", option]});
            let sets = ["bounding", "effective", "permitted"].map(|set| (set.to_owned(), json!(["CAP_SETFCAP"])));
            // The control: where nothing of the host can be written, they can be made.
            let (place, wanted) = if writable { ("/work", "EOPNOTSUPP") } else { ("/tmp", "ok") };
            let bundle = Bundle::hardened()
                .mount(mount)
                .set("/process/capabilities", serde_json::Map::from_iter(sets).into())
                .remove("/linux/seccomp")
                .script(&format!("cp /bin/busybox {place}/x && probe setcap {place}/x | grep -q ': {wanted}'"));
            Engine::new().run(&bundle, door).ok();
            if writable {
                let caps =
                    Command::new("getcap").arg(folder.path().join("x")).output().expect("libcap2-bin is installed");
                assert_eq!(String::from_utf8_lossy(&caps.stdout), "");
            }
        }
    }
}

/// Root of the container would be the host's.
#[test]
fn a_profile_takes_no_user_namespace_of_the_hosts_root() {
    let mut holder = Command::new("unshare").args(["--user", "sleep", "1000"]).spawn().expect("unshare");
    let file = |name: &str| format!("/proc/{}/{name}", holder.id());
    let ours = fs::read_link("/proc/self/ns/user").expect("a namespace");
    wsbox_integration::engine::until("it", || fs::read_link(file("ns/user")).is_ok_and(|its| its != ours));
    ["uid_map", "gid_map"].into_iter().for_each(|map| fs::write(file(map), "0 0 65536").expect("root may"));
    let path = file("ns/user");
    let (engine, mut bundle) = (Engine::new(), Bundle::hardened().script("echo RAN"));
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "user");
    namespaces.push(json!({"type": "user", "path": path}));
    bundle.write();
    let path = bundle.path().display().to_string();
    let outcome = engine.wsbox(&["--profile", "production", "run", "--bundle", &path, &unique("c")]);
    let _ = holder.kill().and_then(|()| holder.wait());
    let outcome = outcome.fails(1, &["linux.namespaces", "maps id 0 of the host", "under a profile"]);
    assert!(!outcome.stdout.contains("RAN"));
}

/// Those that no user namespace guards are the kernel's to mount.
#[test]
fn a_profile_takes_no_file_system_of_the_hosts() {
    for kind in ["devtmpfs", "ext4", "debugfs", "securityfs"] {
        let mount = json!({"destination": "/x", "type": kind, "source": "/dev/vda", "options": ["rw"]});
        let (engine, bundle) =
            (Engine::new(), Bundle::hardened().user_namespace(false).mount(mount).script("echo RAN"));
        bundle.write();
        let path = bundle.path().display().to_string();
        let outcome = engine.wsbox(&["--profile", "development", "run", "--bundle", &path, &unique("c")]);
        let outcome = outcome.fails(1, &["mounts[8].type", kind, "profile development refuses"]);
        assert!(!outcome.stdout.contains("RAN"));
    }
}
