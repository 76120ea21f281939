// SPDX-License-Identifier: Apache-2.0
//! A bundle that is not yet one: a hidden folder beside it, which takes its name when all is there.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use crate::error::{Context, Error, Result};

/// Removed when it is dropped before its end.
pub struct Partial {
    dir: PathBuf,
    partial: PathBuf,
    /// The folder; who is at work on it holds its lock, so that what a killed one left is known
    folder: Flock<File>,
    finished: bool,
}

/// The path of an open file or folder, whatever becomes of its name: the folder that it is in may be another user's.
pub fn opened(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Partial {
    /// For a bundle at `dir`, where nothing may be.
    pub fn new(dir: &Path) -> Result<Self> {
        let subject = || dir.display().to_string();
        if dir.symlink_metadata().is_ok() {
            return Err(Error::new(subject(), "is there already")
                .hint("give a new folder, or remove it with `wsbox bundle rm`"));
        }
        let dir = std::path::absolute(dir).context(subject)?;
        let name = dir.file_name().ok_or_else(|| Error::new(subject(), "is no name for a folder"))?;
        let partial = dir.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        let folder = lock(&partial)?;
        Ok(Self { dir, partial, folder, finished: false })
    }

    /// Makes a folder in it that everybody may pass.
    pub fn folder(&self, name: &str) -> Result<OwnedFd> {
        let context = || self.partial.join(name).display().to_string();
        let mode = Mode::from_bits_truncate(0o755);
        mkdirat(&*self.folder, name, mode).context(context)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(&*self.folder, name, flags, Mode::empty()).context(context)?;
        fchmod(&made, mode).context(context)?;
        Ok(made)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let context = || self.partial.join(name).display().to_string();
        let mut file = File::create_new(self.path(name)).context(context)?;
        file.write_all(text).and_then(|()| file.sync_all()).context(context)
    }

    /// Where something in it is by now.
    pub fn path(&self, name: &str) -> PathBuf {
        opened(&*self.folder).join(name)
    }

    /// Gives it its name.
    pub fn finish(mut self) -> Result<PathBuf> {
        let context = || self.dir.display().to_string();
        // Of all that can be there by now, rename(2) only takes the place of an empty folder.
        fs::rename(&self.partial, &self.dir).context(context)?;
        if !is_at(&self.folder, &self.dir) {
            return Err(Error::new(context(), "somebody put another folder in its place"));
        }
        self.finished = true;
        Ok(self.dir.clone())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished && is_at(&self.folder, &self.partial) {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// What a bundle is made of, in the order in which it comes.
const OURS: [&str; 3] = ["rootfs", super::MARK, "config.json"];

fn is_at(folder: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    folder.metadata().map(place).ok().is_some_and(|own| path.symlink_metadata().map(place).is_ok_and(|now| now == own))
}

/// What a killed one left is cleared away; what another is at work on is not.
fn lock(partial: &Path) -> Result<Flock<File>> {
    let subject = || partial.display().to_string();
    for _ in 0..2 {
        let made = fs::DirBuilder::new().mode(0o700).create(partial);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).context(subject);
        }
        let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
        let folder = File::options().read(true).custom_flags(flags).open(partial).context(subject)?;
        let found = folder.metadata().context(subject)?;
        // In a folder like /tmp somebody else may have made it, to change what we put in.
        if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(Error::new(subject(), "is somebody else's").hint("remove it, or make the bundle elsewhere"));
        }
        let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::new(subject(), "another `wsbox bundle create` is at work on it"))?;
        // Who held it may have removed it, and somebody else made it anew.
        if !is_at(&lock, partial) {
            continue;
        }
        let left = fs::read_dir(opened(&*lock)).context(subject)?.map(|entry| Ok(entry?.file_name()));
        let left = left.collect::<std::io::Result<Vec<_>>>().context(subject)?;
        if left.is_empty() {
            return Ok(lock);
        }
        // Who has a hand in the folder above can give our name to another folder of ours.
        if !left.iter().all(|name| OURS.iter().any(|ours| name == ours)) {
            return Err(Error::new(subject(), "has files that wsbox did not put there").hint("move it away"));
        }
        fs::remove_dir_all(partial).context(subject)?;
    }
    Err(Error::new(subject(), "is not empty"))
}
