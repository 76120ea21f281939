// SPDX-License-Identifier: Apache-2.0
//! Who is ended while criu is at work: a criu that hangs, with the caller; wsbox itself. What was not looked at never runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use wsbox_integration::engine::{finish, until};
use wsbox_integration::{TempDir, leftover, unique};

use super::common::{World, confined, program};

/// Whether all processes that a file names are stopped.
fn stopped(file: &str) -> bool {
    let pids = fs::read_to_string(file).unwrap_or_default();
    let is_stopped = |pid: &str| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't'])))
    };
    pids.ends_with('\n') && pids.split_whitespace().all(is_stopped)
}

/// `restore` with this criu, until what it tells in `file` is stopped: then a signal ends it all.
fn hangs(world: &World, criu: &str, detach: bool, file: &str, signal: Signal) {
    let words = "restore: a signal came before the container ran, and criu was ended";
    hangs_with(world, criu, detach, file, signal, words);
}

fn hangs_with(world: &World, criu: &str, detach: bool, file: &str, signal: Signal, words: &str) {
    let (up, path, images) = (unique("up"), world.path(), world.images("one"));
    world.bundle.write();
    let fixed = ["--criu", criu, "restore", "--bundle", &path, "--image-path", &images];
    let args = [&fixed[..], if detach { &["--detach"] } else { &[] }, &[&up]].concat();
    let child = world.engine.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a criu that is stopped", || stopped(file));
    // And all that it was asked to do is done.
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    finish(child).fails(1, &[words]);
    let pids = fs::read_to_string(file).unwrap();
    assert!(pids.split_whitespace().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap()), "criu is left: {pids}");
    world.nothing_left(&up);
    fs::remove_file(file).unwrap();
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_criu_that_hangs() {
    let (world, up) = (World::new(confined()), unique("up"));
    let number = world.checkpointed();
    let (criu, file) = (world.images("criu"), world.images("pids"));
    for (verb, detach, signal) in [
        ("check", true, Signal::SIGTERM),
        ("check", false, Signal::SIGINT),
        ("restore", true, Signal::SIGINT),
        ("restore", false, Signal::SIGTERM),
    ] {
        program(&criu, &format!("[ $1 != {verb} ] || {{ echo $$ >{file}; kill -STOP $$; }}\nexec criu \"$@\""));
        hangs(&world, &criu, detach, &file, signal);
    }
    // In the middle: the first process is there, and stopped with it.
    let stop = format!("pids=$(pgrep -P $PPID -x criu); kill -STOP $pids; echo $pids >{file}");
    let hooks =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", stop], "env": ["PATH=/usr/bin:/bin"]}]});
    let mut world = world.with("/hooks", hooks);
    hangs(&world, "criu", true, &file, Signal::SIGTERM);
    hangs(&world, "criu", false, &file, Signal::SIGINT);
    let stop = format!("echo $$ >{file}; kill -STOP $$");
    world.bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", stop]}]});
    let words = "hooks.createRuntime[0]: did not end before a signal came, and was killed";
    hangs_with(&world, "criu", true, &file, Signal::SIGTERM, words);
    world.bundle.config["hooks"] = json!({});
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}

/// Its last number is on the host: one more, and the payload has run.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn wsbox_is_killed() {
    let data = TempDir::new("data");
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "i=0; while :; do i=$((i+1)); echo $i > /run/n; echo $i > /data/n; sleep 0.1; done";
    let bundle = confined().script(script);
    fs::create_dir(bundle.root().join("data")).unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": data.path(), "options": ["bind", "rw"]});
    let world = World::new(bundle.mount(mount));
    world.checkpointed();
    let number = || fs::read_to_string(data.path().join("n")).unwrap();
    let (before, path, images) = (number(), world.path(), world.images("one"));
    let (criu, moments, log) = (world.images("criu"), world.images("moments"), world.images("log"));
    program(
        &criu,
        &format!("[ $1 = check ] || set -- \"$@\" --action-script {moments}\nexport WSBOX=$PPID\nexec criu \"$@\""),
    );
    for moment in ["setup-namespaces", "post-restore", "pre-resume"] {
        let killed = format!("kill -KILL $WSBOX; while [ -e /proc/$WSBOX/fd/0 ]; do :; done; echo {moment} >>{log}");
        program(&moments, &format!("[ $CRTOOLS_SCRIPT_ACTION != {moment} ] || {{ {killed}; }}\nexit 0"));
        let up = unique("up");
        let restore = ["--criu", &criu, "restore", "--detach", "--bundle", &path, "--image-path", &images, &up];
        let outcome = world.engine.wsbox(&restore);
        assert_eq!(outcome.code, 137, "{moment}: {outcome:?}");
        until(&format!("{moment}: the end of criu and the container"), || {
            leftover::inside(world.bundle.path()).is_empty()
        });
        assert_eq!(number(), before, "{moment}");
        assert_eq!(fs::read_to_string(&log).unwrap().lines().last(), Some(moment));
        world.engine.wsbox(&["delete", "--force", &up]).ok();
        world.nothing_left(&up);
    }
    let up = unique("up");
    world.restore(&up, &[]).ok();
    until("a further number", || number() != before);
}

/// A dump is not ended half-way: the signal waits.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_signal_comes_while_it_dumps() {
    let (world, up) = (World::new(confined()), unique("up"));
    let (id, criu, file) = (world.running(), world.images("criu"), world.images("pids"));
    let number = world.count(&id);
    program(&criu, &format!("[ $1 != dump ] || {{ echo $$ >{file}; kill -STOP $$; }}\nexec criu \"$@\""));
    let args = ["--criu", &criu, "checkpoint", "--image-path", &world.images("one"), &id];
    let child = world.engine.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a criu that is stopped", || stopped(&file));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let stopped = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(stopped), Signal::SIGCONT).unwrap();
    // The images are whole and the container is deleted, then it ends as the signal says.
    assert_eq!(finish(child).code, 143);
    world.nothing_left(&id);
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}

/// After the last answer there is nothing to wait for but criu's end.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_criu_that_hangs_at_its_end() {
    let (world, up) = (World::new(confined()), unique("up"));
    world.checkpointed();
    let (criu, last, path, images) = (world.images("criu"), world.images("last"), world.path(), world.images("one"));
    program(&criu, &format!("[ $1 = check ] || set -- \"$@\" --action-script {last}\nexec criu \"$@\""));
    program(&last, "[ $CRTOOLS_SCRIPT_ACTION != post-resume ] || sleep 1000");
    let restore = ["--criu", &criu, "restore", "--detach", "--bundle", &path, "--image-path", &images, &up];
    world.engine.wsbox(&restore).fails(1, &["restore: criu hangs: 60 seconds after ", "were killed"]);
    world.nothing_left(&up);
}
