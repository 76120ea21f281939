// SPDX-License-Identifier: Apache-2.0
//! Limits as properties of a unit (org.freedesktop.systemd1(5), systemd.resource-control(5)). Pure.

use std::collections::HashMap;

use crate::cgroup::writes::Write;
use crate::error::{Error, Result};

/// What systemd takes for "no limit".
const INFINITY: u64 = u64::MAX;
/// A unit's file, which a reload reads, has CPUQuota= in whole hundredths of a CPU: microseconds a second.
const QUOTA_STEP: u64 = 10_000;

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name on the bus
    pub name: String,
    /// And value
    pub value: Value,
}

/// The types of D-Bus that properties have.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "they are D-Bus's")]
pub enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Strs(Vec<String>),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
}

impl Property {
    pub(super) fn new(name: &str, value: impl Into<Value>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

macro_rules! from {
    ($($type:ty => $kind:ident),*) => { $(impl From<$type> for Value {
        fn from(value: $type) -> Self { Value::$kind(value) }
    })* };
}
from!(bool => Bool, u64 => U64, String => Str, Vec<u8> => Bytes, Vec<u32> => U32s);

/// The properties that hold these limits; of what systemd has none for, a reload leaves the files as they are.
///
/// # Errors
/// A limit that a reload would change, by its field.
pub(super) fn properties(writes: &[Write]) -> Result<Vec<Property>> {
    let mut all: Vec<Property> = Vec::new();
    // Of two writes to a file the last one holds.
    for write in writes {
        for property in of(write)? {
            all.retain(|before| before.name != property.name);
            all.push(property);
        }
    }
    // A CPUWeight of 0 is SCHED_IDLE, which has no other weight.
    if writes.iter().any(|write| write.file == "cpu.idle" && write.value == "1") {
        all.retain(|property| property.name != "CPUWeight");
        all.push(Property::new("CPUWeight", 0));
    } else if writes.iter().any(|write| write.file == "cpu.idle")
        && !all.iter().any(|property| property.name == "CPUWeight")
    {
        all.push(Property::new("CPUWeight", INFINITY));
    }
    Ok(all)
}

fn of(write: &Write) -> Result<Vec<Property>> {
    let one = |name: &str, value: Value| Ok(vec![Property::new_value(name, value)]);
    let size = |name: &str| number(write).map(|value| vec![Property::new(name, value)]);
    match write.file.as_str() {
        "memory.max" => size("MemoryMax"),
        "memory.high" => size("MemoryHigh"),
        "memory.low" => size("MemoryLow"),
        "memory.min" => size("MemoryMin"),
        "memory.swap.max" => size("MemorySwapMax"),
        "memory.zswap.max" => size("MemoryZSwapMax"),
        "pids.max" => size("TasksMax"),
        "cpu.weight" => size("CPUWeight"),
        "cpu.max" => quota(write),
        "cpuset.cpus" => one("AllowedCPUs", Value::Bytes(mask(write)?)),
        "cpuset.mems" => one("AllowedMemoryNodes", Value::Bytes(mask(write)?)),
        "io.weight" => match write.value.strip_prefix("default ") {
            Some(weight) => parsed(write, weight).map(|weight| vec![Property::new("IOWeight", weight)]),
            None => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

impl Property {
    fn new_value(name: &str, value: Value) -> Self {
        Self { name: name.into(), value }
    }
}

fn number(write: &Write) -> Result<u64> {
    match write.value.trim() {
        "max" => Ok(INFINITY),
        text => parsed(write, text),
    }
}

fn parsed(write: &Write, text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| {
        let why = format!("{:?} is no number that systemd can keep for {}", write.value, write.file);
        Error::invalid(&write.field, why).hint("give it in plain digits")
    })
}

/// The quota is kept to the hundredth of a CPU below it: no reload gives more than was asked.
fn quota(write: &Write) -> Result<Vec<Property>> {
    let mut parts = write.value.split_whitespace();
    let (quota, period) = (parts.next().unwrap_or("max"), parts.next().unwrap_or("100000"));
    let period = parsed(write, period)?.max(1);
    let a_second = match quota {
        "max" => INFINITY,
        quota => match parsed(write, quota)?.saturating_mul(1_000_000) / period / QUOTA_STEP * QUOTA_STEP {
            0 => {
                let error =
                    Error::invalid(&write.field, "is less than a hundredth of a CPU, the least that systemd keeps");
                return Err(error.hint("give more, or let wsbox make the cgroup: without --systemd-cgroup"));
            }
            a_second => a_second,
        },
    };
    Ok(vec![Property::new("CPUQuotaPerSecUSec", a_second), Property::new("CPUQuotaPeriodUSec", period)])
}

/// A list such as 0-3,7 as bits, the lowest first; empty: all.
fn mask(write: &Write) -> Result<Vec<u8>> {
    const MOST: usize = 8192;
    let bad = || Error::invalid(&write.field, format!("{:?} is no list such as 0-3,7", write.value));
    let mut mask = Vec::new();
    for part in write.value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let ends = (first.trim().parse::<usize>(), last.trim().parse::<usize>());
        let (Ok(first), Ok(last)) = ends else { return Err(bad()) };
        if first > last || last >= MOST {
            return Err(bad());
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Ok(mask)
}

const ANNOTATION: &str = "org.systemd.property.";

/// What a scope of wsbox's is made of: an annotation that changed it would take a limit or the cgroup itself away.
const OURS: [&str; 6] = ["Slice", "Delegate", "DelegateControllers", "PIDs", "DefaultDependencies", "CollectMode"];
const OUR_KINDS: [&str; 11] = [
    "Memory",
    "CPU",
    "Tasks",
    "IO",
    "BlockIO",
    "Allowed",
    "StartupCPU",
    "StartupIO",
    "StartupAllowed",
    "StartupMemory",
    "Device",
];

/// The properties of the annotations org.systemd.property.NAME, whose values are written as GVariant does ('text', true, uint64 5,
/// ['a', 'b']); a time NAMESec in seconds is one of NAMEUSec.
pub(super) fn annotated(annotations: Option<&HashMap<String, String>>) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let bad = |why: &str| Error::invalid(format!("annotations[{key:?}]"), why);
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(bad("is no name of a property of systemd"));
        }
        if OURS.contains(&name) || OUR_KINDS.iter().any(|kind| name.starts_with(kind)) {
            return Err(
                bad("is for wsbox to set").hint("limits are in linux.resources, the slice is in linux.cgroupsPath")
            );
        }
        let value = value(text.trim()).ok_or_else(|| {
            bad("is no value that wsbox reads").hint("write it as GVariant does: 'text', true, uint64 5, ['a', 'b']")
        })?;
        all.push(in_micros(name, value).ok_or_else(|| bad("is no time in seconds"))?);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn in_micros(name: &str, value: Value) -> Option<Property> {
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Some(Property::new_value(name, value));
    };
    let micros = match value {
        Value::I32(seconds) => u64::try_from(seconds).ok()?.checked_mul(1_000_000)?,
        Value::U32(seconds) => u64::from(seconds) * 1_000_000,
        Value::I64(seconds) => u64::try_from(seconds).ok()?.checked_mul(1_000_000)?,
        Value::U64(seconds) => seconds.checked_mul(1_000_000)?,
        Value::F64(seconds) if (0.0..1e12).contains(&seconds) => (seconds * 1e6) as u64,
        _ => return None,
    };
    Some(Property::new(&format!("{stem}USec"), micros))
}

fn value(text: &str) -> Option<Value> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let parts = inside.split(',').map(|part| quoted(part.trim()));
        return parts.collect::<Option<Vec<String>>>().map(Value::Strs);
    }
    if let Some((kind, number)) = text.split_once(' ') {
        let number = number.trim();
        return match kind {
            "int32" => number.parse().ok().map(Value::I32),
            "uint32" => number.parse().ok().map(Value::U32),
            "int64" => number.parse().ok().map(Value::I64),
            "uint64" => number.parse().ok().map(Value::U64),
            _ => quoted(text).map(Value::Str),
        };
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => quoted(text)
            .map(Value::Str)
            .or_else(|| text.parse().ok().map(Value::I32))
            .or_else(|| text.contains('.').then(|| text.parse().ok().map(Value::F64))?),
    }
}

/// Text in single or double quotes, without escapes.
fn quoted(text: &str) -> Option<String> {
    let inside = ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    (!inside.contains(['\'', '"', '\\', '\n', '\0'])).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &str, value: &str) -> Write {
        Write { file: file.into(), value: value.into(), field: "linux.resources.x".into(), bfq: None }
    }

    fn one(file: &str, value: &str) -> Vec<(String, Value)> {
        properties(&[write(file, value)]).unwrap().into_iter().map(|property| (property.name, property.value)).collect()
    }

    #[test]
    fn limits_are_what_systemd_calls_them() {
        assert_eq!(one("memory.max", "4096"), [("MemoryMax".into(), Value::U64(4096))]);
        assert_eq!(one("memory.swap.max", "max"), [("MemorySwapMax".into(), Value::U64(u64::MAX))]);
        assert_eq!(one("pids.max", "7"), [("TasksMax".into(), Value::U64(7))]);
        assert_eq!(one("io.weight", "default 50"), [("IOWeight".into(), Value::U64(50))]);
        assert_eq!(one("cpuset.cpus", "0-2,9"), [("AllowedCPUs".into(), Value::Bytes(vec![0b111, 0b10]))]);
        for by_hand in ["memory.oom.group", "cpu.max.burst", "io.max", "hugetlb.2MB.max"] {
            assert_eq!(one(by_hand, "8:0 rbps=1"), [], "{by_hand}");
        }
    }

    #[test]
    fn a_quota_is_never_kept_as_more() {
        let quota = |value: &str| one("cpu.max", value);
        let kept = |a_second, period| {
            [("CPUQuotaPerSecUSec".into(), Value::U64(a_second)), ("CPUQuotaPeriodUSec".into(), Value::U64(period))]
        };
        assert_eq!(quota("150000 100000"), kept(1_500_000, 100_000));
        assert_eq!(quota("33300 100000"), kept(330_000, 100_000));
        assert_eq!(quota("max 50000"), kept(u64::MAX, 50_000));
        assert!(properties(&[write("cpu.max", "1000 1000000")]).unwrap_err().to_string().contains("hundredth"));
    }

    #[test]
    fn idle_takes_the_weights_place() {
        let both = properties(&[write("cpu.weight", "100"), write("cpu.idle", "1")]).unwrap();
        assert_eq!(both, [Property::new("CPUWeight", 0)]);
        assert_eq!(one("cpu.idle", "0"), [("CPUWeight".into(), Value::U64(INFINITY))]);
    }

    #[test]
    fn annotations_are_typed_and_never_touch_limits() {
        let of = |name: &str, text: &str| {
            annotated(Some(&HashMap::from([(format!("{ANNOTATION}{name}"), text.to_owned())])))
        };
        assert_eq!(of("TimeoutStopSec", "uint64 90").unwrap(), [Property::new("TimeoutStopUSec", 90_000_000)]);
        assert_eq!(of("TimeoutStopUSec", "uint64 90").unwrap(), [Property::new("TimeoutStopUSec", 90)]);
        assert_eq!(of("Description", "'a b'").unwrap(), [Property::new("Description", "a b".to_owned())]);
        let strings = Value::Strs(vec!["a.service".into(), "b.service".into()]);
        assert_eq!(of("After", "['a.service', \"b.service\"]").unwrap(), [Property::new_value("After", strings)]);
        assert_eq!(of("SendSIGHUP", "true").unwrap(), [Property::new("SendSIGHUP", true)]);
        for (name, text) in [
            ("MemoryMax", "uint64 1"),
            ("Delegate", "false"),
            ("DeviceAllow", "'x'"),
            ("lower", "true"),
            ("A.B", "true"),
            ("After", "['a"),
            ("Description", "unquoted"),
            ("TimeoutStopSec", "'x'"),
            ("TasksMax", "uint64 9"),
            ("Description", "'a' 'b'"),
        ] {
            assert!(of(name, text).unwrap_err().to_string().starts_with("annotations["), "{name} {text}");
        }
    }
}
