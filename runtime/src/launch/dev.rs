// SPDX-License-Identifier: Apache-2.0
//! The container's /dev: a tmpfs that the parent fills before anybody can see it. Nodes are made in the initial user
//! namespace, where alone mknod(2) may, and owned by the container's root.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, access, fchownat, symlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxIdMapping};

use crate::error::{Context, Error, Result};
use crate::plan::step::c_string;
use crate::plan::{Dev, IdMaps};
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
    let mount = tmpfs(dev)?;
    let owner = Owner { maps };
    fill(&mount, dev, &owner)?;
    Ok(mount)
}

fn tmpfs(dev: &Dev) -> Result<OwnedFd> {
    let context = fsopen(c"tmpfs").context(|| "/dev: fsopen tmpfs".into())?;
    fsconfig(&context, c"source", Some(c"tmpfs")).context(|| "/dev: source".into())?;
    for (field, key, value) in &dev.options {
        let (name, text) = (c_string(field, key)?, value.as_ref().map(|value| c_string(field, value)).transpose()?);
        fsconfig(&context, &name, text.as_deref()).context(|| format!("{field}: option {key} of /dev"))?;
    }
    fsmount(&context, dev.attributes).context(|| "/dev: fsmount".into())
}

fn fill(mount: &OwnedFd, dev: &Dev, owner: &Owner<'_>) -> Result<()> {
    owner.take(mount, "", 0, 0)?;
    for (name, major, minor) in NODES {
        let (kind, device) = made(dev, SFlag::S_IFCHR, makedev(major, minor));
        node(mount, name, kind, 0o666, device).context(|| format!("/dev/{name}"))?;
        owner.take(mount, name, 0, 0)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, mount, name).context(|| format!("/dev/{name}"))?;
    }
    // As runc has it, where the kernel has it.
    if access("/proc/kcore", AccessFlags::F_OK).is_ok() {
        symlinkat("/proc/kcore", mount, "core").context(|| "/dev/core".into())?;
    }
    for name in &dev.directories {
        directory(mount, name, 0o755).context(|| format!("/dev/{name}"))?;
        owner.take(mount, name, 0, 0)?;
    }
    if dev.console {
        node(mount, "console", SFlag::S_IFREG, 0o600, 0).context(|| "/dev/console".into())?;
        owner.take(mount, "console", 0, 0)?;
    }
    dev.nodes
        .iter()
        .enumerate()
        .try_for_each(|(at, wanted)| extra(mount, dev, wanted, owner, &format!("linux.devices[{at}]")))
}

/// The node, or the empty file that one of the host's will be bound over.
fn made(dev: &Dev, kind: SFlag, device: u64) -> (SFlag, u64) {
    if dev.bound { (SFlag::S_IFREG, 0) } else { (kind, device) }
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

/// A node of the config's, below /dev. One of the usual six may be given again.
fn extra(mount: &OwnedFd, dev: &Dev, wanted: &LinuxDevice, owner: &Owner<'_>, field: &str) -> Result<()> {
    let path = crate::validate::clean(&wanted.path().to_string_lossy());
    let name = path.strip_prefix("/dev/").ok_or_else(|| Error::invalid(field, "is not below /dev"))?;
    // Among all devices of the host, as Docker's --privileged names them; ours leads to the container's own terminals.
    if name == "ptmx" && (wanted.major(), wanted.minor()) == (5, 2) {
        return Ok(());
    }
    // The links lead out of the mount, into the host's own /proc as long as we make it.
    if let Some((link, _)) = LINKS.iter().find(|(link, _)| name.split('/').next() == Some(link)) {
        return Err(Error::invalid(format!("{field}.path"), format!("{path}: /dev/{link} is wsbox's own link")));
    }
    parents(mount, name, owner).context(|| format!("{field}.path: {path}"))?;
    let (kind, device) = match wanted.typ() {
        LinuxDeviceType::B => (SFlag::S_IFBLK, makedev(wanted.major() as u64, wanted.minor() as u64)),
        LinuxDeviceType::P => (SFlag::S_IFIFO, 0),
        _ => (SFlag::S_IFCHR, makedev(wanted.major() as u64, wanted.minor() as u64)),
    };
    let (made_kind, made_device) = made(dev, kind, device);
    let mode = wanted.file_mode().unwrap_or(0o666) & 0o777;
    match node(mount, name, made_kind, mode, made_device) {
        Err(Errno::EEXIST)
            if NODES.iter().any(|(known, major, minor)| *known == name && makedev(*major, *minor) == device) =>
        {
            fchmodat(mount, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
        }
        result => result,
    }
    .context(|| format!("{field}: make {path}"))?;
    owner.take(mount, name, wanted.uid().unwrap_or(0), wanted.gid().unwrap_or(0)).map_err(|error| error.hint(field))
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
        let map = |maps: &[LinuxIdMapping], id: u32| {
            let entry =
                maps.iter().find(|entry| id >= entry.container_id() && id - entry.container_id() < entry.size());
            entry.map(|entry| entry.host_id() + (id - entry.container_id())).ok_or(Errno::EOVERFLOW)
        };
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
