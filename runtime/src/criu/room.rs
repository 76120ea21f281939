// SPDX-License-Identifier: Apache-2.0
//! A file that is not there yet, with its room on the disk: once criu has ended the container it is too late for a full one.

use std::fs::File;
use std::io::{Read, Seek, Write, repeat};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Result};

/// Under another name until it is whole; gone if it never was.
pub struct Room {
    folder: OwnedFd,
    subject: String,
    name: String,
    file: File,
}

impl Room {
    /// `length` bytes for the file `name` of `folder`, which is called `subject`.
    ///
    /// # Errors
    /// If there is not as much room.
    pub fn new(folder: OwnedFd, name: &str, subject: String, length: u64) -> Result<Self> {
        let new = format!("{name}.tmp");
        match unlinkat(&folder, new.as_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => {}
            result => result.context(|| subject.clone())?,
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&folder, new.as_str(), flags, Mode::from_bits_truncate(0o600));
        let file = File::from(file.context(|| subject.clone())?);
        let mut room = Self { folder, subject, name: name.to_owned(), file };
        room.reserve(length)?;
        Ok(room)
    }

    fn reserve(&mut self, length: u64) -> Result<()> {
        let reserved = match fallocate(&self.file, FallocateFlags::empty(), 0, length.cast_signed()) {
            _ if length == 0 => Ok(()),
            // Not every file system can.
            Err(Errno::EOPNOTSUPP) => {
                std::io::copy(&mut repeat(0).take(length), &mut self.file).and_then(|_| self.file.sync_all())
            }
            result => result.map_err(Into::into),
        };
        reserved.context(|| self.subject.clone())
    }

    /// Writes the file whole: a reader sees the one before or this one.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(mut self, bytes: &[u8]) -> Result<()> {
        let file = &mut self.file;
        let written =
            file.rewind().and_then(|()| file.write_all(bytes)).and_then(|()| file.set_len(bytes.len() as u64));
        written.and_then(|()| file.sync_all()).context(|| self.subject.clone())?;
        renameat(&self.folder, self.new_name().as_str(), &self.folder, self.name.as_str())
            .context(|| self.subject.clone())
    }

    fn new_name(&self) -> String {
        format!("{}.tmp", self.name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = unlinkat(&self.folder, self.new_name().as_str(), UnlinkatFlags::NoRemoveDir);
    }
}
