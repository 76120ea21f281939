// SPDX-License-Identifier: Apache-2.0
//! A tar that holds an image, by the places of its files: nothing of it is copied. Only headers of the plain kind are read; names of
//! images are short enough for them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::image::{Blobs, DOCUMENT, Digest};
use crate::source::Decoder;

/// Bytes of a header, and what content is padded to.
const BLOCK: u64 = 512;
/// More files than any image's archive has; a root's own tar may have more.
const ENTRIES: usize = 100_000;
/// Folders in folders that an image's archive has: blobs/sha256/HEX.
const DEPTH: usize = 3;
/// The archive and what is in it.
pub struct Archive {
    path: PathBuf,
    file: Arc<File>,
    /// Where each file begins, and its bytes
    files: HashMap<PathBuf, (u64, u64)>,
    links: HashMap<PathBuf, PathBuf>,
    digests: HashMap<Digest, (u64, u64)>,
}

impl Archive {
    /// Reads the headers of the archive at `path`; a compressed one becomes a file without a name first.
    pub fn open(path: &Path, decoder: Decoder<'_>) -> Result<Self> {
        let context = || path.display().to_string();
        let file = File::open(path).context(context)?;
        if !file.metadata().context(context)?.is_file() {
            return Err(
                Error::new(context(), "is not a plain file").hint("a pipe can not be read twice: save it to a file")
            );
        }
        let mut start = [0; 4];
        let count = file.read_at(&mut start, 0).context(context)?;
        let file = match &start[..count] {
            // RFC 1952, RFC 8878
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => decoder.decode(file)?,
            _ => file,
        };
        let (files, links, digests) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut archive = Self { path: path.into(), file: Arc::new(file), files, links, digests };
        archive.scan().context(context)?;
        Ok(archive)
    }

    /// Whether it has the plain file `name`.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(Path::new(name))
    }

    /// The archive as it is.
    pub fn into_file(self) -> Arc<File> {
        self.file
    }

    /// The content of the file `name`, which is small.
    pub fn document(&self, name: &str) -> Result<Vec<u8>> {
        let subject = || format!("{}: {name}", self.path.display());
        let (at, size) = self.find(name)?;
        if size > DOCUMENT {
            return Err(Error::new(subject(), format!("has {size} bytes; {DOCUMENT} is the most")));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
        self.file.read_exact_at(&mut text, at).context(subject)?;
        Ok(text)
    }

    /// Says that the file `name` is the content of `digest`, and gives its bytes.
    pub fn name(&mut self, name: &str, digest: Digest) -> Result<u64> {
        let place = self.find(name)?;
        self.digests.insert(digest, place);
        Ok(place.1)
    }

    /// All that is named so, and all files whose name is a digest.
    pub fn blobs(mut self) -> Result<Blobs> {
        for (path, place) in &self.files {
            let Some(hex) = path.strip_prefix("blobs/sha256").ok().and_then(Path::to_str) else { continue };
            if let Ok(digest) = format!("sha256:{hex}").parse() {
                self.digests.insert(digest, *place);
            }
        }
        Ok(Blobs::archive(self.path, self.file, self.digests))
    }

    /// One link is followed: the same layer in two images is saved so.
    fn find(&self, name: &str) -> Result<(u64, u64)> {
        let path = normal(Path::new(name));
        let target = self.links.get(&path).map(|to| normal(&path.parent().unwrap_or(Path::new("")).join(to)));
        let found = self.files.get(&path).or_else(|| self.files.get(&target?));
        found.copied().ok_or_else(|| Error::new(self.path.display().to_string(), format!("has no file {name:?}")))
    }

    fn scan(&mut self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let mut at = 0;
        let mut bytes = [0; BLOCK as usize];
        while at + BLOCK <= end {
            self.file.read_exact_at(&mut bytes, at)?;
            if bytes.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            let header = Header::from_byte_slice(&bytes);
            checksum(header, &bytes)?;
            let size = header.entry_size()?;
            self.note(header, (at + BLOCK, size))?;
            let blocks = size.div_ceil(BLOCK).checked_add(1);
            at = blocks.and_then(|blocks| blocks.checked_mul(BLOCK)?.checked_add(at)).unwrap_or(u64::MAX - BLOCK);
        }
        let why = if end < BLOCK { "is not a tar archive" } else { "has no end: it was cut" };
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    fn note(&mut self, header: &Header, place: (u64, u64)) -> io::Result<()> {
        let path = normal(&header.path()?);
        if self.files.len() + self.links.len() >= ENTRIES || path.components().count() > DEPTH {
            return Ok(());
        }
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => drop(self.files.insert(path, place)),
            EntryType::Symlink | EntryType::Link => {
                let to = header.link_name()?.unwrap_or_default().into_owned();
                self.links.insert(path, to);
            }
            _ => {}
        }
        Ok(())
    }
}

/// tar(5): the sum of all bytes, the field itself taken as blanks.
fn checksum(header: &Header, bytes: &[u8]) -> io::Result<()> {
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    match header.cksum() {
        Ok(found) if found == sum => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "is not a tar archive, or a damaged one")),
    }
}

/// Without `.` and, as far as it goes, `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, component| {
        match component {
            Component::Normal(part) => all.push(part),
            Component::ParentDir => drop(all.pop()),
            _ => {}
        }
        all
    })
}
