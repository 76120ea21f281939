// SPDX-License-Identifier: Apache-2.0
//! Which limits a cgroup has met, from the kernel's own counts: memory.events, pids.events and cpu.stat (cgroup-v2.rst), or
//! memory.oom_control, memory.max_usage_in_bytes, pids.events and cpu.stat of v1. Read when somebody asks, never on a container's way.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::stats::{Files, get};
use super::{Cgroup, V2_ROOT};

/// Whose limit it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The container's own
    Container,
    /// Of a cgroup that the payload made below
    Below,
    /// Of a cgroup above, which others are in too
    Above(PathBuf),
    /// Nobody's: the machine had no more
    Host,
}

/// A limit that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "limit", rename_all = "lowercase")]
pub enum Met {
    /// The kernel had no memory to give: it killed, or failed a call
    Memory {
        /// Whose limit
        level: Level,
        /// Processes that were killed
        kills: u64,
        /// Bytes of the limit
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// Processes or threads were not born
    Pids {
        /// Whose limit
        level: Level,
        /// How many
        refused: u64,
        /// Processes and threads of the limit
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// The CPU's share of a period was used up before its end
    Cpu {
        /// Periods in which it had to wait
        throttled: u64,
        /// Periods in all
        periods: u64,
        /// How long it waited, each CPU counted
        microseconds: u64,
    },
    /// A tmpfs has no room
    Tmpfs {
        /// Where it is mounted
        mount: PathBuf,
        /// Bytes that it may hold
        size: u64,
        /// It is the number of files that is used up
        inodes: bool,
    },
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { level, kills, max } => {
                write!(f, "out of memory: {}", level.whose("memory", max.map(bytes)))?;
                match kills {
                    0 => f.write_str(", and calls failed"),
                    1 => f.write_str(", and the kernel killed 1 process"),
                    _ => write!(f, ", and the kernel killed {kills} processes"),
                }
            }
            Self::Pids { level, refused, max } => {
                let whose = level.whose("processes and threads", max.map(|max| max.to_string()));
                write!(f, "too many processes: {whose}, and {refused} were not started")
            }
            Self::Cpu { throttled, periods, microseconds } => {
                let seconds = *microseconds as f64 / 1e6;
                write!(f, "held back by its CPU limit for {seconds:.1} s in all, in {throttled} of {periods} periods")
            }
            Self::Tmpfs { mount, size, inodes } => {
                let what = if *inodes { "has no room for more files" } else { "is full" };
                write!(f, "{} {what}: it may hold {}", mount.display(), bytes(*size))
            }
        }
    }
}

impl Level {
    fn whose(&self, what: &str, max: Option<String>) -> String {
        let max = max.map_or_else(String::new, |max| format!(" of {max}"));
        match self {
            Self::Container => {
                format!("the container's limit of {what}{max} was reached").replace(&format!("of {what} of"), "of")
            }
            Self::Below => format!("a limit of {what} that the payload set itself was reached"),
            Self::Above(dir) => format!("the limit of {what}{max} of a cgroup above, {}, was reached", dir.display()),
            Self::Host => format!("not by the container's limit: the host had no more {what}"),
        }
    }
}

/// In the largest unit that it is a whole number of.
fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

impl Cgroup {
    /// What was met so far; nothing of a cgroup that is gone.
    pub fn met(&self) -> Vec<Met> {
        let root = |controller: &str| {
            let v1 = self.saved.v1.iter().any(|name| name == controller);
            if v1 { Path::new(V2_ROOT).join(controller) } else { self.saved.root.clone() }
        };
        let path = &self.saved.path;
        let on_v1 = self.saved.v1.iter().any(|name| name == "memory");
        let memory = if on_v1 { memory_v1 } else { memory_v2 };
        [memory(&root("memory"), path), pids(&root("pids"), path), cpu(&root("cpu"), path)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// memory.events counts what befell processes here and below, memory.events.local what this limit did.
fn memory_v2(root: &Path, path: &str) -> Option<Met> {
    let files = Files(root.join(path));
    let (all, own) = (files.table("memory.events"), files.table("memory.events.local"));
    if get(&all, "oom_kill") == 0 && get(&all, "oom") == 0 {
        return None;
    }
    // Who is killed with its group is counted twice if the kill began with it (mm/oom_kill.c, oom_kill_process).
    let kills = get(&all, "oom_kill");
    let kills = kills.saturating_sub(get(&all, "oom_group_kill")).max(kills.min(1));
    let max = |files: &Files| files.number("memory.max").filter(|max| *max != u64::MAX);
    let (level, max) = match (get(&own, "oom"), get(&all, "oom")) {
        (0, 0) => above(root, path, |files| get(&files.table("memory.events.local"), "oom") > 0, max),
        (0, _) => (Level::Below, None),
        _ => (Level::Container, max(&files)),
    };
    Some(Met::Memory { level, kills, max })
}

/// v1 counts kills where the victim was. Not all kernels count what a limit refused (6.18 does not), but each knows how much there was at
/// most: a charge fails once less than a batch of 64 pages is left (mm/memcontrol.c).
fn memory_v1(root: &Path, path: &str) -> Option<Met> {
    const BATCH: u64 = 64 * 4096;
    let files = Files(root.join(path));
    let kills = get(&files.table("memory.oom_control"), "oom_kill");
    if kills == 0 {
        return None;
    }
    let max = |files: &Files| files.number("memory.limit_in_bytes").filter(|max| *max < super::NO_MEMORY_LIMIT);
    let most = |files: &Files| files.number("memory.max_usage_in_bytes").unwrap_or_default();
    let full = |files: &Files| max(files).is_some_and(|max| most(files) + BATCH >= max);
    let (level, max) = if full(&files) { (Level::Container, max(&files)) } else { above(root, path, full, max) };
    Some(Met::Memory { level, kills, max })
}

/// The nearest cgroup above that did it.
fn above(
    root: &Path,
    path: &str,
    did: impl Fn(&Files) -> bool,
    max: impl Fn(&Files) -> Option<u64>,
) -> (Level, Option<u64>) {
    let ends = path.match_indices('/').map(|(end, _)| end).collect::<Vec<_>>();
    let mut dirs = ends.into_iter().rev().map(|end| Files(root.join(&path[..end])));
    match dirs.find(|files| did(files) && max(files).is_some()) {
        Some(files) => (Level::Above(files.0.clone()), max(&files)),
        None => (Level::Host, None),
    }
}

/// Up to Linux 6.10 the one who is refused counts it, whoever's limit it was; pids.peak tells whether it was its own.
fn pids(root: &Path, path: &str) -> Option<Met> {
    let files = Files(root.join(path));
    let refused = get(&files.table("pids.events"), "max");
    if refused == 0 {
        return None;
    }
    let max = |files: &Files| files.number("pids.max").filter(|max| *max != u64::MAX);
    let full = |files: &Files| max(files).is_some_and(|max| files.number("pids.peak").is_none_or(|peak| peak >= max));
    let (level, max) = match files.text("pids.events.local") {
        Some(_) if get(&files.table("pids.events.local"), "max") == 0 => (Level::Below, None),
        _ if full(&files) => (Level::Container, max(&files)),
        _ => above(root, path, full, max),
    };
    Some(Met::Pids { level, refused, max })
}

/// v2 counts microseconds, v1 nanoseconds.
fn cpu(root: &Path, path: &str) -> Option<Met> {
    let stat = Files(root.join(path)).table("cpu.stat");
    let (throttled, periods) = (get(&stat, "nr_throttled"), get(&stat, "nr_periods"));
    let microseconds = get(&stat, "throttled_usec") + get(&stat, "throttled_time") / 1000;
    (throttled > 0).then_some(Met::Cpu { throttled, periods, microseconds })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Folders with files as the kernel has them.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("wsbox-met-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_own_limit_is_told_from_one_above_and_from_the_host() {
        let (none, one) = ("oom 0\noom_kill 0\n", "oom 1\noom_kill 1\n");
        for (name, own, own_local, above_local, want) in [
            ("own", one, one, none, Some((Level::Container, Some(4096)))),
            ("below", one, "oom 0\noom_kill 0\n", none, Some((Level::Below, None))),
            (
                "above",
                "oom 0\noom_kill 2\noom_group_kill 1\n",
                "oom 0\noom_kill 2\n",
                one,
                Some((Level::Above("a".into()), Some(8192))),
            ),
            ("host", "oom 0\noom_kill 1\n", "oom 0\noom_kill 1\n", none, Some((Level::Host, None))),
            ("fine", none, none, one, None),
        ] {
            let tree = Tree::new(
                name,
                &[
                    ("a/c/memory.events", own),
                    ("a/c/memory.events.local", own_local),
                    ("a/c/memory.max", "4096\n"),
                    ("a/memory.events.local", above_local),
                    ("a/memory.max", "8192\n"),
                ],
            );
            let found = memory_v2(&tree.0, "a/c").map(|met| match met {
                Met::Memory { level: Level::Above(dir), max, .. } => {
                    (Level::Above(dir.strip_prefix(&tree.0).unwrap().into()), max)
                }
                Met::Memory { level, max, .. } => (level, max),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn v1_and_the_others() {
        let tree = Tree::new(
            "v1",
            &[
                ("c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("c/memory.max_usage_in_bytes", "4190208\n"),
                ("c/memory.limit_in_bytes", "4194304\n"),
                ("c/pids.events", "max 4\n"),
                ("c/pids.max", "9\n"),
                ("c/pids.peak", "9\n"),
                ("c/cpu.stat", "nr_periods 20\nnr_throttled 5\nthrottled_time 1500000000\n"),
            ],
        );
        let memory = memory_v1(&tree.0, "c").unwrap();
        assert_eq!(memory, Met::Memory { level: Level::Container, kills: 3, max: Some(4 << 20) });
        assert_eq!(
            (memory.to_string(), pids(&tree.0, "c").unwrap().to_string(), cpu(&tree.0, "c").unwrap().to_string()),
            (
                "out of memory: the container's limit of 4 MiB was reached, and the kernel killed 3 processes".into(),
                "too many processes: the container's limit of 9 was reached, and 4 were not started".into(),
                "held back by its CPU limit for 1.5 s in all, in 5 of 20 periods".into()
            )
        );
        assert_eq!(
            serde_json::to_value(&memory).unwrap(),
            json!({"limit": "memory", "level": "container", "kills": 3, "max": 4 << 20})
        );
    }
}
