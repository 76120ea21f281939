// SPDX-License-Identifier: Apache-2.0
//! The few numbers of a cgroup that are asked of every container every few seconds, each from one small file: cgroup-v2.rst, and
//! cgroup-v1/{memory,pids,cpuacct}.rst and sched-bwc.rst where the controller is on v1. memory.stat is not among them: to
//! read it makes the kernel add up what every CPU has counted.

use std::path::{Path, PathBuf};

use super::{Cgroup, V2_ROOT};

/// What a container uses and what it ran into. None is what nobody counts here, or has no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Bytes in use
    pub memory: Option<u64>,
    /// Bytes
    pub memory_limit: Option<u64>,
    /// How often memory was short of its limit
    pub memory_hits: Option<u64>,
    /// Processes killed for want of memory
    pub oom_kills: Option<u64>,
    /// Processes and threads
    pub pids: Option<u64>,
    /// Processes and threads
    pub pids_limit: Option<u64>,
    /// How often a fork was refused
    pub pids_hits: Option<u64>,
    /// CPU time in seconds
    pub cpu: Option<f64>,
    /// Periods of the CPU quota in which anything ran
    pub periods: Option<u64>,
    /// Those in which the quota was used up
    pub throttled_periods: Option<u64>,
    /// Seconds for which it was held back by that
    pub throttled: Option<f64>,
    /// (resource, "some" or "full", seconds waited for it): accounting/psi.rst
    pub pressure: Vec<(&'static str, &'static str, f64)>,
}

const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

impl Cgroup {
    /// Reads them. A cgroup that is gone counts nothing.
    pub fn reading(&self) -> Reading {
        let v2 = Directory(self.saved.root.join(&self.saved.path));
        let mut reading = Reading { pressure: pressure(&v2), ..Reading::default() };
        match self.directory_v1("memory") {
            Some(dir) => memory_v1(&mut reading, &dir),
            None => memory_v2(&mut reading, &v2),
        }
        pids(&mut reading, &self.directory_v1("pids").unwrap_or_else(|| v2.clone()));
        cpu(&mut reading, self.directory_v1("cpuacct").as_ref(), self.directory_v1("cpu").as_ref(), &v2);
        reading
    }

    fn directory_v1(&self, controller: &str) -> Option<Directory> {
        let inside = self.saved.v1.iter().any(|name| name == controller);
        inside.then(|| Directory(Path::new(V2_ROOT).join(controller).join(&self.saved.path)))
    }
}

#[derive(Clone)]
struct Directory(PathBuf);

impl Directory {
    fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(file)).ok()
    }

    /// A number; None also for "max".
    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// The numbers of these keys, in a file of lines such as `nr_throttled 3`.
    fn values<const N: usize>(&self, file: &str, keys: [&str; N]) -> [Option<u64>; N] {
        let text = self.text(file).unwrap_or_default();
        keys.map(|wanted| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
            pairs.find(|(key, _)| *key == wanted)?.1.trim().parse().ok()
        })
    }
}

fn memory_v2(reading: &mut Reading, dir: &Directory) {
    reading.memory = dir.number("memory.current");
    reading.memory_limit = dir.number("memory.max");
    [reading.memory_hits, reading.oom_kills] = dir.values("memory.events", ["max", "oom_kill"]);
}

fn memory_v1(reading: &mut Reading, dir: &Directory) {
    // Where there is no limit v1 says the largest multiple of a page.
    let limit = dir.number("memory.limit_in_bytes").filter(|limit| *limit < (i64::MAX as u64 & !0xfff));
    reading.memory = dir.number("memory.usage_in_bytes");
    reading.memory_limit = limit;
    reading.memory_hits = dir.number("memory.failcnt");
    [reading.oom_kills] = dir.values("memory.oom_control", ["oom_kill"]);
}

fn pids(reading: &mut Reading, dir: &Directory) {
    reading.pids = dir.number("pids.current");
    reading.pids_limit = dir.number("pids.max");
    [reading.pids_hits] = dir.values("pids.events", ["max"]);
}

/// cpu.stat of v2 has the time on every host; v1 counts nanoseconds.
fn cpu(reading: &mut Reading, cpuacct: Option<&Directory>, cpu: Option<&Directory>, v2: &Directory) {
    let [used, periods, throttled_periods, throttled] =
        v2.values("cpu.stat", ["usage_usec", "nr_periods", "nr_throttled", "throttled_usec"]);
    reading.cpu = used.map(|microseconds| microseconds as f64 / 1e6);
    (reading.periods, reading.throttled_periods) = (periods, throttled_periods);
    reading.throttled = throttled.map(|microseconds| microseconds as f64 / 1e6);
    if let Some(dir) = cpuacct {
        reading.cpu = dir.number("cpuacct.usage").map(|nanoseconds| nanoseconds as f64 / 1e9);
    }
    if let Some(dir) = cpu {
        let throttled;
        [reading.periods, reading.throttled_periods, throttled] =
            dir.values("cpu.stat", ["nr_periods", "nr_throttled", "throttled_time"]);
        reading.throttled = throttled.map(|nanoseconds| nanoseconds as f64 / 1e9);
    }
}

fn pressure(dir: &Directory) -> Vec<(&'static str, &'static str, f64)> {
    let mut found = Vec::new();
    for (resource, file) in RESOURCES.into_iter().zip(["cpu.pressure", "memory.pressure", "io.pressure"]) {
        let text = dir.text(file).unwrap_or_default();
        for kind in ["some", "full"] {
            let total = text.lines().find(|line| line.starts_with(kind)).and_then(|line| line.rsplit_once("total="));
            let microseconds = total.and_then(|(_, total)| total.trim().parse::<u64>().ok());
            found.extend(microseconds.map(|microseconds| (resource, kind, microseconds as f64 / 1e6)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_v2_are_read() {
        let dir = std::env::temp_dir().join(format!("wsbox-reading-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for (name, text) in [
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"),
            ("pids.current", "7\n"),
            ("pids.max", "9\n"),
            ("cpu.stat", "usage_usec 1500000\nnr_periods 4\nnr_throttled 2\nthrottled_usec 250000\n"),
            ("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let (files, mut reading) = (Directory(dir.clone()), Reading::default());
        memory_v2(&mut reading, &files);
        pids(&mut reading, &files);
        cpu(&mut reading, None, None, &files);
        reading.pressure = pressure(&files);
        std::fs::remove_dir_all(dir).unwrap();
        let wanted = Reading {
            memory: Some(4096),
            memory_hits: Some(3),
            oom_kills: Some(2),
            pids: Some(7),
            pids_limit: Some(9),
            cpu: Some(1.5),
            periods: Some(4),
            throttled_periods: Some(2),
            throttled: Some(0.25),
            pressure: vec![("memory", "some", 2.0)],
            ..Reading::default()
        };
        assert_eq!(reading, wanted);
    }
}
