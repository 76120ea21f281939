// SPDX-License-Identifier: Apache-2.0
//! The containers of the host, and what is told of each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, Reading};
use crate::error::Kind;
use crate::monitor::report::{self, Violations};
use crate::state::{Process, Record, Root, Status, layers, lifecycle, process};

/// Where engines keep the state of their runtimes: `*` is any folder. Docker's name of the runtime is in the second.
const ENGINES: [&str; 2] = ["/run/docker/runtime-*/*", "/run/containerd/runc/*"];
/// Names of processes that are told of one container in all its life, for each is a series for ever; all others are one more.
const NAMES: usize = 20;
/// Processes of one container that are asked for their name.
const ASKED: usize = 1000;
/// The name of what exceeds the two.
pub const OTHERS: &str = "(others)";

/// What can fail to be read in a scrape.
pub const READ: [&str; 6] = ["root", "record", "status", "cgroup", "violations", "layers"];

/// How often which of them did: what can not be read is not to look like nothing there.
pub type Failures = BTreeMap<&'static str, u64>;

/// A container in all its life: its state root, its id, and when it was created, for ids come again.
pub type Key = (PathBuf, String, String);

/// The state roots to look into, and the names given to the containers that were there the last time.
#[derive(Debug)]
pub struct Containers {
    roots: Vec<PathBuf>,
    names: Mutex<HashMap<Key, String>>,
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
    /// What it is doing, if that can be known
    pub status: Option<Status>,
    /// What it uses
    pub reading: Reading,
    /// When its first process began, in seconds since the epoch
    pub started: Option<f64>,
    /// How many processes it has of each name, and those that nobody was asked of
    pub processes: BTreeMap<String, u64>,
    /// What its filter denied, if that can be read
    pub violations: Option<Violations>,
    /// L1 to L8, and whether each holds; of one that does not run, none
    pub layers: Vec<(&'static str, bool)>,
}

impl Containers {
    /// Those below `roots`, or if that is empty, below the usual ones.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, names: Mutex::default() }
    }

    /// Every container, one sample each, and what could not be read of those that are there.
    pub fn read(&self) -> (Vec<Sample>, Failures) {
        let mut failures: Failures = READ.into_iter().map(|what| (what, 0)).collect();
        let mut roots = if self.roots.is_empty() { usual_roots(&mut failures) } else { self.roots.clone() };
        let mut seen = HashSet::new();
        roots.retain(|root| seen.insert(root.clone()));
        let mut found = Vec::new();
        for root in roots {
            let records = records(&Root::new(Some(root.clone())), &mut failures);
            found.extend(records.into_iter().map(|record| (key(&root, &record), record)));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        *names = named(&names, found.iter().map(|(key, _)| key));
        let samples = found.into_iter().filter_map(|(key, record)| {
            let name = names.get(&key)?.clone();
            sample(name, key.0, record, &mut failures)
        });
        (samples.collect(), failures)
    }
}

fn key(root: &Path, record: &Record) -> Key {
    (root.to_owned(), record.id.clone(), record.created.clone())
}

/// The records of all containers of ours; one that has gone meanwhile is no failure.
fn records(state: &Root, failures: &mut Failures) -> Vec<Record> {
    let ids = noted("root", state.ids(), failures).unwrap_or_default();
    let record = |id: String| match state.read(&id) {
        Err(error) if error.kind() == Kind::NotFound || state.is_foreign(&id) => None,
        result => noted("record", result, failures),
    };
    ids.into_iter().filter_map(record).collect()
}

fn noted<T, E>(what: &'static str, result: Result<T, E>, failures: &mut Failures) -> Option<T> {
    if result.is_err() {
        *failures.entry(what).or_default() += 1;
    }
    result.ok()
}

/// Two engines may give the same id, and two series of the same name are an error to Prometheus: the later one has its root in its
/// name. Who has a name keeps it, or its counters would go on in another's history.
fn named<'a>(before: &HashMap<Key, String>, found: impl Iterator<Item = &'a Key> + Clone) -> HashMap<Key, String> {
    let kept = found.clone().filter_map(|key| Some((key.clone(), before.get(key)?.clone())));
    let mut names: HashMap<Key, String> = kept.collect();
    let mut taken: HashSet<String> = names.values().cloned().collect();
    for key @ (root, id, _) in found {
        let name = || if taken.contains(id) { format!("{id}@{}", root.display()) } else { id.clone() };
        let name = names.entry(key.clone()).or_insert_with(name);
        taken.insert(name.clone());
    }
    names
}

fn usual_roots(failures: &mut Failures) -> Vec<PathBuf> {
    let engines = ENGINES.iter().flat_map(|pattern| folders(pattern, failures));
    std::iter::once(PathBuf::from("/run/wsbox")).chain(engines).collect()
}

/// The folders that a pattern means whose `*` stand at the end of a component.
fn folders(pattern: &str, failures: &mut Failures) -> Vec<PathBuf> {
    pattern.split('/').skip(1).fold(vec![PathBuf::from("/")], |found, component| match component.strip_suffix('*') {
        None => found.into_iter().map(|folder| folder.join(component)).collect(),
        Some(prefix) => found.iter().flat_map(|folder| below(folder, prefix, failures)).collect(),
    })
}

fn below(folder: &Path, prefix: &str, failures: &mut Failures) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Vec::new(),
        result => noted("root", result, failures),
    };
    let wanted = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let mut found: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().filter(wanted).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// None, and no failure, of a container that has gone meanwhile.
fn sample(name: String, root: PathBuf, record: Record, failures: &mut Failures) -> Option<Sample> {
    let mut failed = Failures::new();
    let status = noted("status", lifecycle::status(&record), &mut failed);
    let cgroup = noted("cgroup", Cgroup::find(&record.cgroup), &mut failed).flatten();
    let reading = cgroup.as_ref().map(Cgroup::reading).unwrap_or_default();
    let processes = cgroup.as_ref().and_then(|cgroup| match processes_of(cgroup) {
        Err(_) if matches!(Cgroup::find(&record.cgroup), Ok(None)) => None,
        result => noted("cgroup", result, &mut failed),
    });
    let started = record.process.as_ref().and_then(|process| started(process.pid));
    let violations = noted("violations", report::of(&record), &mut failed);
    let processes = processes.unwrap_or_default();
    let sample = Sample { name, root, record, status, reading, started, processes, violations, layers: Vec::new() };
    if !failed.is_empty() && sample.has_gone() {
        return None;
    }
    failed.into_iter().for_each(|(what, count)| *failures.entry(what).or_default() += count);
    Some(sample)
}

/// Whole seconds: two scrapes are not to differ by a rounding.
fn started(pid: i32) -> Option<f64> {
    let since_boot = process::start_time(Pid::from_raw(pid))? as f64 / 100.0;
    let boot = clock_gettime(ClockId::CLOCK_REALTIME).ok()? - clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some((boot.tv_sec() as f64 + boot.tv_nsec() as f64 / 1e9 + since_boot).round())
}

impl Sample {
    /// What tells it from all others, also from those that had its id before.
    pub fn key(&self) -> Key {
        key(&self.root, &self.record)
    }

    /// Asks the kernel, as `inspect` does. Its end meanwhile is no failure.
    pub fn read_layers(&self, failures: &mut Failures) -> Vec<(&'static str, bool)> {
        let layers = match layers::observe(&self.record) {
            Err(_) if !self.is_alive() => None,
            result => noted("layers", result, failures),
        };
        layers.into_iter().flat_map(|layers| layers.layers).map(|layer| (layer.id, layer.in_force)).collect()
    }

    /// Its first process, if its payload runs.
    pub fn process(&self) -> Option<&Process> {
        let runs = matches!(self.status, Some(Status::Running | Status::Paused));
        self.record.process.as_ref().filter(|_| runs)
    }

    fn is_alive(&self) -> bool {
        self.process().is_some_and(|known| process::find(known).is_ok_and(|found| found.is_some()))
    }

    fn has_gone(&self) -> bool {
        match Root::new(Some(self.root.clone())).read(&self.record.id) {
            Ok(record) => record.created != self.record.created,
            Err(error) => error.kind() == Kind::NotFound,
        }
    }
}

/// By name.
fn processes_of(cgroup: &Cgroup) -> crate::Result<BTreeMap<String, u64>> {
    let pids = cgroup.procs()?;
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
    Ok(counts)
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
    fn a_name_is_kept_for_life() {
        let key = |root: &str, created: &str| (PathBuf::from(root), "a".to_owned(), created.to_owned());
        let (x, y, again) = (key("/x", "1"), key("/y", "1"), key("/x", "2"));
        let both = named(&HashMap::new(), [&x, &y].into_iter());
        assert_eq!((both[&x].as_str(), both[&y].as_str()), ("a", "a@/y"));
        let left = named(&both, [&y].into_iter());
        assert_eq!(left[&y], "a@/y");
        let next = named(&left, [&again, &y].into_iter());
        assert_eq!((next[&again].as_str(), next[&y].as_str()), ("a", "a@/y"));
        let lone = named(&HashMap::new(), [&y].into_iter());
        let late = named(&lone, [&x, &y].into_iter());
        assert_eq!((late[&x].as_str(), late[&y].as_str()), ("a@/x", "a"));
    }

    #[test]
    fn patterns_find_folders() {
        let dir = std::env::temp_dir().join(format!("wsbox-roots-{}", std::process::id()));
        for folder in ["runtime-wsbox/moby", "runtime-strict/moby", "other/moby"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let found = folders(&format!("{}/runtime-*/*", dir.display()), &mut Failures::new());
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [dir.join("runtime-strict/moby"), dir.join("runtime-wsbox/moby")]);
    }
}
