// SPDX-License-Identifier: Apache-2.0
//! Content by digest: `blobs/sha256/HEX` below a folder (image-spec, "Image Layout").

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use serde::de::DeserializeOwned;

use super::{Digest, Verified};
use crate::error::{Context, Error, Result};

/// No manifest, index or image config is larger: what registries take is at most 4 MiB, in bytes.
const DOCUMENT: u64 = 4 << 20;

/// open(2)'s O_NOFOLLOW | O_NONBLOCK: no link laid there is followed, and no FIFO waited for.
const CAREFUL: i32 = 0o400_000 | 0o4000;

/// The folder that has `blobs/`.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// The blobs of the layout at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that has `blobs/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob of this digest lies, or has to be put.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Opens the blob that `descriptor` names.
    ///
    /// # Errors
    /// If the digest is none, or the blob is missing or no plain file. That its content is right is checked while it is read.
    pub fn open(&self, descriptor: &Descriptor) -> Result<Verified<File>> {
        let digest: Digest = descriptor.digest().to_string().parse()?;
        let path = self.path(&digest);
        let context = || format!("open {}", path.display());
        let file = File::options().read(true).custom_flags(CAREFUL).open(&path).context(context)?;
        if !file.metadata().context(context)?.is_file() {
            return Err(Error::new(path.display().to_string(), "is not a plain file"));
        }
        Ok(Verified::new(file, digest, descriptor.size()))
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
        serde_json::from_slice(&text).context(subject)
    }
}
