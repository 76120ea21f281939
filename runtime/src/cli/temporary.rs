// SPDX-License-Identifier: Apache-2.0
//! A folder for nobody else, which is removed again.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::log;
use crate::error::{Context, Result};

/// See above.
pub struct Temporary(PathBuf);

impl Temporary {
    /// A new one in $TMPDIR: what lies there under its name already is an error.
    pub fn new(what: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("wsbox-{what}-{}", std::process::id()));
        let path = std::path::absolute(&path).context(|| path.display().to_string())?;
        fs::DirBuilder::new().mode(0o700).create(&path).context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warning(&format!("{}: {error}", self.0.display()));
        }
    }
}
