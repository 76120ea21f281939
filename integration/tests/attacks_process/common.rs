// SPDX-License-Identifier: Apache-2.0
//! Runs wsbox from a shell line, so that an attacker can prepare what it inherits; the library in a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Bundle, Door, Engine, Outcome, unique};

/// A bundle for a door.
pub fn behind(door: Door, bundle: Bundle) -> Bundle {
    bundle.user_namespace(door != Door::Root)
}

/// The same, without seccomp.
pub fn unfiltered(bundle: Bundle) -> Bundle {
    bundle.remove("/linux/seccomp")
}

/// The same, as a user.
pub fn as_user(bundle: Bundle, id: u32) -> Bundle {
    bundle.set("/process/user", json!({"uid": id, "gid": id}))
}

/// The probe, on the host.
pub fn probe_path() -> PathBuf {
    PathBuf::from(wsbox_path()).with_file_name("probe")
}

/// A shell on the host.
pub fn shell(line: &str) -> Outcome {
    let mut command = Command::new("bash");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().expect("bash runs"))
}

/// What the probe says on the host, where nothing is in its way.
pub fn on_host(words: &str) -> String {
    shell(&format!("{} {words}", probe_path().display())).ok().stdout
}

/// The shell words that run a bundle through a door; `options` are the command's.
pub fn run_words(engine: &Engine, bundle: &Bundle, door: Door, options: &str) -> String {
    bundle.write();
    let (root, path) = (engine.root().display(), bundle.path().display());
    if door == Door::Library {
        let test = std::env::current_exe().expect("this test").display().to_string();
        return format!(
            "env WSBT_ROOT={root} WSBT_BUNDLE={path} {test} --ignored --exact --nocapture common::library_child"
        );
    }
    format!("{} --root {root} run {options} --bundle {path} {}", wsbox_path(), unique("c"))
}

/// Runs a bundle through a door.
pub fn run(bundle: Bundle, door: Door) -> Outcome {
    let engine = Engine::new();
    let bundle = behind(door, bundle);
    shell(&run_words(&engine, &bundle, door, ""))
}

/// Not a test: the process that [`run_words`] starts for the library.
#[test]
#[ignore = "started by the other tests"]
fn library_child() {
    let Some(path) = std::env::var_os("WSBT_BUNDLE") else { return };
    let root = wsbox::Root::new(std::env::var_os("WSBT_ROOT").map(PathBuf::from));
    let id = unique("lib");
    let ran = wsbox::Bundle::open(path.as_ref())
        .and_then(|bundle| wsbox::run(&root, &id, &bundle, &wsbox::Options::default()))
        .and_then(|process| process.wait());
    let deleted = wsbox::delete(&root, &id, true);
    let code = match ran {
        Ok(exit) => exit.code(),
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    };
    deleted.expect("it can be deleted");
    std::process::exit(code);
}

/// Panics unless the line that begins with `WHAT: ` says one of the answers.
pub fn assert_says(stdout: &str, what: &str, answers: &[&str]) {
    let start = format!("{what}: ");
    let answer = stdout
        .lines()
        .find_map(|line| Some(line.trim_end().split_once(&start)?.1))
        .unwrap_or_else(|| panic!("no {what} in: {stdout}"));
    assert!(answers.contains(&answer), "{what}: {answer}, not one of {answers:?}");
}

/// Panics if a probe succeeded or a script said ESCAPED, or if nothing was said at all.
pub fn assert_all_refused(outcome: &Outcome) {
    let said = &outcome.stdout;
    assert!(said.contains("END"), "the payload did not come to its end: {outcome:?}");
    assert!(!said.contains(": ok") && !said.contains("ESCAPED"), "{said}");
}
