// SPDX-License-Identifier: Apache-2.0
//! What the parent opens for the init: trees of the host, cloned, id-mapped and detached; the container's /dev.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;

use super::{copy_up, dev, idmap, node, overlay, secrets, userns};
use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::plan::{BindAttr, IdMaps, Idmap, Source, device_must_be_allowed, id_mapping, source_path};
use crate::state::Record;
use crate::sys::mount::{MountAttr, attr, mount_setattr, open_tree};

/// What the sources of one container share.
pub struct Opener<'a> {
    /// The bundle: relative sources of binds begin there
    pub bundle: &'a Path,
    /// The root file system
    pub root: BorrowedFd<'a>,
    /// The container's user namespace and its maps, if it has one
    pub user: Option<(OwnedFd, &'a IdMaps)>,
    /// The init's program file
    pub init: &'a OwnedFd,
    /// The init itself
    pub pid: Pid,
    /// The socket that `start` connects to
    pub start_socket: Option<OwnedFd>,
    /// For the state that hooks read
    pub hooked: Option<(&'a Record, Pid)>,
    /// The container's cgroup
    pub cgroup: Option<&'a Cgroup>,
    /// Where no program says which devices may be opened: trees of the host are cloned without theirs, and a single node has to be one
    /// that these rules allow
    pub device_rules: Option<&'a [cgroup::Rule]>,
}

impl Opener<'_> {
    /// The descriptors of `sources`, in their order.
    pub fn open(&mut self, sources: &[Source]) -> Result<Vec<OwnedFd>> {
        // The root comes first.
        let layers = match sources.first() {
            Some(Source::Root { layers, .. }) => layers.as_slice(),
            _ => &[],
        };
        sources.iter().map(|source| self.one(source, layers)).collect()
    }

    fn one(&mut self, source: &Source, layers: &[PathBuf]) -> Result<OwnedFd> {
        match source {
            Source::Root { attr, .. } => self.root(attr, layers),
            Source::Bind { path, field, attr, nofollow, proc } => {
                let from = open_path(&source_path(self.bundle, path), field, *nofollow)?;
                if *proc {
                    must_be_proc(&from, path, field)?;
                }
                self.tree(from.as_fd(), attr, field)
            }
            Source::Node(wanted) => node::bind(wanted),
            Source::Dev(wanted) => dev::make(wanted, self.user.as_ref().map(|(_, maps)| *maps)),
            Source::Apart(wanted) => dev::apart(wanted, self.user.as_ref().map(|(_, maps)| *maps)),
            Source::CopyUp(wanted) => {
                let image = if layers.is_empty() { None } else { Some(overlay::image(layers)?) };
                let image = image.as_ref().map_or(self.root, AsFd::as_fd);
                copy_up::make(image, wanted, self.user.as_ref().map(|(_, maps)| *maps))
            }
            Source::Secrets(wanted) => secrets::make(wanted, self.user.as_ref().map(|(_, maps)| *maps)),
            Source::HookState(status) => {
                let (record, pid) = self.hooked.ok_or_else(|| Error::system("the record", Errno::ENOENT))?;
                hooks::stdin(status, pid.as_raw(), record)
            }
            Source::Empty => dev::empty(),
            Source::Namespace { path, field, not_ours } => namespace(path, field, *not_ours),
            Source::Cgroup(hierarchy, attr) => {
                let cgroup = self.cgroup.ok_or_else(|| Error::invalid("mounts", "there is no cgroup to mount"))?;
                self.tree(cgroup.open_dir(hierarchy.as_deref())?.as_fd(), attr, "mounts")
            }
            Source::StartSocket => {
                self.start_socket.take().ok_or_else(|| Error::system("the socket of `start`", Errno::ENOTCONN))
            }
            Source::Labels => labels(self.pid),
            Source::Container => Err(Error::system("the container's first process", Errno::ESRCH)),
        }
    }

    fn root(&self, attr: &BindAttr, layers: &[PathBuf]) -> Result<OwnedFd> {
        let mapped = self.user.as_ref().filter(|_| attr.idmap == Idmap::Container).map(|(user, maps)| (user, *maps));
        if !layers.is_empty() {
            return overlay::of_layers(layers, mapped, attr);
        }
        match mapped {
            Some((user, maps)) if overlay::is_one(self.root)? => overlay::id_mapped(self.root, user, maps, attr),
            _ => self.tree(self.root, attr, "root.path"),
        }
    }

    /// A detached, private copy of the tree at `from`.
    fn tree(&self, from: BorrowedFd<'_>, wanted: &BindAttr, field: &str) -> Result<OwnedFd> {
        let tree = open_tree(from, wanted.recursive).context(|| format!("{field}: clone the mount"))?;
        let user = self.idmap(&tree, wanted, field)?;
        if self.user.is_some() && wanted.propagation == libc::MS_SHARED {
            // As the kernel has it for what a user namespace copies: mounts come from the host, none goes there.
            let slave = MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() };
            mount_setattr(&tree, &slave, true).context(|| format!("{field}: propagation"))?;
        }
        let clear_atime = |set: u64| if set & attr::ATIME_MASK == 0 { 0 } else { attr::ATIME_MASK };
        let no_devices = self.without_devices(from, field)?;
        let all = MountAttr {
            set: wanted.set_all | no_devices | if user.is_some() { attr::IDMAP } else { 0 },
            clear: wanted.clear_all & !no_devices | clear_atime(wanted.set_all),
            propagation: wanted.propagation,
            userns_fd: user.as_ref().map_or(0, |fd| std::os::fd::AsRawFd::as_raw_fd(fd) as u64),
        };
        mount_setattr(&tree, &all, true).map_err(|errno| match &user {
            Some(user) => idmap::refused(field, errno, from, wanted.recursive, user),
            None => Error::system(format!("{field}: mount options"), errno),
        })?;
        if wanted.set | wanted.clear != 0 {
            let clear = wanted.clear & !no_devices | clear_atime(wanted.set);
            let top = MountAttr { set: wanted.set, clear, ..MountAttr::default() };
            mount_setattr(&tree, &top, false).context(|| format!("{field}: mount options"))?;
        }
        Ok(tree)
    }

    /// NODEV if devices are not to be opened in the tree. Who binds a single node means it.
    fn without_devices(&self, from: BorrowedFd<'_>, field: &str) -> Result<u64> {
        let Some(rules) = self.device_rules else { return Ok(0) };
        let stat = fstat(from).context(|| field.into())?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFCHR && kind != SFlag::S_IFBLK {
            return Ok(attr::NODEV);
        }
        let number = (major(stat.st_rdev), minor(stat.st_rdev));
        device_must_be_allowed(rules, field, Path::new("its source"), (kind == SFlag::S_IFBLK, number)).map(|()| 0)
    }

    /// The user namespace whose maps the mount gets.
    fn idmap(&self, tree: &OwnedFd, wanted: &BindAttr, field: &str) -> Result<Option<OwnedFd>> {
        let own =
            || self.user.as_ref().ok_or_else(|| Error::invalid(field, "an id-mapped mount needs a user namespace"));
        match &wanted.idmap {
            Idmap::None => Ok(None),
            Idmap::Container => Ok(Some(own()?.0.try_clone().context(|| field.into())?)),
            Idmap::Explicit(maps) => userns::for_mount(self.init, maps).map(Some),
            Idmap::Owner { uid, gid } => {
                let stat = fstat(tree).context(|| field.into())?;
                let (_, maps) = own()?;
                if stat.st_uid == 0 && (wanted.set | wanted.set_all) & attr::RDONLY != 0 {
                    return Ok(Some(own()?.0.try_clone().context(|| field.into())?));
                }
                userns::for_mount(self.init, &owner_maps(&stat, maps, *uid, *gid, field)?).map(Some)
            }
        }
    }
}

/// Only a whole proc may lie on /proc: what labels are written to must be what it says it is (CVE-2019-19921).
fn must_be_proc(from: &OwnedFd, path: &Path, field: &str) -> Result<()> {
    // linux/proc_fs.h: PROC_ROOT_INO
    const ROOT: u64 = 1;
    let kind = fstatfs(from).context(|| field.into())?.filesystem_type();
    if kind == PROC_SUPER_MAGIC && fstat(from).context(|| field.into())?.st_ino == ROOT {
        return Ok(());
    }
    let why = format!("{} is no proc file system, and nothing else may lie on /proc (CVE-2019-16884)", path.display());
    Err(Error::invalid(field, why))
}

/// The folder's owner is the container's user; nobody else maps, so that no file of another user of the host can be made.
fn owner_maps(stat: &FileStat, maps: &IdMaps, uid: u32, gid: u32, field: &str) -> Result<IdMaps> {
    Ok(IdMaps {
        uid: vec![id_mapping(stat.st_uid, host_id(&maps.uid, uid, field)?, 1)],
        gid: vec![id_mapping(stat.st_gid, host_id(&maps.gid, gid, field)?, 1)],
    })
}

/// What the container's `id` is on the host.
pub(super) fn host_id(map: &[LinuxIdMapping], id: u32, field: &str) -> Result<u32> {
    crate::plan::host_id(map, id)
        .ok_or_else(|| Error::invalid(field, format!("id {id} of the container has no host id")))
}

#[expect(clippy::disallowed_methods, reason = "a fixed file of the host's /proc")]
pub(super) fn namespace(path: &Path, field: &str, not_ours: bool) -> Result<OwnedFd> {
    let context = || format!("{field}: {}", path.display());
    let fd = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).context(context)?;
    let inode = |stat: FileStat| (stat.st_dev, stat.st_ino);
    if not_ours && inode(fstat(&fd).context(context)?) == inode(stat("/proc/self/ns/net").context(context)?) {
        return Err(Error::invalid(
            "linux.sysctl",
            format!("would change the host's network: {} is its", path.display()),
        ));
    }
    Ok(fd)
}

/// Where process `pid` may write its own labels: the host's own proc, whatever is mounted in the container (CVE-2019-16884).
pub fn labels(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/attr");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path.as_str(), flags, Mode::empty()).context(|| path)
}

fn open_path(path: &Path, field: &str, nofollow: bool) -> Result<OwnedFd> {
    let link_itself = if nofollow { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC | link_itself, Mode::empty())
        .context(|| format!("{field}: {}", path.display()))
}
