// SPDX-License-Identifier: Apache-2.0
//! A profile by its name, file or bundle.

use std::ops::Range;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bundle::parse_seccomp;
use crate::error::{Context, Error, Result};
use crate::seccomp::{DOCKER, WORKSPACE};

/// A profile and the text that it stands in.
pub struct Source {
    /// The file; none for what is shipped in the program
    pub file: Option<PathBuf>,
    /// All of it
    pub text: String,
    /// Where in it the profile is
    pub place: Range<usize>,
}

#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    linux: Option<Linux<'a>>,
}

#[derive(Deserialize)]
struct Linux<'a> {
    #[serde(borrow)]
    seccomp: Option<&'a RawValue>,
}

impl Source {
    /// Reads what `name` means.
    ///
    /// # Errors
    /// If there is no such file, or no profile in it.
    pub fn read(name: &str) -> Result<Self> {
        let shipped = [("workspace", WORKSPACE), ("docker-default", DOCKER)];
        if let Some((_, text)) = shipped.iter().find(|(known, _)| *known == name) {
            return Ok(Self { file: None, text: (*text).to_owned(), place: 0..text.len() });
        }
        let path = Path::new(name);
        let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        let text = read(&path)
            .map_err(|error| error.hint("a profile is a JSON file, a bundle, or one of: workspace, docker-default"))?;
        let place = place(&text, &path)?;
        Ok(Self { file: Some(path), text, place })
    }

    /// The profile.
    ///
    /// # Errors
    /// What is wrong in it, by its JSON path.
    pub fn profile(&self) -> Result<LinuxSeccomp> {
        let shipped = PathBuf::from("the shipped profile");
        parse(&self.text[self.place.clone()], self.file.as_ref().unwrap_or(&shipped))
    }
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(|| path.display().to_string())
}

/// The profile that is the whole text.
pub fn parse(text: &str, path: &Path) -> Result<LinuxSeccomp> {
    parse_seccomp(text.as_bytes(), path)
}

/// The whole text, or `linux.seccomp` of a config.
fn place(text: &str, path: &Path) -> Result<Range<usize>> {
    let Ok(Config { linux: Some(linux) }) = serde_json::from_str::<Config>(text) else { return Ok(0..text.len()) };
    let seccomp = linux.seccomp.ok_or_else(|| {
        Error::invalid(path.display().to_string(), "is a config without linux.seccomp: every call is allowed")
    })?;
    Ok(range(text, seccomp.get()))
}

/// Where a part of a text is in it.
pub fn range(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}
