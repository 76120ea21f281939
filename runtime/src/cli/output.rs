// SPDX-License-Identifier: Apache-2.0
//! What commands print: JSON or a table.

use std::path::Path;

use serde::Serialize;

use crate::error::{Context, Error, Result};

/// Writes text to stdout; a reader that has gone away is no error.
pub fn text(text: &str) -> Result<u8> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        result => result.context(|| "stdout".into()).map(|()| 0),
    }
}

/// Prints JSON in one line, at once: whether anybody still reads.
pub fn line(value: &impl Serialize) -> Result<bool> {
    use std::io::Write;
    let json = serde_json::to_string(value).map_err(|error| Error::invalid("output", error.to_string()))?;
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{json}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.context(|| "stdout".into()).map(|()| true),
    }
}

/// Prints indented JSON.
pub fn json(value: &impl Serialize) -> Result<u8> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Error::invalid("output", error.to_string()))?;
    text(&(json + "\n"))
}

/// Prints rows in columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> Result<u8> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
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

/// Writes a file whole: a reader sees the old one or the new one. A name that somebody laid there is not followed (O_EXCL), and the mode
/// stays.
pub fn replace(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(name);
    let written = std::fs::File::create_new(&new).and_then(|mut out| {
        if let Ok(old) = std::fs::metadata(file) {
            out.set_permissions(old.permissions())?;
        }
        out.write_all(text.as_bytes())?;
        std::fs::rename(&new, file).inspect_err(|_| drop(std::fs::remove_file(&new)))
    });
    written.context(|| file.display().to_string())
}
