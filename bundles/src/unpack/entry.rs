// SPDX-License-Identifier: Apache-2.0
//! One entry of a tar, as far as it is believed (image-spec, "Image Layer Filesystem Changeset").

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tar::EntryType;

use super::sparse::{self, Sparse};
use crate::error::{Context, Error, Result};

/// Extended attributes in pax headers, as GNU tar, Go and bsdtar write them.
const XATTR: &str = "SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its bytes, holes included.
    File(u64),
    Folder,
    /// With what it says.
    Symlink(OsString),
    /// With the path of the file that it is another name of.
    Hardlink(PathBuf),
    Fifo,
    Device,
}

/// What all kinds have.
#[derive(Debug)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: SystemTime,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

/// An entry.
#[derive(Debug)]
pub struct Entry {
    /// Relative, and without `.` and `..`; empty for the root.
    pub path: PathBuf,
    pub kind: Kind,
    pub attributes: Attributes,
    /// What `entry` has that is not kept.
    pub skipped: Vec<String>,
    /// Where its data belongs, if it is a sparse file in pax form.
    pub sparse: Option<Sparse>,
}

impl Entry {
    /// Reads the headers of `entry`.
    pub fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Self> {
        let name = entry.path_bytes().into_owned();
        let mut path = clean(&name)?;
        let mut kind = kind(entry, &path)?;
        let mut attributes = attributes(entry).map_err(|why| Error::new(shown(&path), why))?;
        let mut skipped = Vec::new();
        let sparse = extended(entry, &mut attributes, &mut skipped).context(|| shown(&path))?;
        if let (Some(sparse), Kind::File(size)) = (&sparse, &mut kind) {
            *size =
                sparse.size.ok_or_else(|| Error::new(shown(&path), "is a sparse file that does not say its size"))?;
            path = sparse.name.as_deref().map_or(Ok(path), clean)?;
        }
        Ok(Self { path, kind, attributes, skipped, sparse })
    }
}

/// How a path is named in messages.
pub fn shown(path: &Path) -> String {
    format!("entry {:?}", path.as_os_str().to_string_lossy())
}

/// The path without `.`; none that leaves the folder is taken.
pub fn clean(name: &[u8]) -> Result<PathBuf> {
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    let refuse = |why: &str| Err(Error::new(shown(path), why).hint("no honest image has this; it is refused"));
    // umoci calls the root so.
    if name == b"/" {
        return Ok(PathBuf::new());
    }
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => return refuse("leads out of the folder with \"..\""),
            Component::RootDir | Component::Prefix(_) => return refuse("is an absolute path"),
        }
    }
    if name.len() >= libc::PATH_MAX.unsigned_abs() as usize {
        return Err(Error::new("entry", "has a name that is longer than the kernel takes"));
    }
    if name.contains(&0) {
        return refuse("has a NUL in its name");
    }
    Ok(clean)
}

fn kind<R: Read>(entry: &tar::Entry<'_, R>, path: &Path) -> Result<Kind> {
    let link = || {
        let link = entry.link_name_bytes().filter(|link| !link.is_empty());
        link.ok_or_else(|| Error::new(shown(path), "is a link to nothing"))
    };
    Ok(match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(entry.size()),
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink(OsString::from_vec(link()?.into_owned())),
        EntryType::Link => Kind::Hardlink(clean(&link()?)?),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        other => {
            return Err(Error::new(shown(path), format!("is of the unknown type {:?}", char::from(other.as_byte()))));
        }
    })
}

fn attributes<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Attributes, String> {
    let header = entry.header();
    let id = |id: std::io::Result<u64>| {
        let id = id.map_err(|error| error.to_string())?;
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("id {id} is none"))
    };
    let seconds = header.mtime().map_err(|error| error.to_string())?;
    Ok(Attributes {
        mode: header.mode().map_err(|error| error.to_string())? & 0o7777,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mtime: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH),
        xattrs: Vec::new(),
    })
}

/// What pax headers add (pax(1), "Extended Header Keywords").
fn extended<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    attributes: &mut Attributes,
    skipped: &mut Vec<String>,
) -> Result<Option<Sparse>, String> {
    let mut sparse: Option<Sparse> = None;
    let Some(extensions) = entry.pax_extensions().map_err(|error| error.to_string())? else { return Ok(None) };
    for extension in extensions {
        let extension = extension.map_err(|error| error.to_string())?;
        let key = extension.key().map_err(|error| error.to_string())?;
        if let Some(name) = key.strip_prefix(XATTR) {
            match kept(name) {
                true => attributes.xattrs.push((name.into(), extension.value_bytes().to_vec())),
                false => skipped.push(format!("extended attributes {name}")),
            }
        } else if key == "mtime" {
            let value = extension.value().map_err(|error| error.to_string())?;
            attributes.mtime = time(value).ok_or_else(|| format!("the time {value:?} is none"))?;
        } else if let Some(key) = key.strip_prefix(sparse::PREFIX) {
            sparse.get_or_insert_default().note(key, extension.value_bytes())?;
        }
    }
    Ok(sparse)
}

/// What a container may see of another host's: not labels, not what this kernel reads as its own words to overlay.
fn kept(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.")
}

/// Seconds with a fraction, since 1970. Before, it is 1970.
fn time(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    let Ok(seconds) = u64::try_from(seconds) else { return Some(UNIX_EPOCH) };
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean(b"./usr//bin/./ls/").unwrap(), Path::new("usr/bin/ls"));
        assert_eq!(clean(b"./").unwrap(), Path::new(""));
        assert_eq!(clean(b"/").unwrap(), Path::new(""));
        assert_eq!(clean(b"a..b/..c").unwrap(), Path::new("a..b/..c"));
        for hostile in [&b"/etc/passwd"[..], b"../x", b"a/../../x", b"a/..", b"a\0b"] {
            assert!(clean(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn times_of_pax() {
        assert_eq!(time("12.5"), Some(UNIX_EPOCH + Duration::from_millis(12_500)));
        assert_eq!(time("-3.25"), Some(UNIX_EPOCH));
        assert_eq!(time("7"), Some(UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }

    #[test]
    fn attributes_of_the_kernels_own_are_left_out() {
        assert!(kept("user.mime") && kept("security.capability"));
        assert!(!kept("user.overlay.opaque") && !kept("trusted.overlay.opaque") && !kept("security.selinux"));
    }
}
