// SPDX-License-Identifier: Apache-2.0
//! Layers into the store: in parallel, each once, and never half.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use sha2::{Digest as _, Sha256};

use super::Store;
use crate::create::{apply, of_layer, order};
use crate::error::{Context, Error, Result};
use crate::image::Digest;
use crate::progress::Progress;
use crate::source::Layer;
use crate::unpack::{Form, Limits, Report, Unpacker};

/// What all of a call share.
struct Work<'a> {
    store: &'a Store,
    unpacker: &'a Unpacker,
    limits: Limits,
    progress: &'a Progress,
}

impl Store {
    /// The folders of `layers`, the uppermost first, and what was left out of them.
    ///
    /// # Errors
    /// If one can not be unpacked.
    pub fn layers(
        &self,
        layers: &[Layer],
        unpacker: &Unpacker,
        limits: Limits,
        progress: &Progress,
    ) -> Result<(Vec<PathBuf>, Vec<String>)> {
        let work = Work { store: self, unpacker, limits, progress };
        let mut all = work.all(layers)?;
        // What lies below a layer that hides all is not seen; an overlay has no such word for its root.
        if let Some(lowest) = all.iter().rposition(|(_, report)| report.hides_all) {
            all.drain(..lowest);
        }
        let mut skipped: Vec<_> = all.iter().flat_map(|(_, report)| report.skipped.clone()).collect();
        skipped.sort();
        skipped.dedup();
        if stand_alone(&all) {
            // The kernel takes no layer twice; what the upper one shows, the lower one can not add to.
            let mut seen = HashSet::new();
            let folders = all.into_iter().map(|(path, _)| path).rev().filter(|path| seen.insert(path.clone()));
            return Ok((folders.collect(), skipped));
        }
        work.applied(layers).map(|path| (vec![path], skipped))
    }
}

/// Whether an overlay of the layers shows what applying them one over the other gives: a folder that a layer does not describe would
/// hide what one below says of it.
fn stand_alone(all: &[(PathBuf, Report)]) -> bool {
    all.iter().enumerate().all(|(index, (path, report))| {
        !report.borrows
            && report.implied.iter().all(|folder| {
                let Ok(Some(own)) = seen(path, folder) else { return false };
                for (lower, _) in all[..index].iter().rev() {
                    match seen(lower, folder) {
                        Ok(None) => {}
                        Ok(Some(below)) => return own == below,
                        Err(_) => return false,
                    }
                }
                true
            })
    })
}

/// Mode with kind, owner and group of `folder` in a layer; none if there is none. A link on the way is an error: where it leads is not the
/// layer's alone to say.
fn seen(layer: &Path, folder: &str) -> nix::Result<Option<(u32, u32, u32)>> {
    let layer = open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(within);
    match openat2(&layer, folder, how) {
        Ok(found) => fstat(&found).map(|found| Some((found.st_mode, found.st_uid, found.st_gid))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

impl Work<'_> {
    fn all(&self, layers: &[Layer]) -> Result<Vec<(PathBuf, Report)>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let take = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = layers.get(index) else { return };
                let result = self.one(layer);
                if result.is_err() {
                    next.store(layers.len(), Ordering::Relaxed);
                }
                if let Ok(mut results) = results.lock() {
                    results.push((index, result));
                }
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(layers.len());
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(take))));
        let mut results = results.into_inner().unwrap_or_default();
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn one(&self, layer: &Layer) -> Result<(PathBuf, Report)> {
        match layer.digest() {
            Some(digest) => self.known(layer, &digest),
            None => self.unknown(layer),
        }
    }

    /// A layer of an image: what is there under its digest is right, for nothing gets there half.
    fn known(&self, layer: &Layer, digest: &Digest) -> Result<(PathBuf, Report)> {
        let place = self.store.place(digest);
        let Some(space) = Space::take(self.store, digest.hex(), Some(&place), self.progress)? else {
            self.progress.add(layer.size());
            return found(&place).and_then(|found| same(layer, found));
        };
        let order = order(layer, Form::Overlay, self.limits);
        let report = self.unpacker.unpack(layer.open()?, &order, &space.fs(), self.progress);
        let mut report = report.map_err(|error| of_layer(layer, error))?;
        if let Layer::Blob { diff_id, .. } = layer {
            report.diff_id = Some(diff_id.to_string());
        }
        space.keep(&report, &place)
    }

    /// A tar or folder gets its digest while it is read.
    fn unknown(&self, layer: &Layer) -> Result<(PathBuf, Report)> {
        let name = format!("new-{}-{:p}", std::process::id(), layer);
        let space = Space::take(self.store, &name, None, self.progress)?;
        let space = space.ok_or_else(|| Error::new("layer", "is being unpacked already"))?;
        let hasher = Arc::new(Mutex::new(Sha256::new()));
        let stream = Hashed { inner: layer.open()?, hasher: hasher.clone() };
        let order = order(layer, Form::Overlay, self.limits);
        let report = self.unpacker.unpack(stream, &order, &space.fs(), self.progress)?;
        if report.borrows {
            return Err(Error::new("layer", "has another name of a file that it does not have"));
        }
        let hasher = hasher.lock().map(|hasher| hasher.clone()).unwrap_or_default();
        let place = self.store.place(&Digest::from_hasher(hasher));
        if place.exists() { found(&place) } else { space.keep(&report, &place) }
    }

    /// All layers in one folder, under the digest of their digests.
    fn applied(&self, layers: &[Layer]) -> Result<PathBuf> {
        let all: Vec<_> = layers.iter().filter_map(Layer::digest).map(|digest| digest.to_string()).collect();
        let digest = Digest::of(format!("applied {}", all.join(" ")).as_bytes());
        let place = self.store.place(&digest);
        if let Some(space) = Space::take(self.store, digest.hex(), Some(&place), self.progress)? {
            let mut report = Report::default();
            apply(layers, &space.fs(), self.unpacker, self.limits, self.progress, &mut report.skipped)?;
            space.keep(&report, &place)?;
        }
        Ok(place.join("fs"))
    }
}

impl Store {
    fn place(&self, digest: &Digest) -> PathBuf {
        self.root.join("layers").join(digest.hex())
    }
}

/// What is there has to be what this image says it is, too.
fn same(layer: &Layer, found: (PathBuf, Report)) -> Result<(PathBuf, Report)> {
    let wanted = if let Layer::Blob { diff_id, .. } = layer { Some(diff_id.to_string()) } else { None };
    match (&found.1.diff_id, wanted) {
        (Some(known), Some(wanted)) if *known != wanted => {
            let why = format!("its tar has the digest {known}, and the config of the image says {wanted}");
            Err(of_layer(layer, Error::new("layer", why)))
        }
        _ => Ok(found),
    }
}

fn found(place: &Path) -> Result<(PathBuf, Report)> {
    let path = place.join("report.json");
    let text = fs::read(&path).context(|| path.display().to_string())?;
    Ok((place.join("fs"), serde_json::from_slice(&text).context(|| path.display().to_string())?))
}

/// Where a layer is unpacked; removed if it is not kept.
struct Space {
    path: PathBuf,
    _lock: Flock<File>,
    kept: bool,
}

impl Space {
    /// Waits for another who unpacks the same; none if it is at `place` then.
    fn take(store: &Store, name: &str, place: Option<&Path>, progress: &Progress) -> Result<Option<Self>> {
        let path = store.root.join("tmp").join(name);
        let context = || path.display().to_string();
        loop {
            if place.is_some_and(|place| place.join("report.json").exists()) {
                return Ok(None);
            }
            if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error).context(context);
            }
            let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
            let folder = match File::options().read(true).custom_flags(flags).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result.context(context)?,
            };
            let lock = progress.lock(folder, FlockArg::LockExclusiveNonblock).map_err(|error| error.of(context()))?;
            // Who was waited for has finished it, or failed and removed it.
            let same =
                fs::metadata(&path).ok().zip(lock.metadata().ok()).is_some_and(|(path, held)| path.ino() == held.ino());
            if !same {
                continue;
            }
            let space = Self { path: path.clone(), _lock: lock, kept: false };
            space.clear().context(context)?;
            return Ok(Some(space));
        }
    }

    /// What a killed one left goes.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        fs::create_dir(self.fs())?;
        fs::set_permissions(self.fs(), fs::Permissions::from_mode(0o755))?;
        File::open(self.fs())?.set_modified(UNIX_EPOCH)
    }

    fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    fn keep(mut self, report: &Report, place: &Path) -> Result<(PathBuf, Report)> {
        let context = || place.display().to_string();
        let text = serde_json::to_vec(report).context(context)?;
        fs::write(self.path.join("report.json"), text).context(context)?;
        // Under its digest it is believed for ever, also after a power failure.
        nix::unistd::syncfs(&*self._lock).context(context)?;
        match fs::rename(&self.path, place) {
            // Somebody else has found the same under another name.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {}
            result => {
                result.context(context)?;
                self.kept = true;
            }
        }
        Ok((place.join("fs"), report.clone()))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hasher: Arc<Mutex<Sha256>>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Ok(mut hasher) = self.hasher.lock() {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}
