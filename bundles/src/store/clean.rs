// SPDX-License-Identifier: Apache-2.0
//! What bundles there are, and what nobody needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Alone, LAYERS, MARK, Registration, Store, placed};
use crate::create::opened;
use crate::error::{Context, Error, Result};
use crate::image::read_document;

/// A bundle of the store's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Where it is.
    pub dir: PathBuf,
    /// The image it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The folders of its layers; none if its files are its own.
    pub layers: Vec<PathBuf>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Freed {
    /// Layers.
    pub layers: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

impl Store {
    /// The bundles that are there, by path.
    ///
    /// # Errors
    /// If the store can not be read.
    pub fn bundles(&self) -> Result<Vec<Bundle>> {
        let mut all: Vec<Bundle> = self
            .registrations()?
            .iter()
            .filter_map(|(_, found)| bundle(&found.dir).transpose())
            .collect::<Result<_>>()?;
        all.sort_by(|one, other| one.dir.cmp(&other.dir));
        Ok(all)
    }

    /// Removes the bundle at `dir`, which has to be one of the store's. Its layers stay until [`gc`](Self::gc).
    ///
    /// # Errors
    /// If it is none, or can not be removed.
    pub fn remove(&self, _alone: &Alone, dir: &Path) -> Result<()> {
        let dir = placed(dir)?;
        let registration = self.registration(&dir);
        if !registration.is_file() {
            return Err(
                Error::new(dir.display().to_string(), "is no bundle of this store").hint("`wsbox bundle ls` has them")
            );
        }
        let context = || dir.display().to_string();
        let other = || Error::new(context(), "is not the folder that was made").hint("remove it by hand");
        // A link there, or a folder of somebody else's, is not what was made.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match fs::File::options().read(true).custom_flags(flags).open(&dir) {
            Err(error) if is_nowhere(&error) && dir.symlink_metadata().is_err() => return forget(&registration),
            Err(_) => return Err(other()),
            Ok(folder) if folder.metadata().context(context)?.uid() != nix::unistd::geteuid().as_raw() => {
                return Err(other());
            }
            // First what makes it a bundle: what is left by a kill in the middle is none.
            Ok(folder) => is_gone(fs::remove_file(opened(&folder).join("config.json"))).context(context)?,
        }
        is_gone(fs::remove_dir_all(&dir)).context(context)?;
        forget(&registration)
    }

    /// The state folders of containers that have layers of the store. What is left of those that are gone is removed.
    ///
    /// # Errors
    /// If it can not be read, or one of the folders can not be seen: its container may be alive.
    pub fn users(&self, _alone: &Alone) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for link in children(&self.root.join("users"))? {
            let context = || link.display().to_string();
            let folder = fs::read_link(&link).context(context)?;
            match folder.symlink_metadata() {
                Ok(_) => folders.push(folder),
                Err(error) if is_nowhere(&error) => is_gone(fs::remove_file(&link)).context(context)?,
                Err(error) => {
                    let error =
                        Err(error).context(|| format!("a container with layers of this store, {}", folder.display()));
                    return error.map_err(|error| {
                        error.hint("only the user whose container it is, or root, can tell whether it is alive; if it is not, remove its link in users/ of the store")
                    });
                }
            }
        }
        Ok(folders)
    }

    /// Removes the layers that no bundle has and that are not in `held`, and what was left half-unpacked.
    ///
    /// # Errors
    /// If something can not be read or removed.
    pub fn gc(&self, _alone: &Alone, held: impl IntoIterator<Item = PathBuf>) -> Result<Freed> {
        let mut used: BTreeSet<_> = held.into_iter().collect();
        for (path, registration) in self.registrations()? {
            match bundle(&registration.dir)? {
                Some(bundle) => used.extend(bundle.layers),
                None if is_elsewhere(&path, &registration)? => {}
                None => forget(&path)?,
            }
            if path.exists() {
                used.extend(registration.layers);
            }
        }
        let mut freed = Freed::default();
        let mut done = Ok(());
        for path in children(&self.root.join("tmp"))? {
            freed.bytes += size(&path);
            done = done.and(fs::remove_dir_all(&path).context(|| path.display().to_string()));
        }
        for path in children(&self.root.join("layers"))?.into_iter().filter(|path| !used.contains(&path.join("fs"))) {
            freed.bytes += size(&path);
            freed.layers += 1;
            done = done.and(self.discard(&path));
        }
        // One that can not be removed keeps no others.
        done.map(|()| freed)
    }

    /// A layer goes in one step: what is left by a kill in the middle lies in tmp.
    fn discard(&self, layer: &Path) -> Result<()> {
        let gone = self.root.join("tmp").join(layer.file_name().unwrap_or_default());
        fs::rename(layer, &gone).and_then(|()| fs::remove_dir_all(&gone)).context(|| layer.display().to_string())
    }

    fn registrations(&self) -> Result<Vec<(PathBuf, Registration)>> {
        let files = children(&self.root.join("bundles"))?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "json"));
        let read = |path: PathBuf| {
            let text = fs::read(&path).context(|| path.display().to_string())?;
            let found: Registration = serde_json::from_slice(&text).context(|| path.display().to_string())?;
            Ok((path, found))
        };
        files.map(read).collect()
    }
}

/// Whether a bundle that is not where it was made is somewhere: its mark has still two names, or it lies on another file system, which is
/// not there now.
fn is_elsewhere(path: &Path, registration: &Registration) -> Result<bool> {
    match path.with_extension(MARK).symlink_metadata() {
        Ok(mark) => Ok(mark.nlink() > 1),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(registration.dir.parent().is_some_and(|parent| !parent.exists()))
        }
        Err(error) => Err(error).context(|| path.display().to_string()),
    }
}

fn forget(path: &Path) -> Result<()> {
    let context = || path.display().to_string();
    is_gone(fs::remove_file(path.with_extension(MARK))).context(context)?;
    is_gone(fs::remove_file(path)).context(context)
}

fn is_nowhere(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// It may have been gone before.
pub(super) fn is_gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What its config.json says; none if it has none. One that can not be read may be mended, so it is no reason to lose its layers.
fn bundle(dir: &Path) -> Result<Option<Bundle>> {
    let path = dir.join("config.json");
    match path.symlink_metadata() {
        Err(error) if is_nowhere(&error) => return Ok(None),
        Err(error) => return Err(error).context(|| path.display().to_string()),
        Ok(_) => {}
    }
    let text = read_document(&path)?;
    let config: Value = serde_json::from_slice(&text)
        .context(|| path.display().to_string())
        .map_err(|error| error.hint("mend it, or remove the bundle"))?;
    let annotation = |key: &str| config["annotations"][key].as_str().map(str::to_owned);
    let layers = annotation(LAYERS).unwrap_or_default();
    let layers = split(&layers).collect();
    Ok(Some(Bundle { dir: dir.to_owned(), image: annotation("dev.wsbox.image.digest"), layers }))
}

/// The folders in the annotation [`LAYERS`].
pub fn split(layers: &str) -> impl Iterator<Item = PathBuf> {
    layers.split(':').filter(|layer| !layer.is_empty()).map(PathBuf::from)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || folder.display().to_string();
    fs::read_dir(folder).context(context)?.map(|entry| Ok(entry.context(context)?.path())).collect()
}

/// Bytes on the disk, as far as they can be seen; a file with several names counts for each.
fn size(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let below = if found.is_dir() { children(path).unwrap_or_default() } else { Vec::new() };
    found.blocks() * 512 + below.iter().map(|child| size(child)).sum::<u64>()
}
