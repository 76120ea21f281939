// SPDX-License-Identifier: Apache-2.0
//! Containers whose violations are counted, and what is known of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Engine, unique};

/// A container that runs, counted.
pub struct Counted {
    pub engine: Engine,
    pub id: String,
    _bundle: Bundle,
}

impl Counted {
    pub fn new(bundle: Bundle) -> Self {
        let (engine, id) = (Engine::new(), unique("counted"));
        bundle.write();
        let path = bundle.path().display().to_string();
        engine.wsbox(&["run", "--detach", "--count-violations", "--bundle", &path, &id]).ok();
        Self { engine, id, _bundle: bundle }
    }

    pub fn sleeping() -> Self {
        Self::new(Bundle::hardened().args(&["sleep", "1000"]))
    }

    /// `wsbox exec ID probe WORDS`: what it says.
    pub fn probe(&self, words: &[&str]) -> String {
        let command = ["exec", &self.id, "probe"].into_iter().chain(words.iter().copied());
        self.engine.wsbox(&command.collect::<Vec<_>>()).ok().stdout
    }

    pub fn violations(&self) -> Value {
        let said = self.engine.wsbox(&["inspect", "--format", "json", &self.id]).ok().stdout;
        serde_json::from_str::<Value>(&said).expect("JSON")["violations"].clone()
    }

    pub fn record(&self) -> Value {
        let state = fs::read(self.engine.root().join(&self.id).join("state.json")).expect("a record");
        serde_json::from_slice(&state).expect("JSON")
    }

    /// The monitor's pid.
    pub fn monitor(&self) -> i32 {
        self.record()["monitor"]["process"]["pid"].as_i64().expect("a monitor") as i32
    }

    /// Deletes it; nothing is left, the monitor neither.
    pub fn delete(&self) {
        let monitor = self.monitor();
        self.engine.wsbox(&["delete", "--force", &self.id]).ok();
        assert!(!runs(monitor), "the monitor is left");
        wsbox_integration::leftover::assert_nothing_left(self.engine.root(), &self.id);
    }
}

/// By call and process.
pub fn rows(violations: &Value) -> BTreeMap<(String, String), u64> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let row = |row: &Value| ((text(&row["syscall"]), text(&row["process"])), row["count"].as_u64().expect("a number"));
    violations["blocked"].as_array().expect("rows").iter().map(row).collect()
}

/// `wsbox run --summary` of a bundle: the summary.
pub fn summary(bundle: &Bundle, flags: &[&str], code: i32) -> Value {
    let engine = Engine::new();
    bundle.write();
    let (file, path) = (engine.root().join("summary.json"), bundle.path().display().to_string());
    let file_name = file.display().to_string();
    let mut args = vec!["run", "--summary", &file_name, "--bundle", &path];
    args.extend(flags);
    let id = unique("counted");
    args.push(&id);
    let outcome = engine.wsbox(&args);
    assert_eq!(outcome.code, code, "{outcome:?}");
    serde_json::from_slice(&fs::read(file).expect("a summary")).expect("JSON")
}

/// A line of /proc/PID/status.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether it is there, and no zombie that nobody has reaped yet.
pub fn runs(pid: i32) -> bool {
    let state = status(pid, "State");
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// Monitors of containers below a state root.
pub fn monitors(root: &std::path::Path) -> Vec<PathBuf> {
    let of_root = |path: &PathBuf| {
        fs::read_to_string(path.join("maps")).is_ok_and(|maps| maps.contains(&root.display().to_string()))
    };
    fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path()).filter(of_root).collect()
}

/// Nanoseconds that a process has run on a CPU (Documentation/scheduler/sched-stats.rst).
pub fn cpu_time(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    text.split(' ').next().and_then(|time| time.parse().ok()).expect("a number")
}

pub fn until_counted(counted: &Counted, at_least: u64) {
    until("calls are counted", || counted.violations()["total"].as_u64().is_some_and(|total| total >= at_least));
}
