// SPDX-License-Identifier: Apache-2.0
//! The cgroups of this machine, for real: as root.

use std::process::{Child, Command, Stdio};

use super::*;

/// A cgroup that is removed whatever happens, and a process in it.
struct Group {
    cgroup: Cgroup,
    child: Option<Child>,
}

impl Group {
    fn new(name: &str, resources: serde_json::Value) -> Self {
        let resources = serde_json::from_value(resources).unwrap();
        let plan = Plan::new(None, &format!("test-{name}-{}", std::process::id()), Some(&resources), None).unwrap();
        Self {
            cgroup: Cgroup::create(Host::detect().unwrap(), &plan).expect("root and a writable cgroup hierarchy"),
            child: None,
        }
    }

    /// A shell that waits for a line, joined, and then does `script`.
    fn shell(&mut self, script: &str) -> Pid {
        let script = format!("read line; {script}");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        self.cgroup.confine(pid).unwrap();
        std::fs::write(self.cgroup.saved.root.join(&self.cgroup.saved.path).join("cgroup.procs"), pid.to_string())
            .unwrap();
        self.child = Some(child);
        pid
    }

    fn finish(mut self) -> std::process::Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.cgroup.kill_all();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        self.cgroup.remove().unwrap();
        assert!(!self.cgroup.saved.root.join(&self.cgroup.saved.path).exists());
    }
}

fn limits() -> serde_json::Value {
    serde_json::json!({"pids": {"limit": 9}, "memory": {"limit": 64 << 20, "swap": 64 << 20}, "cpu": {"quota": 50000, "period": 100000}})
}

#[test]
fn limits_are_in_force() {
    let mut group = Group::new("limits", limits());
    // On v2 that of memory waits for somebody to be in it.
    group.shell("sleep 100");
    let found = group.cgroup.limits().unwrap();
    assert_eq!(found, Limits { pids_max: Some(9), memory_max: Some(64 << 20), cpu: Some((50000, 100_000)) });
}

#[test]
fn pids_are_limited() {
    let mut group = Group::new("pids", serde_json::json!({"pids": {"limit": 3}}));
    group.shell("for i in 1 2 3 4 5; do sleep 2 & done");
    group.child.as_mut().unwrap().stdin.take();
    let output = group.finish();
    assert!(String::from_utf8_lossy(&output.stderr).to_lowercase().contains("fork"), "{output:?}");
}

#[test]
fn freeze_kill_and_remove() {
    let mut group = Group::new("freeze", serde_json::json!({}));
    let pid = group.shell("sleep 100");
    assert_eq!(group.cgroup.procs().unwrap(), [pid]);
    group.cgroup.freeze().unwrap();
    assert!(group.cgroup.frozen().unwrap());
    group.cgroup.kill_all().unwrap();
    let status = group.child.take().unwrap().wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    group.cgroup.remove().unwrap();
    group.cgroup.remove().unwrap();
}

#[test]
fn devices_are_ruled() {
    let mut group = Group::new("devices", serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]}));
    let open = |path: &str| format!("if (: <{path}); then echo yes; else echo no; fi; ");
    group.shell(&(open("/dev/null") + &open("/dev/zero") + &open("/dev/kmsg")));
    group.child.as_mut().unwrap().stdin.take();
    let output = group.finish();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "yes\nyes\nno\n", "{output:?}");
}

#[test]
fn a_cgroup_that_is_there_is_not_taken() {
    let mut group = Group::new("taken", serde_json::json!({}));
    group.shell("sleep 100");
    let plan = Plan::new(Some(group.cgroup.saved.path.as_ref()), "x", None, None).unwrap();
    let error = Cgroup::create(Host::detect().unwrap(), &plan).unwrap_err().to_string();
    assert!(error.starts_with("linux.cgroupsPath:") && error.contains("is there already"), "{error}");
}

#[test]
fn what_v1_can_not_enforce_is_refused() {
    let resources = serde_json::from_value(serde_json::json!({"unified": {"memory.high": "1"}})).unwrap();
    let plan = Plan::new(None, "never", Some(&resources), None).unwrap();
    let error = Cgroup::create(Host::Hybrid, &plan).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.unified:"), "{error}");
}
