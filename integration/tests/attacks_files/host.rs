// SPDX-License-Identifier: Apache-2.0
//! What the host sees of a container's mounts and standard streams.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::{Bundle, Door, Engine, TempDir, unique};

use crate::{PAYLOAD, SAFE, assert_closed, assert_safe, run, through};

/// Row 19, CVE-2026-88265: the image's /dev/null is a file, and streams are closed or files of the host.
#[test]
fn standard_streams_keep_their_owner() {
    for door in [Door::Root, Door::Userns] {
        let (engine, folder) = (Engine::new(), TempDir::new("streams"));
        let (target, victim) = (folder.path().join("out"), folder.path().join("victim"));
        fs::write(&victim, "VICTIM").unwrap();
        let bundle =
            through(door, Bundle::hardened()).set("/process/user", json!({"uid": 1000, "gid": 1000})).script(PAYLOAD);
        fs::create_dir(bundle.root().join("dev")).unwrap();
        symlink(&victim, bundle.root().join("dev/null")).unwrap();
        bundle.write();
        let out = File::create(&target).unwrap();
        let facts = |path| fs::metadata(path).map(|m| (m.uid(), m.gid(), m.mode())).unwrap();
        let before = (facts(&target), facts(&victim));
        let status = Command::new("timeout")
            .args(["60", "sh", "-c", "exec \"$@\" 2>&-", "sh", &wsbox_path(), "--root"])
            .arg(engine.root())
            .args(["run", "--bundle", &bundle.path().display().to_string(), &unique("c")])
            .stdin(Stdio::null())
            .stdout(out)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(SAFE), "{door:?}");
        assert_eq!(before, (facts(&target), facts(&victim)), "{door:?}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "VICTIM");
        assert_eq!(fs::read_to_string(&target).unwrap(), "PAYLOAD-RAN\n");
    }
}

/// Row 31: on a host whose mounts are all shared, nothing of a container's mounts shows.
#[test]
fn mounts_do_not_propagate_to_the_host() {
    std::thread::spawn(|| Door::ALL.into_iter().for_each(on_a_shared_host)).join().expect("no panic");
}

fn mountinfo() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

fn on_a_shared_host(door: Door) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    for flag in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flag, None::<&str>).unwrap();
    }
    let before = mountinfo();
    assert!(before.contains("shared:"), "the host's mounts are shared");
    for propagation in ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"] {
        let bundle = through(door, Bundle::hardened()).script(PAYLOAD);
        let bundle =
            if propagation.is_empty() { bundle } else { bundle.set("/linux/rootfsPropagation", json!(propagation)) };
        let outcome = run(&bundle, door);
        assert_eq!(outcome.code, SAFE, "{propagation} through {door:?}: {outcome:?}");
        assert_eq!(before, mountinfo(), "after run: {propagation} through {door:?}");
    }
    killed(door, &before);
    if door != Door::Root {
        shared_into_a_user_namespace(door);
    }
}

/// root in a user namespace may mount; what a config shares with it must not carry that to the host.
fn shared_into_a_user_namespace(door: Door) {
    let folder = TempDir::new("shared");
    let before = mountinfo();
    let caps = json!(["CAP_SYS_ADMIN"]);
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps});
    let bind =
        json!({"destination": "/shared", "type": "bind", "source": folder.path(), "options": ["rbind", "rshared"]});
    let bundle = Bundle::plain().user_namespace(true).set("/process/capabilities", sets).mount(bind);
    let outcome = run(&bundle.script("mount -t tmpfs inner /shared && touch /shared/in && exit 42"), door);
    assert_eq!(outcome.code, SAFE, "{door:?}: {outcome:?}");
    assert_eq!(before, mountinfo(), "through {door:?}");
    assert!(!folder.path().join("in").exists());
}

fn killed(door: Door, before: &str) {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(through(door, Bundle::hardened()));
    assert_eq!(before, mountinfo(), "while it runs");
    let pid = engine.state(&id)["pid"].as_i64().expect("a pid") as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    engine.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(before, mountinfo(), "after kill -9 and delete");
}

/// A mount of the host's, until it is dropped.
struct HostMount(std::path::PathBuf);

impl HostMount {
    fn new(at: std::path::PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(at)
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// What the host has mounted below a read-only root is read-only too, and so makes no set-id files.
#[test]
fn a_read_only_root_is_so_below_the_host_s_mounts() {
    for door in Door::ALL {
        let bundle = through(door, Bundle::hardened());
        let data = HostMount::new(bundle.root().join("data"));
        let script = "grep -q ' /data ' /proc/self/mountinfo || exit 3; touch /data/x 2>/dev/null && exit 4; exit 42";
        let bundle = bundle.script(script);
        bundle.write();
        let outcome = Engine::new().run(&bundle, door);
        assert_safe("a mount below the root", door, &outcome);
        assert_eq!(fs::read_dir(&data.0).unwrap().count(), 0);
        // Before the bundle that it lies in.
        drop(data);
    }
}

/// Recursive options hold for a file system of the container's own as well.
#[test]
fn recursive_options_hold_for_every_mount() {
    for door in Door::ALL {
        let options = ["rro", "rnosuid", "rnodev", "rnoexec", "size=1m"];
        let mount = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options});
        let script = "touch /t/x 2>/dev/null && exit 3; grep ' /t ' /proc/self/mountinfo | grep -q ' ro,nosuid,nodev,noexec' || exit 4; exit 42";
        assert_safe("rro", door, &run(&through(door, Bundle::hardened()).mount(mount).script(script), door));
        let mount = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"]});
        assert_closed("idmap", door, &run(&through(door, Bundle::hardened()).mount(mount).script(PAYLOAD), door));
    }
}

/// In a cgroup mount a process of the host would show as 0.
#[test]
fn cgroup_mounts_show_no_process_of_the_host() {
    for door in Door::ALL {
        for bundle in [Bundle::hardened(), Bundle::plain()] {
            let script = "cat $(find /sys/fs/cgroup -name cgroup.procs) > /dev/shm/seen || exit 3; \
                [ -s /dev/shm/seen ] || exit 4; grep -qx 0 /dev/shm/seen && exit 5; exit 42";
            assert_safe("cgroup mounts", door, &run(&through(door, bundle).script(script), door));
        }
    }
}
