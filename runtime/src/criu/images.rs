// SPDX-License-Identifier: Apache-2.0
//! How long images are: criu 3.17 waits forever for the rest of one that was cut.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Context, Error, Result};

/// How many pre-dumps may lie below each other.
const MOST: usize = 1024;

/// The length of each image in a folder, and in those of its pre-dumps, by its path.
///
/// # Errors
/// If the folder can not be read.
pub fn lengths(images: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let (mut folder, mut prefix) = (images.to_owned(), String::new());
    for _ in 0..MOST {
        for entry in std::fs::read_dir(&folder).context(|| folder.display().to_string())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(metadata) = entry.metadata().map_err(drop)
                && metadata.is_file()
                && name.ends_with(".img")
            {
                found.insert(format!("{prefix}{name}"), metadata.len());
            }
        }
        folder.push("parent");
        prefix.push_str("parent/");
        if !folder.is_dir() {
            break;
        }
    }
    Ok(found)
}

/// Compares what is there with what was.
///
/// # Errors
/// The first image that is not there, or of another length.
pub fn check(images: &Path, wanted: &BTreeMap<String, u64>) -> Result<()> {
    for (name, length) in wanted {
        let path = images.join(name);
        let found = std::fs::metadata(&path).context(|| format!("--image-path: {}", path.display()))?.len();
        if found != *length {
            let why = format!("{} has {found} bytes, criu wrote {length}", path.display());
            return Err(Error::invalid("--image-path", why));
        }
    }
    Ok(())
}
