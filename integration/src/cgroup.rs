// SPDX-License-Identifier: Apache-2.0
//! The cgroups of a container as the kernel shows them, on v1 and on v2: the tests name the file of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whether the controllers of this host are on v1.
pub fn on_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

/// Where `path` is below the root of the hierarchy that has a controller.
pub fn dir(controller: &str, path: &str) -> PathBuf {
    let root = if on_v1() { Path::new("/sys/fs/cgroup").join(controller) } else { "/sys/fs/cgroup".into() };
    root.join(path)
}

/// The content of a file of container `id`: of the first name on v1, of the second on v2.
pub fn has(id: &str, [v1, v2]: [&str; 2]) -> String {
    text(&format!("wsbox/{id}"), [v1, v2])
}

/// The same of the cgroup at `path`.
pub fn text(path: &str, [v1, v2]: [&str; 2]) -> String {
    let name = if on_v1() { v1 } else { v2 };
    let file = dir(name.split('.').next().expect("a name"), path).join(name);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.trim().to_owned()
}

/// The number on the line of a file that begins with `key`.
pub fn counter(path: &str, names: [&str; 2], key: &str) -> u64 {
    let text = text(path, names);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text:?}"))
}

/// A cgroup of the test's own, with limits; removed when it is dropped.
#[derive(Debug)]
pub struct Group {
    path: String,
    controllers: Vec<String>,
}

impl Group {
    /// At `path`, with controllers and their limits: (names on v1 and v2, value).
    pub fn new(path: &str, controllers: &[&str], limits: &[([&str; 2], &str)]) -> Self {
        let group = Self { path: path.into(), controllers: controllers.iter().map(|&name| name.into()).collect() };
        if !on_v1() {
            let enabled: String = controllers.iter().map(|name| format!("+{name} ")).collect();
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", enabled).expect("the root's controllers");
        }
        for dir in group.dirs() {
            fs::create_dir_all(dir).expect("a new cgroup");
        }
        for ([v1, v2], value) in limits {
            let name = if on_v1() { v1 } else { v2 };
            let file = dir(name.split('.').next().expect("a name"), path).join(name);
            fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        group
    }

    fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.controllers.iter().map(|name| dir(name, &self.path)).collect();
        dirs.dedup();
        dirs
    }

    /// Starts a program in it, which is in it from its first instruction on.
    pub fn spawn(&self, program: &[&str]) -> Child {
        let join: String =
            self.dirs().iter().map(|dir| format!("echo $$ >{}/cgroup.procs && ", dir.display())).collect();
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", "-c", &format!("{join} exec \"$@\""), "sh"]).args(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("busybox runs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in self.dirs() {
            let _ = fs::remove_dir(dir);
        }
    }
}
