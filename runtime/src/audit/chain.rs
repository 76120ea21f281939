// SPDX-License-Identifier: Apache-2.0
//! A file whose lines hold the SHA-256 of the line before: whoever changes or removes one breaks every line after it, or must
//! write them all anew, which the anchors in the journal tell. The first line of a rotated file follows the last of the one
//! before. `sha256sum` of a line without its newline is what the next one has in `prev`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Policy;
use crate::error::{Context, Error, Result};

/// How long another writer may hold the file: each holds it for one line.
const PATIENCE: Duration = Duration::from_secs(2);
/// Room that there must be before something is done that is to be logged: more than the longest line.
const RESERVE: i64 = 256 << 10;
/// Every so many lines the head of the chain goes to the journal.
const ANCHOR: u64 = 100;
/// What the first line of a chain has in `prev`.
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

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
    /// Lines so far, in all files
    pub lines: u64,
    /// Of the last line
    pub hash: String,
}

fn hash(line: &str) -> String {
    Sha256::digest(line.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn subject(path: &Path) -> String {
    format!("--audit-log {}", path.display())
}

/// FILE.1 is the youngest of those that were full.
fn rotated(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

impl File {
    /// Opens and locks the current file; it may be rotated away by others while we wait for the lock.
    pub fn open(path: &Path, policy: Policy) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut options = fs::File::options();
            let options = options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let file = lock(options.open(path).context(|| subject(path))?, end).context(|| subject(path))?;
            let inode = |metadata: fs::Metadata| metadata.ino();
            if fs::symlink_metadata(path).map(inode).ok() == file.metadata().map(inode).ok() {
                return Ok(Self { path: path.into(), file, policy });
            }
        }
    }

    /// Whether a line can follow, and there is room for it; takes the room, so that it is still there when the line comes.
    pub fn reserve(mut self) -> Result<()> {
        self.head()?;
        let length = self.file.metadata().context(|| subject(&self.path))?.len() as i64;
        match fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, length, RESERVE) {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            result => result.context(|| subject(&self.path)),
        }
    }

    /// Appends one line; Some is the head, when it is time to tell it to others.
    pub fn append(mut self, event: &Value) -> Result<Option<String>> {
        if self.file.metadata().context(|| subject(&self.path))?.len() >= self.policy.max_size {
            self = self.rotate()?;
        }
        // Of whoever wrote last: between the rename and our lock that may be somebody else.
        let head = self.head()?;
        let line = line(event, &head);
        self.write(&line)?;
        Ok((head.lines % ANCHOR == 0).then(|| format!("{} {}", head.lines + 1, hash(&line))))
    }

    /// The whole line or none: half a line would be taken for a broken chain.
    fn write(&mut self, line: &str) -> Result<()> {
        let before = self.file.metadata().context(|| subject(&self.path))?.len();
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        let written = written.and_then(|()| if self.policy.sync { self.file.sync_data() } else { Ok(()) });
        written.inspect_err(|_| drop(self.file.set_len(before))).context(|| subject(&self.path))
    }

    fn head(&mut self) -> Result<Head> {
        let text = last_line(&mut self.file).context(|| subject(&self.path))?;
        if let Some(text) = text {
            return parse_head(&text).ok_or_else(|| broken(&self.path));
        }
        match fs::File::open(rotated(&self.path, 1)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Head { lines: 0, hash: NONE.into() }),
            opened => {
                let text = opened.and_then(|mut file| last_line(&mut file)).context(|| subject(&self.path))?;
                text.and_then(|text| parse_head(&text)).ok_or_else(|| broken(&rotated(&self.path, 1)))
            }
        }
    }

    fn rotate(self) -> Result<Self> {
        let step = || subject(&self.path);
        for age in (1..self.policy.max_files).rev() {
            match fs::rename(rotated(&self.path, age), rotated(&self.path, age + 1)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.context(step)?,
            }
        }
        // At least one stays: the next line must know what it follows.
        fs::rename(&self.path, rotated(&self.path, 1)).context(step)?;
        Self::open(&self.path, self.policy)
    }
}

fn lock(mut file: fs::File, end: Instant) -> nix::Result<Flock<fs::File>> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < end => file = back,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn line(event: &Value, head: &Head) -> String {
    let mut event = event.clone();
    event["seq"] = json!(head.lines + 1);
    event["prev"] = json!(head.hash);
    event.to_string()
}

/// The last line of a file; None if it is empty.
fn last_line(file: &mut fs::File) -> std::io::Result<Option<String>> {
    let length = file.metadata()?.len();
    let mut part = 8 << 10;
    loop {
        let from = length.saturating_sub(part);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut *file).take(length - from).read_to_end(&mut bytes)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match text.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => return Ok(Some(String::from_utf8_lossy(&text[at + 1..]).into_owned())),
            None if from == 0 => return Ok((!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())),
            None => part *= 8,
        }
    }
}

fn parse_head(line: &str) -> Option<Head> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some(Head { lines: event["seq"].as_u64()?, hash: hash(line) })
}

fn broken(path: &Path) -> Error {
    let error = Error::invalid(subject(path), "its last line is none of an audit log");
    error.hint("`wsbox audit verify` says where it breaks; move it away to begin a new chain")
}

/// Reads a chain from its oldest file to the current one.
///
/// # Errors
/// The first line that does not follow the one before, by file and number; or `anchor`, lines and hash as the journal has them, is
/// not in it.
pub fn verify(path: &Path, anchor: Option<&str>) -> Result<Head> {
    let mut files: Vec<PathBuf> = (1..).map(|age| rotated(path, age)).take_while(|file| file.exists()).collect();
    files.reverse();
    files.push(path.into());
    let mut head: Option<Head> = None;
    let mut anchored = anchor.is_none();
    for file in files {
        let opened = fs::File::open(&file).context(|| file.display().to_string())?;
        for (at, text) in BufReader::new(opened).lines().enumerate() {
            let text = text.context(|| file.display().to_string())?;
            let next = follows(&text, head.as_ref())
                .map_err(|why| Error::invalid(format!("{}:{}", file.display(), at + 1), why))?;
            anchored |= anchor.is_some_and(|anchor| anchor == format!("{} {}", next.lines, next.hash));
            head = Some(next);
        }
    }
    let head = head.unwrap_or(Head { lines: 0, hash: NONE.into() });
    if anchored { Ok(head) } else { Err(Error::invalid("--anchor", "no line of the log is the one that was anchored")) }
}

fn follows(text: &str, before: Option<&Head>) -> Result<Head, String> {
    let event: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let (Some(seq), Some(prev)) = (event["seq"].as_u64(), event["prev"].as_str()) else {
        return Err("is none of an audit log: it has no seq and prev".into());
    };
    match before {
        // The oldest files may be gone; the first line of all follows none.
        None if seq == 1 && prev != NONE => Err("is the first line, and says that it follows one".into()),
        Some(before) if seq != before.lines + 1 => {
            Err(format!("is line {seq} after line {}: lines are missing", before.lines))
        }
        Some(before) if prev != before.hash => {
            Err("does not follow the line before: one of the two was changed".into())
        }
        _ => Ok(Head { lines: seq, hash: hash(text) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("wsbox-chain-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn append(path: &Path, policy: Policy, what: &str) -> Option<String> {
        File::open(path, policy).unwrap().append(&json!({"what": what})).unwrap()
    }

    #[test]
    fn what_is_changed_or_removed_shows() {
        let dir = folder("verify");
        let path = dir.join("audit");
        let anchor = append(&path, Policy::default(), "a").unwrap();
        for what in ["b", "c"] {
            assert_eq!(append(&path, Policy::default(), what), None);
        }
        assert_eq!(verify(&path, Some(&anchor)).unwrap().lines, 3);
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        for (text, place) in [
            (whole.replace("\"b\"", "\"x\""), ":3: does not follow"),
            (format!("{}\n{}\n", lines[0], lines[2]), ":2: is line 3 after line 1"),
            (format!("{}\n{}\n", lines[1], lines[0]), ":2: is line 1 after line 2"),
            (format!("{}\nnot json\n", lines[0]), ":2: is no JSON"),
        ] {
            fs::write(&path, text).unwrap();
            let error = verify(&path, None).unwrap_err().to_string();
            assert!(error.contains(place), "{error}");
        }
        // Lines that are cut off at the end are missed by whoever has an anchor.
        fs::write(&path, "").unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 0);
        assert!(verify(&path, Some(&anchor)).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn rotated_files_are_one_chain_and_the_oldest_go() {
        let dir = folder("rotate");
        let path = dir.join("audit");
        let policy = Policy { max_size: 300, max_files: 2, ..Policy::default() };
        for _ in 0..10 {
            append(&path, policy, "x");
        }
        let names = fs::read_dir(&dir).unwrap().count();
        assert_eq!((names, verify(&path, None).unwrap().lines), (3, 10));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn many_writers_make_one_chain() {
        let dir = folder("writers");
        let path = dir.join("audit");
        let policy = Policy { max_size: 4000, max_files: 100, ..Policy::default() };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(append(&path, policy, "x"))));
            }
        });
        assert_eq!(verify(&path, None).unwrap().lines, 400);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let dir = folder("other");
        let path = dir.join("audit");
        fs::write(&path, "hello\n").unwrap();
        let error = File::open(&path, Policy::default()).unwrap().append(&json!({})).unwrap_err().to_string();
        assert!(error.contains("none of an audit log"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }
}
