// SPDX-License-Identifier: Apache-2.0
//! A folder of the host as a layer: a tar stream whose order is that of the names, so that the same tree gives the same bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use tar::{Builder, EntryType, Header};

use crate::error::{Context, Result};

/// The folder, opened.
pub struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens the folder at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let fd: OwnedFd = File::open(path).context(|| path.display().to_string())?.into();
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Its tar. What goes wrong on the way is an error of reading.
    pub fn stream(&self) -> Result<Box<dyn Read + Send>> {
        let context = || self.path.display().to_string();
        let (reader, writer) = UnixStream::pair().context(context)?;
        let fd = self.fd.try_clone().context(context)?;
        let work = std::thread::spawn(move || write(fd, writer));
        Ok(Box::new(Stream { reader, work: Some(work) }))
    }
}

/// The reading end; a writer that failed says so at the end.
struct Stream {
    reader: UnixStream,
    work: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let (0, false, Some(work)) = (count, buffer.is_empty(), self.work.take()) {
            work.join().map_err(|_| io::Error::other("the reader of the folder failed"))??;
        }
        Ok(count)
    }
}

fn write(fd: OwnedFd, out: UnixStream) -> io::Result<()> {
    let mut walk = Walk { tar: Builder::new(io::BufWriter::with_capacity(256 << 10, out)), names: HashMap::new() };
    let stat = fstatat(&fd, ".", AtFlags::empty())?;
    walk.entry(&header(&stat, EntryType::Directory), Path::new("./"), io::empty())?;
    walk.folder(fd, Path::new(""))?;
    walk.tar.into_inner()?.flush()
}

struct Walk<W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several
    names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Walk<W> {
    fn folder(&mut self, fd: OwnedFd, path: &Path) -> io::Result<()> {
        let mut dir = Dir::from_fd(fd)?;
        let mut names = dir.iter().map(|entry| Ok(entry?.file_name().to_owned())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            self.one(dir.as_fd(), name, &path)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    fn one(&mut self, folder: BorrowedFd<'_>, name: &std::ffi::CStr, path: &Path) -> io::Result<()> {
        let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if stat.st_nlink > 1 && kind != SFlag::S_IFDIR {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = header(&stat, EntryType::Link);
                return self.tar.append_link(&mut header, path, first.clone());
            }
            self.names.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        // What was seen is what is read, or nothing: a link put there in between is not followed.
        let open = |flags| {
            openat(folder, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())
        };
        match kind {
            SFlag::S_IFDIR => {
                self.entry(&header(&stat, EntryType::Directory), path, io::empty())?;
                self.folder(open(OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, path)
            }
            SFlag::S_IFREG => {
                let file = File::from(open(OFlag::O_RDONLY)?);
                // Owner and mode are those of what is read.
                let read = fstat(&file)?;
                if (read.st_dev, read.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(io::Error::other("was replaced while it was read"));
                }
                self.attributes(&file)?;
                let mut header = header(&read, EntryType::Regular);
                let size = u64::try_from(read.st_size).unwrap_or_default();
                header.set_size(size);
                self.entry(&header, path, file.take(size).chain(io::repeat(0)).take(size))
            }
            SFlag::S_IFLNK => {
                let to = readlinkat(folder, name)?;
                self.tar.append_link(&mut header(&stat, EntryType::Symlink), path, to)
            }
            SFlag::S_IFIFO => self.entry(&header(&stat, EntryType::Fifo), path, io::empty()),
            SFlag::S_IFCHR | SFlag::S_IFBLK => self.entry(&header(&stat, EntryType::Char), path, io::empty()),
            // Nobody listens on a socket that was copied.
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, file: &File) -> io::Result<()> {
        use xattr::FileExt;
        let Ok(names) = file.list_xattr() else { return Ok(()) };
        let mut all = Vec::new();
        for name in names {
            if let (Some(text), Some(value)) = (name.to_str(), file.get_xattr(&name)?) {
                all.push((format!("SCHILY.xattr.{text}"), value));
            }
        }
        all.sort();
        if all.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(all.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    fn entry(&mut self, header: &Header, path: &Path, content: impl Read) -> io::Result<()> {
        self.tar.append_data(&mut header.clone(), path, content)
    }
}

fn header(stat: &FileStat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}
