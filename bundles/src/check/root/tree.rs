// SPDX-License-Identifier: Apache-2.0
//! Through layers as an overlay of them would look, by descriptors of folders: no link is followed, and no mount is crossed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::{Entry, Rules};
use crate::check::rules::{self, Severity};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;

/// Names that are looked at in all.
const ENTRIES: u64 = 2_000_000;
/// Folders in folders; each holds a descriptor.
const DEPTH: usize = 128;

/// Says all names to `rules`.
///
/// # Errors
/// If a layer is not there, or there are too many names.
pub fn walk(layers: &[PathBuf], progress: &Progress, rules: &mut Rules<'_>) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |layer: &PathBuf| open(layer, flags, Mode::empty()).context(|| format!("the root {}", layer.display()));
    let folders = layers.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut walk = Walk { progress, rules, entries: 0 };
    walk.folder(&folders, Path::new("/"), 0)?;
    // What is hidden in the container is still in the image.
    walk.rules.hidden = true;
    for layer in folders.iter().skip(1) {
        walk.entries = 0;
        walk.folder(std::slice::from_ref(layer), Path::new("/"), 0)?;
    }
    Ok(())
}

struct Walk<'w, 'r> {
    progress: &'w Progress,
    rules: &'w mut Rules<'r>,
    entries: u64,
}

impl Walk<'_, '_> {
    /// One folder; `layers` are those that have it, the uppermost first.
    fn folder(&mut self, layers: &[OwnedFd], path: &Path, depth: usize) -> Result<()> {
        self.progress.check()?;
        let (names, visible) = self.names(layers, path)?;
        for (name, layer) in names {
            self.name(&layers[layer..visible], &path.join(&name), &name, depth)?;
        }
        Ok(())
    }

    /// Each name with the first layer that has it, and how many of the layers are seen: an opaque one hides those below.
    fn names(&mut self, layers: &[OwnedFd], path: &Path) -> Result<(BTreeMap<OsString, usize>, usize)> {
        let mut names = BTreeMap::new();
        for (at, layer) in layers.iter().enumerate() {
            let context = || path.display().to_string();
            let mut dir = Dir::from_fd(layer.try_clone().context(context)?).context(context)?;
            for entry in dir.iter() {
                let entry = entry.context(context)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                self.entries += 1;
                if self.entries > ENTRIES {
                    return Err(Error::new("the root", format!("has more than {ENTRIES} names")));
                }
                names.entry(name.to_owned()).or_insert(at);
            }
            if at + 1 < layers.len() && is_opaque(layer) {
                return Ok((names, at + 1));
            }
        }
        Ok((names, layers.len()))
    }

    /// One name, which the first of `layers` has.
    fn name(&mut self, layers: &[OwnedFd], path: &Path, name: &OsStr, depth: usize) -> Result<()> {
        let Some((folder, lower)) = layers.split_first() else { return Ok(()) };
        let stat = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(()),
            result => result.context(|| path.display().to_string())?,
        };
        if is_whiteout(&stat) {
            return Ok(());
        }
        let entry = Entry { path, stat: &stat, folder };
        if kind(&stat) != SFlag::S_IFDIR {
            return self.rules.file(&entry);
        }
        self.rules.folder(&entry);
        if depth >= DEPTH {
            self.rules.not_looked_at(path, format!("is more than {DEPTH} folders deep"));
            return Ok(());
        }
        let mut folders = Vec::new();
        for (at, layer) in std::iter::once(folder).chain(lower).enumerate() {
            match open_folder(layer, name) {
                Ok(opened) => folders.push(opened),
                Err(Errno::ENOENT) => {}
                // What is no folder hides those below.
                Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) if at > 0 => break,
                Err(errno) => {
                    self.rules.not_looked_at(path, why(errno)?);
                    break;
                }
            }
        }
        self.folder(&folders, path, depth + 1)
    }
}

impl Rules<'_> {
    pub(super) fn not_looked_at(&mut self, path: &Path, why: impl Into<String>) {
        self.found.file(&rules::NOT_LOOKED_AT, Severity::Warning, path.to_owned(), why);
    }
}

/// Why something was not opened. No descriptors left is a failure of ours, not of the root.
pub fn why(errno: Errno) -> Result<String> {
    match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => {
            Err(Error::new("the root", errno.desc().to_lowercase()).hint("raise `ulimit -n`"))
        }
        Errno::EXDEV => Ok("another file system is mounted there".into()),
        _ => Ok(errno.desc().to_lowercase()),
    }
}

/// Opens what is at one name of a folder, and nothing else.
pub fn open_at(folder: &OwnedFd, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    // The kernel says EAGAIN when something is renamed meanwhile.
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).resolve(resolve);
    match openat2(folder, name, how) {
        Err(Errno::EAGAIN) => openat2(folder, name, how),
        result => result,
    }
}

fn open_folder(folder: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    open_at(folder, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// What kind of file it is.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The node of no device (overlayfs.rst, "whiteouts and opaque directories").
fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}/.", folder.as_raw_fd());
    ["user.overlay.opaque", "trusted.overlay.opaque"]
        .into_iter()
        .any(|name| xattr::get(&path, name).is_ok_and(|value| value.as_deref() == Some(b"y")))
}

/// Whether the descriptor is a regular file, and how long it is.
pub fn regular(file: &OwnedFd) -> nix::Result<Option<u64>> {
    let stat = fstat(file)?;
    Ok((kind(&stat) == SFlag::S_IFREG).then_some(u64::try_from(stat.st_size).unwrap_or_default()))
}
