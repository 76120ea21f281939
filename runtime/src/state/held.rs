// SPDX-License-Identifier: Apache-2.0
//! Layers that a container has of a store: it says so there, so that `wsbox bundle gc` leaves them, whoever calls it with whatever `--root`.
//!
//! It is a symbolic link STORE/users/NAME to the container's state folder: made by one system call, complete or not there. One whose folder
//! is gone says nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::lock_until;
use crate::bundle::own::LAYERS;
use crate::error::{Context, Error, Result};

/// Keeps others from removing layers while they are opened.
#[derive(Debug)]
pub struct Held {
    _locks: Vec<Flock<File>>,
}

/// STORE of each STORE/layers/HEX/fs that the annotations name.
fn stores(annotations: &BTreeMap<String, String>) -> BTreeSet<PathBuf> {
    let layers = annotations.get(LAYERS).map_or("", String::as_str).split(':').filter(|layer| !layer.is_empty());
    layers.filter_map(|layer| Path::new(layer).ancestors().nth(3).map(Path::to_owned)).collect()
}

/// The name of what `folder` says.
fn name(folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Says that the container with this state folder has the layers that `annotations` name. What it says stands; the locks are for the moment.
///
/// # Errors
/// If a store can not be locked or written.
pub fn hold(annotations: &BTreeMap<String, String>, folder: &Path) -> Result<Held> {
    Ok(Held { _locks: stores(annotations).iter().map(|store| hold_one(store, folder)).collect::<Result<_>>()? })
}

fn hold_one(store: &Path, folder: &Path) -> Result<Flock<File>> {
    let context = || format!("{}: hold the layers", store.display());
    let store = open(AT_FDCWD, store, OFlag::O_DIRECTORY).context(context)?;
    // The store may be a user's, and we root: nothing in it leads elsewhere, nor makes us wait for its other end.
    let lock = open(&store, "lock", OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).context(context)?;
    let lock =
        lock_until(File::from(lock), FlockArg::LockSharedNonblock, Instant::now() + PATIENCE).map_err(|errno| {
            let error = Error::system(context(), errno);
            if errno == Errno::EWOULDBLOCK {
                error.hint("`wsbox bundle gc` or `rm` has it for long: is it stopped?")
            } else {
                error
            }
        })?;
    let users = users(&store).context(context)?;
    match symlinkat(folder, &users, name(folder).as_str()) {
        // Of one before, in the same folder.
        Ok(()) | Err(Errno::EEXIST) => Ok(lock),
        Err(errno) => Err(Error::system(context(), errno)),
    }
}

/// A removal takes its time; somebody who never lets go is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// STORE/users, which is there since the store is, and its owner's.
fn users(store: &OwnedFd) -> nix::Result<OwnedFd> {
    let users = open(store, "users", OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
    // Another folder may have been given its name; what is in this one the owner's gc has to read.
    if fstat(store)?.st_uid == fstat(&users)?.st_uid { Ok(users) } else { Err(Errno::EPERM) }
}

fn open(dir: impl AsFd, path: impl AsRef<Path>, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(dir, path.as_ref(), flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Takes it back.
pub fn release(annotations: &BTreeMap<String, String>, folder: &Path) {
    for store in stores(annotations) {
        let users = open(AT_FDCWD, store.join("users"), OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
        let _ = users.and_then(|users| unlinkat(users, name(folder).as_str(), UnlinkatFlags::NoRemoveDir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_layers() {
        let of = |layers: &str| stores(&BTreeMap::from([(LAYERS.to_owned(), layers.to_owned())]));
        assert_eq!(of("/a/s/layers/1/fs:/a/s/layers/2/fs:/b/layers/1/fs"), ["/a/s", "/b"].map(PathBuf::from).into());
        assert_eq!(of(""), BTreeSet::new());
    }
}
