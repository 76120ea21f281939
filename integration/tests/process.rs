// SPDX-License-Identifier: Apache-2.0
//! What this kernel lacks, and what `exec` may be told.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use wsbox_integration::engine::receive_file;
use wsbox_integration::{Bundle, Door, Engine, Outcome, TempDir};

fn run(pointer: &str, value: Value, script: &str) -> Outcome {
    Engine::new().run(&Bundle::hardened().set(pointer, value).script(script), Door::Userns)
}

#[test]
fn what_this_kernel_lacks_is_refused_by_field() {
    for (pointer, value, field) in [
        ("/process/apparmorProfile", json!("docker-default"), "process.apparmorProfile: this kernel has no AppArmor"),
        ("/process/selinuxLabel", json!("a:b:c"), "process.selinuxLabel: this kernel has no SELinux"),
        ("/process/selinuxLabel", json!("a b"), "process.selinuxLabel: \"a b\" holds white space"),
        ("/linux/mountLabel", json!("a:b:c"), "linux.mountLabel"),
        (
            "/linux/intelRdt",
            json!({"closID": "x"}),
            "linux.intelRdt: this kernel has no resctrl file system mounted at",
        ),
    ] {
        run(pointer, value, "true").fails(1, &[field]);
    }
}

#[test]
fn exec_hands_over_a_pidfd_and_refuses_what_it_can_not_do() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let folder = TempDir::new("socket");
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    engine.wsbox(&["exec", "--detach", "--pidfd-socket", &socket, &id, "sleep", "2077"]).ok();
    let pidfd = receive_file(&listener.accept().unwrap().0);
    let info = std::fs::File::open(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd))).unwrap();
    let line = BufReader::new(info).lines().map_while(Result::ok).find(|line| line.starts_with("Pid:")).unwrap();
    let pid = line.split_whitespace().last().unwrap();
    assert_eq!(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"sleep\x002077\0");
    drop(listener);
    engine.wsbox(&["exec", "--pidfd-socket", &socket, &id, "true"]).fails(255, &["--pidfd-socket"]);
    engine.wsbox(&["exec", "--apparmor", "p", &id, "true"]).fails(255, &["process.apparmorProfile"]);
    engine.wsbox(&["exec", "--cgroup", "sub", &id, "true"]).fails(255, &["--cgroup", "no such file or directory"]);
}
