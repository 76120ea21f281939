// SPDX-License-Identifier: Apache-2.0
//! Layers that a container has of a store: it says so there, so that `wsbox bundle gc` leaves them, whoever calls it with whatever `--root`.
//!
//! It is a symbolic link STORE/users/NAME to the container's state folder: made by one system call, complete or not there. One whose folder
//! is gone says nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

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

fn link(store: &Path, folder: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    store.join("users").join(format!("{:016x}", hasher.finish()))
}

/// Says that the container with this state folder has the layers that `annotations` name. What it says stands; the locks are for the moment.
///
/// # Errors
/// If a store can not be locked or written.
pub fn hold(annotations: &BTreeMap<String, String>, folder: &Path) -> Result<Held> {
    let one = |store: PathBuf| {
        let path = store.join("lock");
        let context = || path.display().to_string();
        let lock = File::open(&path).context(context)?;
        let lock = Flock::lock(lock, FlockArg::LockShared).map_err(|(_, errno)| Error::system(context(), errno))?;
        let link = link(&store, folder);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(store.join("users")).context(context)?;
        match symlink(folder, &link) {
            // Of one before, in the same folder.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(lock),
            result => result.context(|| link.display().to_string()).map(|()| lock),
        }
    };
    Ok(Held { _locks: stores(annotations).into_iter().map(one).collect::<Result<_>>()? })
}

/// Takes it back.
pub fn release(annotations: &BTreeMap<String, String>, folder: &Path) {
    for store in stores(annotations) {
        let _ = fs::remove_file(link(&store, folder));
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
