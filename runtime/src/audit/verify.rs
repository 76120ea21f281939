// SPDX-License-Identifier: Apache-2.0
//! Reads a chain ([`super::chain`]) from its oldest file to the current one.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use super::chain::{AFTER_EMPTIED, AFTER_TORN, File, Head, NONE, TORN, hash, parse};
use crate::error::{Context, Error, Result};

/// The number and the hash of a line, as the journal has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    line: u64,
    hash: String,
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once(' ').and_then(|(line, hash)| Some((line.parse().ok()?, hash.to_owned())));
        let hex = |hash: &str| hash.len() == NONE.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (line, hash) =
            parts.filter(|(_, hash)| hex(hash)).ok_or("is not LINE HASH, as WSBOX_AUDIT_ANCHOR has it")?;
        Ok(Self { line, hash })
    }
}

/// A chain that holds.
#[derive(Debug, Default)]
pub struct Verified {
    /// The number of the first line that is there
    pub first: u64,
    /// The last
    pub head: Option<Head>,
    /// What a person should know of it
    pub remarks: Vec<String>,
    /// Lines that do not follow, until one says that they were cut off, and what is wrong with the first
    torn: Vec<u8>,
    fault: Option<Error>,
    missed: Vec<Anchor>,
}

/// Reads a chain whole.
///
/// # Errors
/// The first line that does not follow the one before, by file and number; or one of the anchors is not in it.
pub fn verify(path: &Path, anchors: &[Anchor]) -> Result<Verified> {
    let mut read = Verified { missed: anchors.to_vec(), ..Verified::default() };
    let mut before = None;
    for (name, file, length) in File::snapshot(path)? {
        before = read.head.clone();
        read.file(&name, file.take(length))?;
    }
    if before.is_some() && before == read.head {
        read.remarks.push(emptied(path.display(), before.as_ref()));
    }
    read.judge_anchors()?;
    if read.first > 1 {
        read.remarks.insert(0, format!("lines before {} are not here: rotated away, or removed", read.first));
    }
    Ok(read)
}

fn emptied(place: impl std::fmt::Display, before: Option<&Head>) -> String {
    let last = before.map_or(0, |head| head.lines);
    format!(
        "{place}: nothing was left of this file, and nobody had rotated it: lines after {last} may have been removed"
    )
}

impl Verified {
    fn file(&mut self, path: &Path, content: impl Read) -> Result<()> {
        let name = || path.display().to_string();
        let mut lines = BufReader::new(content);
        for at in 1.. {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line).context(name)? == 0 {
                break;
            }
            let whole = line.strip_suffix(b"\n");
            self.line(&format!("{}:{at}", path.display()), whole.unwrap_or(&line), whole.is_some())?;
        }
        self.fault.take().map_or(Ok(()), Err)
    }

    fn line(&mut self, place: &str, line: &[u8], ended: bool) -> Result<()> {
        match self.follows(place, line) {
            Ok(next) => {
                self.first = self.head.as_ref().map_or(next.lines, |_| self.first);
                self.missed.retain(|anchor| (anchor.line, &anchor.hash) != (next.lines, &next.hash));
                self.head = Some(next);
                Ok(())
            }
            Err(why) => self.put_off(place, line, ended, why),
        }
    }

    /// A line that does not follow may be one that was cut off: the next that does will say so.
    fn put_off(&mut self, place: &str, line: &[u8], ended: bool, why: String) -> Result<()> {
        if self.fault.is_some() {
            self.torn.push(b'\n');
        }
        self.torn.extend_from_slice(line);
        let mut error = Error::invalid(place, why);
        if !ended {
            error = error
                .hint("it has no end: if it was cut off, by a power cut, the next line that is logged will say so");
        }
        let fault = self.fault.get_or_insert(error);
        if self.torn.len() > TORN { Err(fault.clone()) } else { Ok(()) }
    }

    fn follows(&mut self, place: &str, line: &[u8]) -> Result<Head, String> {
        let (next, event) = parse(line).ok_or("is none of an audit log: no JSON with seq and prev")?;
        let prev = event["prev"].as_str().unwrap_or_default();
        match &self.head {
            // The oldest files may be gone; the first line of all follows none.
            None if (next.lines == 1) != (prev == NONE) => {
                return Err(format!("is line {}, and its prev is not that of one", next.lines));
            }
            Some(before) if next.lines != before.lines + 1 => {
                return Err(format!("is line {} after line {}: lines are missing", next.lines, before.lines));
            }
            Some(before) if prev != before.hash => {
                return Err("does not follow the line before: one of the two was changed".into());
            }
            _ => {}
        }
        let kind = event["eventType"].as_str().unwrap_or_default();
        if kind == AFTER_EMPTIED {
            self.remarks.push(emptied(place, self.head.as_ref()));
        }
        let told = event["torn"].as_object().filter(|_| kind == AFTER_TORN);
        let same = told.map(|told| {
            self.fault.is_some()
                && told.get("bytes").and_then(|bytes| bytes.as_u64()) == Some(self.torn.len() as u64)
                && told.get("sha256").and_then(|sha| sha.as_str()) == Some(&hash(&self.torn))
        });
        match same {
            None if self.fault.is_some() => Err("follows a line that does not".into()),
            Some(false) => Err("says what was cut off before it, and that is not there as it was".into()),
            None => Ok(next),
            Some(true) => {
                self.remarks
                    .push(format!("{place}: the {} bytes before it are a line that was cut off", self.torn.len()));
                (self.fault, self.torn) = (None, Vec::new());
                Ok(next)
            }
        }
    }

    fn judge_anchors(&self) -> Result<()> {
        let Some(anchor) = self.missed.first() else { return Ok(()) };
        let subject = format!("--anchor \"{} {}\"", anchor.line, anchor.hash);
        let last = self.head.as_ref().map_or(0, |head| head.lines);
        Err(match anchor.line {
            line if line < self.first => {
                let error = Error::invalid(subject, format!("the log begins after it, with line {}", self.first));
                error.hint("leave it out only if the files before were rotated away")
            }
            line if line > last => Error::invalid(subject, format!("the log ends before it, with line {last}")),
            _ => Error::invalid(subject, "no line of the log is the one that was anchored: it was written anew"),
        })
    }
}
