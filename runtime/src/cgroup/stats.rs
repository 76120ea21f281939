// SPDX-License-Identifier: Apache-2.0
//! What a container uses, in the shape of runc's `events --stats`. A file that this kernel does not have is left out: zero
//! would be a claim.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Directories of one container's cgroup.
pub struct Places {
    /// In the v2 hierarchy
    pub v2: PathBuf,
    /// In a v1 hierarchy each, with the controller's name
    pub v1: Vec<(String, PathBuf)>,
}

/// A directory whose files are read.
struct Dir<'a>(&'a Path);

impl Dir<'_> {
    #[expect(clippy::disallowed_methods, reason = "the container's cgroup, which only the kernel fills")]
    fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(file)).ok()
    }

    /// A number; v2's `max` is runc's largest.
    fn number(&self, file: &str) -> Option<u64> {
        let text = self.text(file)?;
        if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
    }

    /// Lines of a name and a number.
    fn flat(&self, file: &str) -> Map<String, Value> {
        let text = self.text(file).unwrap_or_default();
        let pair = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), json!(number.trim().parse::<u64>().ok()?)))
        };
        text.lines().filter_map(pair).collect()
    }

    fn list(&self, file: &str) -> Option<Vec<u64>> {
        Some(self.text(file)?.split_whitespace().filter_map(|number| number.parse().ok()).collect())
    }
}

/// An object of those values that there are.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}

/// The `data` of runc's event.
pub fn read(places: &Places) -> Value {
    let v2 = Dir(&places.v2);
    let v1 = |name: &str| places.v1.iter().find(|(controller, _)| controller == name).map(|(_, dir)| Dir(dir));
    json!({
        "cpu": v1("cpuacct").map_or_else(|| cpu_v2(&v2), |usage| cpu_v1(&usage, v1("cpu").as_ref())),
        "cpuset": cpuset(v1("cpuset").as_ref().unwrap_or(&v2)),
        "memory": v1("memory").map_or_else(|| memory_v2(&v2), |memory| memory_v1(&memory)),
        "pids": pids(v1("pids").as_ref().unwrap_or(&v2)),
        "blkio": v1("blkio").map_or_else(|| io_v2(&v2), |io| io_v1(&io)),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// cpuacct counts ticks of USER_HZ, which is 100 for every program (times(2)); runc tells nanoseconds.
fn cpu_v1(usage: &Dir<'_>, cpu: Option<&Dir<'_>>) -> Value {
    const TICK: u64 = 10_000_000;
    let ticks = usage.flat("cpuacct.stat");
    let time = |name: &str| ticks.get(name).and_then(Value::as_u64).map(|ticks| json!(ticks * TICK));
    let throttled = cpu.map(|cpu| cpu.flat("cpu.stat")).unwrap_or_default();
    let get = |name: &str| throttled.get(name).cloned();
    json!({
        "usage": object([
            ("total", usage.number("cpuacct.usage").map(|time| json!(time))),
            ("percpu", usage.list("cpuacct.usage_percpu").map(|times| json!(times))),
            ("kernel", time("system")),
            ("user", time("user")),
        ]),
        "throttling": object([
            ("periods", get("nr_periods")),
            ("throttledPeriods", get("nr_throttled")),
            ("throttledTime", get("throttled_time")),
        ]),
    })
}

/// v2 counts microseconds.
fn cpu_v2(dir: &Dir<'_>) -> Value {
    let stat = dir.flat("cpu.stat");
    let get = |name: &str| stat.get(name).cloned();
    let time = |name: &str| stat.get(name).and_then(Value::as_u64).map(|micros| json!(micros * 1000));
    json!({
        "usage": object([("total", time("usage_usec")), ("kernel", time("system_usec")), ("user", time("user_usec"))]),
        "throttling": object([
            ("periods", get("nr_periods")),
            ("throttledPeriods", get("nr_throttled")),
            ("throttledTime", time("throttled_usec")),
        ]),
        "psi": pressure(dir, "cpu.pressure"),
    })
}

/// Lists such as 0-3 as numbers.
fn cpuset(dir: &Dir<'_>) -> Value {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?)
    };
    let list = |files: [&str; 2]| {
        let text = files.iter().find_map(|file| dir.text(file))?;
        Some(json!(text.trim().split(',').filter_map(range).flatten().collect::<Vec<u32>>()))
    };
    object([
        ("cpus", list(["cpuset.effective_cpus", "cpuset.cpus.effective"])),
        ("mems", list(["cpuset.effective_mems", "cpuset.mems.effective"])),
    ])
}

fn memory_v1(dir: &Dir<'_>) -> Value {
    let stat = dir.flat("memory.stat");
    let area = |prefix: &str| {
        let number = |name: &str| dir.number(&format!("memory.{prefix}{name}")).map(|bytes| json!(bytes));
        let fields = [
            ("limit", number("limit_in_bytes")),
            ("usage", number("usage_in_bytes")),
            ("max", number("max_usage_in_bytes")),
            ("failcnt", number("failcnt")),
        ];
        object(fields)
    };
    json!({
        "cache": stat.get("cache"),
        "usage": area(""),
        "swap": area("memsw."),
        "kernel": area("kmem."),
        "kernelTCP": area("kmem.tcp."),
        "raw": stat,
    })
}

/// As runc has it on v2: swap is memory and swap together.
fn memory_v2(dir: &Dir<'_>) -> Value {
    let stat = dir.flat("memory.stat");
    let number = |file: &str| dir.number(file);
    let both = |memory: Option<u64>, swap: Option<u64>| Some(json!(memory?.saturating_add(swap?)));
    let events = dir.flat("memory.events");
    json!({
        "cache": stat.get("file"),
        "usage": object([
            ("limit", number("memory.max").map(|bytes| json!(bytes))),
            ("usage", number("memory.current").map(|bytes| json!(bytes))),
            ("max", number("memory.peak").map(|bytes| json!(bytes))),
            ("failcnt", events.get("max").cloned()),
        ]),
        "swap": object([
            ("limit", both(number("memory.max"), number("memory.swap.max"))),
            ("usage", both(number("memory.current"), number("memory.swap.current"))),
        ]),
        "kernel": {},
        "kernelTCP": {},
        "raw": stat,
        "psi": pressure(dir, "memory.pressure"),
    })
}

fn pids(dir: &Dir<'_>) -> Value {
    let limit = dir.number("pids.max").filter(|limit| *limit != u64::MAX);
    object([
        ("current", dir.number("pids.current").map(|count| json!(count))),
        ("limit", limit.map(|limit| json!(limit))),
    ])
}

/// Lines of MAJOR:MINOR OPERATION VALUE.
fn io_v1(dir: &Dir<'_>) -> Value {
    let entries = |file: &str| {
        let text = dir.text(&format!("blkio.throttle.{file}"))?;
        let entry = |line: &str| {
            let [device, op, value] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            let (major, minor) = device.split_once(':')?;
            entry(major, minor, op, value.parse().ok()?)
        };
        Some(json!(text.lines().filter_map(entry).collect::<Vec<_>>()))
    };
    object([
        ("ioServiceBytesRecursive", entries("io_service_bytes_recursive")),
        ("ioServicedRecursive", entries("io_serviced_recursive")),
    ])
}

fn entry(major: &str, minor: &str, op: &str, value: u64) -> Option<Value> {
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some(json!({ "major": major, "minor": minor, "op": op, "value": value }))
}

/// Lines of MAJOR:MINOR rbytes=… wbytes=… rios=… wios=….
fn io_v2(dir: &Dir<'_>) -> Value {
    let text = dir.text("io.stat").unwrap_or_default();
    let entries = |keys: [(&str, &str); 2]| {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let values: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
            let one = |(key, op): (&str, &str)| {
                let value = values.iter().find(|(name, _)| *name == key)?.1.parse().ok()?;
                entry(major, minor, op, value)
            };
            Some(keys.into_iter().filter_map(one).collect::<Vec<_>>())
        };
        json!(text.lines().filter_map(line).flatten().collect::<Vec<_>>())
    };
    json!({
        "ioServiceBytesRecursive": entries([("rbytes", "Read"), ("wbytes", "Write")]),
        "ioServicedRecursive": entries([("rios", "Read"), ("wios", "Write")]),
        "psi": pressure(dir, "io.pressure"),
    })
}

/// Documentation/accounting/psi.rst: lines of `some` and `full` with averages in percent and a total in microseconds.
fn pressure(dir: &Dir<'_>, file: &str) -> Value {
    let Some(text) = dir.text(file) else { return Value::Null };
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let kind = words.next()?.to_owned();
        let pair = |word: &str| {
            let (name, value) = word.split_once('=')?;
            let value =
                value.parse::<u64>().map_or_else(|_| json!(value.parse::<f64>().unwrap_or(0.0)), |total| json!(total));
            Some((name.to_owned(), value))
        };
        Some((kind, Value::Object(words.filter_map(pair).collect())))
    };
    Value::Object(text.lines().filter_map(line).collect())
}
