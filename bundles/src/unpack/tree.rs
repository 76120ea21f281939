// SPDX-License-Identifier: Apache-2.0
//! Entries to files, in the jail: `/` is the folder. Links are followed on the way to an entry, as they would be in the container,
//! but never at its end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use xattr::FileExt;

use super::entry::{Attributes, Entry, Kind, shown};
use super::order::{Form, Order, Report};
use crate::error::{Context, Error, Result, plain};

/// Before a name: the file of this name in the layers below is gone (image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// In a folder: nothing of the layers below is in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The same for an overlay with `userxattr`, which a user may mount, too.
pub const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";
/// Folders below each other: who removes them holds each open (fs::remove_dir_all).
const DEEPEST: usize = 500;
/// Bytes of a file written at once.
const BUFFER: usize = 256 << 10;
/// Where a file may have holes: what file systems have as the smallest.
const BLOCK: usize = 4096;

/// What is made of one layer.
pub struct Tree<'a> {
    order: &'a Order,
    report: Report,
    /// What this layer has: its own whiteouts do not touch it.
    made: HashSet<PathBuf>,
    implied: BTreeSet<PathBuf>,
    /// Folders of other layers that something was put in.
    passed: HashSet<PathBuf>,
    /// Set at the end: entries in a folder change its time, and its mode may forbid them to a user.
    folders: Vec<(PathBuf, u32, SystemTime)>,
    skipped: BTreeSet<String>,
    /// How deep the folders are that it made, by inode
    depths: HashMap<u64, usize>,
    buffer: Vec<u8>,
}

impl<'a> Tree<'a> {
    /// Nothing as yet.
    pub fn new(order: &'a Order) -> Self {
        let (report, skipped) = (Report::default(), BTreeSet::new());
        let (made, implied, passed) = (HashSet::new(), BTreeSet::new(), HashSet::new());
        let (folders, depths) = (Vec::new(), HashMap::new());
        Self { order, report, made, implied, passed, folders, skipped, depths, buffer: vec![0; BUFFER] }
    }

    /// Makes what `entry` says.
    ///
    /// # Errors
    /// If it is refused, over a limit, or the file system does not take it.
    pub fn entry<R: Read>(&mut self, mut source: tar::Entry<'_, R>) -> Result<()> {
        self.count()?;
        let entry = Entry::read(&mut source)?;
        self.skipped.extend(entry.skipped.iter().cloned());
        self.parents(&entry.path)?;
        let name = entry.path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        match name.strip_prefix(WHITEOUT) {
            Some(_) if name == OPAQUE => self.opaque(entry.path.parent().unwrap_or(Path::new(""))),
            Some(hidden) => self.whiteout(&entry.path, hidden),
            None => self.place(&entry, &mut source).map_err(|error| about(&entry.path, error)),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.report.entries += 1;
        if self.report.entries > self.order.limits.entries {
            let why = format!("has more than {} entries", self.order.limits.entries);
            return Err(Error::new("layer", why).hint("--max-entries allows more"));
        }
        Ok(())
    }

    /// Gives folders their modes and times.
    pub fn finish(mut self) -> Result<Report> {
        let mut done = HashSet::new();
        for (path, mode, mtime) in self.folders.iter().rev() {
            // The last word counts. A later entry may have put something else in its place.
            if !done.insert(path) || !fs::symlink_metadata(here(path)).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            fs::set_permissions(here(path), fs::Permissions::from_mode(*mode)).context(|| shown(path))?;
            stamp(here(path), *mtime).context(|| shown(path))?;
        }
        for folder in self.implied {
            match folder.into_os_string().into_string() {
                Ok(text) => self.report.implied.push(text),
                // What the layers below have there can not be asked by this name.
                Err(_) => self.report.borrows = true,
            }
        }
        self.report.skipped.extend(self.skipped);
        Ok(self.report)
    }

    /// Folders that have no entry of their own before what is in them.
    fn parents(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.made.contains(parent) || self.implied.contains(parent) || self.passed.contains(parent) {
            return Ok(());
        }
        self.parents(parent)?;
        match fs::metadata(here(parent)) {
            Ok(found) if found.is_dir() => {
                // What is put in it changes its time, which is another layer's to say.
                self.folders.push((parent.to_owned(), found.mode() & 0o7777, found.modified().unwrap_or(UNIX_EPOCH)));
                self.passed.insert(parent.to_owned());
                return Ok(());
            }
            Ok(_) => return Err(Error::new(shown(path), "is below what is no folder")),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(|| shown(path)),
            Err(_) => {}
        }
        self.count()?;
        self.make_folder(parent).context(|| shown(parent))?;
        self.folders.push((parent.to_owned(), 0o755, UNIX_EPOCH));
        self.implied.insert(parent.to_owned());
        Ok(())
    }

    fn place<R: Read>(&mut self, entry: &Entry, source: &mut tar::Entry<'_, R>) -> io::Result<()> {
        if entry.kind == Kind::Device {
            return self.device(&entry.path);
        }
        let (path, attributes) = (here(&entry.path), &entry.attributes);
        let hid = self.clear(&entry.path, entry.kind == Kind::Folder)?;
        match &entry.kind {
            Kind::File(size) => self.file(path, *size, source, entry)?,
            Kind::Folder => self.folder(&entry.path, attributes, hid)?,
            Kind::Symlink(to) => symlink(to, path)?,
            Kind::Hardlink(to) => self.hardlink(to, path)?,
            Kind::Fifo => mknod(path, SFlag::S_IFIFO, Mode::from_bits_truncate(attributes.mode), 0)?,
            Kind::Device => {}
        }
        if matches!(entry.kind, Kind::Symlink(_) | Kind::Fifo) {
            self.own(|uid, gid| lchown(path, Some(uid), Some(gid)), attributes)?;
            stamp(path, attributes.mtime)?;
        }
        self.implied.remove(&entry.path);
        self.made.insert(entry.path.clone());
        Ok(())
    }

    /// Makes room at `path`. True if a whiteout was there.
    fn clear(&self, path: &Path, for_folder: bool) -> io::Result<bool> {
        let found = match fs::symlink_metadata(here(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result?,
        };
        match found.is_dir() {
            true if for_folder || path.as_os_str().is_empty() => Ok(false),
            true => fs::remove_dir_all(path).map(|()| false),
            false => fs::remove_file(path).map(|()| is_whiteout(&found)),
        }
    }

    fn file<R: Read>(
        &mut self,
        path: &Path,
        size: u64,
        source: &mut tar::Entry<'_, R>,
        entry: &Entry,
    ) -> io::Result<()> {
        let attributes = &entry.attributes;
        self.report.size = self.report.size.saturating_add(size);
        if self.report.size > self.order.limits.size {
            let most = self.order.limits.size;
            return Err(io::Error::other(format!("makes the layer larger than {most} bytes; --max-size allows more")));
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let holes = source.header().entry_type().is_gnu_sparse();
        match &entry.sparse {
            Some(sparse) => sparse.copy(source, &mut file)?,
            None if copy(source, &mut file, holes, &mut self.buffer)? == size => {}
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of it")),
        }
        self.own(|uid, gid| fchown(&file, Some(uid), Some(gid)), attributes)?;
        file.set_permissions(fs::Permissions::from_mode(attributes.mode))?;
        self.attributes(&attributes.xattrs, |name, value| file.set_xattr(name, value))?;
        file.set_modified(attributes.mtime)
    }

    fn folder(&mut self, path: &Path, attributes: &Attributes, opaque: bool) -> io::Result<()> {
        match self.make_folder(here(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        self.own(|uid, gid| lchown(here(path), Some(uid), Some(gid)), attributes)?;
        self.attributes(&attributes.xattrs, |name, value| xattr::set(here(path), name, value))?;
        if opaque {
            xattr::set(here(path), OPAQUE_ATTRIBUTE, b"y")?;
        }
        self.folders.push((path.to_owned(), attributes.mode, attributes.mtime));
        Ok(())
    }

    /// By links on the way a folder may be deeper than its name says.
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inode = |path: &Path| fs::metadata(path).map(|found| found.ino());
        let mut depth = 1;
        let mut above = parent.to_owned();
        let mut at = inode(&above)?;
        let known = loop {
            if let Some(known) = self.depths.get(&at) {
                break *known;
            }
            above.push("..");
            match inode(&above)? {
                root if root == at => break 0,
                next => at = next,
            }
            depth += 1;
            if depth > DEEPEST {
                break 0;
            }
        };
        if depth + known > DEEPEST {
            return Err(io::Error::other(format!("is deeper than {DEEPEST} folders; it is refused")));
        }
        fs::create_dir(path)?;
        self.depths.insert(inode(path)?, depth + known);
        Ok(())
    }

    /// A link to a link is one, and is not followed.
    fn hardlink(&mut self, to: &Path, path: &Path) -> io::Result<()> {
        match fs::hard_link(to, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.order.form == Form::Overlay => {
                self.report.borrows = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::other(format!("is another name of {to:?}, which is not there")))
            }
            result => result,
        }
    }

    /// The container's /dev is wsbox's own; a node elsewhere has no honest use.
    fn device(&mut self, path: &Path) -> io::Result<()> {
        if !path.starts_with("dev") {
            return Err(io::Error::other("is a device node outside /dev; it is refused"));
        }
        self.skipped.insert("device nodes in /dev, which the runtime makes itself".into());
        Ok(())
    }

    fn own(&self, change: impl FnOnce(u32, u32) -> io::Result<()>, attributes: &Attributes) -> io::Result<()> {
        if self.order.own { Ok(()) } else { change(attributes.uid, attributes.gid) }
    }

    /// File systems without extended attributes lose them, which the report says.
    fn attributes(
        &mut self,
        all: &[(std::ffi::OsString, Vec<u8>)],
        set: impl Fn(&std::ffi::OsStr, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for (name, value) in all {
            match set(name, value).map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) => {}
                Err((Some(libc::ENOTSUP | libc::EPERM), _)) => {
                    self.skipped.insert(format!("extended attributes {}", name.to_string_lossy()));
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hides what layers below have at `path`, whose last part is `.wh.` and `hidden`.
    fn whiteout(&mut self, path: &Path, hidden: &[u8]) -> Result<()> {
        if hidden.starts_with(b".wh.") {
            self.skipped.insert("files of aufs".into());
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::new(shown(path), "hides what is no file of its folder; it is refused"));
        }
        let hidden = path.with_file_name(std::ffi::OsStr::from_bytes(hidden));
        let context = || shown(path);
        if self.made.contains(&hidden) {
            let folder = fs::symlink_metadata(&hidden).is_ok_and(|found| found.is_dir());
            return if folder { self.opaque(&hidden) } else { Ok(()) };
        }
        self.clear(&hidden, false).context(context)?;
        match self.order.form {
            Form::Applied | Form::Decoded => Ok(()),
            // No right is needed for it: vfs_mknod() takes 0:0 from anybody.
            Form::Overlay => mknod(&hidden, SFlag::S_IFCHR, Mode::empty(), 0).context(context),
        }
    }

    /// Hides what layers below have in `folder`.
    fn opaque(&mut self, folder: &Path) -> Result<()> {
        let context = || shown(folder);
        if self.order.form == Form::Overlay && folder.as_os_str().is_empty() {
            self.report.hides_all = true;
            return Ok(());
        }
        if self.order.form == Form::Overlay {
            return xattr::set(here(folder), OPAQUE_ATTRIBUTE, b"y").context(context);
        }
        for child in fs::read_dir(here(folder)).context(context)? {
            let child = child.context(context)?;
            let path = folder.join(child.file_name());
            if self.made.contains(&path) || self.implied.contains(&path) {
                if child.file_type().context(context)?.is_dir() {
                    self.opaque(&path)?;
                }
                continue;
            }
            self.clear(&path, false).context(context)?;
        }
        Ok(())
    }
}

/// The folder itself has an empty path in the archive.
fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

fn stamp(path: &Path, time: SystemTime) -> io::Result<()> {
    let time = TimeSpec::from_duration(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    Ok(utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Copies all of it; with `holes`, blocks of nothing are not written.
fn copy(source: &mut impl Read, file: &mut File, holes: bool, buffer: &mut [u8]) -> io::Result<u64> {
    use std::io::Seek;
    let mut all = 0;
    loop {
        let count = fill(source, buffer)?;
        if count == 0 {
            break;
        }
        for block in buffer[..count].chunks(if holes { BLOCK } else { BUFFER }) {
            match holes && block.iter().all(|byte| *byte == 0) {
                true => file.seek_relative(i64::try_from(block.len()).unwrap_or_default())?,
                false => file.write_all(block)?,
            }
        }
        all += count as u64;
    }
    if holes {
        file.set_len(all)?;
    }
    Ok(all)
}

/// As many bytes as there are room and content for: what a decompressor gives at once is small.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The reason, and which entry it is about.
fn about(path: &Path, error: io::Error) -> Error {
    Error::new(shown(path), plain(&error))
}
