// SPDX-License-Identifier: Apache-2.0
//! The calls as containerd's shim and conmon make them (docker.md), their logs, and what they get wrong: runc's exit code, the words
//! that are matched, and a container that `delete --force` clears.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until, wsbox_path};
use wsbox_integration::{Bundle, Engine, Outcome, TempDir, leftover, unique};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A shim: a bundle, which is its working directory, and the flags before each command.
struct Shim {
    engine: Engine,
    bundle: Bundle,
    id: String,
}

impl Shim {
    fn new(bundle: Bundle) -> Self {
        bundle.write();
        Self { engine: Engine::new(), bundle, id: unique("shim") }
    }

    fn log(&self) -> String {
        text(&self.bundle.path().join("log.json"))
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = std::process::Command::new(wsbox_path());
        command.args(["--root", &text(self.engine.root()), "--log", &self.log(), "--log-format", "json"]).args(args);
        // Files, not pipes: what runs in the container keeps them open.
        let (out, err) = (self.bundle.path().join("out"), self.bundle.path().join("err"));
        let file = |path: &Path| Stdio::from(fs::File::create(path).unwrap());
        let child = command
            .current_dir(self.bundle.path())
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .unwrap();
        let code = finish(child).code;
        Outcome { code, stdout: fs::read_to_string(out).unwrap(), stderr: fs::read_to_string(err).unwrap() }
    }

    /// What the shim tells of a failure: the last line of its log with the level error.
    fn last_error(&self) -> Option<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let error = lines.iter().rev().find(|line| line["level"] == "error")?;
        let time = error["time"].as_str().expect("a time");
        assert!(time.len() >= 20 && time.contains('T') && time.ends_with('Z'), "RFC 3339: {time}");
        Some(error["msg"].as_str().expect("a message").to_owned())
    }

    fn says(&self, code: i32, args: &[&str], words: &[&str]) {
        let _ = fs::remove_file(self.log());
        let outcome = self.call(args);
        assert_eq!(outcome.code, code, "{args:?}: {outcome:?}");
        let message = self.last_error().unwrap_or_else(|| panic!("{args:?}: no error is logged: {outcome:?}"));
        words.iter().for_each(|word| assert!(message.contains(word), "{args:?}: {word:?} is not in {message:?}"));
    }

    fn create(&self) {
        let pid_file = text(&self.bundle.path().join("init.pid"));
        self.call(&["create", "--bundle", &text(self.bundle.path()), "--pid-file", &pid_file, &self.id]).ok();
    }

    fn clear(&self) {
        self.call(&["delete", "--force", &self.id]).ok();
        leftover::assert_nothing_left(self.engine.root(), &self.id);
    }

    fn status(&self) -> Value {
        self.engine.state(&self.id)["status"].clone()
    }
}

fn sleeper() -> Shim {
    Shim::new(Bundle::hardened().args(&["sleep", "1000"]))
}

#[test]
fn the_shims_calls() {
    let shim = sleeper();
    let (bundle, id) = (text(shim.bundle.path()), shim.id.as_str());
    let file = |name: &str| text(&shim.bundle.path().join(name));
    shim.call(&[
        "--rootless",
        "auto",
        "create",
        "--bundle",
        &bundle,
        "--pid-file",
        &file("init.pid"),
        "--no-pivot",
        "--no-new-keyring",
        id,
    ])
    .ok();
    shim.call(&["--debug=true", "--systemd-cgroup=false", "start", id]).ok();
    fs::write(file("exec.json"), r#"{"args":["sleep","1033"],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]}"#)
        .unwrap();
    shim.call(&["exec", "--process", &file("exec.json"), "--detach", "--pid-file", &file("1.pid"), id]).ok();
    let pids: Vec<i32> = serde_json::from_str(&shim.call(&["ps", "--format", "json", id]).ok().stdout).unwrap();
    let known = |name: &str| fs::read_to_string(file(name)).unwrap().parse::<i32>().unwrap();
    let mut both = [known("init.pid"), known("1.pid")];
    both.sort_unstable();
    assert_eq!(pids, both);
    shim.call(&["pause", id]).ok();
    shim.call(&["resume", id]).ok();
    // The id first, as other engines and people have it.
    shim.call(&["update", id, "--pids-limit", "44"]).ok();
    shim.call(&["kill", "--all", id, "9"]).ok();
    until("the end", || shim.status() == "stopped");
    shim.call(&["delete", id]).ok();
    shim.call(&["delete", id, "--force=true"]).ok();
    shim.call(&["delete", "-f", id]).ok();
    leftover::assert_nothing_left(shim.engine.root(), id);
    assert_eq!(shim.last_error(), None);
    let log = fs::read_to_string(shim.log()).unwrap();
    assert!(log.contains(r#""level":"debug""#) && log.contains(": start"), "{log}");
}

#[test]
fn logs_are_json_or_text_and_are_appended_to() {
    let shim = sleeper();
    shim.says(1, &["state", "nobody"], &["container nobody does not exist"]);
    shim.says(255, &["exec", "nobody", "true"], &["does not exist"]);
    // The command line as well: the shim reads nothing else.
    shim.says(1, &["state"], &["required"]);
    shim.says(1, &["kill", "--nosuchflag", "x"], &["--nosuchflag"]);
    shim.says(1, &["nosuchcommand"], &["nosuchcommand"]);
    let before = fs::read_to_string(shim.log()).unwrap();
    shim.call(&["start", "nobody"]);
    let after = fs::read_to_string(shim.log()).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    let plain = text(&shim.bundle.path().join("log.txt"));
    for format in [&["--log-format=text"][..], &[]] {
        let _ = fs::remove_file(&plain);
        shim.engine.wsbox(&[&["--log", &plain], format, &["state", "nobody"]].concat()).fails(1, &["does not exist"]);
        let line = fs::read_to_string(&plain).unwrap();
        assert!(line.starts_with("time=\"20") && line.contains(" level=error msg=\"container nobody"), "{line}");
    }
    assert_eq!(shim.engine.wsbox(&["--log-format", "xml", "state", "nobody"]).code, 1);
    // A log that can not be written is no reason to fail.
    let told = shim.engine.wsbox(&["--log", "/no/such/log", "list"]).ok();
    assert!(told.stderr.contains("/no/such/log"), "{told:?}");
    let said = shim.engine.wsbox(&["--debug", "list"]).ok();
    assert!(said.stderr.contains("debug: wsbox") && said.stderr.contains("list"), "{said:?}");
    for flag in ["--version", "-v"] {
        let said = shim.engine.wsbox(&[flag]).ok().stdout;
        assert_eq!(said, format!("wsbox version {}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION")));
    }
}

/// Whose stderr is the payload's.
#[test]
fn warnings_are_in_the_log_alone() {
    let shim = Shim::new(Bundle::hardened().set("/linux/resources/memmory", json!({})).script("echo mine >&2"));
    let created = shim.call(&["create", "--bundle", &text(shim.bundle.path()), &shim.id]).ok();
    assert_eq!((created.stdout, created.stderr), (String::new(), String::new()));
    let log = fs::read_to_string(shim.log()).unwrap();
    assert!(log.contains(r#""level":"warning""#) && log.contains("linux.resources.memmory"), "{log}");
    shim.clear();
    // An engine without a log, as conmon mostly is, has the payload's stderr all the same.
    let created = shim.engine.wsbox(&["create", "--bundle", &text(shim.bundle.path()), &shim.id]).ok();
    assert_eq!(created.stderr, "");
    // A person is told.
    shim.clear();
    let told = shim.engine.wsbox(&["run", "--bundle", &text(shim.bundle.path()), &shim.id]).ok();
    assert!(told.stderr.contains("warning: linux.resources.memmory") && told.stderr.ends_with("mine\n"), "{told:?}");
}

/// Where the engine asks for systemd's cgroups nothing is made; and what it calls to clear up does not fail for it.
#[test]
fn systemd_cgroups_are_refused_where_they_would_be_made() {
    let shim = sleeper();
    let path = text(shim.bundle.path());
    shim.says(1, &["--systemd-cgroup", "create", "--bundle", &path, &shim.id], &["--systemd-cgroup", "cgroupfs"]);
    shim.call(&["--systemd-cgroup", "delete", "--force", &shim.id]).ok();
    shim.create();
    shim.call(&["--systemd-cgroup", "start", &shim.id]).ok();
    shim.call(&["--systemd-cgroup", "kill", &shim.id, "9"]).ok();
    shim.clear();
}

#[test]
fn an_unknown_id() {
    let shim = sleeper();
    for args in [
        &["state", "nobody"][..],
        &["start", "nobody"],
        &["kill", "nobody", "15"],
        &["kill", "--all", "nobody", "9"],
        &["pause", "nobody"],
        &["resume", "nobody"],
        &["ps", "--format", "json", "nobody"],
        &["update", "--pids-limit", "5", "nobody"],
        &["events", "--stats", "nobody"],
        &["checkpoint", "nobody"],
        &["inspect", "nobody"],
        &["delete", "nobody"],
    ] {
        shim.says(1, args, &["does not exist"]);
    }
    shim.says(255, &["exec", "nobody", "true"], &["does not exist"]);
    shim.call(&["delete", "--force", "nobody"]).ok();
}

#[test]
fn create_and_start_twice() {
    let shim = sleeper();
    shim.create();
    shim.says(1, &["create", "--bundle", &text(shim.bundle.path()), &shim.id], &["already exists"]);
    assert_eq!(shim.status(), "created");
    shim.says(1, &["resume", &shim.id], &["container not paused"]);
    shim.call(&["start", &shim.id]).ok();
    shim.says(1, &["start", &shim.id], &["cannot start an already running container"]);
    shim.says(1, &["delete", &shim.id], &["that is not stopped: running"]);
    assert_eq!(shim.status(), "running");
    shim.clear();
}

/// There is no payload to dump.
#[test]
fn one_that_is_paused_before_its_start() {
    let shim = sleeper();
    shim.create();
    shim.call(&["pause", &shim.id]).ok();
    shim.says(1, &["checkpoint", &shim.id], &["created"]);
    shim.says(1, &["delete", &shim.id], &["that is not stopped: paused"]);
    shim.clear();
}

#[test]
fn one_that_is_paused() {
    let shim = sleeper();
    shim.create();
    shim.call(&["start", &shim.id]).ok();
    shim.call(&["pause", &shim.id]).ok();
    shim.says(255, &["exec", &shim.id, "true"], &["cannot exec in a paused container", "--ignore-paused"]);
    shim.says(1, &["pause", &shim.id], &["container not running"]);
    shim.says(1, &["start", &shim.id], &["paused"]);
    shim.says(1, &["delete", &shim.id], &["that is not stopped: paused"]);
    assert_eq!(shim.status(), "paused");
    shim.clear();
}

#[test]
fn one_that_has_stopped() {
    let shim = sleeper();
    shim.create();
    shim.call(&["start", &shim.id]).ok();
    shim.call(&["kill", &shim.id, "9"]).ok();
    until("the end", || shim.status() == "stopped");
    shim.says(1, &["kill", &shim.id, "15"], &["container not running"]);
    shim.says(255, &["exec", &shim.id, "true"], &["cannot exec in a stopped container"]);
    shim.says(1, &["start", &shim.id], &["cannot start a container that has stopped"]);
    shim.says(1, &["pause", &shim.id], &["container not running"]);
    shim.says(1, &["resume", &shim.id], &["container not paused"]);
    shim.says(1, &["update", "--pids-limit", "5", &shim.id], &["container not running"]);
    shim.says(1, &["events", "--stats", &shim.id], &["is not running"]);
    assert_eq!(shim.call(&["ps", "--format", "json", &shim.id]).ok().stdout.trim(), "[]");
    shim.clear();
}

/// Created, but its init was killed before `start`.
#[test]
fn one_whose_init_was_killed() {
    let shim = sleeper();
    shim.create();
    shim.call(&["kill", &shim.id, "9"]).ok();
    until("the end", || shim.status() == "stopped");
    shim.says(1, &["start", &shim.id], &["cannot start a container that has stopped"]);
    shim.clear();
}

#[test]
fn console_sockets_that_are_none() {
    let dir = TempDir::new("console");
    let long = text(&dir.path().join("x".repeat(120)));
    let (file, gone) = (text(&dir.path().join("file")), text(&dir.path().join("gone")));
    fs::write(&file, "").unwrap();
    drop(UnixListener::bind(&gone).unwrap());
    let shim = Shim::new(Bundle::hardened().set("/process/terminal", json!(true)).args(&["sleep", "1000"]));
    let path = text(shim.bundle.path());
    for (socket, words) in [
        (long.as_str(), "at most 107 bytes"),
        (&file, "connection refused"),
        (&gone, "connection refused"),
        ("/no/such/socket", "no such file or directory"),
    ] {
        shim.says(
            1,
            &["create", "--bundle", &path, "--console-socket", socket, &shim.id],
            &["--console-socket", words],
        );
        shim.clear();
    }
    shim.says(1, &["create", "--bundle", &path, &shim.id], &["process.terminal", "--console-socket"]);
    shim.clear();
    // One that nobody accepts takes the terminal all the same: it is in the queue.
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    shim.call(&["create", "--bundle", &path, "--console-socket", &text(&dir.path().join("socket")), &shim.id]).ok();
    shim.says(255, &["exec", "--tty", "--console-socket", &long, &shim.id, "true"], &["--console-socket", "107 bytes"]);
    shim.says(255, &["exec", "--tty", "--console-socket", &file, &shim.id, "true"], &["--console-socket", "refused"]);
    drop(listener);
    shim.clear();
}

#[test]
fn hooks_that_fail_or_hang() {
    for (script, words) in [("echo no network >&2; exit 3", "no network"), ("exec sleep 1077", "1 s")] {
        let hook =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1, "env": ["PATH=/bin:/usr/bin"]});
        let shim = Shim::new(Bundle::hardened().set("/hooks", json!({"prestart": [hook]})).args(&["sleep", "1000"]));
        let path = text(shim.bundle.path());
        shim.says(1, &["create", "--bundle", &path, &shim.id], &["hooks.prestart[0]", words]);
        assert_eq!(leftover::processes("sleep 1077"), Vec::<i32>::new());
        shim.says(1, &["start", &shim.id], &["does not exist"]);
        shim.clear();
    }
}

#[test]
fn nonsense_for_update() {
    let shim = sleeper();
    shim.create();
    for (args, words) in [
        (&["--memory", "lots"][..], "--memory"),
        (&["--memory", "4096"], "linux.resources.memory"),
        (&["--pids-limit", "x"], "--pids-limit"),
        (&["--cpuset-cpus", "99999"], "linux.resources.cpu.cpus"),
        (&["--resources", "/no/such"], "no such file or directory"),
        (&["--resources", "-"], "EOF"),
        (&["--nosuchlimit", "1"], "--nosuchlimit"),
    ] {
        shim.says(1, &[&["update"], args, &[&shim.id]].concat(), &[words]);
    }
    shim.call(&["start", &shim.id]).ok();
    assert_eq!(shim.status(), "running");
    shim.clear();
}

#[test]
fn commands_that_can_not_be_executed() {
    let shim = sleeper();
    fs::write(shim.bundle.root().join("bin/text"), "x").unwrap();
    shim.create();
    shim.call(&["start", &shim.id]).ok();
    shim.says(127, &["exec", &shim.id, "nothing"], &["exec: \"nothing\": executable file not found in $PATH"]);
    shim.says(127, &["exec", &shim.id, "/bin/nothing"], &["no such file or directory"]);
    shim.says(126, &["exec", &shim.id, "/bin/text"], &["permission denied"]);
    shim.says(255, &["exec", &shim.id], &["exec", "needs a command"]);
    shim.says(255, &["exec", "--process", "/no/such", &shim.id], &["--process /no/such", "no such file or directory"]);
    shim.clear();
}
