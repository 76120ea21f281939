// SPDX-License-Identifier: Apache-2.0
//! The folder of images and those of its pre-dumps: criu makes processes of what is in them, so nobody but the caller and root may have
//! a hand in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::describe::{FILE, digest};
use super::room::Room;
use super::way;
use crate::error::{Context, Error, Result};

/// How many pre-dumps may lie below each other.
const MOST: usize = 1024;
/// criu's link to the pre-dump.
const PARENT: &str = "parent";

/// How many images there are and how long together, with a digest of their names and lengths: criu 3.17 waits forever for the rest of one
/// that was cut. As short for many as for few, whatever the payload has criu write.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    images: usize,
    bytes: u64,
    digest: String,
    /// Those of memory are among them: a page server writes its own
    memory: bool,
}

/// The folders, each opened once: that of the images, then its parent, and so on.
pub struct Images {
    flag: String,
    path: PathBuf,
    folders: Vec<OwnedFd>,
}

impl Images {
    /// Opens the folder that `flag` names.
    ///
    /// # Errors
    /// If others than the caller and root can change what is in it, by the file.
    pub fn open(flag: &str, path: &Path) -> Result<Self> {
        let flag = format!("{flag} {}", path.display());
        let (folder, path) = open(&flag, path)?;
        Self::below(flag, path, folder)
    }

    /// Opens a folder of logs, which may have other things in it: in `log` criu has to write to no other file.
    ///
    /// # Errors
    /// If others can put names into the folder, or the log is a link.
    pub fn of_logs(flag: &str, path: &Path, log: &str) -> Result<Self> {
        let flag = format!("{flag} {}", path.display());
        let (folder, path) = open(&flag, path)?;
        check_owner(&fstat(&folder).context(|| flag.clone())?, &flag)?;
        match fstatat(&folder, log, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if kind(&found) != SFlag::S_IFREG => {
                Err(Error::invalid(format!("{flag}/{log}"), "is no regular file, and criu would write to it")
                    .hint("remove it"))
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(Self { flag, path, folders: vec![folder] }),
            Err(errno) => Err(Error::system(format!("{flag}/{log}"), errno)),
        }
    }

    /// Looks at the folder again: criu has written to it.
    pub fn again(self) -> Result<Self> {
        let first = self.folders.into_iter().next();
        Self::below(self.flag, self.path, first.ok_or_else(|| Error::system("the folder of images", Errno::ENOENT))?)
    }

    fn below(flag: String, path: PathBuf, first: OwnedFd) -> Result<Self> {
        let mut folders = vec![first];
        while let Some(last) = folders.last() {
            let name = format!("{flag}{}", "/parent".repeat(folders.len() - 1));
            check_folder(last, &name)?;
            // One that leads nowhere may lead somewhere by the time criu looks.
            if fstatat(last, PARENT, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT) {
                break;
            }
            let shown = (1..folders.len()).fold(path.clone(), |path, _| path.join(PARENT));
            let next = folder_from(last, &shown, PARENT.as_ref(), &format!("{name}/{PARENT}"))?;
            if folders.len() > MOST {
                return Err(Error::invalid(flag, format!("has more than {MOST} pre-dumps below each other")));
            }
            folders.push(next);
        }
        Ok(Self { flag, path, folders })
    }

    /// Looks at the pre-dump that the next dump is to build on.
    ///
    /// # Errors
    /// As [`Images::open`].
    pub fn check_parent(&self, parent: &Path) -> Result<()> {
        let name = format!("--parent-path {}", parent.display());
        let folder = folder_from(self.folder(), &self.path, parent, &name)?;
        Self::below(name, self.path.join(parent), folder).map(drop)
    }

    fn folder(&self) -> &OwnedFd {
        &self.folders[0]
    }

    /// The folder's path for as long as we are there, whatever becomes of its name.
    pub fn place(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.folder().as_raw_fd()).into()
    }

    /// A file of the folder, if it has at most `most` bytes.
    ///
    /// # Errors
    /// If it is no regular file, or longer.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let subject = || format!("{}/{name}", self.flag);
        // Without waiting for the other end of a FIFO.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(self.folder(), name, flags, Mode::empty()).context(subject)?;
        if kind(&fstat(&file).context(subject)?) != SFlag::S_IFREG {
            return Err(Error::invalid(subject(), "is no regular file"));
        }
        let mut bytes = Vec::new();
        File::from(file).take(most + 1).read_to_end(&mut bytes).context(subject)?;
        if bytes.len() as u64 > most {
            return Err(Error::invalid(subject(), format!("is longer than {most} bytes")));
        }
        Ok(bytes)
    }

    /// Removes the description of an earlier dump: criu is about to write over its images.
    pub fn forget(&self) -> Result<()> {
        match unlinkat(self.folder(), FILE, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            result => result.context(|| format!("{}/{FILE}", self.flag)),
        }
    }

    /// Room for a file of the folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn room(&self, name: &str, length: u64) -> Result<Room> {
        let subject = format!("{}/{name}", self.flag);
        let folder = self.folder().try_clone().context(|| subject.clone())?;
        Room::new(folder, name, subject, length)
    }

    /// What images there are, also of the pre-dumps; those of `memory` too, if it is here.
    ///
    /// # Errors
    /// If a folder can not be read.
    pub fn listing(&self, memory: bool) -> Result<Listing> {
        let mut found = BTreeMap::new();
        for (depth, folder) in self.folders.iter().enumerate() {
            for (name, stat) in entries(folder, &self.flag)? {
                let bytes = name.as_bytes();
                let is_memory = bytes.starts_with(b"pages-") || bytes.starts_with(b"pagemap-");
                if kind(&stat) == SFlag::S_IFREG && bytes.ends_with(b".img") && (memory || !is_memory) {
                    found.insert((depth, name), stat.st_size as u64);
                }
            }
        }
        let mut text = Vec::new();
        for ((depth, name), length) in &found {
            text.extend(format!("{depth} {length} {} ", name.len()).as_bytes());
            text.extend(name.as_bytes());
        }
        Ok(Listing { images: found.len(), bytes: found.values().sum(), digest: digest(&text), memory })
    }

    /// Compares what is there with what was.
    ///
    /// # Errors
    /// If an image is not there, is another's, or of another length.
    pub fn check(&self, wanted: &Listing) -> Result<()> {
        let found = self.listing(wanted.memory)?;
        if found == *wanted {
            return Ok(());
        }
        let (images, bytes) = (found.images, found.bytes);
        let why = format!("has {images} images of {bytes} bytes, criu wrote {} of {}", wanted.images, wanted.bytes);
        Err(Error::invalid(self.flag.clone(), why).hint("names and lengths have to be as `wsbox checkpoint` left them"))
    }
}

/// The folder at `path`, and its absolute path.
fn open(flag: &str, path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let path = std::path::absolute(path).context(|| flag.to_owned())?;
    let (above, name) = (path.parent().unwrap_or(&path), path.file_name().unwrap_or(OsStr::new(".")));
    let above = way::to(if path.file_name().is_some() { above } else { &path }, flag)?;
    let folder = openat(&above, name, folder_flags() | OFlag::O_NOFOLLOW, Mode::empty());
    let folder = folder.map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => {
            Error::invalid(flag, "is no folder, or a symbolic link to one").hint("name the folder itself")
        }
        errno => Error::system(flag, errno),
    })?;
    Ok((folder, path))
}

/// The folder at `path`, which may be a link, seen from another one.
fn folder_from(from: &OwnedFd, shown: &Path, path: &Path, name: &str) -> Result<OwnedFd> {
    let found = way::from(from.as_fd(), shown, path, name)?;
    openat(found, ".", folder_flags(), Mode::empty()).context(|| name.to_owned())
}

fn folder_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn check_folder(folder: &OwnedFd, name: &str) -> Result<()> {
    check_owner(&fstat(folder).context(|| name.to_owned())?, name)?;
    entries(folder, name)?.iter().try_for_each(|(file, stat)| {
        let name = format!("{name}/{}", file.to_string_lossy());
        // The link's own: where it leads to is looked at, too.
        if kind(stat) == SFlag::S_IFLNK && file != PARENT {
            return Err(Error::invalid(name, "is a symbolic link, and criu would follow it").hint("remove it"));
        }
        check_owner(stat, &name)
    })
}

fn check_owner(stat: &FileStat, name: &str) -> Result<()> {
    let why = if ![0, Uid::effective().as_raw()].contains(&stat.st_uid) {
        format!("belongs to uid {}, who could change what criu works with", stat.st_uid)
    } else if kind(stat) != SFlag::S_IFLNK && stat.st_mode & 0o022 != 0 {
        format!("can be written by others (mode {:04o}), who could change what criu works with", stat.st_mode & 0o7777)
    } else {
        return Ok(());
    };
    Err(Error::invalid(name, why)
        .hint("images are as trusted as the program in them: chown and chmod go-w, if they are"))
}

fn entries(folder: &OwnedFd, name: &str) -> Result<Vec<(std::ffi::OsString, FileStat)>> {
    let context = || name.to_owned();
    let place = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(place).context(context)? {
        let file = entry.context(context)?.file_name();
        let stat = fstatat(folder.as_fd(), OsStr::new(&file), AtFlags::AT_SYMLINK_NOFOLLOW).context(context)?;
        found.push((file, stat));
    }
    Ok(found)
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
