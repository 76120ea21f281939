// SPDX-License-Identifier: Apache-2.0
//! sd_notify(3) across the container's wall: what the service manager hears, and what it does not.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use wsbox_integration::engine::finish;
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

/// The socket of a manager, below a folder.
fn manager(folder: &Path) -> (UnixDatagram, OsString) {
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (socket, path.into_os_string())
}

fn hear(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).expect("a message");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn silent(socket: &UnixDatagram) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.recv(&mut [0; 64]).is_err()
}

fn spawn(engine: &Engine, socket: &OsString, args: &[&str]) -> Child {
    engine.command(args).env("NOTIFY_SOCKET", socket).spawn().expect("wsbox runs")
}

fn pid(engine: &Engine, id: &str) -> i64 {
    engine.state(id)["pid"].as_i64().unwrap()
}

const READY: &str = "probe notify 'MAINPID=1\nREADY=1\nFDSTORE=1\nSTATUS=up'";

#[test]
fn a_run_in_the_foreground_passes_on_what_is_the_payloads_to_say() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("notify"), unique("n"));
    let (socket, path) = manager(folder.path());
    let script =
        format!("{READY}; read x < /tmp/go; probe notify WATCHDOG=1; probe notify MAINPID=1; probe notify STOPPING=1");
    let bundle = Bundle::hardened().script(&format!("mkfifo /tmp/go; {script}"));
    bundle.write();
    let child = spawn(&engine, &path, &["run", "--bundle", &bundle.path().display().to_string(), &id]);
    assert_eq!(hear(&socket), format!("READY=1\nSTATUS=up\nMAINPID={}\n", pid(&engine, &id)));
    engine.wsbox(&["exec", &id, "sh", "-c", "echo > /tmp/go"]).ok();
    assert_eq!((hear(&socket), hear(&socket)), ("WATCHDOG=1\n".into(), "STOPPING=1\n".into()));
    finish(child).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

/// As runc: whoever starts it returns once it is ready, and nobody is left to pass on more.
#[test]
fn start_and_a_detached_run_wait_until_it_is_ready() {
    let (engine, folder) = (Engine::new(), TempDir::new("notify"));
    let (socket, path) = manager(folder.path());
    let bundle = Bundle::hardened().script(&format!("env; ls -l /run/notify; sleep 0.3; {READY}; sleep 1000"));
    bundle.write();
    let bundle_path = bundle.path().display().to_string();
    for start in [vec!["run", "--detach"], vec!["create"]] {
        let id = unique("n");
        finish(spawn(&engine, &path, &[&start[..], &["--bundle", &bundle_path, &id]].concat())).ok();
        if start == ["create"] {
            assert!(silent(&socket), "nothing runs yet");
            finish(spawn(&engine, &path, &["start", &id])).ok();
        }
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(hear(&socket), format!("READY=1\nSTATUS=up\nMAINPID={}\n", pid(&engine, &id)));
        engine.wsbox(&["delete", "--force", &id]).ok();
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

#[test]
fn a_payload_that_ends_without_a_word_keeps_nobody_waiting() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("notify"), unique("n"));
    let (_socket, path) = manager(folder.path());
    let bundle = Bundle::hardened().args(&["true"]);
    bundle.write();
    finish(spawn(&engine, &path, &["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id])).ok();
}

#[test]
fn names_that_are_long_or_abstract() {
    let (engine, folder) = (Engine::new(), TempDir::new("notify"));
    let deep = folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    // As long a path as this can not be bound in one piece.
    let short = folder.path().join("short");
    let socket = UnixDatagram::bind(&short).unwrap();
    std::fs::rename(&short, deep.join("notify")).unwrap();
    let name = unique("abstract");
    let other = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let bundle = Bundle::hardened().script("probe notify READY=1");
    bundle.write();
    for (socket, path) in [(socket, deep.join("notify").into_os_string()), (other, format!("@{name}").into())] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let run = ["run", "--bundle", &bundle.path().display().to_string(), &unique("n")];
        finish(spawn(&engine, &path, &run)).ok();
        assert!(hear(&socket).starts_with("READY=1\nMAINPID="));
    }
}

#[test]
fn a_manager_that_is_not_there_is_an_error_and_one_that_goes_is_none() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("notify"), unique("n"));
    let bundle = Bundle::hardened().script("probe notify READY=1; probe notify STATUS=x");
    bundle.write();
    let run = ["run", "--bundle", &bundle.path().display().to_string(), &id];
    let missing = folder.path().join("nobody").into_os_string();
    let mut command = engine.command(&run);
    command.env("NOTIFY_SOCKET", &missing).stderr(std::process::Stdio::piped());
    finish(command.spawn().unwrap()).fails(1, &["NOTIFY_SOCKET=", "no such file or directory"]);
    leftover::assert_nothing_left(engine.root(), &id);
    let (socket, path) = manager(folder.path());
    drop(socket);
    let mut command = engine.command(&run);
    command.env("NOTIFY_SOCKET", &path).stderr(std::process::Stdio::piped());
    // Nobody has it open: connect(2) says so before anything runs.
    finish(command.spawn().unwrap()).fails(1, &["NOTIFY_SOCKET=", "connection refused"]);
    leftover::assert_nothing_left(engine.root(), &id);
}
