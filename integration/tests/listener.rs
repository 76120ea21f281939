// SPDX-License-Identifier: Apache-2.0
//! SCMP_ACT_NOTIFY: a real agent gets the listener with the container process state, and answers for the kernel.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine, Outcome, TempDir, leftover, unique};

/// linux/seccomp.h: struct seccomp_notif, with struct seccomp_data in it
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// linux/seccomp.h: struct seccomp_notif_resp
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// What the agent asks of a listener.
#[allow(missing_docs, reason = "the macro makes them public")]
mod request {
    nix::ioctl_readwrite!(receive, b'!', 0, super::Notification);
    nix::ioctl_readwrite!(answer, b'!', 1, super::Response);
}

/// Listens on a socket; each listener that comes is served until its last process ends.
struct Agent {
    dir: TempDir,
    states: Receiver<(Value, usize)>,
    asked: Receiver<(u32, i32)>,
}

impl Agent {
    /// Every call that it is asked for fails with EMLINK, which no mkdir of a test would.
    fn new() -> Self {
        let dir = TempDir::new("agent");
        let socket = UnixListener::bind(dir.path().join("socket")).expect("a socket");
        let ((state, states), (ask, asked)) = (channel(), channel());
        thread::spawn(move || {
            for connection in socket.incoming() {
                let (told, fds) = container_process_state(&connection.expect("a connection"));
                let _ = state.send((told, fds.len()));
                let ask = ask.clone();
                thread::spawn(move || fds.into_iter().for_each(|fd| serve(&fd, &ask)));
            }
        });
        Self { dir, states, asked }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn state(&self) -> Value {
        let (state, fds) = self.states.recv_timeout(Duration::from_secs(10)).expect("a container process state");
        assert_eq!(fds, 1);
        state
    }
}

/// One state a connection, and nothing after it.
fn container_process_state(connection: &UnixStream) -> (Value, Vec<File>) {
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut buffer = [0u8; 4096];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut iov, Some(&mut space), flags).expect("a message");
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel just installed them for us.
                fds.extend(raw.into_iter().map(|fd| unsafe { File::from_raw_fd(fd) }));
            }
        }
        let len = message.bytes;
        if len == 0 {
            return (serde_json::from_slice(&bytes).expect("JSON"), fds);
        }
        bytes.extend_from_slice(&buffer[..len]);
    }
}

fn serve(listener: &File, asked: &std::sync::mpsc::Sender<(u32, i32)>) {
    use std::os::fd::AsFd;
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        // POLLHUP: nobody is under the filter any more.
        if !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return;
        }
        let mut notification = Notification::default();
        // SAFETY: a zeroed struct of the size that the request says.
        if unsafe { request::receive(listener.as_raw_fd(), &raw mut notification) }.is_err() {
            continue;
        }
        let _ = asked.send((notification.pid, notification.nr));
        let mut response = Response { id: notification.id, val: 0, error: -libc::EMLINK, flags: 0 };
        // SAFETY: a struct of the size that the request says.
        let _ = unsafe { request::answer(listener.as_raw_fd(), &raw mut response) };
    }
}

fn notifying(path: &std::path::Path) -> Bundle {
    let mut bundle = Bundle::hardened();
    let seccomp = &mut bundle.config["linux"]["seccomp"];
    seccomp["listenerPath"] = json!(path);
    seccomp["listenerMetadata"] = json!("of the test");
    let rules = seccomp["syscalls"].as_array_mut().expect("rules");
    for rule in rules.iter_mut() {
        rule["names"].as_array_mut().expect("names").retain(|name| name != "mkdir" && name != "mkdirat");
    }
    rules.retain(|rule| rule["names"] != json!([]));
    rules.push(json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}));
    bundle
}

const MKDIR: &str = "mkdir /tmp/x; test -d /tmp/x || echo none";

fn answered(outcome: Outcome) {
    assert!(outcome.stderr.contains("Too many links"), "{outcome:?}");
    assert_eq!(outcome.ok().stdout, "none\n");
}

#[test]
fn an_agent_answers_for_the_kernel() {
    for door in [Door::Userns, Door::Root] {
        let agent = Agent::new();
        let bundle =
            notifying(&agent.path()).user_namespace(door == Door::Userns).set("/annotations", json!({"a": "b"}));
        answered(Engine::new().run(&bundle.script(MKDIR), door));
        let state = agent.state();
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "of the test");
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["annotations"], json!({"a": "b"}));
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1) && state["pid"] == state["state"]["pid"], "{state}");
        assert!(state["ociVersion"].is_string() && state["state"]["ociVersion"] == state["ociVersion"], "{state}");
        let (pid, nr) = agent.asked.recv_timeout(Duration::from_secs(10)).expect("it was asked");
        assert!(pid > 1 && [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&i64::from(nr)), "{pid} {nr}");
    }
}

#[test]
fn start_and_exec_hand_over_their_own() {
    let (agent, engine, id) = (Agent::new(), Engine::new(), unique("listener"));
    let bundle = notifying(&agent.path()).args(&["sleep", "1000"]);
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert!(agent.states.recv_timeout(Duration::from_millis(100)).is_err(), "nothing is under the filter yet");
    engine.wsbox(&["start", &id]).ok();
    let pid = engine.state(&id)["pid"].clone();
    let state = agent.state();
    assert_eq!((&state["pid"], &state["state"]["status"]), (&pid, &json!("created")));
    answered(engine.wsbox(&["exec", &id, "sh", "-c", MKDIR]));
    let state = agent.state();
    assert_eq!((&state["state"]["pid"], &state["state"]["status"]), (&pid, &json!("running")));
    assert!(state["pid"].as_i64().is_some_and(|other| other > 1 && json!(other) != pid), "{state}");
    // Nothing of it is left in the payload.
    let fds = engine.wsbox(&["exec", &id, "probe", "fds"]).ok().stdout;
    assert!(!fds.contains("seccomp"), "{fds}");
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn a_path_may_be_longer_than_an_address() {
    let agent = Agent::new();
    let long = agent.dir.path().join("x".repeat(200));
    std::fs::create_dir(&long).expect("a folder");
    std::os::unix::fs::symlink(agent.path(), long.join("socket")).expect("a link");
    answered(Engine::new().run(&notifying(&long.join("socket")).script(MKDIR), Door::Userns));
    assert_eq!(agent.state()["metadata"], "of the test");
}

#[test]
fn without_its_agent_nothing_runs() {
    let (dir, engine, id) = (TempDir::new("agent"), Engine::new(), unique("listener"));
    let nobody = dir.path().join("nobody");
    let out = json!({"destination": "/out", "type": "bind", "source": dir.path(), "options": ["rbind", "rw"]});
    let bundle = notifying(&nobody).mount(out).script("touch /out/ran; sleep 1077");
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["run", "--bundle", &path, &id]).fails(1, &["linux.seccomp.listenerPath", "nobody"]);
    leftover::assert_nothing_left(engine.root(), &id);
    engine.wsbox(&["create", "--bundle", &path, &id]).ok();
    engine.wsbox(&["start", &id]).fails(1, &["linux.seccomp.listenerPath", "nobody"]);
    assert_eq!(engine.state(&id)["status"], "stopped");
    engine.wsbox(&["delete", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
    assert!(!dir.path().join("ran").exists());
    assert_eq!(leftover::processes("sleep 1077"), Vec::<i32>::new());
}

#[test]
fn an_exec_without_its_agent_leaves_the_container_alone() {
    let (agent, engine) = (Agent::new(), Engine::new());
    let (_bundle, id) = engine.sleeping(notifying(&agent.path()));
    std::fs::remove_file(agent.path()).expect("the socket");
    engine.wsbox(&["exec", &id, "sleep", "1078"]).fails(255, &["linux.seccomp.listenerPath"]);
    assert_eq!(leftover::processes("sleep 1078"), Vec::<i32>::new());
    assert_eq!(engine.state(&id)["status"], "running");
}

#[test]
fn what_could_not_be_handed_over_is_refused_by_name() {
    let refused = |bundle: Bundle, words: &[&str]| {
        let (engine, id) = (Engine::new(), unique("listener"));
        bundle.write();
        engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]).fails(1, words);
        leftover::assert_nothing_left(engine.root(), &id);
    };
    let path = PathBuf::from("/nowhere");
    refused(
        notifying(&path).remove("/linux/seccomp/listenerMetadata").remove("/linux/seccomp/listenerPath"),
        &["linux.seccomp.listenerPath"],
    );
    refused(notifying(&path).remove("/linux/seccomp/listenerPath"), &["linux.seccomp.listenerPath", "is missing"]);
    let mut bundle = notifying(&path);
    let rules = bundle.config["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
    for rule in rules {
        rule["names"].as_array_mut().expect("names").retain(|name| name != "write");
    }
    refused(bundle, &["linux.seccomp", "write to be allowed"]);
}
