// SPDX-License-Identifier: Apache-2.0
//! Containers that count, and their images.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use wsbox_integration::engine::{Outcome, until};
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

/// Counts in memory; /run/n tells, /run/stop ends it with 7.
const COUNT: &str = "i=0; while [ ! -e /run/stop ]; do i=$((i+1)); echo $i > /run/n; sleep 0.1; done; exit 7";

/// All layers but the user namespace.
pub fn confined() -> Bundle {
    Bundle::hardened().user_namespace(false).script(COUNT)
}

/// An engine, a bundle, and where images go.
pub struct World {
    pub engine: Engine,
    pub bundle: Bundle,
    images: TempDir,
}

impl World {
    pub fn new(bundle: Bundle) -> Self {
        bundle.write();
        Self { engine: Engine::new(), bundle, images: TempDir::new("images") }
    }

    /// A container that has begun to count.
    pub fn running(&self) -> String {
        let id = unique("ck");
        self.engine.wsbox(&["run", "--detach", "--bundle", &self.path(), &id]).ok();
        until("the first number", || self.count(&id) > 3);
        id
    }

    pub fn path(&self) -> String {
        self.bundle.path().display().to_string()
    }

    /// The folder of images called `name`.
    pub fn images(&self, name: &str) -> String {
        self.images.path().join(name).display().to_string()
    }

    pub fn checkpoint(&self, id: &str, flags: &[&str]) -> Outcome {
        self.engine.wsbox(&[&["checkpoint", "--image-path", &self.images("one")], flags, &[id]].concat())
    }

    pub fn restore(&self, id: &str, flags: &[&str]) -> Outcome {
        self.bundle.write();
        let path = self.path();
        let fixed = ["restore", "--detach", "--bundle", &path, "--image-path", &self.images("one")];
        self.engine.wsbox(&[&fixed[..], flags, &[id]].concat())
    }

    /// A container that was checkpointed, and the number that it had reached before.
    pub fn checkpointed(&self) -> u64 {
        let id = self.running();
        let number = self.count(&id);
        self.checkpoint(&id, &[]).ok();
        self.nothing_left(&id);
        number
    }

    /// What a container has counted, 0 if it does not say.
    pub fn count(&self, id: &str) -> u64 {
        self.engine.wsbox(&["exec", id, "cat", "/run/n"]).stdout.trim().parse().unwrap_or_default()
    }

    /// It goes on from `number`, and goes on.
    pub fn goes_on(&self, id: &str, number: u64) {
        // While it is written there is none.
        let next = std::cell::Cell::new(0);
        until("the next number", || {
            next.set(self.count(id));
            next.get() > 0
        });
        let now = next.get();
        assert!(now >= number, "{now} after {number}");
        until("further numbers", || self.count(id) > now);
    }

    pub fn nothing_left(&self, id: &str) {
        leftover::assert_nothing_left(self.engine.root(), id);
        assert_eq!(leftover::inside(self.bundle.path()), Vec::<i32>::new(), "processes are left");
    }

    /// A file of the container's first process in /proc.
    pub fn proc(&self, id: &str, file: &str) -> String {
        let pid = self.engine.state(id)["pid"].as_i64().unwrap();
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
    }

    /// The same root under a changed config.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.bundle.config.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        self
    }

    /// Changes the description that lies beside the images.
    pub fn describe(&self, change: impl Fn(&mut Value)) {
        let file = format!("{}/wsbox.json", self.images("one"));
        let mut value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut value);
        fs::write(file, value.to_string()).unwrap();
    }
}

/// A hook that adds `name` to `log`, and ends with `code`.
pub fn hook(name: &str, log: &str, code: i32) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; echo {name} >> {log}; exit {code}")]}])
}

/// A shell script that can be executed.
pub fn program(path: &str, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
