// SPDX-License-Identifier: Apache-2.0
//! The audit log: what is done is in it, what can not be logged is not done, and what was changed shows.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use wsbox_integration::engine::until;
use wsbox_integration::leftover::assert_nothing_left;
use wsbox_integration::user::{UID, User};
use wsbox_integration::{Bundle, Engine, Outcome, TempDir, unique};

fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn audited(engine: &Engine, log: &Path, args: &[&str]) -> Outcome {
    let log = log.display().to_string();
    engine.wsbox(&[&["--audit-log", &log], args].concat())
}

#[test]
fn every_command_is_a_line_and_the_chain_holds() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("audit"), unique("a"));
    let log = folder.path().join("audit.jsonl");
    let bundle =
        Bundle::hardened().args(&["sleep", "1000"]).set("/annotations", json!({"dev.wsbox.image.digest": "sha256:12"}));
    bundle.write();
    let path = bundle.path().display().to_string();
    audited(&engine, &log, &["create", "--bundle", &path, &id]).ok();
    audited(&engine, &log, &["start", &id]).ok();
    audited(&engine, &log, &["exec", "-e", "TOKEN=secret", "-eKEY=secret", &id, "echo", "line\nbreak", "-e", "x=1"])
        .ok();
    let process = folder.path().join("process.json");
    fs::write(&process, r#"{"cwd": "/", "args": ["true", "x"], "user": {"uid": 0, "gid": 0}}"#).unwrap();
    audited(&engine, &log, &["exec", "--process", &process.display().to_string(), &id]).ok();
    audited(&engine, &log, &["state", &id]).ok();
    audited(&engine, &log, &["kill", &id, "KILL"]).ok();
    until("its end", || engine.state(&id)["status"] == "stopped");
    assert_ne!(audited(&engine, &log, &["start", &id]).code, 0);
    audited(&engine, &log, &["delete", "--force", &id]).ok();

    let lines = lines(&log);
    let types: Vec<&str> = lines.iter().map(|line| line["eventType"].as_str().unwrap()).collect();
    assert_eq!(types, ["create", "start", "exec", "exec", "kill", "start", "delete"], "state changes nothing");
    for line in &lines {
        assert_eq!((&line["schema"], &line["container"], &line["user"]["uid"]), (&json!(1), &json!(id), &json!(0)));
        assert_eq!((&line["bundle"], &line["imageDigest"]), (&json!(path), &json!("sha256:12")));
        assert_eq!(line["resource"], json!(engine.root().join(&id)));
    }
    let action = |at: usize| {
        lines[at]["action"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(action(2), ["exec", "-e", "TOKEN", "-eKEY", &id, "echo", "line\nbreak", "-e", "x=1"]);
    assert!(action(3).ends_with(&["--", "true", "x"]), "{:?}", action(3));
    assert!(!fs::read_to_string(&log).unwrap().contains("secret"));
    assert_eq!((1..=8).filter(|layer| lines[1]["metadata"]["layers"][format!("L{layer}")] == true).count(), 8);
    assert_eq!((&lines[5]["result"], &lines[6]["result"]), (&json!("failure"), &json!("success")));
    assert!(lines[5]["metadata"]["error"].as_str().unwrap().contains("stopped"));

    let whole = log.display().to_string();
    let verified = engine.wsbox(&["audit", "verify", &whole]).ok().stdout;
    assert!(verified.starts_with("7 lines, unbroken"), "{verified}");
    let changed = fs::read_to_string(&log).unwrap().replacen("KILL", "TERM", 1);
    fs::write(&log, changed).unwrap();
    engine.wsbox(&["audit", "verify", &whole]).fails(1, &["audit.jsonl:6", "does not follow the line before"]);
}

#[test]
fn a_run_is_told_when_it_starts_and_when_it_ends() {
    let (engine, folder) = (Engine::new(), TempDir::new("audit"));
    let log = folder.path().join("audit.jsonl");
    let bundle = Bundle::hardened().args(&["sh", "-c", "exit 7"]);
    bundle.write();
    let path = format!("{}/", bundle.path().display());
    assert_eq!(audited(&engine, &log, &["--profile", "production", "run", &path]).code, 7);
    let lines = lines(&log);
    assert_eq!((&lines[0]["eventType"], &lines[1]["eventType"]), (&json!("run"), &json!("exit")));
    assert_eq!(
        (&lines[0]["metadata"]["profile"], &lines[1]["metadata"]["exitCode"]),
        (&json!("production"), &json!(7))
    );
    assert_eq!(lines[0]["container"], lines[1]["container"]);
    assert!(lines[0]["container"].as_str().unwrap().starts_with("ws-"));
}

/// However a variable is spelt on the command line.
#[test]
fn values_of_variables_are_not_logged() {
    let (engine, folder) = (Engine::new(), TempDir::new("audit"));
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let log = folder.path().join("audit.jsonl");
    for (flags, shown) in [
        (&["-ccap_sys_time", "-e", "TOKEN=s3cret"][..], &["-ccap_sys_time", "-e", "TOKEN"][..]),
        (&["-e", "", "-e", "TOKEN=s3cret"], &["-e", "", "-e", "TOKEN"]),
        (&["--env=", "-e", "TOKEN=s3cret"], &["--env=", "-e", "TOKEN"]),
        (&["-deTOKEN=s3cret", "--env", "A=s3cretK=1", "-e=K=1"], &["-deTOKEN", "--env", "A", "-e=K"]),
        (&["--no-new-privs", "--env=A=s3cret=x"], &["--no-new-privs", "--env=A"]),
    ] {
        audited(&engine, &log, &[&["exec"], flags, &[&id, "echo", "A=b"]].concat());
        let wanted = [&["exec"], shown, &[&id, "echo", "A=b"]].concat();
        assert_eq!(lines(&log).pop().unwrap()["action"], json!(wanted));
    }
    assert!(!fs::read_to_string(&log).unwrap().contains("s3cret"));
}

/// Denials in one entry, however many there were.
#[test]
fn what_was_denied_is_in_the_last_line() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("audit"), unique("a"));
    let log = folder.path().join("audit.jsonl");
    let script = "i=0; while [ $i -lt 50 ]; do mount -t tmpfs x /tmp 2>/dev/null; i=$((i+1)); done; true";
    let bundle = Bundle::hardened().args(&["sh", "-c", script]);
    bundle.write();
    let path = bundle.path().display().to_string();
    audited(&engine, &log, &["run", "--count-violations", "--bundle", &path, &id]).ok();
    audited(&engine, &log, &["run", "--detach", "--count-violations", "--bundle", &path, &id]).ok();
    until("its end", || engine.state(&id)["status"] == "stopped");
    audited(&engine, &log, &["delete", &id]).ok();
    let lines = lines(&log);
    for (at, kind) in [(1, "exit"), (3, "delete")] {
        let denied = &lines[at]["metadata"]["denied"];
        assert_eq!((&lines[at]["eventType"], &denied["total"]), (&json!(kind), &json!(50)), "{lines:#?}");
        assert_eq!((&denied["blocked"][0]["syscall"], &denied["blocked"][0]["count"]), (&json!("mount"), &json!(50)));
    }
}

/// Nothing runs that can not be logged, unless a flag says so.
#[test]
fn what_can_not_be_logged_is_not_done() {
    let (engine, folder) = (Engine::new(), TempDir::new("audit"));
    let marker = folder.path().join("marker");
    fs::write(&marker, "").unwrap();
    let bundle = Bundle::hardened()
        .mount(json!({"destination": "/m", "type": "bind", "source": folder.path(), "options": ["bind", "rw"]}))
        .args(&["sh", "-c", "echo ran > /m/marker"]);
    bundle.write();
    let (path, id) = (bundle.path().display().to_string(), unique("a"));
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    mount_small_tmpfs(&full);
    let occupied = folder.path().join("occupied");
    fs::write(&occupied, "not an audit log\n").unwrap();
    let run = ["run", "--bundle", &path, &id];
    for (log, why) in [
        ("/nowhere/audit".into(), "no such file or directory"),
        (full.join("audit").display().to_string(), "no space left on device"),
        (occupied.display().to_string(), "none of an audit log"),
        ("journald".to_owned(), "/run/systemd/journal/socket"),
    ] {
        let outcome = engine.wsbox(&[&["--audit-log", log.as_str()][..], &run].concat());
        outcome.fails(1, &[why, "on-error=continue"]);
        assert_eq!(fs::read_to_string(&marker).unwrap(), "", "{log}: the payload ran");
        assert_nothing_left(engine.root(), &id);
    }
    let options = ["--audit-log", "/nowhere/audit", "--audit-options", "on-error=continue"];
    let outcome = engine.wsbox(&[&options[..], &run].concat()).ok();
    assert!(outcome.stderr.contains("warning: --audit-log /nowhere/audit"), "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "ran\n");
    nix::mount::umount(&full).unwrap();
    engine.wsbox(&["--audit-log", "journal", "list"]).code_is_usage();
}

/// A log that breaks while the container is made: the container goes again.
#[test]
fn a_container_whose_line_fails_is_none() {
    for command in ["create", "run"] {
        let (engine, folder, id) = (Engine::new(), TempDir::new("audit"), unique("a"));
        let log = folder.path().join("audit");
        let script = format!("echo other >{}", log.display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let bundle = Bundle::hardened().set("/hooks", json!({"createRuntime": hook})).args(&["sleep", "100"]);
        bundle.write();
        let (path, audit) = (bundle.path().display().to_string(), log.display().to_string());
        let outcome = engine.wsbox(&["--audit-log", &audit, command, "--bundle", &path, &id]);
        assert_eq!(outcome.code, 1, "{command}: {outcome:?}");
        assert!(outcome.stderr.contains("none of an audit log"), "{command}: {outcome:?}");
        assert_nothing_left(engine.root(), &id);
    }
}

/// A user's `run` becomes root of a user namespace, and is the user's still.
#[test]
fn a_users_lines_are_the_users() {
    let user = User::new().delegated("+memory +pids +cpu");
    let log = user.home().join("audit.jsonl");
    let bundle = Bundle::hardened().remove("/linux/resources").args(&["true"]);
    bundle.write();
    user.own(bundle.path());
    let (path, audit) = (format!("{}/", bundle.path().display()), log.display().to_string());
    user.wsbox(&["--audit-log", &audit, "run", &path]).ok();
    let lines = lines(&log);
    assert_eq!(lines.len(), 2);
    lines.iter().for_each(|line| assert_eq!(line["user"]["uid"], json!(UID), "{line}"));
}

/// A command that fails says why, also where that can not be logged.
#[test]
fn the_commands_own_error_is_told_beside_the_logs() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("audit"), unique("a"));
    let log = folder.path().join("audit").display().to_string();
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo other >{log}; exit 3")]}]);
    let bundle = Bundle::hardened().set("/hooks", json!({"createRuntime": hook}));
    bundle.write();
    let path = bundle.path().display().to_string();
    let outcome = engine.wsbox(&["--audit-log", &log, "create", "--bundle", &path, &id]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for error in ["hooks.createRuntime", "none of an audit log"] {
        assert_eq!(outcome.stderr.matches(error).count(), 1, "{outcome:?}");
    }
}

/// A power cut leaves half a line: what comes after is logged, and the check says what it found.
#[test]
fn half_a_line_holds_nobody_up() {
    let (engine, folder) = (Engine::new(), TempDir::new("audit"));
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let log = folder.path().join("audit.jsonl");
    audited(&engine, &log, &["exec", &id, "true"]).ok();
    let whole = log.display().to_string();
    let half = fs::read_to_string(&log).unwrap() + "{\"action\":[\"ex";
    fs::write(&log, half).unwrap();
    engine.wsbox(&["audit", "verify", &whole]).fails(1, &["audit.jsonl:2: is none of an audit log", "it has no end"]);
    audited(&engine, &log, &["delete", "--force", &id]).ok();
    let told = engine.wsbox(&["audit", "verify", &whole]).ok().stdout;
    assert!(told.starts_with("3 lines, unbroken: 1 to 3;"), "{told}");
    assert!(
        told.contains("warning: ") && told.contains("the 14 bytes before it are a line that was cut off"),
        "{told}"
    );
}

#[test]
fn the_check_says_where_the_log_begins() {
    let (engine, folder) = (Engine::new(), TempDir::new("audit"));
    let log = folder.path().join("audit.jsonl");
    let whole = log.display().to_string();
    let rotated = ["--audit-log", &whole, "--audit-options", "max-size=1,max-files=2", "kill", "nobody"];
    (0..5).for_each(|_| drop(engine.wsbox(&rotated).fails(1, &["does not exist"])));
    let told = engine.wsbox(&["audit", "verify", &whole]).ok().stdout;
    assert!(told.starts_with("3 lines, unbroken: 3 to 5;"), "{told}");
    assert!(told.contains("warning: lines before 3 are not here: rotated away, or removed"), "{told}");
    let told = engine.wsbox(&["audit", "verify", "--format", "json", &whole]).ok().stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["lines"], &told["first"], &told["last"]), (&json!(3), &json!(3), &json!(5)));
    let anchor = |line: u32, hash: &str| format!("--anchor={line} {hash}");
    let (last, other) = (anchor(5, told["head"].as_str().unwrap()), anchor(2, &"0".repeat(64)));
    engine.wsbox(&["audit", "verify", &whole, &last]).ok();
    engine.wsbox(&["audit", "verify", &whole, &last, &other]).fails(1, &["begins after it, with line 3"]);
    fs::remove_file(folder.path().join("audit.jsonl.1")).unwrap();
    engine.wsbox(&["audit", "verify", &whole]).fails(1, &["audit.jsonl:1: is line 5 after line 3"]);
    let many = ["--audit-log", &whole, "--audit-options", "max-files=4000000000", "list"];
    assert!(engine.wsbox(&many).stderr.contains("is more than 1000 files"));
}

fn mount_small_tmpfs(on: &Path) {
    nix::mount::mount(Some("tmpfs"), on, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k")).unwrap();
}

trait Usage {
    fn code_is_usage(self);
}

impl Usage for Outcome {
    fn code_is_usage(self) {
        assert_eq!(self.code, 1, "{self:?}");
        assert!(self.stderr.contains("neither journald, syslog nor a path"), "{}", self.stderr);
    }
}
