// SPDX-License-Identifier: Apache-2.0
//! The way to a folder: who can rename one on it, or point a link elsewhere, could have criu work with other images and logs.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Uid;

use crate::error::{Context, Error, Result};

/// How many links may lie on it, as for the kernel (path_resolution(7)).
const MOST: usize = 40;
const STICKY: u32 = 0o1000;

/// Opens the folder at `path`, seen from `start`, which is called `shown`. Links are followed, also the last.
///
/// # Errors
/// If others than the caller and root can change what is on the way, by its path; the folder itself is for the caller to look at.
pub fn from(start: BorrowedFd<'_>, shown: &Path, path: &Path, flag: &str) -> Result<OwnedFd> {
    let mut at = open(start, OsStr::new(".")).context(|| flag.to_owned())?;
    let (mut shown, mut rest, mut links) = (shown.to_owned(), names(path), 0);
    while let Some(name) = rest.pop_front() {
        if name == "/" {
            (at, shown) = (open(AT_FDCWD, &name).context(|| flag.to_owned())?, "/".into());
            continue;
        }
        check_folder(&fstat(&at).context(|| flag.to_owned())?, flag, &shown)?;
        let next = open(at.as_fd(), &name).context(|| flag.to_owned())?;
        let stat = fstat(&next).context(|| flag.to_owned())?;
        if kind(&stat) != SFlag::S_IFLNK {
            (at, shown) = (next, if name == ".." { above(&shown) } else { shown.join(name) });
            continue;
        }
        check_owner(&stat, flag, &shown.join(name))?;
        links += 1;
        if links > MOST {
            return Err(Error::system(flag, Errno::ELOOP));
        }
        let target = PathBuf::from(readlinkat(&next, "").context(|| flag.to_owned())?);
        rest = names(&target).into_iter().chain(rest).collect();
    }
    Ok(at)
}

/// Opens the folder at an absolute path, as [`from`].
///
/// # Errors
/// As [`from`].
pub fn to(path: &Path, flag: &str) -> Result<OwnedFd> {
    let root = open(AT_FDCWD, OsStr::new("/")).context(|| flag.to_owned())?;
    from(root.as_fd(), "/".as_ref(), path, flag)
}

fn open(at: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned()).collect()
}

fn above(shown: &Path) -> PathBuf {
    shown.parent().unwrap_or(shown).to_owned()
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// In a sticky folder everybody renames their own alone (path_resolution(7)), and whose the next one is is looked at.
fn check_folder(stat: &FileStat, flag: &str, shown: &Path) -> Result<()> {
    check_owner(stat, flag, shown)?;
    if stat.st_mode & 0o022 == 0 || stat.st_mode & STICKY != 0 || kind(stat) != SFlag::S_IFDIR {
        return Ok(());
    }
    let why = format!("{} above it can be written by others (mode {:04o})", shown.display(), stat.st_mode & 0o7777);
    Err(refused(flag, why, "chmod go-w"))
}

fn check_owner(stat: &FileStat, flag: &str, shown: &Path) -> Result<()> {
    if [0, Uid::effective().as_raw()].contains(&stat.st_uid) {
        return Ok(());
    }
    let why = format!("{} above it belongs to uid {}", shown.display(), stat.st_uid);
    Err(refused(flag, why, "chown"))
}

fn refused(flag: &str, why: String, command: &str) -> Error {
    Error::invalid(flag, format!("{why}, who could put another in its place"))
        .hint(format!("{command} that folder, or use one that only root can change the way to, as in /var/lib"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::*;

    fn fails(path: &Path, words: &str) {
        let error = to(path, "--image-path X").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("--image-path X: ") && error.contains(words), "{error:?}");
    }

    #[test]
    fn everything_on_the_way_is_looked_at() {
        let top = std::env::temp_dir().join(format!("wsbox-way-{}", std::process::id()));
        let (open, deep, link) = (top.join("open"), top.join("open/own/deep"), top.join("link"));
        fs::create_dir_all(&deep).unwrap();
        symlink("open/own/../own", &link).unwrap();
        let mode = |mode: u32| fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        for path in [deep.clone(), link.join("deep"), link.join("./deep/../deep")] {
            for bad in [0o777, 0o770, 0o702] {
                mode(bad);
                fails(&path, &format!("{} above it can be written by others (mode {bad:04o})", open.display()));
            }
            for good in [0o1777, 0o755, 0o700] {
                mode(good);
                assert!(to(&path, "--image-path X").is_ok(), "{good:o}");
            }
        }
        if Uid::effective().is_root() {
            for (path, bad) in [(&deep, &open), (&link, &link)] {
                lchown(bad, Some(1000), None).unwrap();
                fails(&path.join("."), &format!("{} above it belongs to uid 1000", bad.display()));
                lchown(bad, Some(0), None).unwrap();
            }
        }
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn links_that_lead_to_themselves() {
        let link = std::env::temp_dir().join(format!("wsbox-loop-{}", std::process::id()));
        symlink(&link, &link).unwrap();
        let found = to(&link, "--image-path X").err();
        fs::remove_file(&link).unwrap();
        assert_eq!(found.and_then(|error| error.errno()), Some(Errno::ELOOP));
        assert_eq!(to("/no/such".as_ref(), "x").err().and_then(|error| error.errno()), Some(Errno::ENOENT));
    }
}
