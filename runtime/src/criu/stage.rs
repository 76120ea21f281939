// SPDX-License-Identifier: Apache-2.0
//! Where criu runs: a mount namespace of its own with the root and the binds of the container, as the plan has them, on a tmpfs over
//! the state folder. All of it goes with criu; nobody on the host sees it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, OpenHow, ResolveFlag, fcntl, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::Pid;

use super::describe;
use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::launch::memfd;
use crate::launch::sources::Opener;
use crate::plan::{Plan, Source};
use crate::sys::keyring;
use crate::sys::mount::{attach, open_tree};

/// The root's name on the stage, and the script's.
const ROOT: &str = "root";
const SCRIPT: &str = "script";
const EMPTY: &str = "wsbox-empty";

/// Detached trees by their names.
pub struct Stage {
    folder: PathBuf,
    script: String,
    trees: Vec<(String, OwnedFd)>,
    below: Vec<Below>,
}

/// What lies below a tree, and a place of its own for it.
struct Below {
    tree: usize,
    rest: PathBuf,
    on_stage: PathBuf,
}

impl Stage {
    /// Opens what the plan has from the host.
    ///
    /// # Errors
    /// The source that is not there, by its field.
    pub fn new(folder: &Path, script: String, bundle: &Bundle, plan: &Plan, cgroup: &Cgroup) -> Result<Self> {
        let (root, init) = (bundle.open_root()?, memfd::init()?);
        let mut opener = Opener {
            bundle: &bundle.path,
            root: root.as_fd(),
            user: None,
            init: &init,
            pid: Pid::this(),
            start_socket: None,
            hooked: None,
            cgroup: Some(cgroup),
            device_rules: None,
        };
        let named: Vec<(String, &Source)> =
            plan.sources.iter().filter_map(|source| Some((name(source, bundle)?, source))).collect();
        let sources: Vec<Source> = named.iter().map(|(_, source)| (*source).clone()).collect();
        let trees = named.into_iter().map(|(name, _)| name).zip(opener.open(&sources)?).collect();
        Ok(Self { folder: folder.to_owned(), script, trees, below: Vec::new() })
    }

    /// Where the root will be.
    pub fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// Where criu's script will be: it is criu's own, and does not go with us.
    pub fn script(&self) -> PathBuf {
        self.folder.join(SCRIPT)
    }

    /// criu's arguments for the mounts that its images name: `[(place, name)]`.
    ///
    /// # Errors
    /// A name that the config has no mount for, or that leads out of it.
    pub fn external(&mut self, command: &mut Command, wanted: &[(String, String)]) -> Result<()> {
        for (place, name) in wanted {
            let (tree, rest) = split(name)?;
            let Some(tree) = self.trees.iter().position(|(own, _)| own == tree) else {
                return Err(Error::invalid("mounts", format!("have nothing for {place}, which the images lack")));
            };
            let on_stage =
                if rest.is_empty() { self.folder.join(&self.trees[tree].0) } else { self.place_below(tree, rest) };
            command.arg("--external").arg(format!("mnt[{name}]:{}", on_stage.display()));
        }
        Ok(())
    }

    /// A place of its own: criu itself would follow links on the way.
    fn place_below(&mut self, tree: usize, rest: &str) -> PathBuf {
        if let Some(known) = self.below.iter().find(|below| below.tree == tree && below.rest == Path::new(rest)) {
            return known.on_stage.clone();
        }
        let on_stage = self.folder.join(format!("below-{}", self.below.len()));
        self.below.push(Below { tree, rest: rest.into(), on_stage: on_stage.clone() });
        on_stage
    }

    /// Starts criu on it, with what goes on to the payload: a session keyring of its own, and no_new_privs if the config has it, which
    /// criu itself restores from 3.18 on.
    ///
    /// # Errors
    /// What the kernel refuses, or criu is not there.
    pub fn start(&self, command: &mut Command, no_new_privileges: bool) -> Result<Child> {
        // These belong to a thread, and to what the thread starts (unshare(2), prctl(2)).
        let start = || {
            if no_new_privileges {
                set_no_new_privs().context(|| "process.noNewPrivileges".into())?;
            }
            keyring::new_session().context(|| "a new session keyring".into())?;
            self.build()?;
            command.spawn().context(|| Path::new(command.get_program()).display().to_string())
        };
        std::thread::scope(|scope| scope.spawn(start).join())
            .unwrap_or_else(|_| Err(Error::system("the thread that starts criu", Errno::ECHILD)))
    }

    fn build(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context(|| "a mount namespace for criu".into())?;
        let none: Option<&Path> = None;
        let slave = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none);
        slave.context(|| "a mount namespace for criu".into())?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let made = mount(Some("tmpfs"), &self.folder, Some("tmpfs"), flags, Some("mode=700,size=1m"));
        made.context(|| format!("a tmpfs on {}", self.folder.display()))?;
        let mut script = File::options();
        let script = script.write(true).create_new(true).mode(0o500).open(self.script());
        script.and_then(|mut file| file.write_all(self.script.as_bytes())).context(|| "criu's script".into())?;
        self.trees
            .iter()
            .try_for_each(|(name, tree)| place(&self.folder.join(name), tree).context(|| format!("mount {name}")))?;
        self.below.iter().try_for_each(|below| {
            let tree = &self.trees[below.tree].1;
            let shown = || format!("mount {} of {}", below.rest.display(), self.trees[below.tree].0);
            place(&below.on_stage, &inside(tree, &below.rest).context(shown)?).context(shown)
        })
    }
}

/// The name of a source that the images lack; none of one that is in them.
fn name(source: &Source, bundle: &Bundle) -> Option<String> {
    match source {
        Source::Root { .. } => Some(ROOT.into()),
        Source::Bind { field, .. } => {
            let at = field.strip_prefix("mounts[")?.split(']').next()?.parse().ok()?;
            Some(describe::name(at, ""))
        }
        Source::Cgroup(..) => {
            let mut mounts = bundle.spec.mounts().iter().flatten();
            mounts.position(|mount| mount.typ().as_deref() == Some("cgroup")).map(|at| describe::name(at, ""))
        }
        Source::Empty => Some(EMPTY.into()),
        _ => None,
    }
}

/// The tree of a name from the images, and the path below it.
fn split(name: &str) -> Result<(&str, &str)> {
    let (tree, rest) = name.split_once('/').unwrap_or((name, ""));
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if plain(tree) && (tree.len() == name.len() || rest.split('/').all(plain)) {
        return Ok((tree, rest));
    }
    Err(Error::invalid("wsbox.json", format!("names {name:?} as a mount, which leads out of the container's")))
}

/// A copy of what lies below a tree that is attached: no link that the payload left there leads out of it.
fn inside(tree: &OwnedFd, rest: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    open_tree(openat2(tree, rest, how)?, true)
}

/// Attaches a tree to a new file or folder, as it is one.
fn place(path: &Path, tree: &OwnedFd) -> nix::Result<()> {
    let is_folder = SFlag::from_bits_truncate(fstat(tree)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let made = if is_folder { std::fs::create_dir(path) } else { File::create_new(path).map(drop) };
    made.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let to = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(tree, to)
}

/// A copy of a descriptor that criu gets by its number.
pub fn handed(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let copy = fd.try_clone_to_owned().context(|| "a descriptor for criu".into())?;
    fcntl(&copy, FcntlArg::F_SETFD(FdFlag::empty())).context(|| "a descriptor for criu".into())?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_lie_on_the_empty_tree() {
        assert!(describe::MASKS.iter().all(|(root, name)| *name == format!("{EMPTY}{root}")));
    }

    #[test]
    fn names_stay_in_their_tree() {
        assert_eq!(split("wsbox-mount-1").unwrap(), ("wsbox-mount-1", ""));
        assert_eq!(split("wsbox-mount-1/a/b").unwrap(), ("wsbox-mount-1", "a/b"));
        for name in ["", ".", "..", "/", "/etc", "root/", "root/../../etc", "root//a", "root/./a", "root/.."] {
            assert!(split(name).unwrap_err().to_string().contains("leads out"), "{name}");
        }
    }

    #[test]
    fn links_in_a_tree_are_not_followed() {
        let dir = std::env::temp_dir().join(format!("wsbox-stage-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        let tree = openat(AT_FDCWD, &dir, OFlag::O_PATH, Mode::empty()).unwrap();
        let found = inside(&tree, "link".as_ref()).map(drop);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, Err(Errno::ELOOP));
    }
}
