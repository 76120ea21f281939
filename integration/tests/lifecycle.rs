// SPDX-License-Identifier: Apache-2.0
//! The life of a container, command by command, in runc's words and codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until, wsbox_path};
use wsbox_integration::{Bundle, Door, Engine, leftover, unique};

fn path(bundle: &Bundle) -> String {
    bundle.path().display().to_string()
}

#[test]
fn create_start_state_kill_delete() {
    let (engine, bundle, id) = (Engine::new(), Bundle::hardened().args(&["sleep", "1000"]), unique("life"));
    bundle.write();
    let pid_file = engine.root().join("pid");
    engine.wsbox(&["create", "--bundle", &path(&bundle), "--pid-file", &pid_file.display().to_string(), &id]).ok();
    let created = engine.state(&id);
    assert_eq!(
        (&created["status"], &created["id"], &created["ociVersion"]),
        (&json!("created"), &json!(id), &json!("1.2.0"))
    );
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), created["pid"].to_string());
    for field in ["bundle", "rootfs", "created", "owner"] {
        assert!(created[field].is_string(), "{field}: {created}");
    }
    engine.wsbox(&["start", &id]).ok();
    assert_eq!(engine.state(&id)["status"], "running");
    assert_eq!(engine.state(&id)["pid"], created["pid"]);
    engine.wsbox(&["start", &id]).fails(1, &["cannot start an already running container"]);
    engine.wsbox(&["delete", &id]).fails(1, &["that is not stopped: running"]);
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    engine.wsbox(&["kill", &id]).fails(1, &["container not running"]);
    engine.wsbox(&["delete", &id]).ok();
    engine.wsbox(&["state", &id]).fails(1, &["does not exist"]);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn run_both_ways() {
    let (engine, bundle) = (Engine::new(), Bundle::hardened().script("echo hello; exit 7"));
    bundle.write();
    let by_path = engine.wsbox(&["run", &path(&bundle)]);
    assert_eq!((by_path.code, by_path.stdout.as_str()), (7, "hello\n"), "{by_path:?}");
    let by_id = engine.wsbox(&["run", "--bundle", &path(&bundle), "c1"]);
    assert_eq!((by_id.code, by_id.stdout.as_str()), (7, "hello\n"), "{by_id:?}");
    let here = engine
        .command(&["run", "c2"])
        .current_dir(bundle.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(finish(here).code, 7);
    assert_eq!(engine.wsbox(&["list", "-q"]).ok().stdout, "");
}

#[test]
fn a_signal_is_128_and_its_number() {
    let engine = Engine::new();
    let outcome =
        engine.run(&Bundle::hardened().remove("/linux/seccomp").script("sh -c 'kill -TERM $$'; exit $?"), Door::Userns);
    assert_eq!(outcome.code, 143, "{outcome:?}");
}

#[test]
fn signals_are_forwarded() {
    let (engine, id) = (Engine::new(), unique("signal"));
    let bundle = Bundle::hardened().script("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done");
    bundle.write();
    let child = engine
        .command(&["run", "--bundle", &path(&bundle), &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    until("running", || engine.wsbox(&["state", &id]).stdout.contains("running"));
    // The trap is set once the script runs.
    std::thread::sleep(std::time::Duration::from_millis(200));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(finish(child).code, 42);
}

#[test]
fn kill_takes_names_and_numbers() {
    for signal in ["KILL", "SIGKILL", "9"] {
        let engine = Engine::new();
        let (_bundle, id) = engine.sleeping(Bundle::hardened());
        engine.wsbox(&["kill", &id, signal]).ok();
        until("the end", || engine.state(&id)["status"] == "stopped");
    }
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["kill", &id, "NOPE"]).fails(1, &["NOPE"]);
    engine.wsbox(&["kill", "--all", &id, "9"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
}

#[test]
fn delete_force() {
    let engine = Engine::new();
    engine.wsbox(&["delete", "--force", "nobody"]).ok();
    engine.wsbox(&["delete", "nobody"]).fails(1, &["does not exist"]);
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn exec_joins_the_container() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened().set("/process/env", json!(["PATH=/bin", "A=1"])));
    assert_eq!(engine.wsbox(&["exec", &id, "sh", "-c", "echo $A; exit 9"]).stdout, "1\n");
    assert_eq!(engine.wsbox(&["exec", &id, "sh", "-c", "exit 9"]).code, 9);
    let seen = engine.wsbox(&[
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "B=2",
        "--user",
        "1000:1001",
        &id,
        "sh",
        "-c",
        "pwd; echo $B; id -u; id -g; echo $HOME",
    ]);
    assert_eq!(seen.ok().stdout, "/tmp\n2\n1000\n1001\n/home/user\n");
    let status = engine.wsbox(&["exec", &id, "cat", "/proc/self/status"]).ok().stdout;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let namespaces = |pid: &str| {
        ["net", "mnt", "ipc", "uts", "user", "pid", "cgroup"]
            .map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap())
    };
    let init = engine.state(&id)["pid"].to_string();
    let pid_file = engine.root().join("pid");
    engine.wsbox(&["exec", "--detach", "--pid-file", &pid_file.display().to_string(), &id, "sleep", "1000"]).ok();
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(namespaces(&pid), namespaces(&init));
    let pids: Vec<Value> = serde_json::from_str(&engine.wsbox(&["ps", "--format", "json", &id]).ok().stdout).unwrap();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert_eq!(engine.wsbox(&["ps", &id]).ok().stdout.lines().count(), 3);
    drop(bundle);
}

#[test]
fn exec_says_what_is_wrong() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    fs::write(bundle.root().join("bin/text"), "x").unwrap();
    engine.wsbox(&["exec", &id, "nothing"]).fails(127, &["executable file not found in $PATH"]);
    engine.wsbox(&["exec", &id, "/bin/nothing"]).fails(127, &["no such file or directory"]);
    engine.wsbox(&["exec", &id, "/bin/text"]).fails(126, &["permission denied"]);
    engine.wsbox(&["exec", "--user", "root", &id, "id"]).fails(255, &["--user"]);
    engine.wsbox(&["exec", "--cwd", "/no/such", &id, "id"]).fails(255, &["process.cwd"]);
    engine.wsbox(&["exec", "nobody", "id"]).fails(255, &["does not exist"]);
    let file = engine.root().join("process.json");
    fs::write(&file, r#"{"args":["id","-u"],"cwd":"/","user":{"uid":5,"gid":5},"noNewPrivileges":true}"#).unwrap();
    assert_eq!(engine.wsbox(&["exec", "--process", &file.display().to_string(), &id]).ok().stdout, "5\n");
    // What it can not tell the pid of does not go on.
    engine.wsbox(&["exec", "--pid-file", "/no/such/pid", &id, "sleep", "1055"]).fails(255, &["--pid-file"]);
    assert!(!engine.wsbox(&["ps", &id]).ok().stdout.contains("sleep 1055"));
    fs::remove_file(engine.root().join(&id).join("seccomp.bpf")).unwrap();
    engine.wsbox(&["exec", &id, "true"]).fails(255, &["filter"]);
}

#[test]
fn pause_and_resume() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["pause", &id]).ok();
    assert_eq!(engine.state(&id)["status"], "paused");
    engine.wsbox(&["pause", &id]).fails(1, &["paused state"]);
    engine.wsbox(&["exec", &id, "true"]).fails(255, &["paused container"]);
    engine.wsbox(&["resume", &id]).ok();
    assert_eq!(engine.state(&id)["status"], "running");
    engine.wsbox(&["exec", &id, "true"]).ok();
    engine.wsbox(&["pause", &id]).ok();
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn list_and_inspect() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    let list: Value = serde_json::from_str(&engine.wsbox(&["list", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!((list[0]["id"].as_str(), list[0]["status"].as_str()), (Some(id.as_str()), Some("running")));
    assert!(engine.wsbox(&["list"]).ok().stdout.starts_with("ID "));
    let layers: Value = serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", &id]).ok().stdout).unwrap();
    let held: Vec<bool> =
        layers["layers"].as_array().unwrap().iter().map(|layer| layer["inForce"].as_bool().unwrap()).collect();
    assert_eq!(held, [true; 8], "{layers}");
    let plain = engine.sleeping(Bundle::plain());
    let weak: Value =
        serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", &plain.1]).ok().stdout).unwrap();
    let held: Vec<bool> =
        weak["layers"].as_array().unwrap().iter().map(|layer| layer["inForce"].as_bool().unwrap()).collect();
    assert_eq!(held, [true, false, true, false, false, false, false, true], "{weak}");
    drop(bundle);
}

/// A person is told what somebody else's bundle leaves open; a program is not.
#[test]
fn run_names_the_layers_that_a_bundle_lacks() {
    let engine = Engine::new();
    let lacks = "warning: this bundle does not have L5 pids, L8 no_new_privs (";
    let bundle = Bundle::hardened()
        .args(&["true"])
        .set("/linux/resources/pids/limit", json!(0))
        .set("/process/noNewPrivileges", json!(false));
    for (bundle, named) in [(bundle, true), (Bundle::hardened().args(&["true"]), false)] {
        bundle.write();
        let (path, root) = (path(&bundle), engine.root().display().to_string());
        let line = [wsbox_path().as_str(), "--root", &root, "run", &path].join(" ");
        let on_terminal = Command::new("script").args(["-qec", &line, "/dev/null"]).output().expect("script runs");
        let said = String::from_utf8_lossy(&on_terminal.stdout).into_owned();
        assert_eq!((on_terminal.status.code(), said.contains(lacks)), (Some(0), named), "{said}");
        assert_eq!(engine.wsbox(&["run", &path]).ok().stderr, "");
    }
}

#[test]
fn a_terminal_goes_over_the_console_socket() {
    let (engine, id) = (Engine::new(), unique("tty"));
    let bundle = Bundle::hardened()
        .set("/process/terminal", json!(true))
        .script("tty; test -c /dev/console && echo console; stty size; sleep 1000");
    bundle.write();
    engine.wsbox(&["create", "--bundle", &path(&bundle), &id]).fails(1, &["process.terminal"]);
    let socket = engine.root().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    engine.wsbox(&["create", "--bundle", &path(&bundle), "--console-socket", &socket.display().to_string(), &id]).ok();
    let (stream, _) = listener.accept().unwrap();
    let mut master = wsbox_integration::engine::receive_file(&stream);
    engine.wsbox(&["start", &id]).ok();
    let mut text = String::new();
    while !text.contains("console") {
        let mut bytes = [0u8; 256];
        let count = std::io::Read::read(&mut master, &mut bytes).unwrap();
        text += &String::from_utf8_lossy(&bytes[..count]);
    }
    assert!(text.starts_with("/dev/pts/0"), "{text}");
    engine.wsbox(&["delete", "--force", &id]).ok();
}

/// A stdin that is at its end is not asked again and again.
#[test]
fn who_waits_takes_no_cpu() {
    let (engine, bundle) = (Engine::new(), Bundle::hardened().args(&["sleep", "1"]));
    bundle.write();
    let mut command = engine.command(&["run", &path(&bundle)]);
    let (read, write) = std::io::pipe().unwrap();
    drop(write);
    let mut child = command.stdin(read).spawn().unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let ticks = |stat: &str| {
        let words: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        words
            .get(11)
            .zip(words.get(12))
            .map_or(0, |(user, system)| user.parse::<u64>().unwrap() + system.parse::<u64>().unwrap())
    };
    // Until it is waited for it has its times.
    until("its end", || stat().contains(") Z "));
    let used = ticks(&stat());
    assert!(child.wait().unwrap().success());
    assert!(used < 40, "{used} ticks of 10 ms in a second");
}

/// One who reads nothing keeps `run` neither from signals nor from its end.
#[test]
fn a_terminal_that_nobody_reads() {
    let engine = Engine::new();
    let script = "trap 'exit 7' TERM; stty raw -echo; echo ready; sleep 1000 & wait";
    let bundle = Bundle::hardened().set("/process/terminal", json!(true)).script(script);
    bundle.write();
    let mut command = engine.command(&["run", &path(&bundle)]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("ready") {
        let mut bytes = [0u8; 64];
        let count = std::io::Read::read(&mut stdout, &mut bytes).unwrap();
        said += &String::from_utf8_lossy(&bytes[..count]);
    }
    // More than the terminal and the pipe hold.
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &[b'x'; 1 << 20]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    until("its end", || fs::read_to_string(&stat).unwrap().contains(") Z "));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(writer.join().unwrap().is_err(), "nobody took it");
}

#[test]
fn the_state_folder_is_private() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    assert_eq!(fs::metadata(engine.root().join(&id)).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn keep_leaves_the_stopped_container() {
    let (engine, bundle) = (Engine::new(), Bundle::hardened().args(&["true"]));
    bundle.write();
    engine.wsbox(&["run", "--keep", "--bundle", &path(&bundle), "kept"]).ok();
    assert_eq!(engine.state("kept")["status"], "stopped");
    engine.wsbox(&["delete", "kept"]).ok();
}

#[test]
fn two_hundred_at_once() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().args(&["true"]);
    bundle.write();
    let prefix = unique("many");
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (engine, bundle, prefix) = (&engine, path(&bundle), &prefix);
                scope.spawn(move || {
                    (0..25).for_each(|at| {
                        drop(engine.wsbox(&["run", "--bundle", &bundle, &format!("{prefix}-{worker}-{at}")]).ok())
                    })
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert_eq!(leftover::cgroups(&prefix), Vec::<std::path::PathBuf>::new());
    assert_eq!(leftover::ids(engine.root()), Vec::<std::path::PathBuf>::new());
    let alive: Vec<String> = (0..200).map(|at| format!("{prefix}-alive-{at}")).collect();
    let sleeper = Bundle::hardened().args(&["sleep", "1000"]);
    sleeper.write();
    alive.iter().for_each(|id| drop(engine.wsbox(&["run", "--detach", "--bundle", &path(&sleeper), id]).ok()));
    assert_eq!(engine.wsbox(&["list", "-q"]).ok().stdout.lines().count(), 200);
    alive.iter().for_each(|id| drop(engine.wsbox(&["delete", "--force", id]).ok()));
    alive.iter().for_each(|id| leftover::assert_nothing_left(engine.root(), id));
}

#[test]
fn a_recycled_pid_is_not_ours() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let file = engine.root().join(&id).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let original = record.clone();
    // Another process with the recorded pid: ours, with another pidfd inode.
    record["process"]["pid"] = json!(std::process::id());
    fs::write(&file, record.to_string()).unwrap();
    assert_eq!(engine.state(&id)["status"], "stopped");
    engine.wsbox(&["kill", &id, "KILL"]).fails(1, &["container not running"]);
    fs::write(&file, original.to_string()).unwrap();
    assert_eq!(engine.state(&id)["status"], "running");
}
