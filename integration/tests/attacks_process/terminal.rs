// SPDX-License-Identifier: Apache-2.0
//! The caller's terminal and files as stdio.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use wsbox_integration::{Bundle, Door, Engine, TempDir};

use crate::common::{as_user, assert_says, behind, probe_path, run_words, shell, unfiltered};

/// Runs a line with a terminal of its own as its controlling terminal and stdio.
fn on_terminal(line: &str) -> String {
    shell(&format!("script -qec '{line}' /dev/null")).stdout
}

const PUSHES: [&str; 3] = ["tiocsti", "tiocsti-dirty", "tioclinux"];

fn pushes(bundle: Bundle, door: Door) -> String {
    let engine = Engine::new();
    let bundle = behind(door, bundle.script(&PUSHES.map(|what| format!("probe {what}")).join(";")));
    on_terminal(&run_words(&engine, &bundle, door, ""))
}

/// Row 23: nothing may be typed into the caller's terminal.
#[test]
fn the_terminal_takes_no_input_from_inside() {
    let control = on_terminal(&format!("{} tiocsti-dirty", probe_path().display()));
    assert!(control.contains("tiocsti-dirty: ok"), "the host's kernel allows it: {control}");
    for door in Door::ALL {
        let said = pushes(Bundle::hardened(), door);
        for what in PUSHES {
            assert_says(&said, what, &["EPERM"]);
        }
    }
}

/// Row 23: without seccomp it is the session of its own that protects.
#[test]
fn the_session_alone_protects_the_terminal() {
    for door in Door::ALL {
        let said = pushes(unfiltered(Bundle::hardened()), door);
        assert_says(&said, "tiocsti", &["EPERM", "EIO"]);
        assert_says(&said, "tiocsti-dirty", &["EPERM", "EIO"]);
        assert_says(&said, "tioclinux", &["EPERM", "ENOTTY"]);
    }
}

/// Row 35: a file of the host as stdio stays whose it was.
#[test]
fn stdio_files_keep_their_owner() {
    for door in Door::ALL {
        for bundle in [Bundle::hardened(), Bundle::plain()] {
            let (engine, dir) = (Engine::new(), TempDir::new("stdio"));
            let file = dir.path().join("file");
            fs::write(&file, "secret\n").expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
            let bundle = behind(door, as_user(bundle.args(&["cat"]), 1000));
            let words = run_words(&engine, &bundle, door, "");
            let outcome = shell(&format!("{words} <{0} 2>>{0}", file.display())).ok();
            assert!(outcome.stdout.contains("secret"), "{outcome:?}");
            let after = fs::metadata(&file).expect("the file");
            assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (0, 0, 0o600), "{door:?}");
        }
    }
}
