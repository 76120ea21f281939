// SPDX-License-Identifier: Apache-2.0
//! SCMP_ACT_NOTIFY with a real agent: it is told of the process, its answers are what the caller sees, and without it nothing runs.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine, TempDir, leftover, unique};

/// What the agent answers, which no kernel does.
const ANSWER: i32 = libc::ENOTUNIQ;

/// Reads the state and the listener.
#[allow(unsafe_code)]
fn receive(stream: &UnixStream) -> (Value, OwnedFd) {
    let mut bytes = vec![0u8; 65536];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let (len, fd) = {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        let fd = message.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        (message.bytes, fd.expect("a listener"))
    };
    // SAFETY: the kernel just made this descriptor for us.
    (serde_json::from_slice(&bytes[..len]).expect("one JSON"), unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Answers every call until the last process with the filter has ended: how many.
#[allow(unsafe_code)]
fn answer(listener: &OwnedFd) -> usize {
    const RECV: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    let mut count = 0;
    loop {
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(listener), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, nix::poll::PollTimeout::NONE).unwrap();
        if !poll[0].revents().unwrap().contains(nix::poll::PollFlags::POLLIN) {
            return count;
        }
        // struct seccomp_notif: id, pid, flags, then struct seccomp_data.
        let mut request = [0u64; 10];
        // SAFETY: 80 bytes, as the request says.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECV as _, request.as_mut_ptr()) };
        if Errno::result(result) == Err(Errno::ENOENT) {
            continue;
        }
        Errno::result(result).unwrap();
        // struct seccomp_notif_resp: id, val, error, flags.
        let mut response = [request[0], 0, u64::from((-ANSWER) as u32)];
        // SAFETY: 24 bytes, as the request says.
        Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, response.as_mut_ptr()) }).unwrap();
        count += 1;
    }
}

/// An agent for `connections` processes: their states, and how many calls each made.
fn agent(folder: &TempDir, connections: usize) -> (PathBuf, JoinHandle<Vec<(Value, usize)>>) {
    let path = folder.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = move || {
        let one = |_| {
            let (state, fd) = receive(&listener.accept().unwrap().0);
            std::thread::spawn(move || (state, answer(&fd)))
        };
        (0..connections).map(one).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    };
    (path, std::thread::spawn(serve))
}

fn bundle(path: &std::path::Path) -> Bundle {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "of the test",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    Bundle::hardened().set("/linux/seccomp", profile).set("/annotations", json!({"a": "b"}))
}

const SCRIPT: &str = "mkdir /tmp/a; mkdir /tmp/b; touch /tmp/c && exit 42";

#[test]
fn the_agent_answers() {
    for door in Door::ALL {
        let folder = TempDir::new("agent");
        let (path, agent) = agent(&folder, 1);
        let outcome = Engine::new().run(&bundle(&path).user_namespace(door != Door::Root).script(SCRIPT), door);
        assert_eq!(outcome.code, 42, "{door:?}: {outcome:?}");
        let told = agent.join().unwrap();
        let (state, calls) = &told[0];
        assert_eq!(*calls, 2, "{door:?}");
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("of the test")));
        assert_eq!((&state["state"]["annotations"], &state["pid"]), (&json!({"a": "b"}), &state["state"]["pid"]));
        assert!(
            outcome.stdout.is_empty() && (door == Door::Library || outcome.stderr.contains("not unique")),
            "{outcome:?}"
        );
    }
}

#[test]
fn create_start_and_exec_have_a_listener_each() {
    let (engine, folder, id) = (Engine::new(), TempDir::new("agent"), unique("notify"));
    let (path, agent) = agent(&folder, 2);
    let bundle = bundle(&path).script("mkdir /tmp/a; exec sleep 1000");
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    engine.wsbox(&["start", &id]).ok();
    let exec = engine.wsbox(&["exec", &id, "sh", "-c", SCRIPT]);
    assert_eq!(exec.code, 42, "{exec:?}");
    let pid = engine.state(&id)["pid"].clone();
    engine.wsbox(&["delete", "--force", &id]).ok();
    let told = agent.join().unwrap();
    assert_eq!((told[0].1, told[1].1), (1, 2));
    assert_eq!((&told[0].0["pid"], &told[1].0["state"]["pid"]), (&pid, &pid));
    assert_ne!(told[1].0["pid"], pid, "exec's own");
}

#[test]
fn without_an_agent_nothing_runs() {
    let (engine, folder) = (Engine::new(), TempDir::new("agent"));
    let nobody = folder.path().join("nobody");
    let out = json!({"destination": "/out", "type": "bind", "source": folder.path(), "options": ["rbind", "rw"]});
    let bundle = bundle(&nobody).mount(out).script("touch /out/ran");
    bundle.write();
    let (path, id) = (bundle.path().display().to_string(), unique("notify"));
    engine.wsbox(&["run", "--bundle", &path, &id]).fails(1, &["linux.seccomp.listenerPath", "no such file"]);
    leftover::assert_nothing_left(engine.root(), &id);
    engine.wsbox(&["create", "--bundle", &path, &id]).ok();
    engine.wsbox(&["start", &id]).fails(1, &["linux.seccomp.listenerPath"]);
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
    assert!(!folder.path().join("ran").exists());
    let relative = bundle.set("/linux/seccomp/listenerPath", json!("relative"));
    engine.run(&relative, Door::Root).fails(1, &["linux.seccomp.listenerPath", "absolute"]);
}
