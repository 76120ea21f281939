// SPDX-License-Identifier: Apache-2.0
//! What outlives a container: how long starts took, and what failed, on the whole host. `wsbox metrics` makes the file; where nobody
//! asked for metrics there is none, and a command finds that out by one open(2).

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Kind, Result};

/// In a folder that no container can have the name of.
const FILE: &str = "/run/wsbox/ids/.counters";
/// First word: the layout.
const LAYOUT: u64 = 0x7773_6263_0000_0001;
/// Upper bounds in seconds; one more bucket is for all that is slower.
pub const BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// What is timed.
pub const TIMED: [&str; 2] = ["run", "create"];
/// How errors are told apart; in the order of [`slot`].
pub const KINDS: [&str; 7] = ["invalid", "not-found", "exists", "state", "system", "exec-not-found", "exec-denied"];

const HISTOGRAM: usize = BOUNDS.len() + 2;
const WORDS: usize = 1 + TIMED.len() * HISTOGRAM + KINDS.len();

/// How often one command took how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// One a bucket, not cumulated
    pub counts: Vec<u64>,
    /// Seconds
    pub sum: f64,
}

/// All that is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Counters {
    /// In the order of [`TIMED`]
    pub starts: Vec<Histogram>,
    /// In the order of [`KINDS`]
    pub errors: Vec<u64>,
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Invalid => 0,
        Kind::NotFound => 1,
        Kind::Exists => 2,
        Kind::State => 3,
        Kind::System => 4,
        Kind::ExecNotFound => 5,
        Kind::ExecDenied => 6,
    }
}

/// Counts how long `start` takes if it succeeds. Metrics never fail a container.
pub fn timed<T>(command: &str, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    start().inspect(|_| started(command, begun.elapsed()))
}

fn started(command: &str, time: Duration) {
    let Some(at) = TIMED.iter().position(|timed| *timed == command) else { return };
    let histogram = 1 + at * HISTOGRAM;
    let bucket = BOUNDS.iter().position(|bound| time.as_secs_f64() <= *bound).unwrap_or(BOUNDS.len());
    let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    add(Path::new(FILE), &[(histogram + bucket, 1), (histogram + BOUNDS.len() + 1, microseconds)]);
}

/// Counts a command that failed.
pub fn failed(kind: Kind) {
    add(Path::new(FILE), &[(1 + TIMED.len() * HISTOGRAM + slot(kind), 1)]);
}

fn add(path: &Path, what: &[(usize, u64)]) {
    let Ok(file) = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path) else { return };
    let Ok(file) = Flock::lock(file, FlockArg::LockExclusive) else { return };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at as u64 * 8).map(|()| u64::from_ne_bytes(bytes))
    };
    if word(0).is_ok_and(|layout| layout == LAYOUT) {
        for (at, more) in what {
            let now = word(*at).unwrap_or_default().wrapping_add(*more);
            let _ = file.write_all_at(&now.to_ne_bytes(), *at as u64 * 8);
        }
    }
}

/// Makes the file, so that commands count from here on; one that is there goes on counting.
///
/// # Errors
/// If it can not be made, or is of another layout.
pub fn begin() -> Result<()> {
    begin_at(Path::new(FILE))
}

fn begin_at(path: &Path) -> Result<()> {
    let step = || path.display().to_string();
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).context(|| folder.display().to_string())?;
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = Flock::lock(options.open(path).context(step)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::system(step(), errno))?;
    if file.metadata().context(step)?.len() == 0 {
        let mut bytes = vec![0; WORDS * 8];
        bytes[..8].copy_from_slice(&LAYOUT.to_ne_bytes());
        return file.write_all_at(&bytes, 0).context(step);
    }
    drop(file);
    read_at(path).map(drop)
}

/// What was counted since [`begin`].
pub fn read() -> Result<Counters> {
    read_at(Path::new(FILE))
}

fn read_at(path: &Path) -> Result<Counters> {
    let bytes = std::fs::read(path).context(|| path.display().to_string())?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    if words.len() != WORDS || words[0] != LAYOUT {
        let error = Error::invalid(path.display().to_string(), "was not written by this version of wsbox");
        return Err(error.hint("remove it: the counters begin anew"));
    }
    let histogram = |words: &[u64]| Histogram {
        counts: words[..=BOUNDS.len()].to_vec(),
        sum: words[BOUNDS.len() + 1] as f64 / 1e6,
    };
    let (starts, errors) = words[1..].split_at(TIMED.len() * HISTOGRAM);
    Ok(Counters { starts: starts.chunks(HISTOGRAM).map(histogram).collect(), errors: errors.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read() {
        let path = std::env::temp_dir().join(format!("wsbox-counters-{}", std::process::id()));
        add(&path, &[(1, 1)]);
        assert!(!path.exists(), "nobody asked for metrics");
        begin_at(&path).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || (0..50).for_each(|_| add(&path, &[(2, 1), (HISTOGRAM, 1500)])))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begin_at(&path).unwrap();
        let counters = read_at(&path).unwrap();
        assert_eq!((counters.starts[0].counts[1], counters.starts[0].sum), (400, 0.6));
        std::fs::write(&path, "other").unwrap();
        assert!(begin_at(&path).unwrap_err().to_string().contains("not written by this version"));
        std::fs::remove_file(path).unwrap();
    }
}
