// SPDX-License-Identifier: Apache-2.0
//! Row 3: the runtime's own binary, by /proc/PID/exe.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde_json::json;
use wsbox_integration::engine::{until, wsbox_path};
use wsbox_integration::{Bundle, Door, Engine, TempDir};

use crate::common::{behind, run, run_words, shell};

type Facts = Vec<(u64, i64, i64, String)>;

/// Inode, times and sum of the command and of this program, which embeds the library.
fn facts() -> Facts {
    let programs = [PathBuf::from(wsbox_path()), std::env::current_exe().expect("this test")];
    let fact = |path: &PathBuf| {
        let metadata = fs::metadata(path).expect("a binary");
        let sum = shell(&format!("sha256sum <{}", path.display())).ok().stdout;
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), sum)
    };
    programs.iter().map(fact).collect()
}

/// A payload, or its interpreter, that is whatever starts it.
#[test]
fn the_payload_is_the_runtime() {
    let before = facts();
    for door in Door::ALL {
        for program in ["/proc/self/exe", "/bin/evil", "/proc/1/exe"] {
            let bundle = Bundle::hardened().args(&[program]);
            let evil = bundle.root().join("bin/evil");
            fs::write(&evil, "#!/proc/self/exe\n").expect("a script");
            fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).expect("its mode");
            let outcome = run(bundle, door);
            assert_ne!(outcome.code, 0, "{door:?} {program}: {outcome:?}");
        }
    }
    assert_eq!(before, facts());
}

/// A first process that lies in wait for those that come in.
#[test]
fn nobody_opens_the_binary_for_writing() {
    let before = facts();
    for (door, count) in [(Door::Root, 500), (Door::Userns, 50), (Door::Library, 50)] {
        let (engine, out) = (Engine::new(), TempDir::new("writers"));
        fs::set_permissions(out.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
        let bundle = behind(door, Bundle::hardened().args(&["probe", "exe-writers", "/out/stop"]));
        fs::create_dir(bundle.root().join("out")).expect("a mount point");
        let bundle = bundle
            .mount(json!({"destination": "/out", "type": "bind", "source": out.path(), "options": ["bind", "rw"]}));
        let words = run_words(&engine, &bundle, door, "");
        let attacker = std::thread::spawn(move || shell(&words));
        let running = || engine.wsbox(&["list", "--quiet"]).stdout.trim().to_owned();
        until("the attacker", || out.path().join("stop.ready").exists());
        let id = running();
        // The payload is there a moment before the record says so.
        until("the record", || engine.state(&id)["status"] == "running");
        // On one slow CPU the attacker may never run while a short one does: that it sees processes is shown by this one.
        engine.wsbox(&["exec", &id, "sleep", "0.5"]).ok();
        for _ in 0..count {
            let exec = engine.wsbox(&["exec", &id, "true"]);
            // An attempt at busybox itself makes its execve ETXTBSY, also where the mount is read-only (execve(2)).
            if !exec.stderr.contains("text file busy") {
                exec.ok();
            }
        }
        fs::write(out.path().join("stop"), "").expect("the end");
        let outcome = attacker.join().expect("the attacker").ok();
        let seen = outcome.stdout.lines().find_map(|line| line.split_once("exe-seen: ok ")?.1.parse::<u32>().ok());
        assert!(seen > Some(0), "the attacker saw nobody: {outcome:?}");
        assert!(outcome.stdout.lines().any(|line| line.trim_end() == "exe-writers: ok"), "{door:?}: {outcome:?}");
    }
    assert_eq!(before, facts());
}
