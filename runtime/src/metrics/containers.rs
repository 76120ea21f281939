// SPDX-License-Identifier: Apache-2.0
//! The containers of the host, and what is told of each.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, Reading};
use crate::monitor::report::{self, Violations};
use crate::state::{Record, Root, Status, layers, lifecycle, process};

/// Where engines keep the state of their runtimes: `*` is any folder. Docker's name of the runtime is in the second.
const ENGINES: [&str; 2] = ["/run/docker/runtime-*/*", "/run/containerd/runc/*"];
/// Names of processes that are told of one container in all its life, for each is a series for ever; all others are one more.
const NAMES: usize = 20;
/// Processes of one container that are asked for their name.
const ASKED: usize = 1000;
/// The name of what exceeds the two.
pub const OTHERS: &str = "(others)";

/// The state roots to look into.
#[derive(Debug)]
pub struct Containers {
    roots: Vec<PathBuf>,
}

/// One container.
#[derive(Debug)]
pub struct Sample {
    /// The label that tells it from all others
    pub name: String,
    /// Its state root
    pub root: PathBuf,
    /// What is known of it
    pub record: Record,
    /// What it is doing
    pub status: Status,
    /// What it uses
    pub reading: Reading,
    /// When its first process began, in seconds since the epoch
    pub started: Option<f64>,
    /// How many processes it has of each name, and those that nobody was asked of
    pub processes: BTreeMap<String, u64>,
    /// What its filter denied
    pub violations: Violations,
    /// L1 to L8, and whether each holds; of one that does not run, none
    pub layers: Vec<(&'static str, bool)>,
}

impl Containers {
    /// Those below `roots`, or if that is empty, below the usual ones.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots }
    }

    /// Every container, one sample each.
    pub fn read(&self) -> Vec<Sample> {
        let roots = if self.roots.is_empty() { usual_roots() } else { self.roots.clone() };
        let mut names = HashSet::new();
        let mut samples = Vec::new();
        for root in roots {
            let state = Root::new(Some(root.clone()));
            // What is not ours, such as a folder of runc's, has a record that does not parse.
            let records = state.ids().unwrap_or_default().into_iter().filter_map(|id| state.read(&id).ok());
            for record in records {
                let name = unique_name(&mut names, &record.id, &root);
                samples.push(sample(name, root.clone(), record));
            }
        }
        samples
    }
}

/// Two engines may give the same id; two series of the same name are an error to Prometheus.
fn unique_name(taken: &mut HashSet<String>, id: &str, root: &Path) -> String {
    let name = if taken.contains(id) { format!("{id}@{}", root.display()) } else { id.to_owned() };
    taken.insert(name.clone());
    name
}

fn usual_roots() -> Vec<PathBuf> {
    std::iter::once(PathBuf::from("/run/wsbox")).chain(ENGINES.iter().flat_map(|pattern| folders(pattern))).collect()
}

/// The folders that a pattern means whose `*` stand at the end of a component.
fn folders(pattern: &str) -> Vec<PathBuf> {
    pattern.split('/').skip(1).fold(vec![PathBuf::from("/")], |found, component| match component.strip_suffix('*') {
        None => found.into_iter().map(|folder| folder.join(component)).collect(),
        Some(prefix) => found.iter().flat_map(|folder| below(folder, prefix)).collect(),
    })
}

fn below(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let mut found: Vec<PathBuf> = entries.filter(wanted).map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn sample(name: String, root: PathBuf, record: Record) -> Sample {
    let status = lifecycle::status(&record).unwrap_or(Status::Stopped);
    let cgroup = Cgroup::find(&record.cgroup).ok().flatten();
    let reading = cgroup.as_ref().map(Cgroup::reading).unwrap_or_default();
    let processes = cgroup.as_ref().map(processes_of).unwrap_or_default();
    let started = record.process.as_ref().and_then(|process| started(process.pid));
    let violations = report::of(&record).unwrap_or_default();
    Sample { name, root, record, status, reading, started, processes, violations, layers: Vec::new() }
}

/// Whole seconds: two scrapes are not to differ by a rounding.
fn started(pid: i32) -> Option<f64> {
    let since_boot = process::start_time(Pid::from_raw(pid))? as f64 / 100.0;
    let boot = clock_gettime(ClockId::CLOCK_REALTIME).ok()? - clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some((boot.tv_sec() as f64 + boot.tv_nsec() as f64 / 1e9 + since_boot).round())
}

impl Sample {
    /// Asks the kernel, as `inspect` does.
    pub fn read_layers(&self) -> Vec<(&'static str, bool)> {
        let layers = if self.pid().is_some() { layers::observe(&self.record).ok() } else { None };
        layers.into_iter().flat_map(|layers| layers.layers).map(|layer| (layer.id, layer.in_force)).collect()
    }

    /// Its first process, if its payload runs.
    pub fn pid(&self) -> Option<i32> {
        let runs = matches!(self.status, Status::Running | Status::Paused);
        self.record.process.as_ref().filter(|_| runs).map(|process| process.pid)
    }
}

/// By name.
fn processes_of(cgroup: &Cgroup) -> BTreeMap<String, u64> {
    let pids = cgroup.procs().unwrap_or_default();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for pid in pids.iter().take(ASKED) {
        // A name ends with a newline, and may hold others (proc_pid_comm(5)); who has ended has none.
        if let Ok(name) = fs::read(format!("/proc/{pid}/comm")) {
            *counts.entry(harmless(name.strip_suffix(b"\n").unwrap_or(&name))).or_default() += 1;
        }
    }
    let unasked = pids.len().saturating_sub(ASKED) as u64;
    if unasked > 0 {
        *counts.entry(OTHERS.to_owned()).or_default() += unasked;
    }
    counts
}

/// As `inspect` shows it: the page may be read on a terminal, and obeys no container there.
fn harmless(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// With the names that `told` has, which takes new ones while there is room, the most frequent first.
pub fn bounded(counts: BTreeMap<String, u64>, told: &mut HashSet<String>) -> BTreeMap<String, u64> {
    let mut sorted: Vec<(String, u64)> = counts.into_iter().collect();
    sorted.sort_by(|(name, count), (other, more)| more.cmp(count).then(name.cmp(other)));
    let mut bounded = BTreeMap::new();
    for (name, count) in sorted {
        let keeps = name != OTHERS && (told.contains(&name) || told.len() < NAMES && told.insert(name.clone()));
        *bounded.entry(if keeps { name } else { OTHERS.to_owned() }).or_default() += count;
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_become_one() {
        let counts = |first: u64| {
            let names = (first..first + 30).map(|at| (format!("p{at:02}"), if at == first + 29 { 5 } else { 1 }));
            names.chain([(OTHERS.to_owned(), 7)]).collect::<BTreeMap<String, u64>>()
        };
        let mut told = HashSet::new();
        let first = bounded(counts(0), &mut told);
        assert_eq!(first.len(), NAMES + 1);
        assert_eq!((first["p29"], first[OTHERS]), (5, 17));
        // A payload that goes on to make up names makes no more series.
        for round in 1..10 {
            bounded(counts(100 * round), &mut told);
        }
        assert_eq!(told.len(), NAMES);
        assert_eq!(bounded(counts(0), &mut told), first);
    }

    #[test]
    fn names_obey_no_terminal() {
        assert_eq!(harmless(b"python3.12"), "python3.12");
        assert_eq!(harmless(b"\x1b]0;x\x07\"} 1\n\xff"), "\\u{1b}]0;x\\u{7}\\\"} 1\\n\u{fffd}");
        assert_eq!(harmless("\u{9b}2J\u{202e}".as_bytes()), "\\u{9b}2J\\u{202e}");
    }

    #[test]
    fn ids_of_two_engines_stay_apart() {
        let mut taken = HashSet::new();
        assert_eq!(unique_name(&mut taken, "a", Path::new("/x")), "a");
        assert_eq!(unique_name(&mut taken, "a", Path::new("/y")), "a@/y");
    }

    #[test]
    fn patterns_find_folders() {
        let dir = std::env::temp_dir().join(format!("wsbox-roots-{}", std::process::id()));
        for folder in ["runtime-wsbox/moby", "runtime-strict/moby", "other/moby"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let found = folders(&format!("{}/runtime-*/*", dir.display()));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [dir.join("runtime-strict/moby"), dir.join("runtime-wsbox/moby")]);
    }
}
