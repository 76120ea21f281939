// SPDX-License-Identifier: Apache-2.0
//! What commands print: JSON or a table.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::log;
use crate::error::{Context, Error, Result};

/// Writes text to stdout; a reader that has gone away is no error.
pub fn text(text: &str) -> Result<u8> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        result => result.context(|| "stdout".into()).map(|()| 0),
    }
}

/// Prints JSON in one line, at once: whether anybody still reads.
pub fn line(value: &impl Serialize) -> Result<bool> {
    let json = harmless(&serde_json::to_string(value).map_err(|error| Error::invalid("output", error.to_string()))?);
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{json}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.context(|| "stdout".into()).map(|()| true),
    }
}

/// Indented JSON as a text.
pub fn pretty(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Error::invalid("output", error.to_string()))?;
    Ok(harmless(&json) + "\n")
}

/// JSON in which no terminal finds a control character: serde_json leaves those from DEL on as they are, and they stand in strings only.
fn harmless(json: &str) -> String {
    // The line breaks are those between its parts.
    let one = |letter: char| match log::is_harmful(letter) && letter != '\n' {
        true => format!("\\u{:04x}", u32::from(letter)),
        false => letter.to_string(),
    };
    json.chars().map(one).collect()
}

/// Prints indented JSON.
pub fn json(value: &impl Serialize) -> Result<u8> {
    text(&pretty(value)?)
}

/// Prints rows in columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> Result<u8> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| log::printable(cell, &[])).collect()).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    text(&rows.iter().map(line).collect::<String>())
}

/// A file that takes the place of another when all is written: a reader sees the old one or the new one.
#[derive(Debug)]
pub struct Replacing {
    file: File,
    new: PathBuf,
    at: PathBuf,
}

impl Replacing {
    /// Begins one beside `at`. A name that somebody laid there is not followed (O_EXCL, open(2)), and the mode of the old one stays.
    pub fn new(at: &Path) -> std::io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(at.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let new = at.with_file_name(name);
        // Of a process that had our pid before.
        let _ = std::fs::remove_file(&new);
        let replacing = Self { file: File::create_new(&new)?, new, at: at.to_owned() };
        if let Some(old) = at.symlink_metadata().ok().filter(std::fs::Metadata::is_file) {
            replacing.file.set_permissions(Permissions::from_mode(old.permissions().mode() & 0o777))?;
        }
        Ok(replacing)
    }

    /// Writes it and gives it its name.
    pub fn finish(mut self, text: &[u8]) -> std::io::Result<()> {
        self.file.write_all(text)?;
        std::fs::rename(&self.new, &self.at)
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        // After the rename it is another name's.
        let _ = std::fs::remove_file(&self.new);
    }
}

/// Writes a file whole, see [`Replacing`].
pub fn replace(file: &Path, text: &str) -> Result<()> {
    let written = Replacing::new(file).and_then(|new| new.finish(text.as_bytes()));
    written.context(|| file.display().to_string())
}
