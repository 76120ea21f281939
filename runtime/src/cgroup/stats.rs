// SPDX-License-Identifier: Apache-2.0
//! What a container uses, in the shape of `runc events`: from the v1 controllers that it is in (cgroup-v1/*.rst), else from its v2
//! directory (cgroup-v2.rst), which tells of CPU time and pressure on every host. What nobody counts is left out.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{Cgroup, V2_ROOT, ids};

/// cpuacct.stat counts in ticks of 1/100 s (USER_HZ), in nanoseconds.
const TICK: u64 = 10_000_000;

/// One directory, and the files that can be read there.
pub(super) struct Files(pub PathBuf);

impl Files {
    pub fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(name)).ok()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| number(text.trim()))
    }

    /// Lines of a name and a number.
    pub fn table(&self, name: &str) -> Map<String, Value> {
        let text = self.text(name).unwrap_or_default();
        let line =
            |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), number(value)?.into())));
        text.lines().filter_map(line).collect()
    }

    /// Numbers in columns, one of which is wanted; lines that begin with words are heads.
    fn column(&self, name: &str, at: usize) -> Vec<u64> {
        let text = self.text(name).unwrap_or_default();
        let cell = |line: &str| line.split_whitespace().nth(at).and_then(|cell| cell.parse().ok());
        text.lines().filter_map(cell).collect()
    }
}

/// "max" is as much as there can be, as in runc.
fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

pub(super) fn get(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// An object without what is null, or 0 where runc leaves 0 out.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(
        fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.into(), value)).collect(),
    )
}

fn unless_zero(number: u64) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}

fn list(numbers: Vec<u64>) -> Value {
    if numbers.is_empty() { Value::Null } else { numbers.into() }
}

impl Cgroup {
    /// The `data` of an event of type `stats`, but for the interfaces.
    pub fn stats(&self) -> Value {
        let (v1, v2) = (|name: &str| self.v1_files(name), Files(self.saved.root.join(&self.saved.path)));
        let mut cpu = cpu(v1("cpuacct").as_ref(), v1("cpu").as_ref(), &v2);
        let mut memory = v1("memory").as_ref().map_or_else(|| memory_v2(&v2), memory_v1);
        let mut blkio = v1("blkio").as_ref().map_or_else(|| io_v2(&v2), io_v1);
        for (value, file) in [(&mut cpu, "cpu.pressure"), (&mut memory, "memory.pressure"), (&mut blkio, "io.pressure")]
        {
            if let Some(psi) = v2.text(file).and_then(|text| pressure(&text)) {
                value["psi"] = psi;
            }
        }
        json!({
            "cpu": cpu,
            "cpuset": cpuset(&v1("cpuset").unwrap_or_else(|| Files(v2.0.clone()))),
            "memory": memory,
            "pids": self.pids(v1("pids").as_ref().unwrap_or(&v2)),
            "blkio": blkio,
            "hugetlb": hugetlb(v1("hugetlb").as_ref().unwrap_or(&v2)),
            "intel_rdt": {},
        })
    }

    fn v1_files(&self, controller: &str) -> Option<Files> {
        let inside = self.saved.v1.iter().any(|name| name == controller);
        inside.then(|| Files(PathBuf::from(V2_ROOT).join(controller).join(&self.saved.path)))
    }

    fn pids(&self, files: &Files) -> Value {
        let counted = || self.procs().map(|pids| pids.len() as u64).unwrap_or_default();
        let limit = files.number("pids.max").filter(|limit| *limit != u64::MAX).unwrap_or_default();
        let current = files.number("pids.current").unwrap_or_else(counted);
        object([("current", unless_zero(current)), ("limit", unless_zero(limit))])
    }
}

fn cpu(cpuacct: Option<&Files>, cpu: Option<&Files>, v2: &Files) -> Value {
    let usage = match cpuacct {
        Some(files) => {
            let ticks = files.table("cpuacct.stat");
            let percpu = files.text("cpuacct.usage_percpu").unwrap_or_default();
            object([
                ("total", unless_zero(files.number("cpuacct.usage").unwrap_or_default())),
                ("percpu", list(percpu.split_whitespace().filter_map(number).collect())),
                ("percpu_kernel", list(files.column("cpuacct.usage_all", 2))),
                ("percpu_user", list(files.column("cpuacct.usage_all", 1))),
                ("kernel", (get(&ticks, "system") * TICK).into()),
                ("user", (get(&ticks, "user") * TICK).into()),
            ])
        }
        None => {
            let stat = v2.table("cpu.stat");
            object([
                ("total", unless_zero(get(&stat, "usage_usec") * 1000)),
                ("kernel", (get(&stat, "system_usec") * 1000).into()),
                ("user", (get(&stat, "user_usec") * 1000).into()),
            ])
        }
    };
    let stat = cpu.unwrap_or(v2).table("cpu.stat");
    let throttling = object([
        ("periods", unless_zero(get(&stat, "nr_periods"))),
        ("throttledPeriods", unless_zero(get(&stat, "nr_throttled"))),
        ("throttledTime", unless_zero(get(&stat, "throttled_time") + get(&stat, "throttled_usec") * 1000)),
    ]);
    json!({"usage": usage, "throttling": throttling})
}

fn cpuset(files: &Files) -> Value {
    let named = |name: &str| list(ids::list(files.text(name).unwrap_or_default().trim()));
    let flag = |name: &str| files.number(name).unwrap_or_default().into();
    let relax = files.text("cpuset.sched_relax_domain_level").and_then(|text| text.trim().parse::<i64>().ok());
    let either = |own: &str, effective: &str| if named(own).is_null() { named(effective) } else { named(own) };
    object([
        ("cpus", either("cpuset.cpus", "cpuset.cpus.effective")),
        ("cpu_exclusive", flag("cpuset.cpu_exclusive")),
        ("mems", either("cpuset.mems", "cpuset.mems.effective")),
        ("mem_hardwall", flag("cpuset.mem_hardwall")),
        ("mem_exclusive", flag("cpuset.mem_exclusive")),
        ("memory_migrate", flag("cpuset.memory_migrate")),
        ("memory_spread_page", flag("cpuset.memory_spread_page")),
        ("memory_spread_slab", flag("cpuset.memory_spread_slab")),
        ("memory_pressure", flag("cpuset.memory_pressure")),
        ("sched_load_balance", flag("cpuset.sched_load_balance")),
        ("sched_relax_domain_level", relax.unwrap_or_default().into()),
    ])
}

fn entry(limit: Option<u64>, usage: Option<u64>, max: Option<u64>, failures: Option<u64>) -> Value {
    object([
        ("limit", limit.unwrap_or_default().into()),
        ("usage", unless_zero(usage.unwrap_or_default())),
        ("max", unless_zero(max.unwrap_or_default())),
        ("failcnt", failures.unwrap_or_default().into()),
    ])
}

fn memory_v1(files: &Files) -> Value {
    let part = |name: &str| {
        let number = |what: &str| files.number(&format!("memory.{name}{what}"));
        entry(number("limit_in_bytes"), number("usage_in_bytes"), number("max_usage_in_bytes"), number("failcnt"))
    };
    let raw = files.table("memory.stat");
    object([
        ("cache", unless_zero(get(&raw, "cache"))),
        ("usage", part("")),
        ("swap", part("memsw.")),
        ("kernel", part("kmem.")),
        ("kernelTCP", part("kmem.tcp.")),
        ("raw", Value::Object(raw)),
    ])
}

/// v2 counts swap alone; runc's numbers are of memory and swap together.
fn memory_v2(files: &Files) -> Value {
    let Some(usage) = files.number("memory.current") else { return json!({}) };
    let (raw, events) = (files.table("memory.stat"), files.table("memory.events"));
    let limit = files.number("memory.max");
    let both = |memory: Option<u64>, swap: &str| Some(memory?.saturating_add(files.number(swap)?));
    object([
        ("cache", unless_zero(get(&raw, "file"))),
        ("usage", entry(limit, Some(usage), files.number("memory.peak"), Some(get(&events, "max")))),
        ("swap", entry(both(limit, "memory.swap.max"), both(Some(usage), "memory.swap.current"), None, None)),
        ("kernel", entry(None, None, None, None)),
        ("kernelTCP", entry(None, None, None, None)),
        ("raw", Value::Object(raw)),
        ("event_count", Value::Object(events)),
    ])
}

/// Lines such as `254:0 Read 4096`, and a total.
fn io_v1(files: &Files) -> Value {
    let entries = |name: &str| {
        let text = files.text(name).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (device, op, value) = (words.next()?, words.next()?, words.next()?);
            io_entry(device, op, number(value)?)
        };
        some_list(text.lines().filter_map(line).collect())
    };
    object([
        ("ioServiceBytesRecursive", entries("blkio.throttle.io_service_bytes_recursive")),
        ("ioServicedRecursive", entries("blkio.throttle.io_serviced_recursive")),
    ])
}

/// Lines such as `254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_v2(files: &Files) -> Value {
    let text = files.text("io.stat").unwrap_or_default();
    let entries = |what: &str| {
        let of_line = |line: &str| {
            let (device, values) = line.split_once(' ').unwrap_or_default();
            let value = |word: &str| {
                let (key, value) = word.split_once('=')?;
                let op = [("r", "Read"), ("w", "Write"), ("d", "Discard")]
                    .into_iter()
                    .find(|(letter, _)| key == format!("{letter}{what}"))?;
                io_entry(device, op.1, number(value)?)
            };
            values.split(' ').filter_map(value).collect::<Vec<_>>()
        };
        some_list(text.lines().flat_map(of_line).collect())
    };
    object([("ioServiceBytesRecursive", entries("bytes")), ("ioServicedRecursive", entries("ios"))])
}

fn io_entry(device: &str, op: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    Some(object([
        ("major", unless_zero(major)),
        ("minor", unless_zero(minor)),
        ("op", op.into()),
        ("value", unless_zero(value)),
    ]))
}

fn some_list(entries: Vec<Value>) -> Value {
    if entries.is_empty() { Value::Null } else { entries.into() }
}

/// By size of page, as the names of the files have it.
fn hugetlb(files: &Files) -> Value {
    let names = std::fs::read_dir(&files.0).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?;
        size.strip_suffix(".usage_in_bytes")
            .or(size.strip_suffix(".current"))
            .filter(|size| !size.contains('.'))
            .map(str::to_owned)
    };
    let pages = |size: String| {
        let number = |what: &str| files.number(&format!("hugetlb.{size}.{what}"));
        let failures = number("failcnt").unwrap_or_else(|| get(&files.table(&format!("hugetlb.{size}.events")), "max"));
        let value = object([
            ("usage", unless_zero(number("usage_in_bytes").or(number("current")).unwrap_or_default())),
            ("max", unless_zero(number("max_usage_in_bytes").unwrap_or_default())),
            ("failcnt", failures.into()),
        ]);
        (size, value)
    };
    Value::Object(names.filter_map(size).map(pages).collect())
}

/// accounting/psi.rst: lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(text: &str) -> Option<Value> {
    let line = |line: &str| {
        let (kind, values) = line.split_once(' ')?;
        let value = |word: &str| {
            let (key, value) = word.split_once('=')?;
            let value =
                if key == "total" { value.parse::<u64>().ok()?.into() } else { value.parse::<f64>().ok()?.into() };
            Some((key.to_owned(), value))
        };
        Some((kind.to_owned(), Value::Object(values.split(' ').filter_map(value).collect())))
    };
    let lines: Map<String, Value> = text.lines().filter_map(line).collect();
    (!lines.is_empty()).then_some(Value::Object(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let psi = pressure(text).unwrap();
        assert_eq!((psi["some"]["avg10"].as_f64(), psi["some"]["total"].as_u64()), (Some(1.5), Some(7)));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn v2_files_become_the_same_shape() {
        let dir = std::env::temp_dir().join(format!("wsbox-stats-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for (name, text) in [
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.events", "low 0\nmax 3\noom_kill 1\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "2097152\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.events", "max 4\n"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let files = Files(dir.clone());
        let (memory, io, huge) = (memory_v2(&files), io_v2(&files), hugetlb(&files));
        std::fs::remove_dir_all(dir).unwrap();
        assert_eq!(memory["usage"], json!({"limit": u64::MAX, "usage": 4096, "failcnt": 3}));
        assert_eq!((&memory["cache"], &memory["event_count"]["oom_kill"]), (&json!(2), &json!(1)));
        assert_eq!(io["ioServicedRecursive"][1], json!({"major": 254, "op": "Write", "value": 2}));
        assert_eq!(io["ioServiceBytesRecursive"][0]["value"], 10);
        assert_eq!(huge, json!({"2MB": {"usage": 2_097_152, "failcnt": 4}}));
    }
}
