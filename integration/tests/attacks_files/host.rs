// SPDX-License-Identifier: Apache-2.0
//! What the host sees of a container's mounts and standard streams.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::{Bundle, Door, Engine, TempDir, unique};

use crate::{PAYLOAD, SAFE, assert_closed_or_safe, run, through};

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
    for propagation in ["", "private", "rprivate", "slave", "rslave"] {
        let bundle = through(door, Bundle::hardened()).script(PAYLOAD);
        let bundle =
            if propagation.is_empty() { bundle } else { bundle.set("/linux/rootfsPropagation", json!(propagation)) };
        let outcome = run(&bundle, door);
        assert_eq!(outcome.code, SAFE, "{propagation} through {door:?}: {outcome:?}");
        assert_eq!(before, mountinfo(), "after run: {propagation} through {door:?}");
    }
    for propagation in ["shared", "rshared", "unbindable"] {
        let bundle =
            through(door, Bundle::hardened()).script(PAYLOAD).set("/linux/rootfsPropagation", json!(propagation));
        assert_closed_or_safe(propagation, door, &run(&bundle, door));
        assert_eq!(before, mountinfo(), "after run: {propagation} through {door:?}");
    }
    killed(door, &before);
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
