// SPDX-License-Identifier: Apache-2.0
//! What a payload holds that criu asks a flag for: a connection, a socket to the outside, a lock, a terminal.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;
use wsbox_integration::engine::{captured, until};
use wsbox_integration::terminal::Terminal;
use wsbox_integration::{Bundle, TempDir, unique};

use super::common::{World, confined};

/// Counts as a client of its own server.
const CONNECTED: &str = "mkdir -p /run; (i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done) | nc -l -p 7000 & \
    sleep 1; sleep 1000 | nc 127.0.0.1 7000 | while read n; do echo $n > /run/n; done";
const LOCKED: &str =
    "exec 9>/run/lock; probe syscall 73 9 2; i=0; while :; do i=$((i+1)); echo $i > /run/n; sleep 0.1; done";

/// Without `flag` criu's refusal, and the container goes on; with it at both ends it is restored.
fn needs(world: &World, flag: &str, words: &str) -> String {
    let (id, up) = (world.running(), unique("up"));
    world.checkpoint(&id, &[]).fails(1, &["checkpoint: criu dump failed: ", words, flag]);
    let number = world.count(&id);
    world.goes_on(&id, number);
    world.checkpoint(&id, &[flag]).ok();
    world.nothing_left(&id);
    world.restore(&up, &[flag]).ok();
    world.goes_on(&up, number);
    up
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn an_established_connection() {
    let bundle = Bundle::plain().set("/root/readonly", false.into()).script(CONNECTED);
    let world = World::new(bundle);
    needs(&world, "--tcp-established", "Connected TCP socket");
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_lock_on_a_file() {
    let world = World::new(confined().script(LOCKED));
    let up = needs(&world, "--file-locks", "file locks");
    // LOCK_EX | LOCK_NB
    let again = "exec 9>/run/lock; probe syscall 73 9 6";
    assert_eq!(world.engine.wsbox(&["exec", &up, "sh", "-c", again]).ok().stdout, "syscall 73 9 6: EAGAIN\n");
}

/// runc asks for the same flag, and goes on without it.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_lock_as_runc_has_it() {
    let bundle = Bundle::plain().set("/root/readonly", false.into()).script(&format!("mkdir -p /run; {LOCKED}"));
    let (world, root, id) = (World::new(bundle), TempDir::new("runc"), unique("runc"));
    let (path, images) = (world.path(), world.images("one"));
    let runc = |args: &[&str]| captured(Command::new("runc").arg("--root").arg(root.path()).args(args));
    runc(&["run", "--detach", "--bundle", &path, &id]).ok();
    until("the first number", || runc(&["exec", &id, "cat", "/run/n"]).code == 0);
    assert_eq!(runc(&["checkpoint", "--image-path", &images, &id]).code, 1);
    assert!(runc(&["state", &id]).ok().stdout.contains("\"running\""));
    runc(&["checkpoint", "--file-locks", "--image-path", &images, &id]).ok();
    runc(&["restore", "--detach", "--file-locks", "--bundle", &path, "--image-path", &images, &id]).ok();
    let again = "exec 9>/run/lock; probe syscall 73 9 6";
    let found = runc(&["exec", &id, "sh", "-c", again]);
    runc(&["delete", "--force", &id]).ok();
    assert_eq!(found.ok().stdout, "syscall 73 9 6: EAGAIN\n");
}

/// Its sockets are the host's: those of another network namespace criu does not find.
fn on_the_host_s_network() -> Bundle {
    let mut bundle = confined();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    bundle
}

/// The payload's log goes to a socket of the host's.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_datagram_socket_to_the_outside() {
    let (data, id, up) = (TempDir::new("data"), unique("out"), unique("up"));
    let log = data.path().join("log");
    let host = UnixDatagram::bind(&log).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let place = data.path().display().to_string();
    let script = "i=0; while :; do i=$((i+1)); echo $i > /run/n; echo $i >&3; sleep 0.1; done";
    let bundle = on_the_host_s_network().script(script);
    std::fs::create_dir_all(bundle.root().join(&place[1..])).unwrap();
    let mount = json!({"destination": place, "type": "bind", "source": place, "options": ["bind", "rw"]});
    let world = World::new(bundle.mount(mount));
    let own = UnixDatagram::unbound().unwrap();
    own.connect(&log).unwrap();
    let path = world.path();
    let mut run = world.engine.command(&["run", "--detach", "--preserve-fds", "1", "--bundle", &path, &id]);
    with_third(&mut run, own.into());
    let next = || {
        let mut bytes = [0; 64];
        let length = host.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().parse::<u64>().unwrap()
    };
    while next() < 3 {}
    world.checkpoint(&id, &[]).fails(1, &["External socket is used", "--ext-unix-sk"]);
    world.checkpoint(&id, &["--ext-unix-sk"]).ok();
    host.set_nonblocking(true).unwrap();
    let mut last = 0;
    while let Ok(length) = host.recv(&mut [0; 64]) {
        last += length;
    }
    assert!(last > 0);
    host.set_nonblocking(false).unwrap();
    world.restore(&up, &["--ext-unix-sk"]).ok();
    assert!(next() > 3);
}

/// Runs a command with `fd` as its descriptor 3, by a shell.
fn with_third(command: &mut Command, fd: OwnedFd) {
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    // dash takes no number of two digits.
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("exec \"$@\" 3>&{}", fd.as_raw_fd()), "sh"]).arg(command.get_program());
    captured(shell.args(command.get_args()).stdin(Stdio::null())).ok();
}

/// One end of a pair as stdout: criu dumps none, wherever it is from.
fn stream(bundle: Bundle, words: &str) {
    let (world, id) = (World::new(bundle), unique("out"));
    let (_ours, own) = UnixStream::pair().unwrap();
    let mut run = world.engine.command(&["run", "--detach", "--bundle", &world.path(), &id]);
    assert!(run.stdout(Stdio::from(OwnedFd::from(own))).stderr(Stdio::null()).status().unwrap().success());
    world.checkpoint(&id, &["--ext-unix-sk"]).fails(1, &[words]);
    let number = world.count(&id);
    world.goes_on(&id, number);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_stream_to_the_outside() {
    stream(confined(), "stdout: is a socket of another network namespace");
    stream(on_the_host_s_network(), "criu dump failed: unix: Can't dump half of stream unix connection");
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn the_caller_s_terminal() {
    let script = "i=0; while [ ! -e /run/stop ]; do i=$((i+1)); echo $i > /run/n; echo at-$i; sleep 0.1; done; read x; echo got-$x; exit 7";
    let (world, id, up) = (World::new(confined().script(script)), unique("tty"), unique("up"));
    let (path, images) = (world.path(), world.images("one"));
    let mut terminal = Terminal::open(&mut world.engine.command(&["run", "--bundle", &path, &id]));
    terminal.sees("at-5");
    world.checkpoint(&id, &[]).fails(1, &["stdin: is the terminal of who ran the container", "--shell-job"]);
    world.checkpoint(&id, &["--shell-job"]).ok();
    assert_eq!(terminal.ends(), 137);
    world.restore(&up, &["--shell-job"]).fails(1, &["stdin: is no terminal"]);
    world.nothing_left(&up);
    let restore = ["restore", "--shell-job", "--bundle", &path, "--image-path", &images, &up];
    let mut terminal = Terminal::open(&mut world.engine.command(&restore));
    terminal.sees("at-");
    until("the record", || world.engine.state(&up)["status"] == "running");
    world.engine.wsbox(&["exec", &up, "touch", "/run/stop"]).ok();
    assert_eq!(terminal.types("word\n").sees("got-word").ends(), 7);
    world.nothing_left(&up);
}
