// SPDX-License-Identifier: Apache-2.0
//! An unprivileged user of the host: known to the commands that run as this user alone (by files bound over /etc/passwd and its like, in a
//! mount namespace of theirs), in a cgroup that was handed over, or in none.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::engine::{captured, wsbox_path};
use crate::{Bundle, Outcome, TempDir, unique};

/// Nobody's, on any Debian.
pub const UID: u32 = 54_321;
/// What /etc/subuid and /etc/subgid give it.
pub const RANGE: (u32, u32) = (3_000_000_000, 65_536);
const NAME: &str = "wsbtuser";
const FILES: [&str; 4] = ["passwd", "group", "subuid", "subgid"];

/// The user, with a home of its own: a state root, and a copy of the wsbox under test.
#[derive(Debug)]
pub struct User {
    home: TempDir,
    cgroup: Option<PathBuf>,
    /// Groups beside its own
    pub groups: Vec<u32>,
}

impl User {
    /// One whose containers have nowhere to be.
    pub fn new() -> Self {
        let home = TempDir::new("user");
        let etc = home.path().join("etc");
        fs::create_dir(&etc).expect("a folder");
        let (first, count) = RANGE;
        let range = format!("{NAME}:{first}:{count}\n");
        let contents =
            [format!("{NAME}:x:{UID}:{UID}::/:/bin/sh\n"), format!("{NAME}:x:{UID}:\n"), range.clone(), range];
        for (name, own) in FILES.iter().zip(contents) {
            let hosts = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            fs::write(etc.join(name), hosts + &own).expect("a file");
        }
        fs::copy(wsbox_path(), home.path().join("wsbox")).expect("a copy of wsbox");
        fs::create_dir(home.path().join("run")).expect("a folder");
        let user = Self { home, cgroup: None, groups: Vec::new() };
        user.own(user.home.path());
        user
    }

    /// One without entries in /etc/subuid and /etc/subgid.
    pub fn without_range(self) -> Self {
        for name in ["subuid", "subgid"] {
            fs::write(self.home.path().join("etc").join(name), "").expect("a file");
        }
        self
    }

    /// In a cgroup of its own, with these controllers, as far as they are on v2 here (cgroup-v2.rst, "Model of Delegation").
    pub fn delegated(mut self, controllers: &str) -> Self {
        let root = if crate::cgroup::on_v1() { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
        let dir = Path::new(root).join(unique("delegated"));
        fs::create_dir(&dir).expect("a new cgroup");
        self.cgroup = Some(dir.clone());
        if !crate::cgroup::on_v1() {
            fs::write(Path::new(root).join("cgroup.subtree_control"), controllers).expect("the root's controllers");
        }
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(dir.join(file), Some(UID), Some(UID)).expect("a file of the cgroup");
        }
        self
    }

    /// The cgroup that was handed over.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.as_deref().expect("a delegated one")
    }

    /// Its folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where its containers have their state.
    pub fn root(&self) -> PathBuf {
        self.home.path().join("run/wsbox")
    }

    /// Gives it a tree.
    pub fn own(&self, tree: &Path) {
        let status = Command::new("chown").args(["-hR", &format!("{UID}:{UID}")]).arg(tree).status();
        assert!(status.expect("coreutils").success());
    }

    /// A command as this user, in its cgroup if it has one.
    pub fn command(&self, program: &[&str]) -> Command {
        // Where wsbox has moved those who were there before, once it has limits in it.
        let join = |dir: &PathBuf| {
            let procs = |leaf: &str| format!("{}/{leaf}cgroup.procs", dir.display());
            format!("echo $$ 2>/dev/null >{} || echo $$ >{}; ", procs(""), procs("wsbox@callers/"))
        };
        let join: String = self.cgroup.iter().map(join).collect();
        let bind = |name: &str| format!("mount --bind {}/etc/{name} /etc/{name}; ", self.home.path().display());
        let binds: String = FILES.map(bind).concat();
        let groups = match self.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",") {
            none if none.is_empty() => "--clear-groups".to_owned(),
            some => format!("--groups={some}"),
        };
        let script = format!("set -e; {join}{binds}exec setpriv --reuid={UID} --regid={UID} {groups} \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).args(program).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.home.path().join("run")).env_remove("WSBOX_PROFILE");
        command
    }

    /// `wsbox ARGS` as this user.
    pub fn wsbox(&self, args: &[&str]) -> Outcome {
        let program = self.home.path().join("wsbox").display().to_string();
        captured(&mut self.command(&[&[program.as_str()], args].concat()))
    }

    /// `wsbox run` of a bundle, which becomes this user's.
    pub fn run(&self, bundle: &Bundle, flags: &[&str], id: &str) -> Outcome {
        bundle.write();
        self.own(bundle.path());
        self.wsbox(&[&["run", "--bundle", &bundle.path().display().to_string()], flags, &[id]].concat())
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for id in self.wsbox(&["list", "--quiet"]).stdout.lines() {
            self.wsbox(&["delete", "--force", id]);
        }
        let Some(cgroup) = &self.cgroup else { return };
        let left =
            Command::new("find").arg(cgroup).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]).status();
        assert!(std::thread::panicking() || left.is_ok_and(|status| status.success()), "{} is left", cgroup.display());
    }
}
