// SPDX-License-Identifier: Apache-2.0
//! The embedded init against the real kernel, step by step: small programs that end in a shell on the host's own root.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::channel::Failure;
use super::{Answer, Channel, memfd};
use crate::plan::{Program, Step};
use crate::sys::clone::{Role, Spawn, spawn};
use crate::sys::pidfd::{self, Exit};

/// How a program ended: its payload's exit code, or the step that failed and why.
type End = Result<i32, (usize, Errno)>;

/// Runs `steps`, then `script` in a shell.
fn run(namespaces: i32, steps: Vec<Step>, script: &str, fds: Vec<OwnedFd>) -> End {
    let mut program = Program::default();
    steps.into_iter().for_each(|step| program.push("", step));
    program.push("", Step::FindExec { candidates: vec!["/no/such/sh".into(), "/bin/sh".into()] });
    program.push("", Step::CloseFds { first: 3 });
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    program.push("", Step::Exec { argv, envp: vec!["PATH=/usr/bin:/bin".into(), "A=1".into()], says: false });
    run_program(namespaces, &program, fds)
}

fn run_program(namespaces: i32, program: &Program, fds: Vec<OwnedFd>) -> End {
    let (channel, control) = Channel::pair().unwrap();
    let init = memfd::init().unwrap();
    let request = Spawn {
        role: Role::Init,
        join: &[],
        namespaces: namespaces as u64,
        cgroup: None,
        init: init.as_fd(),
        control: control.as_fd(),
        keep_below: 3,
        share_memory: true,
        ambient: false,
        last_cap: 40,
        dumpable: false,
    };
    let child = spawn(&request).expect("the tests run as root");
    drop(control);
    channel.send_program(&memfd::program(&program.encode()).unwrap()).unwrap();
    if program.steps.iter().any(|planned| planned.step == Step::Receive) {
        let labels = if fds.is_empty() { vec![super::sources::labels(child.pid).unwrap()] } else { fds };
        channel.send(&labels).unwrap();
    }
    let failed = loop {
        match channel.receive().unwrap() {
            Answer::Failed(why) => break Some((why.step, why.errno)),
            Answer::Closed => break None,
            _ => {}
        }
    };
    let exit = pidfd::wait(&child.pidfd).unwrap();
    child.executed();
    match (failed, exit) {
        (Some(failed), _) => Err(failed),
        (None, exit) => Ok(exit.code()),
    }
}

const NEW: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWPID | libc::CLONE_NEWNET;

/// What no module takes for a label the kernel refuses as such: not for want of the file, or of the right to write there.
#[test]
fn labels_reach_the_security_modules() {
    let label = Step::Write { dir: 0, path: "exec".into(), value: "no such label".into() };
    for namespaces in [0, NEW] {
        assert_eq!(run(namespaces, vec![Step::Receive, label.clone()], "exit 0", vec![]), Err((1, Errno::EINVAL)));
    }
}

#[test]
fn steps_do_what_they_say() {
    let mount = |kind: &str| {
        vec![Step::Propagate { flags: libc::MS_REC | libc::MS_PRIVATE }, Step::FsOpen { slot: 1, kind: kind.into() }]
    };
    let limit = |soft, hard| Step::Rlimit { resource: libc::RLIMIT_NOFILE as u32, soft, hard };
    let option = |key: &str, value: &str| Step::FsConfig { slot: 1, key: key.into(), value: Some(value.into()) };
    for (steps, script) in [
        (vec![], "exit 0"),
        (vec![Step::Hostname { name: "box".into() }], "test $(cat /proc/sys/kernel/hostname) = box"),
        (vec![Step::Domainname { name: "dom".into() }], "test $(cat /proc/sys/kernel/domainname) = dom"),
        (vec![Step::LoUp], "test $(cat /proc/self/net/fib_trie | grep -c 127.0.0.1) -gt 0"),
        (vec![Step::Umask { mask: 0o077 }], "test $(umask) = 0077"),
        (vec![limit(33, 44)], "test $(ulimit -n) = 33 && test $(ulimit -Hn) = 44"),
        (vec![Step::Setsid], "exit 0"),
        (
            vec![Step::Groups { gids: vec![7, 9] }, Step::Gid { gid: 5 }, Step::Uid { uid: 6 }],
            "test \"$(id -u) $(id -G)\" = '6 5 7 9'",
        ),
        (vec![Step::Prctl { option: 38, value: 1 }], "grep -q 'NoNewPrivs:.1' /proc/self/status"),
        (vec![Step::Bounding { keep: 1, last: 40 }], "grep -q 'CapBnd:.0000000000000001' /proc/self/status"),
        (
            vec![
                Step::Prctl { option: 38, value: 1 },
                Step::Capset { effective: 0, permitted: 0, inheritable: 0 },
                Step::Bounding { keep: !0, last: 0 },
            ],
            "exit 0",
        ),
        (vec![Step::Chdir { path: "/usr".into(), turn: 0 }, Step::CheckCwd], "test $(pwd) = /usr"),
        (vec![Step::Keyring], "exit 0"),
        ([mount("tmpfs"), vec![option("size", "8k"), Step::FsMount { slot: 1, attributes: 2 }]].concat(), "exit 0"),
        (
            vec![],
            "test \"$(echo /proc/self/fd/*)\" = '/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3' || test $(ls /proc/self/fd | wc -l) = 4",
        ),
        (vec![], "test \"$A\" = 1 && test $$ = 1"),
        (
            vec![],
            "test $(grep -c 'SigBlk:.0000000000000000' /proc/self/status) = 1 && grep -q 'SigIgn:.0000000000000000' /proc/self/status",
        ),
    ] {
        assert_eq!(run(NEW, steps.clone(), script, vec![]), Ok(0), "{steps:?}: {script}");
    }
}

#[test]
fn the_first_failure_is_reported_by_its_step() {
    let bad = |step: Step| run(NEW, vec![Step::Setsid, step], "exit 0", vec![]);
    for (step, errno) in [
        (Step::FsOpen { slot: 1, kind: "nosuchfs".into() }, Errno::ENODEV),
        (Step::Chdir { path: "/no/such".into(), turn: 0 }, Errno::ENOENT),
        (Step::Hostname { name: "x".repeat(65) }, Errno::EINVAL),
        (Step::SetNs { slot: 9, flags: 0 }, Errno::EBADMSG),
        (Step::FsMount { slot: 600, attributes: 0 }, Errno::EBADMSG),
        (Step::Seccomp { filter: vec![], flags: 0 }, Errno::EINVAL),
        (Step::FindExec { candidates: vec!["/no/such".into()] }, Errno::ENOENT),
        (Step::FindExec { candidates: vec!["/etc".into()] }, Errno::EISDIR),
        (Step::FindExec { candidates: vec!["/etc/passwd".into()] }, Errno::EACCES),
        (Step::Setsid, Errno::EPERM),
    ] {
        assert_eq!(bad(step.clone()), Err((1, errno)), "{step:?}");
    }
}

#[test]
fn a_destination_stays_inside_the_root() {
    let root = std::env::temp_dir().join(format!("wsbox-init-{}", std::process::id()));
    std::fs::create_dir_all(root.join("real")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    for (name, target) in [("out", "/etc"), ("up", "../../../etc"), ("magic", "/proc/self/root/etc"), ("loop", "loop")]
    {
        std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    }
    let dest = |path: &str, flags: u32| {
        let steps =
            vec![Step::Receive, Step::Dest { slot: 5, path: path.into(), kind: crate::plan::step::Kind::Dir, flags }];
        let fd = std::fs::File::open(&root).unwrap().into();
        run(libc::CLONE_NEWNS, steps, "exit 0", vec![fd])
    };
    let none = crate::plan::program::DEST_NO_SYMLINKS;
    assert_eq!(dest("real/a/b/c", none), Ok(0));
    assert!(root.join("real/a/b/c").is_dir());
    assert_eq!(dest("out/wsbox-test", 0), Ok(0));
    assert!(root.join("etc/wsbox-test").is_dir() && !std::path::Path::new("/etc/wsbox-test").exists());
    assert_eq!(dest("up/wsbox-test", 0), Ok(0));
    assert_eq!(dest("out", none), Err((1, Errno::ENOTDIR)));
    assert_eq!(dest("loop/x", 0), Err((1, Errno::ELOOP)));
    assert!(!std::path::Path::new("/etc/wsbox-test").exists());
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_broken_program_is_refused() {
    let (channel, control) = Channel::pair().unwrap();
    let init = memfd::init().unwrap();
    let request = Spawn {
        role: Role::Init,
        join: &[],
        namespaces: 0,
        cgroup: None,
        init: init.as_fd(),
        control: control.as_fd(),
        keep_below: 3,
        share_memory: true,
        ambient: false,
        last_cap: 40,
        dumpable: false,
    };
    let child = spawn(&request).unwrap();
    drop(control);
    channel.send_program(&memfd::program(b"not a program, but long enough to be read as one").unwrap()).unwrap();
    assert!(matches!(channel.receive().unwrap(), Answer::Started));
    assert!(matches!(channel.receive().unwrap(), Answer::Failed(Failure { step: 0, errno: Errno::EBADMSG, .. })));
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(1));
    child.executed();
}

#[test]
fn without_a_parent_the_init_ends() {
    let (channel, control) = Channel::pair().unwrap();
    let init = memfd::init().unwrap();
    let request = Spawn {
        role: Role::Init,
        join: &[],
        namespaces: 0,
        cgroup: None,
        init: init.as_fd(),
        control: control.as_fd(),
        keep_below: 3,
        share_memory: true,
        ambient: false,
        last_cap: 40,
        dumpable: false,
    };
    let child = spawn(&request).unwrap();
    drop((control, channel));
    assert_eq!(pidfd::wait(&child.pidfd).unwrap(), Exit::Code(1));
    child.executed();
}
