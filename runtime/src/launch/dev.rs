// SPDX-License-Identifier: Apache-2.0
//! The container's /dev: a tmpfs that the parent fills before anybody can see it. Nodes are made in the initial user
//! namespace, where alone mknod(2) may, and owned by the container's root.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, access, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDeviceType, LinuxIdMapping};

use crate::error::{Context, Error, Result};
use crate::plan::step::c_string;
use crate::plan::{Apart, Dev, Given, IdMaps, Option_, host_id};
use crate::sys::mount::{MountAttr, attr, fsconfig, fsmount, fsopen, mount_setattr};

/// The nodes that every container has (config-linux.md, "Default Devices"): name, major, minor.
pub const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links that every container has (runtime-linux.md, "Dev symbolic links"), and the pty multiplexer.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes a /dev; with `maps`, its files belong to the container's ids.
pub fn make(dev: &Dev, maps: Option<&IdMaps>) -> Result<OwnedFd> {
    let mount = tmpfs("/dev", &dev.options, dev.attributes)?;
    let owner = Owner { maps };
    fill(&mount, dev, &owner)?;
    Ok(mount)
}

fn tmpfs(what: &str, options: &[Option_], attributes: u64) -> Result<OwnedFd> {
    let context = fsopen(c"tmpfs").context(|| format!("{what}: fsopen tmpfs"))?;
    fsconfig(&context, c"source", Some(c"tmpfs")).context(|| format!("{what}: source"))?;
    for (field, key, value) in options {
        let (name, text) = (c_string(field, key)?, value.as_ref().map(|value| c_string(field, value)).transpose()?);
        fsconfig(&context, &name, text.as_deref()).context(|| format!("{field}: option {key} of {what}"))?;
    }
    fsmount(&context, attributes).context(|| format!("{what}: fsmount"))
}

fn fill(mount: &OwnedFd, dev: &Dev, owner: &Owner<'_>) -> Result<()> {
    owner.take(mount, "", 0, 0)?;
    for (name, major, minor) in NODES {
        let (kind, device) = made(dev.bound, SFlag::S_IFCHR, makedev(major, minor));
        node(mount, name, kind, 0o666, device).context(|| format!("/dev/{name}"))?;
        owner.take(mount, name, 0, 0)?;
    }
    for name in &dev.directories {
        directory(mount, name, 0o755).context(|| format!("/dev/{name}"))?;
        owner.take(mount, name, 0, 0)?;
    }
    dev.nodes.iter().try_for_each(|given| extra(mount, dev.bound, given, owner))?;
    links(mount, &dev.covered)?;
    if dev.console && known(node(mount, "console", SFlag::S_IFREG, 0o600, 0)).context(|| "/dev/console".into())? {
        owner.take(mount, "console", 0, 0)?;
    }
    Ok(())
}

/// Last: they lead out of the mount, into the host's own /proc as long as we make it. A node of the config's stands in place of one,
/// and a mount that is to cover one must not follow it.
fn links(mount: &OwnedFd, covered: &[String]) -> Result<()> {
    // As runc has it, where the kernel has it.
    let core = access("/proc/kcore", AccessFlags::F_OK).is_ok().then_some(("core", "/proc/kcore"));
    for (name, target) in LINKS.into_iter().chain(core).filter(|(name, _)| !covered.iter().any(|other| other == name)) {
        known(symlinkat(target, mount, name)).context(|| format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Whether it was made, and not there before.
fn known(made: nix::Result<()>) -> nix::Result<bool> {
    match made {
        Err(Errno::EEXIST) => Ok(false),
        made => made.map(|()| true),
    }
}

/// The node, or the empty file that one of the host's will be bound over.
fn made(bound: bool, kind: SFlag, device: u64) -> (SFlag, u64) {
    if bound { (SFlag::S_IFREG, 0) } else { (kind, device) }
}

/// chmod afterwards: the umask belongs to the whole host program, which may have threads.
fn node(mount: &OwnedFd, name: &str, kind: SFlag, mode: u32, device: u64) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    mknodat(mount, name, kind, mode, device)?;
    fchmodat(mount, name, mode, FchmodatFlags::FollowSymlink)
}

fn directory(mount: &OwnedFd, name: &str, mode: u32) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    mkdirat(mount, name, mode)?;
    fchmodat(mount, name, mode, FchmodatFlags::FollowSymlink)
}

/// A node of the config's, below /dev. Of a place that is given again, the last stands.
fn extra(mount: &OwnedFd, bound: bool, given: &Given, owner: &Owner<'_>) -> Result<()> {
    let (field, wanted) = given;
    let path = crate::validate::clean(&wanted.path().to_string_lossy());
    let name = path.strip_prefix("/dev/").ok_or_else(|| Error::invalid(field, "is not below /dev"))?;
    // Among all devices of the host, as Docker's --privileged names them; ours leads to the container's own terminals.
    if name == "ptmx" && (wanted.major(), wanted.minor()) == (5, 2) {
        return Ok(());
    }
    parents(mount, name, owner).context(|| format!("{field}.path: {path}"))?;
    match unlinkat(mount, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(Error::system(format!("{field}.path: {path}"), errno)),
    }
    wanted_node(mount, name, bound, given, owner)
}

fn wanted_node(mount: &OwnedFd, name: &str, bound: bool, given: &Given, owner: &Owner<'_>) -> Result<()> {
    let (field, wanted) = given;
    let (kind, device) = match wanted.typ() {
        LinuxDeviceType::B => (SFlag::S_IFBLK, makedev(wanted.major() as u64, wanted.minor() as u64)),
        LinuxDeviceType::P => (SFlag::S_IFIFO, 0),
        _ => (SFlag::S_IFCHR, makedev(wanted.major() as u64, wanted.minor() as u64)),
    };
    let (kind, device) = made(bound, kind, device);
    let mode = wanted.file_mode().unwrap_or(0o666) & 0o777;
    node(mount, name, kind, mode, device).context(|| format!("{field}: make {}", wanted.path().display()))?;
    owner.take(mount, name, wanted.uid().unwrap_or(0), wanted.gid().unwrap_or(0)).map_err(|error| error.hint(field))
}

/// A tmpfs with nodes that other places are bound from, each named by its number.
pub fn apart(apart: &Apart, maps: Option<&IdMaps>) -> Result<OwnedFd> {
    let mount = tmpfs("linux.devices", &apart.options, attr::NOSUID | attr::NOEXEC)?;
    for (at, given) in apart.nodes.iter().enumerate() {
        wanted_node(&mount, &at.to_string(), false, given, &Owner { maps })?;
    }
    Ok(mount)
}

fn parents(mount: &OwnedFd, name: &str, owner: &Owner<'_>) -> nix::Result<()> {
    for (at, _) in name.match_indices('/') {
        match directory(mount, &name[..at], 0o755) {
            Ok(()) => owner.chown(mount, &name[..at], 0, 0)?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The owner of what is made: ids of the container as the host sees them.
struct Owner<'a> {
    maps: Option<&'a IdMaps>,
}

impl Owner<'_> {
    fn take(&self, mount: impl AsFd, name: &str, uid: u32, gid: u32) -> Result<()> {
        self.chown(mount, name, uid, gid).context(|| format!("/dev/{name}: owner {uid}:{gid}"))
    }

    fn chown(&self, mount: impl AsFd, name: &str, uid: u32, gid: u32) -> nix::Result<()> {
        if self.maps.is_none() && (uid, gid) == (0, 0) {
            return Ok(());
        }
        let map = |maps: &[LinuxIdMapping], id: u32| host_id(maps, id).ok_or(Errno::EOVERFLOW);
        let (uid, gid) = match self.maps {
            Some(maps) => (map(&maps.uid, uid)?, map(&maps.gid, gid)?),
            None => (uid, gid),
        };
        let flags = AtFlags::AT_EMPTY_PATH | AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(mount, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
    }
}

/// A read-only tmpfs with an empty file `file` and an empty directory `dir`: one superblock covers every masked path.
pub fn empty() -> Result<OwnedFd> {
    let step = || "linux.maskedPaths: an empty tmpfs".into();
    let context = fsopen(c"tmpfs").context(step)?;
    for (key, value) in [(c"mode", c"555"), (c"nr_inodes", c"4"), (c"size", c"4k")] {
        fsconfig(&context, key, Some(value)).context(step)?;
    }
    let mount = fsmount(&context, attr::NOSUID | attr::NODEV | attr::NOEXEC).context(step)?;
    directory(&mount, "dir", 0o555).context(step)?;
    node(&mount, "file", SFlag::S_IFREG, 0o444, 0).context(step)?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(&mount, &read_only, false).context(step)?;
    Ok(mount)
}
