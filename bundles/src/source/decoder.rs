// SPDX-License-Identifier: Apache-2.0
//! An archive that is compressed as a whole. It is the unpacker's child that reads it, in its jail.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::error::{Context, Result};
use crate::progress::Progress;
use crate::unpack::{ARCHIVE, Form, Limits, Order, Unpacker};

/// What takes compressed archives apart.
#[derive(Clone, Copy)]
pub struct Decoder<'a> {
    /// Who does it
    pub unpacker: &'a Unpacker,
    /// Who may end it
    pub progress: &'a Progress,
    /// How much may come out
    pub limits: Limits,
}

impl Decoder<'_> {
    /// What is in the compressed file, as a file without a name.
    ///
    /// # Errors
    /// If it is damaged, becomes larger than any image, or does not fit on the disk.
    pub fn decode(self, compressed: File) -> Result<File> {
        let folder = Folder::new()?;
        let (form, limits) = (Form::Decoded, self.limits);
        let order = Order { form, limits, diff_id: None, sealed: false, own: true };
        self.progress.expect(compressed.metadata().map_or(0, |found| found.len()));
        self.unpacker.unpack(compressed, &order, &folder.0, self.progress)?;
        let path = folder.0.join(ARCHIVE);
        File::open(&path).context(|| path.display().to_string())
    }
}

/// Removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        // Of names that nobody can have made before us.
        let name = format!("wsbox-archive-{:016x}", RandomState::new().build_hasher().finish());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
