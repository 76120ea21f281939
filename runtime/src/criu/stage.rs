// SPDX-License-Identifier: Apache-2.0
//! Where criu runs: a mount namespace of its own with the root and the binds of the container, as the plan has them, on a tmpfs over
//! the state folder. All of it goes with criu; nobody on the host sees it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl, openat};
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
use crate::sys::mount::attach;

/// The root's name on the stage.
const ROOT: &str = "root";
const EMPTY: &str = "wsbox-empty";

/// Detached trees by their names.
pub struct Stage {
    folder: PathBuf,
    trees: Vec<(String, OwnedFd)>,
}

impl Stage {
    /// Opens what the plan has from the host.
    ///
    /// # Errors
    /// The source that is not there, by its field.
    pub fn new(folder: &Path, bundle: &Bundle, plan: &Plan, cgroup: &Cgroup) -> Result<Self> {
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
        Ok(Self { folder: folder.to_owned(), trees })
    }

    /// Where the root will be.
    pub fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// criu's arguments for the mounts that its images name: `[(place, name)]`.
    ///
    /// # Errors
    /// A name that the config has no mount for.
    pub fn external(&self, command: &mut Command, wanted: &[(String, String)]) -> Result<()> {
        for (place, name) in wanted {
            let tree = name.split('/').next().unwrap_or_default();
            if !self.trees.iter().any(|(own, _)| own == tree) {
                return Err(Error::invalid("mounts", format!("have nothing for {place}, which the images lack")));
            }
            command.arg("--external").arg(format!("mnt[{name}]:{}", self.folder.join(name).display()));
        }
        Ok(())
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
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let made = mount(Some("tmpfs"), &self.folder, Some("tmpfs"), flags, Some("mode=700,size=1m"));
        made.context(|| format!("a tmpfs on {}", self.folder.display()))?;
        self.trees
            .iter()
            .try_for_each(|(name, tree)| place(&self.folder.join(name), tree).context(|| format!("mount {name}")))
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
    #[test]
    fn masks_lie_on_the_empty_tree() {
        assert!(super::describe::MASKS.iter().all(|(root, name)| *name == format!("{}{root}", super::EMPTY)));
    }
}
