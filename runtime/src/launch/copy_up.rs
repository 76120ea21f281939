// SPDX-License-Identifier: Apache-2.0
//! A tmpfs that begins with what the image has where it will lie (the option tmpcopyup). The image is nobody's friend: links
//! are copied, never followed, and devices, pipes and sockets are left out. What is copied counts against the tmpfs's size.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use super::sources::host_id;
use crate::error::{Context, Error, Result};
use crate::plan::step::c_string;
use crate::plan::{CopyUp, IdMaps};
use crate::sys::mount::{fsconfig, fsmount, fsopen};

/// No image needs folders in folders this often; each holds two descriptors.
const DEEPEST: u32 = 100;
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The tmpfs that `wanted` describes, with the folder below `root` in it. `maps` are those of the container's user namespace.
pub fn make(root: BorrowedFd<'_>, wanted: &CopyUp, maps: Option<&IdMaps>) -> Result<OwnedFd> {
    let copy = Copy { field: &wanted.field, maps: maps.filter(|_| wanted.id_mapped) };
    let tmpfs = tmpfs(wanted, maps)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let from = match openat2(root, wanted.path.trim_start_matches('/'), how) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(tmpfs),
        result => result.context(|| format!("{}: {} of the image", wanted.field, wanted.path))?,
    };
    let to = openat(&tmpfs, ".", FOLDER, Mode::empty()).context(|| wanted.field.clone())?;
    if !wanted.options.iter().any(|(_, key, _)| key == "mode") {
        copy.owner_and_mode(&to, &fstat(&from).context(|| wanted.field.clone())?)?;
    }
    copy.folder(from, to.as_fd(), 0)?;
    Ok(tmpfs)
}

/// Made outside of the user namespace: its options name ids of the host.
fn tmpfs(wanted: &CopyUp, maps: Option<&IdMaps>) -> Result<OwnedFd> {
    let context = fsopen(c"tmpfs").context(|| format!("{}: fsopen tmpfs", wanted.field))?;
    for (field, key, value) in &wanted.options {
        let bad = || Error::invalid(field, format!("{key} is no id"));
        let map = maps.and_then(|maps| match key.as_str() {
            "uid" => Some(&maps.uid),
            "gid" => Some(&maps.gid),
            _ => None,
        });
        let value = match (map, value) {
            (Some(map), Some(id)) => Some(host_id(map, id.parse().map_err(|_| bad())?, field)?.to_string()),
            (_, value) => value.clone(),
        };
        let value = value.map(|value| c_string(field, &value)).transpose()?;
        fsconfig(&context, &c_string(field, key)?, value.as_deref()).context(|| format!("{field}: option {key}"))?;
    }
    fsmount(&context, wanted.attributes).context(|| format!("{}: fsmount", wanted.field))
}

struct Copy<'a> {
    field: &'a str,
    /// Where an id x on the disk is the container's id x
    maps: Option<&'a IdMaps>,
}

impl Copy<'_> {
    fn folder(&self, from: OwnedFd, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::invalid(self.field, format!("the image has folders more than {DEEPEST} deep there")));
        }
        let mut folder = Dir::from_fd(from).context(|| self.field.into())?;
        let names: Vec<_> = folder.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
        for name in names {
            let name = name.context(|| self.field.into())?;
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                self.entry(folder.as_fd(), to, &name, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, depth: u32) -> Result<()> {
        let context = || format!("{}: copy {:?} of the image", self.field, name.to_string_lossy());
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).context(context)?;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                let source = openat(from, name, FOLDER, Mode::empty()).context(context)?;
                mkdirat(to, name, Mode::S_IRWXU).context(context)?;
                let made = openat(to, name, FOLDER, Mode::empty()).context(context)?;
                self.folder(source, made.as_fd(), depth + 1)?;
                self.owner_and_mode(&made, &stat)
            }
            SFlag::S_IFREG => {
                let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut source = File::from(openat(from, name, read, Mode::empty()).context(context)?);
                let mut made = File::from(openat(to, name, create, Mode::S_IRUSR).context(context)?);
                std::io::copy(&mut source, &mut made).context(context)?;
                self.owner_and_mode(&made, &stat)
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name).context(context)?;
                symlinkat(target.as_os_str(), to, name).context(context)?;
                let (uid, gid) = self.owner(&stat)?;
                fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).context(context)
            }
            _ => Ok(()),
        }
    }

    fn owner(&self, stat: &FileStat) -> Result<(Uid, Gid)> {
        let (uid, gid) = match self.maps {
            Some(maps) => (host_id(&maps.uid, stat.st_uid, self.field)?, host_id(&maps.gid, stat.st_gid, self.field)?),
            None => (stat.st_uid, stat.st_gid),
        };
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn owner_and_mode(&self, made: &impl AsFd, stat: &FileStat) -> Result<()> {
        let (uid, gid) = self.owner(stat)?;
        fchown(made, Some(uid), Some(gid))
            .and_then(|()| fchmod(made, Mode::from_bits_truncate(stat.st_mode & 0o7777)))
            .context(|| format!("{}: owner and mode of a copy", self.field))
    }
}
