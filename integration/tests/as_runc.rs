// SPDX-License-Identifier: Apache-2.0
//! runc itself beside wsbox: the flags that its help names, and what both say of the same wrong call.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until, wsbox_path};
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn help(args: &[&str]) -> String {
    outcome(Command::new("runc").args(args).arg("--help")).ok().stdout
}

/// Each flag that a help names, in all its spellings, and whether a value follows.
fn flags(help: &str) -> Vec<(String, bool)> {
    let names = help.lines().filter_map(|line| line.strip_prefix("   --").and_then(|rest| rest.split("  ").next()));
    let name = |name: &str| {
        let (flag, value) = name.split_once(' ').map_or((name, false), |(flag, _)| (flag, true));
        (if flag.starts_with('-') { flag.to_owned() } else { format!("--{flag}") }, value)
    };
    names.flat_map(|names| names.split(", ").map(name).collect::<Vec<_>>()).collect()
}

#[test]
fn every_flag_of_runc_is_known() {
    let (dir, engine) = (TempDir::new("flags"), Engine::new());
    let said = |args: &[&str]| {
        let mut command = engine.command(args);
        outcome(command.current_dir(dir.path())).stderr
    };
    let global = help(&[]);
    let commands = global.split("COMMANDS:\n").nth(1).expect("commands").lines().take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 17 && commands.contains(&"restore"), "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help,") {
        for (flag, value) in flags(&help(&[command])) {
            let stderr = said(&[&[command, &flag][..], if value { &["1"][..] } else { &[] }].concat());
            assert!(!stderr.contains("unexpected argument"), "{command} {flag}: {stderr}");
            // The value is the flag's: it is not taken for the container.
            let told = ["required arguments", "invalid value"].iter().any(|words| stderr.contains(words));
            assert!(told || ["list", "spec", "features"].contains(&command), "{command} {flag}: {stderr}");
        }
    }
    let own = flags(&global);
    assert!(own.len() >= 10, "{own:?}");
    for (flag, value) in
        own.into_iter().filter(|(flag, _)| !["--help", "-h", "--version", "-v"].contains(&flag.as_str()))
    {
        let stderr = said(&[&[flag.as_str()][..], if value { &["1"][..] } else { &[] }, &["state"]].concat());
        assert!(stderr.contains("required arguments") || stderr.contains("invalid value"), "{flag}: {stderr}");
    }
}

/// A runtime with a state root, a bundle and a log of its own, called as containerd's shim does.
struct Side {
    program: String,
    root: TempDir,
    bundle: Bundle,
    id: String,
}

impl Side {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root.path()).args(["--log", &text(&self.log()), "--log-format", "json"]);
        command.args(args).current_dir(self.bundle.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn log(&self) -> std::path::PathBuf {
        self.bundle.path().join("log.json")
    }

    /// The exit code, and the last error of the log, which is what engines read.
    fn call(&self, args: &[&str]) -> (i32, String) {
        let _ = fs::remove_file(self.log());
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "ID" { &self.id } else { *arg }).collect();
        let code = finish(self.command(&args).spawn().expect("it is installed")).code;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let error = lines.find(|line| line["level"] == "error");
        (code, error.and_then(|line| line["msg"].as_str().map(str::to_owned)).unwrap_or_default())
    }

    fn status(&self) -> Value {
        let output = self.command(&["state", &self.id]).stdout(Stdio::piped()).output().expect("it is installed");
        serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |state| state["status"].clone())
    }
}

/// runc and wsbox with the same bundle.
struct Pair([Side; 2]);

impl Pair {
    fn new(change: impl Fn(Bundle) -> Bundle) -> Self {
        let side = |program: &str| {
            let bundle = change(Bundle::plain().args(&["sleep", "1000"]));
            bundle.write();
            Side { program: program.into(), root: TempDir::new("state"), bundle, id: unique("pair") }
        };
        Self([side("/usr/sbin/runc"), side(&wsbox_path())])
    }

    /// Both succeed.
    fn ok(&self, args: &[&str]) {
        self.0.iter().for_each(|side| assert_eq!(side.call(args), (0, String::new()), "{}: {args:?}", side.program));
    }

    /// Both fail with one exit code, and both say `words`.
    fn fails(&self, args: &[&str], words: &str) {
        let [(theirs, reference), (ours, message)] = [0, 1].map(|side: usize| self.0[side].call(args));
        assert_ne!(theirs, 0, "{args:?}: runc does it");
        assert_eq!(ours, theirs, "{args:?}: {message:?}, and runc says {reference:?}");
        for (program, message) in [("runc", reference), ("wsbox", message)] {
            assert!(message.contains(words), "{args:?}: {program} says {message:?}, not {words:?}");
        }
    }

    fn are(&self, status: &str) {
        for side in &self.0 {
            until(status, || side.status() == status);
        }
    }

    /// Nothing is left of either after `delete --force`.
    fn clear(&self) {
        self.ok(&["delete", "--force", "ID"]);
        for side in &self.0 {
            leftover::assert_nothing_left(side.root.path(), &side.id);
        }
    }
}

#[test]
fn an_unknown_id() {
    let pair = Pair::new(|bundle| bundle);
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
        &["exec", "nobody", "true"],
        &["delete", "nobody"],
    ] {
        pair.fails(args, "does not exist");
    }
    pair.ok(&["delete", "--force", "nobody"]);
}

/// As Go reads them.
#[test]
fn flags_in_every_spelling() {
    let pair = Pair::new(|bundle| bundle);
    for args in [
        &["delete", "-force", "nobody"][..],
        &["delete", "-f=true", "nobody"],
        &["delete", "--force=1", "nobody"],
        &["delete", "--force", "--force", "nobody"],
        &["list", "-format", "json"],
        &["list", "--format", "table", "--format=json", "-q=false"],
        &["create", "-bundle=.", "--bundle", ".", "-pid-file", "pid", "ID"],
        &["-debug=false", "start", "ID"],
    ] {
        pair.ok(args);
    }
    pair.fails(&["delete", "--force=false", "ID"], "is not stopped: running");
    pair.are("running");
    pair.clear();
}

#[test]
fn one_that_is_created_and_one_that_runs() {
    let pair = Pair::new(|bundle| bundle);
    pair.ok(&["create", "ID"]);
    pair.fails(&["create", "ID"], "already exists");
    pair.fails(&["run", "ID"], "already exists");
    pair.fails(&["resume", "ID"], "container not paused");
    pair.are("created");
    pair.ok(&["start", "ID"]);
    pair.fails(&["start", "ID"], "cannot start an already running container");
    pair.fails(&["delete", "ID"], "is not stopped: running");
    pair.fails(&["resume", "ID"], "container not paused");
    pair.fails(&["kill", "ID", "NOSUCH"], "signal");
    pair.fails(&["exec", "--user", "root", "ID", "true"], "");
    pair.fails(&["exec", "--process", "/no/such", "ID"], "no such file or directory");
    pair.fails(&["exec", "ID"], "");
    pair.are("running");
    pair.clear();
}

#[test]
fn one_that_is_paused() {
    let pair = Pair::new(|bundle| bundle);
    pair.ok(&["run", "--detach", "ID"]);
    pair.ok(&["pause", "ID"]);
    pair.fails(&["exec", "ID", "true"], "cannot exec in a paused container");
    pair.fails(&["pause", "ID"], "container not running");
    pair.fails(&["delete", "ID"], "is not stopped: paused");
    pair.are("paused");
    pair.clear();
}

#[test]
fn one_that_is_paused_before_its_start() {
    let pair = Pair::new(|bundle| bundle);
    pair.ok(&["create", "ID"]);
    pair.ok(&["pause", "ID"]);
    pair.are("paused");
    pair.fails(&["start", "ID"], "cannot start a container in the paused state");
    pair.ok(&["resume", "ID"]);
    pair.are("created");
    pair.ok(&["start", "ID"]);
    pair.are("running");
    pair.clear();
}

#[test]
fn one_that_has_stopped() {
    let pair = Pair::new(|bundle| bundle);
    pair.ok(&["run", "--detach", "ID"]);
    pair.ok(&["kill", "ID", "KILL"]);
    pair.are("stopped");
    pair.fails(&["kill", "ID", "15"], "container not running");
    pair.fails(&["exec", "ID", "true"], "cannot exec in a stopped container");
    pair.fails(&["start", "ID"], "cannot start a container that has stopped");
    pair.fails(&["pause", "ID"], "container not running");
    pair.fails(&["resume", "ID"], "container not paused");
    pair.fails(&["events", "--stats", "ID"], "is not running");
    pair.ok(&["kill", "--all", "ID", "9"]);
    pair.ok(&["ps", "--format", "json", "ID"]);
    pair.clear();
}

#[test]
fn an_update_with_nonsense() {
    let pair = Pair::new(|bundle| bundle.set("/linux/resources/memory", json!({"limit": 64 << 20})));
    pair.ok(&["run", "--detach", "ID"]);
    for args in [
        &["--memory", "lots"][..],
        &["--pids-limit", "x"],
        &["--cpuset-cpus", "99999"],
        &["--cpuset-cpus", "x"],
        &["--cpu-quota", "5"],
        &["--memory-swap", "1m"],
        &["--nosuchlimit", "1"],
    ] {
        pair.fails(&[&["update"], args, &["ID"]].concat(), "");
    }
    pair.fails(&["update", "--resources", "/no/such", "ID"], "no such file or directory");
    pair.fails(&["update", "--resources", "-", "ID"], "EOF");
    pair.are("running");
    pair.clear();
}

/// What is bound to this, nobody listens on.
#[test]
fn console_sockets_that_are_none() {
    let dir = TempDir::new("console");
    let (file, gone) = (text(&dir.path().join("file")), text(&dir.path().join("gone")));
    fs::write(&file, "").unwrap();
    drop(UnixListener::bind(&gone).unwrap());
    let long = text(&dir.path().join("x".repeat(120)));
    let pair = Pair::new(|bundle| bundle.set("/process/terminal", json!(true)));
    for (socket, words) in [
        (file.as_str(), "connection refused"),
        (&gone, "connection refused"),
        ("/no/such/socket", "no such file or directory"),
        (&long, ""),
    ] {
        pair.fails(&["create", "--console-socket", socket, "ID"], words);
        pair.clear();
    }
    pair.fails(&["create", "ID"], "");
    pair.fails(&["run", "--detach", "ID"], "");
    pair.clear();
}

/// Those of `create`; poststart is none of them but in runc 1.1, and has its tests in hooks.rs.
#[test]
fn hooks_that_fail_or_hang() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        for script in ["exit 3", "exec sleep 1088"] {
            let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}]);
            let pair = Pair::new(|bundle| bundle.set("/hooks", json!({kind: hook})));
            pair.fails(&["create", "ID"], "hook");
            pair.fails(&["start", "ID"], "does not exist");
            pair.clear();
            assert_eq!(leftover::processes("sleep 1088"), Vec::<i32>::new(), "{kind}");
        }
    }
}

#[test]
fn a_seccomp_agent_that_is_not_there() {
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let pair = Pair::new(|bundle| bundle.set("/linux/seccomp", notify.clone()));
    pair.fails(&["run", "ID"], "/no/such/agent");
    pair.clear();
}

#[test]
fn bundles_and_programs_that_are_not_there() {
    let pair = Pair::new(|bundle| bundle);
    pair.fails(&["create", "--bundle", "/no/such", "ID"], "no such file or directory");
    pair.fails(&["create", "--pid-file", "/no/such/pid", "ID"], "no such file or directory");
    pair.clear();
    let pair = Pair::new(|bundle| bundle.set("/root/path", json!("nothing")));
    pair.fails(&["create", "ID"], "no such file or directory");
    pair.clear();
    for (program, words) in [
        ("nothing", "executable file not found in $PATH"),
        ("/bin/nothing", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let pair = Pair::new(|bundle| bundle.args(&[program]));
        let [theirs, ours] = [0, 1].map(|side: usize| pair.0[side].call(&["create", "ID"]));
        assert!(theirs.0 != 0 && theirs.1.contains(words), "{theirs:?}");
        // As a shell has it, which runc does not tell apart.
        assert!([126, 127].contains(&ours.0) && ours.1.contains(words), "{ours:?}");
        pair.clear();
    }
}
