// SPDX-License-Identifier: Apache-2.0
//! Content by digest: `blobs/sha256/HEX` below a folder (image-spec, "Image Layout"), or parts of an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde::de::DeserializeOwned;

use super::{Digest, Verified};
use crate::error::{Context, Error, Result};
use crate::source::Repository;

/// No manifest, index or image config is larger: what registries take is at most 4 MiB, in bytes.
pub(crate) const DOCUMENT: u64 = 4 << 20;

/// No link laid there is followed, and no FIFO waited for (open(2)).
const CAREFUL: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Where the content of an image lies.
#[derive(Clone, Debug)]
pub struct Blobs {
    name: PathBuf,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// `blobs/sha256/HEX` below `name`
    Folder,
    /// As a registry gives them
    Registry(Arc<Repository>),
    /// Parts of the archive `name`: where each begins, and its bytes
    Archive { file: Arc<File>, parts: Arc<HashMap<Digest, (u64, u64)>> },
}

/// Content as it is read.
pub type Content = Box<dyn Read + Send>;

/// A part of a file.
pub(crate) struct Part {
    pub file: Arc<File>,
    pub at: u64,
    pub end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Blobs {
    /// The blobs of the layout at `root`.
    pub fn folder(root: impl Into<PathBuf>) -> Self {
        Self { name: root.into(), place: Place::Folder }
    }

    /// Parts of the archive `file`, whose path is `name`: offset and bytes of each. Nothing says as yet that they are right.
    pub fn archive(name: impl Into<PathBuf>, file: Arc<File>, parts: HashMap<Digest, (u64, u64)>) -> Self {
        Self { name: name.into(), place: Place::Archive { file, parts: Arc::new(parts) } }
    }

    /// Those of a repository of a registry.
    pub(crate) fn registry(repository: Arc<Repository>) -> Self {
        Self { name: format!("{repository:?}").into(), place: Place::Registry(repository) }
    }

    /// The repository, if they are of one.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match &self.place {
            Place::Registry(repository) => Some(repository),
            _ => None,
        }
    }

    /// Opens the blob that `descriptor` names.
    ///
    /// # Errors
    /// If the digest is none, or the blob is missing or no plain file. That its content is right is checked while it is read.
    pub fn open(&self, descriptor: &Descriptor) -> Result<Verified<Content>> {
        let digest: Digest = descriptor.digest().to_string().parse()?;
        let content: Content = match &self.place {
            Place::Registry(repository) => repository.content(descriptor)?,
            Place::Folder => {
                let path = self.name.join("blobs/sha256").join(digest.hex());
                let file = open_plain(&path)?;
                let end = file.metadata().context(|| path.display().to_string())?.len();
                Box::new(Part { file: Arc::new(file), at: 0, end })
            }
            Place::Archive { file, parts } => {
                let (at, size) = *parts
                    .get(&digest)
                    .ok_or_else(|| Error::new(self.name.display().to_string(), format!("has no content {digest}")))?;
                Box::new(Part { file: file.clone(), at, end: at.saturating_add(size) })
            }
        };
        Ok(Verified::new(content, digest, descriptor.size()))
    }

    /// Reads a manifest, an index or an image config.
    ///
    /// # Errors
    /// As [`open`](Self::open), or if the blob is over 4 MiB, is not what its digest says, or is no such JSON.
    pub fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        let subject = || format!("{} {}", descriptor.media_type(), descriptor.digest());
        if descriptor.size() > DOCUMENT {
            return Err(Error::new(subject(), format!("has {} bytes; {DOCUMENT} is the most", descriptor.size())));
        }
        let mut text = Vec::new();
        self.open(descriptor)?.read_to_end(&mut text).context(subject)?;
        unambiguous(&text, descriptor.media_type().as_ref()).map_err(|why| Error::new(subject(), why))?;
        serde_json::from_slice(&text).context(subject)
    }
}

/// A document that can be taken for an index and for a manifest is another image to each reader (CVE-2021-41190).
fn unambiguous(text: &[u8], kind: &str) -> Result<(), String> {
    // What is no JSON is told by who reads it. A key that is there twice is there.
    let Ok(found) = serde_json::from_slice::<serde_json::Value>(text) else { return Ok(()) };
    if found.get("manifests").is_some() && found.get("layers").is_some() {
        return Err("is an index and a manifest at once; it is refused".into());
    }
    match found.get("mediaType").and_then(serde_json::Value::as_str) {
        Some(own) if own != kind => Err(format!("calls itself {own}; it is refused")),
        _ => Ok(()),
    }
}

/// Opens a plain file for reading; no link there is followed.
fn open_plain(path: &Path) -> Result<File> {
    let context = || format!("open {}", path.display());
    let file = File::options().read(true).custom_flags(CAREFUL).open(path).context(context)?;
    match file.metadata().context(context)?.is_file() {
        true => Ok(file),
        false => Err(Error::new(path.display().to_string(), "is not a plain file")),
    }
}

/// Reads a plain file of at most 4 MiB.
pub(crate) fn read_document(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open_plain(path)?.take(DOCUMENT + 1).read_to_end(&mut text).context(|| path.display().to_string())?;
    match text.len() as u64 > DOCUMENT {
        true => Err(Error::new(path.display().to_string(), format!("has more than {DOCUMENT} bytes"))),
        false => Ok(text),
    }
}
