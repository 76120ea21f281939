// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a bundle: its config against the eight layers, and its root file system as it lies there.
//!
//! [`rules`] is the table, [`check`] finds, [`fix`] mends what is safe to, [`sarif`] writes and reads what other tools do.

mod config;
mod finding;
mod fix;
mod root;
pub mod rules;
pub mod sarif;
mod scanner;
mod table;
mod tokens;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use finding::{Finding, Place, sort};
pub use fix::fix;
pub use rules::{Rule, Severity};
pub use scanner::Scanner;
pub use table::markdown;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::LAYERS;
use finding::Findings;

/// A bundle as it is looked at.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Where it is: an absolute path.
    pub dir: &'a Path,
    /// Its config.json.
    pub config: &'a Value,
    /// What the runtime does not know: the JSON path, and what it says of that.
    pub unknown: &'a [(String, String)],
}

/// All that is found, the worst first.
///
/// # Errors
/// If the root is not there, or has more than can be looked at.
pub fn check(subject: &Subject<'_>, progress: &Progress) -> Result<Vec<Finding>> {
    let mut found = Findings::default();
    config::check(subject, &mut found);
    root::check(&folders(subject)?, subject.config, progress, &mut found)?;
    Ok(found.sorted())
}

/// The folders that the root is made of, the uppermost first.
///
/// # Errors
/// If the config names no root.
pub fn folders(subject: &Subject<'_>) -> Result<Vec<PathBuf>> {
    if let Some(layers) = subject.config["annotations"][LAYERS].as_str() {
        return Ok(layers.split(':').map(PathBuf::from).collect());
    }
    let path = subject.config["root"]["path"].as_str().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| Error::new("root.path", "is missing"))?;
    Ok(vec![subject.dir.join(path)])
}
