// SPDX-License-Identifier: Apache-2.0
//! A file whose lines hold the SHA-256 of the line before: whoever changes or removes one breaks every line after it, or must
//! write them all anew, which the anchors in the journal tell ([`super::verify`]). The first line of a rotated file follows the last of
//! the one before. `sha256sum` of a line without its newline is what the next one has in `prev`.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{FILES, Policy, SCHEMA};
use crate::error::{Context, Error, Result};
use crate::state::{self, lock_until};

/// How long another writer may hold the file: each holds it for one line.
const PATIENCE: Duration = Duration::from_secs(2);
/// Room that there must be before something is done that is to be logged: more than the longest line.
const RESERVE: i64 = 256 << 10;
/// Every so many lines the head of the chain goes to the journal.
const ANCHOR: u64 = 100;
/// More lines than any log has: beyond it JSON's readers lose count (RFC 8259, section 6).
const MOST: u64 = 1 << 53;
/// What the first line of a chain has in `prev`.
pub(super) const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The most bytes behind the last line that are taken for a line that was cut off.
pub(super) const TORN: usize = 512 << 10;
/// The line behind one that was cut off.
pub(super) const AFTER_TORN: &str = "torn";
/// The line that begins a file that nobody rotated.
pub(super) const AFTER_EMPTIED: &str = "emptied";

/// The current file of a chain, locked.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: Flock<fs::File>,
    policy: Policy,
}

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last line's number, over all files
    pub lines: u64,
    /// Its hash
    pub hash: String,
}

/// The end of a file.
#[derive(Debug)]
struct Tail {
    head: Head,
    /// What stands behind that line, without its own end
    torn: Vec<u8>,
    /// There is no newline at the end
    open: bool,
    /// The file has no line, though the one before has
    emptied: bool,
}

pub(super) fn hash(line: &[u8]) -> String {
    Sha256::digest(line).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn subject(path: &Path) -> String {
    format!("--audit-log {}", path.display())
}

fn beside(path: &Path, what: impl std::fmt::Display) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}"));
    name.into()
}

/// FILE.1 is the youngest of those that were full.
pub(super) fn rotated(path: &Path, age: u32) -> PathBuf {
    beside(path, age)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new name is on the disk when its folder is (fsync(2)).
fn sync_folder(path: &Path) -> std::io::Result<()> {
    fs::File::open(folder(path)).and_then(|folder| folder.sync_all())
}

/// The ages of the rotated files that there are, the youngest first.
pub(super) fn ages(path: &Path) -> std::io::Result<Vec<u32>> {
    let folder = folder(path);
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let mut ages = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let age = name.strip_prefix(&own).and_then(|age| age.parse::<u32>().ok().filter(|n| n.to_string() == age));
        // A larger number is somebody else's: a date, perhaps.
        ages.extend(age.filter(|age| (1..=FILES).contains(age)));
    }
    ages.sort_unstable();
    Ok(ages)
}

/// A rotation that was interrupted leaves the current file with both names.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path| fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    place(one).is_some_and(|found| Some(found) == place(other))
}

fn is_same_file(path: &Path, file: &fs::File) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    fs::symlink_metadata(path).map(place).ok() == file.metadata().map(place).ok()
}

fn options() -> fs::OpenOptions {
    let mut options = fs::File::options();
    options.read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

impl File {
    /// Opens and locks the current file; it may be rotated away by others while we wait for the lock.
    pub fn open(path: &Path, policy: Policy) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            let file = options().create(true).open(path).context(|| subject(path))?;
            let file = lock_until(file, FlockArg::LockExclusiveNonblock, end).context(|| subject(path))?;
            if is_same_file(path, &file) {
                return Ok(Self { path: path.into(), file, policy });
            }
        }
    }

    /// Opens it for reading, with those before it, and how long it is: what others add later is no part of it.
    ///
    /// # Errors
    /// If one can not be opened, or the lock be had.
    pub(super) fn snapshot(path: &Path) -> Result<Vec<(PathBuf, fs::File, u64)>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let name = || path.display().to_string();
            let current =
                lock_until(fs::File::open(path).context(name)?, FlockArg::LockExclusiveNonblock, end).context(name)?;
            if !is_same_file(path, &current) {
                continue;
            }
            let mut all = Vec::new();
            for age in ages(path).context(|| format!("the folder of {}", path.display()))?.into_iter().rev() {
                let file = rotated(path, age);
                if !is_same(path, &file) {
                    let opened = fs::File::open(&file).context(|| file.display().to_string())?;
                    all.push((file, opened, u64::MAX));
                }
            }
            let length = current.metadata().context(name)?.len();
            all.push((path.to_owned(), current.try_clone().context(name)?, length));
            return Ok(all);
        }
    }

    /// Whether a line can follow, and there is room for it; takes the room, so that it is still there when the line comes.
    pub fn reserve(mut self) -> Result<()> {
        self.tail()?;
        take_room(&self.file, self.length()?).context(|| subject(&self.path))
    }

    /// Appends one line; Some is the head, when it is time to tell it to others.
    pub fn append(mut self, event: &Value) -> Result<Option<String>> {
        let (head, mended) = self.mend()?;
        let line = line(event, &head);
        let full = self.length()? >= self.policy.max_size;
        // Here there is room for it already: a rotation that fails must not cost the line.
        let fresh = full && self.rotate(&line).inspect_err(|error| crate::cli::warn(&error.to_string())).is_ok();
        if !fresh {
            self.write(&format!("{line}\n"))?;
        }
        let due = mended || fresh || head.lines % ANCHOR == 0;
        Ok(due.then(|| format!("{} {}", head.lines + 1, hash(line.as_bytes()))))
    }

    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).context(|| subject(&self.path))
    }

    /// The whole text or none: half a line would be taken for a broken chain.
    fn write(&mut self, text: &str) -> Result<()> {
        let before = self.length()?;
        let written = self.file.write_all(text.as_bytes());
        let mut written = written.and_then(|()| if self.policy.sync { self.file.sync_data() } else { Ok(()) });
        if before == 0 && self.policy.sync {
            written = written.and_then(|()| sync_folder(&self.path));
        }
        written.inspect_err(|_| drop(self.file.set_len(before))).context(|| subject(&self.path))
    }

    fn tail(&mut self) -> Result<Tail> {
        let found = tail_of(&mut self.file).context(|| subject(&self.path))?;
        match found {
            Found::Line(tail) => Ok(tail),
            Found::Other => Err(broken(&self.path)),
            Found::Nothing(torn) => {
                let head = self.before()?;
                let emptied = torn.is_empty() && head.lines > 0;
                Ok(Tail { head, open: !torn.is_empty(), torn, emptied })
            }
        }
    }

    /// The last line of the file before this one.
    fn before(&self) -> Result<Head> {
        let path = rotated(&self.path, 1);
        let mut file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Head { lines: 0, hash: NONE.into() }),
            opened => opened.context(|| subject(&path))?,
        };
        match tail_of(&mut file).context(|| subject(&path))? {
            Found::Line(tail) if tail.torn.is_empty() => Ok(tail.head),
            _ => Err(broken(&path)),
        }
    }

    /// What a power cut or somebody else left at the end stays, and a line of the chain says what it was. The head then, and whether there
    /// was something.
    fn mend(&mut self) -> Result<(Head, bool)> {
        let tail = self.tail()?;
        let newline = if tail.open { "\n" } else { "" };
        let event = match (tail.torn.as_slice(), tail.emptied) {
            ([], false) if !tail.open => return Ok((tail.head, false)),
            // Only its newline was lost.
            ([], false) => return self.write(newline).map(|()| (tail.head, true)),
            ([], true) => json!({"eventType": AFTER_EMPTIED}),
            (torn, _) => json!({"eventType": AFTER_TORN, "torn": {"bytes": torn.len(), "sha256": hash(torn)}}),
        };
        let mut event = event;
        event["schema"] = json!(SCHEMA);
        event["time"] = json!(state::now());
        let line = line(&event, &tail.head);
        self.write(&format!("{newline}{line}\n"))?;
        Ok((Head { lines: tail.head.lines + 1, hash: hash(line.as_bytes()) }, true))
    }

    /// Begins a new file with this line. It takes the place of the full one when it has its line and the room for the next: at no time is
    /// there none, or an empty one.
    fn rotate(&self, line: &str) -> Result<()> {
        let new = beside(&self.path, "new");
        ignore_missing(fs::remove_file(&new)).context(|| subject(&new))?;
        let mut file = options().create_new(true).open(&new).context(|| subject(&new))?;
        let written = file.write_all(format!("{line}\n").as_bytes());
        let written = written.and_then(|()| Ok(take_room(&file, line.len() as u64 + 1)?));
        let written = written.and_then(|()| if self.policy.sync { file.sync_data() } else { Ok(()) });
        let moved = written.and_then(|()| {
            self.shift()?;
            match fs::hard_link(&self.path, rotated(&self.path, 1)) {
                // A file system without second names: for a moment there is no current file.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    fs::rename(&self.path, rotated(&self.path, 1))?;
                }
                result => result?,
            }
            fs::rename(&new, &self.path)?;
            if self.policy.sync { sync_folder(&self.path) } else { Ok(()) }
        });
        moved.inspect_err(|_| drop(fs::remove_file(&new))).context(|| subject(&new))?;
        // What was reserved behind its last line.
        let _ = self.file.set_len(self.length()?);
        Ok(())
    }

    /// Makes FILE.1 free, and removes what is beyond the limit.
    fn shift(&self) -> std::io::Result<()> {
        // At least one stays: the next line must know what it follows.
        let limit = self.policy.max_files.max(1);
        let mut ages = ages(&self.path)?;
        if is_same(&self.path, &rotated(&self.path, 1)) {
            fs::remove_file(rotated(&self.path, 1))?;
            ages.retain(|age| *age != 1);
        }
        let free = (1..=limit).find(|age| !ages.contains(age)).unwrap_or(limit);
        // The oldest first: whenever this is interrupted, what is left is one chain.
        for age in ages.iter().rev().filter(|age| **age > limit || (**age == limit && free == limit)) {
            fs::remove_file(rotated(&self.path, *age))?;
        }
        (1..free).rev().try_for_each(|age| fs::rename(rotated(&self.path, age), rotated(&self.path, age + 1)))
    }
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn take_room(file: &fs::File, length: u64) -> nix::Result<()> {
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, length as i64, RESERVE) {
        Err(Errno::EOPNOTSUPP) => Ok(()),
        result => result,
    }
}

fn line(event: &Value, head: &Head) -> String {
    let mut event = event.clone();
    event["seq"] = json!(head.lines + 1);
    event["prev"] = json!(head.hash);
    event.to_string()
}

/// What a file ends with.
enum Found {
    Line(Tail),
    /// No line; at most the beginning of one
    Nothing(Vec<u8>),
    /// Something that no log ends with
    Other,
}

fn tail_of(file: &mut fs::File) -> std::io::Result<Found> {
    let length = file.metadata()?.len();
    let mut part = 8 << 10;
    loop {
        let from = length.saturating_sub(part);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut *file).take(length - from).read_to_end(&mut bytes)?;
        // Before the first newline there may be half a line.
        let begin = if from == 0 { Some(0) } else { bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1) };
        if let Some(tail) = begin.and_then(|begin| last_line(&bytes[begin..])) {
            return Ok(Found::Line(tail));
        }
        if from == 0 {
            let begun = bytes.starts_with(b"{\"") || bytes.starts_with(b"\0");
            // JSON that is whole is somebody else's.
            let torn = begun && !bytes.ends_with(b"\n") && serde_json::from_slice::<Value>(&bytes).is_err();
            return Ok(if torn || bytes.is_empty() { Found::Nothing(bytes) } else { Found::Other });
        }
        if part >= TORN as u64 {
            return Ok(Found::Other);
        }
        part *= 8;
    }
}

/// The last line that is one of a log. Behind it there may be others only if the very last has no end.
fn last_line(bytes: &[u8]) -> Option<Tail> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let (open, mut end) = (text.len() == bytes.len(), text.len());
    loop {
        let start = text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if let Some((head, _)) = parse(&text[start..end]) {
            let torn = text.get(end + 1..).unwrap_or_default().to_vec();
            return Some(Tail { head, torn, open, emptied: false });
        }
        if !open || start == 0 {
            return None;
        }
        end = start - 1;
    }
}

/// A line of a log: the chain up to it, and what it says.
pub(super) fn parse(line: &[u8]) -> Option<(Head, Value)> {
    let event: Value = serde_json::from_slice(line).ok()?;
    event["prev"].as_str()?;
    let lines = event["seq"].as_u64().filter(|seq| (1..MOST).contains(seq))?;
    Some((Head { lines, hash: hash(line) }, event))
}

fn broken(path: &Path) -> Error {
    let error = Error::invalid(subject(path), "its last line is none of an audit log");
    error.hint("`wsbox audit verify` says where it breaks; move it away to begin a new chain")
}
