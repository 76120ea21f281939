// SPDX-License-Identifier: Apache-2.0
//! A folder for one test, with a store of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wsbox_integration::{Engine, Outcome, TempDir, bundle, sandbox};

/// See above.
pub struct World {
    folder: TempDir,
    pub engine: Engine,
}

impl World {
    pub fn new() -> Self {
        Self { folder: TempDir::new("bundles"), engine: Engine::new() }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `wsbox bundle create SOURCE ./NAME FLAGS`; `{}` in the source is the folder.
    pub fn create(&self, source: &str, name: &str, flags: &[&str]) -> Outcome {
        let (source, bundle, store) = (self.place(source), self.text(name), self.text("store"));
        let arguments = [&["bundle", "create", &source, &bundle, "--store", &store], flags].concat();
        self.engine.wsbox(&arguments)
    }

    /// `wsbox bundle VERB` of the store.
    pub fn bundle(&self, verb: &str, more: &[&str]) -> Outcome {
        let store = self.text("store");
        self.engine.wsbox(&[&["bundle", verb, "--store", &store], more].concat())
    }

    /// Runs a bundle.
    pub fn run(&self, name: &str) -> Outcome {
        self.engine.wsbox(&["run", &self.text(name)])
    }

    /// Its config.json.
    pub fn config(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(name).join("config.json")).unwrap()).unwrap()
    }

    /// Runs a program of the host; `{}` in its arguments is the folder.
    pub fn tool(&self, line: &str) -> Outcome {
        let words: Vec<_> = line.split_whitespace().map(|word| self.place(word)).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path());
        sandbox::outcome(&mut command).ok()
    }

    fn place(&self, text: &str) -> String {
        text.replace("{}", &self.folder.path().display().to_string())
    }

    /// A root with all kinds of files, for a lower layer.
    pub fn root(&self) -> PathBuf {
        let root = self.path("root");
        bundle::fill(&root);
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nlog:x:9:user\n").unwrap();
        for folder in ["srv/old", "srv/kept", "opt/all", "data"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("file"), format!("{folder}\n")).unwrap();
        }
        fs::hard_link(root.join("data/file"), root.join("data/again")).unwrap();
        symlink("../../../../etc/shadow", root.join("data/out")).unwrap();
        std::os::unix::fs::chown(root.join("data/file"), Some(1000), Some(9)).unwrap();
        fs::set_permissions(root.join("data/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).unwrap();
        nix::unistd::mkfifo(&root.join("data/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        root
    }

    /// An image of four layers in the layout `layout`, made by umoci: added files, a whiteout, an opaque folder.
    pub fn layout(&self) {
        self.root();
        fs::create_dir_all(self.path("more/deep")).unwrap();
        fs::write(self.path("more/deep/new"), "new\n").unwrap();
        self.tool("umoci init --layout layout");
        self.tool("umoci new --image layout:app");
        self.tool("umoci insert --image layout:app root /");
        self.tool("umoci insert --image layout:app more /srv/more");
        self.tool("umoci insert --image layout:app --whiteout /srv/old");
        self.tool("umoci insert --image layout:app --opaque more /opt");
        let config = "--config.user user --config.cmd id --config.workingdir /srv --config.env A=of-image --config.volume /data --config.label who=me --config.stopsignal SIGINT";
        self.tool(&format!("umoci config --image layout:app {config}"));
    }

    /// The index of that layout.
    pub fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("layout/index.json")).unwrap()).unwrap()
    }

    /// Replaces it.
    pub fn set_index(&self, index: &Value) {
        fs::write(self.path("layout/index.json"), serde_json::to_vec(index).unwrap()).unwrap();
    }

    /// Puts content in that layout, and gives its descriptor.
    pub fn put(&self, kind: &str, bytes: &[u8]) -> Value {
        fs::write(self.path("content"), bytes).unwrap();
        let hex = self.tool("sha256sum content").stdout.split_whitespace().next().unwrap().to_owned();
        fs::write(self.path("layout/blobs/sha256").join(&hex), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    /// Nothing half-made is in it.
    pub fn assert_clean(&self, bundle: &str) {
        assert!(!self.path(bundle).exists(), "{bundle} is there");
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.as_bytes().starts_with(b".")), "{left:?}");
        let tmp: Vec<_> = fs::read_dir(self.path("store/tmp")).into_iter().flatten().collect();
        assert!(tmp.is_empty(), "{tmp:?}");
    }
}

/// All that a tree says of itself: kind, mode, owner, time, size, other names, content or link.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    walk(root, Path::new(""), &mut all);
    all
}

fn walk(root: &Path, path: &Path, all: &mut BTreeMap<PathBuf, String>) {
    let place = root.join(path);
    let found = place.symlink_metadata().unwrap();
    let content = if found.is_symlink() {
        format!("{:?}", fs::read_link(&place).unwrap())
    } else if found.is_file() {
        format!("{} {} {:x}", found.nlink(), found.len(), sum(&fs::read(&place).unwrap()))
    } else {
        String::new()
    };
    // The time of the root is not of the image.
    let time = if path.as_os_str().is_empty() { 0 } else { found.mtime() };
    all.insert(path.to_owned(), format!("{:o} {}:{} {time} {content}", found.mode(), found.uid(), found.gid()));
    if found.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|name| walk(root, &path.join(name), all));
    }
}

fn sum(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Panics with what differs.
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    for path in one.keys().chain(other.keys()) {
        assert_eq!(one.get(path), other.get(path), "{path:?}");
    }
}
