// SPDX-License-Identifier: Apache-2.0
//! Errors and warnings: on stderr, and in the file of `--log` as runc writes it, for engines read their errors there.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

struct Log {
    file: File,
    json: bool,
}

static DEBUG: AtomicBool = AtomicBool::new(false);

static QUIET: AtomicBool = AtomicBool::new(false);

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the file of `--log` for appending; a file that can not be opened is told and done without.
pub fn open(path: Option<&Path>, json: bool, debug: bool) {
    DEBUG.store(debug, Ordering::Relaxed);
    let Some(path) = path else { return };
    match File::options().append(true).create(true).open(path) {
        Ok(file) => drop(LOG.set(Log { file, json })),
        Err(error) => eprintln!("wsbox: --log {}: {error}", path.display()),
    }
}

/// One line in the file of `--log` only, which is opened for it.
pub fn to_file(level: &str, message: &str, path: Option<&Path>, json: bool) {
    open(path, json, false);
    append(level, message);
}

/// What is only said with `--debug`.
pub fn debug(message: &str) {
    if DEBUG.load(Ordering::Relaxed) {
        write("debug", message);
    }
}

/// One error, once.
pub fn error(message: &str) {
    write("error", message);
}

/// One warning.
pub fn warning(message: &str) {
    write("warning", message);
}

/// From here on stderr is the payload's.
pub fn leave_stderr() {
    QUIET.store(true, Ordering::Relaxed);
}

/// What tells a terminal something, or turns the order of letters round: somebody else's words may be in a name in an image, of a process,
/// in an answer.
pub fn is_harmful(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with what is harmful as numbers, but for `kept`.
pub fn printable(text: &str, kept: &[char]) -> String {
    let one = |letter: char| match is_harmful(letter) && !kept.contains(&letter) {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(one).collect()
}

/// To an engine stderr is the payload's, and only errors go there, as with runc: where there is a log, and in `create`.
fn write(level: &str, message: &str) {
    let (mut stderr, message) = (std::io::stderr(), &printable(message, &['\t']));
    let _ = match level {
        "error" => writeln!(stderr, "wsbox: {message}"),
        _ if (LOG.get().is_some() || QUIET.load(Ordering::Relaxed)) && !stderr.is_terminal() => Ok(()),
        _ => writeln!(stderr, "wsbox: {level}: {message}"),
    };
    append(level, message);
}

fn append(level: &str, message: &str) {
    let Some(mut log) = LOG.get().map(|log| (&log.file, log.json)) else { return };
    let time = crate::state::now();
    let line = if log.1 {
        serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
    } else {
        format!("time={time:?} level={level} msg={message:?}")
    };
    let _ = writeln!(log.0, "{line}");
}
