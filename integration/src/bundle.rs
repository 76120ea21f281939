// SPDX-License-Identifier: Apache-2.0
//! Bundles with a busybox root, from `wsbox spec` or as `runc spec` writes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::TempDir;
use crate::engine::wsbox_path;

/// A bundle of the test's own.
#[derive(Debug)]
pub struct Bundle {
    dir: TempDir,
    /// Its config; [`Bundle::write`] puts it into config.json
    pub config: Value,
}

const APPLETS: &str = "sh cat echo ls id mount umount true false sleep ps touch mkdir ln rm stat dd head tail grep sed wc test \
    readlink hostname ip nc env pwd kill chmod chown mknod df find tr cut seq yes sync od md5sum printf setsid tty stty ping unshare \
    wget httpd nslookup nproc dmesg mkfifo usleep timeout top tee pidof";

impl Bundle {
    /// All eight layers, as `wsbox spec` has them.
    pub fn hardened() -> Self {
        let bundle = Self::empty();
        let status =
            Command::new(wsbox_path()).args(["spec", "--bundle"]).arg(bundle.path()).status().expect("wsbox runs");
        assert!(status.success(), "wsbox spec");
        let config = fs::read(bundle.path().join("config.json")).expect("spec wrote it");
        Self { config: serde_json::from_slice(&config).expect("JSON"), ..bundle }
    }

    /// What `runc spec` writes: root without a user namespace and without seccomp, some capabilities.
    pub fn plain() -> Self {
        let bundle = Self::empty();
        let output =
            Command::new("runc").args(["spec", "--bundle"]).arg(bundle.path()).output().expect("runc is installed");
        assert!(output.status.success(), "{output:?}");
        let config = fs::read(bundle.path().join("config.json")).expect("spec wrote it");
        let mut config: Value = serde_json::from_slice(&config).expect("JSON");
        config["process"]["terminal"] = json!(false);
        Self { config, ..bundle }
    }

    fn empty() -> Self {
        let dir = TempDir::new("bundle");
        fill(&dir.path().join("rootfs"));
        Self { dir, config: Value::Null }
    }

    /// The bundle's folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its root file system.
    pub fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The payload.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    /// A shell script as the payload.
    pub fn script(self, script: &str) -> Self {
        self.args(&["sh", "-c", script])
    }

    /// Sets the field at `pointer` (RFC 6901).
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.config.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}: no such parent"));
        match parent {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            object => object[key] = value,
        }
        self
    }

    /// Takes the field at `pointer` away.
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        if let Some(Value::Object(map)) = self.config.pointer_mut(parent) {
            map.remove(key);
        }
        self
    }

    /// One more mount, last.
    pub fn mount(mut self, mount: Value) -> Self {
        self.config["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    /// Takes the mount on `destination` away.
    pub fn without_mount(mut self, destination: &str) -> Self {
        self.config["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["destination"] != destination);
        self
    }

    /// In a user namespace with ids that wsbox allocates, or in none.
    pub fn user_namespace(mut self, on: bool) -> Self {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "user");
        if on {
            namespaces.push(json!({"type": "user"}));
        }
        self
    }

    /// Writes config.json.
    pub fn write(&self) -> &Self {
        fs::write(self.path().join("config.json"), self.config.to_string()).expect("config.json");
        self
    }
}

/// Makes a root file system: busybox, the probe, two users.
pub fn fill(root: &Path) {
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("a root");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", bin.join(applet)).expect("a link");
    }
    fs::create_dir_all(root.join("etc")).expect("etc");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        .expect("passwd");
    let probe = Path::new(&wsbox_path()).with_file_name("probe");
    fs::copy(&probe, bin.join("probe"))
        .unwrap_or_else(|error| panic!("{}: {error}: build the workspace's bins first", probe.display()));
}
