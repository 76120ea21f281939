// SPDX-License-Identifier: Apache-2.0
//! The metrics by name: what each row of a scrape is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::containers::{Failures, OTHERS, Sample};
use super::counters::{BOUNDS, Counters, KINDS, TIMED};
use crate::monitor::report::{State, Violations};
use crate::state::lifecycle;

/// A value and the labels that it has beyond `container`.
type Rows<'a> = Vec<(Vec<(&'static str, &'a str)>, f64)>;

/// One metric of containers.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    rows: for<'a> fn(&'a Sample) -> Rows<'a>,
}

/// Writes to places of containers.
#[derive(Debug, Default)]
pub struct Changed {
    /// How often, by container and place, and whether some went uncounted
    pub places: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether they are counted, of each container whose root can be written
    pub watched: BTreeMap<String, bool>,
}

macro_rules! family {
    ($name:literal, $kind:ident, $help:literal, $rows:expr) => {
        Family { name: $name, help: $help, kind: MetricType::$kind, rows: $rows }
    };
}

/// A row without more labels, if there is a value.
fn one(value: Option<f64>) -> Rows<'static> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn count(value: Option<u64>) -> Rows<'static> {
    one(value.map(|value| value as f64))
}

/// One row for each call, whichever process made it, and one for those that the table of counts had no room for: a payload can fill
/// it with names and numbers, and is not to hide behind that.
fn denied(violations: &Violations) -> Rows<'_> {
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for blocked in &violations.blocked {
        *calls.entry(&blocked.syscall).or_default() += blocked.count;
    }
    // A number of the monitor's own: what the total and the rows differ by may shrink while they are read.
    if violations.others > 0 {
        calls.insert(OTHERS, violations.others);
    }
    calls.into_iter().map(|(call, count)| (vec![("syscall", call)], count as f64)).collect()
}

/// One row for each name.
fn named<'a>(label: &'static str, counts: &'a BTreeMap<String, u64>) -> Rows<'a> {
    counts.iter().map(|(name, count)| (vec![(label, name.as_str())], *count as f64)).collect()
}

const FAMILIES: &[Family] = &[
    family!("container_memory_usage_bytes", Gauge, "Memory in use", |sample| count(sample.reading.memory)),
    family!("container_spec_memory_limit_bytes", Gauge, "Memory that it may use", |sample| {
        count(sample.reading.memory_limit)
    }),
    family!("container_cpu_usage_seconds", Counter, "CPU time", |sample| one(sample.reading.cpu)),
    family!("container_cpu_periods", Counter, "Periods of the CPU limit in which anything ran", |sample| {
        count(sample.reading.periods)
    }),
    family!("container_cpu_throttled_periods", Counter, "Those in which the CPU limit was used up", |sample| {
        count(sample.reading.throttled_periods)
    }),
    family!("container_cpu_throttled_seconds", Counter, "Time for which the CPU limit held it back", |sample| {
        one(sample.reading.throttled)
    }),
    family!("container_pids", Gauge, "Processes and threads", |sample| count(sample.reading.pids)),
    family!("container_spec_pids_limit", Gauge, "Processes and threads that it may have", |sample| {
        count(sample.reading.pids_limit)
    }),
    family!("container_oom_kills", Counter, "Processes killed for want of memory", |sample| {
        count(sample.reading.oom_kills)
    }),
    family!("container_limit_hits", Counter, "How often it ran into a limit", |sample| {
        let hits = [("memory", sample.reading.memory_hits), ("pids", sample.reading.pids_hits)];
        hits.into_iter().filter_map(|(limit, hits)| Some((vec![("limit", limit)], hits? as f64))).collect()
    }),
    family!("container_pressure_waiting_seconds", Counter, "Time in which some or all of it waited (PSI)", |sample| {
        let row = |(resource, kind, seconds): &(&'static str, &'static str, f64)| {
            (vec![("resource", *resource), ("kind", *kind)], *seconds)
        };
        sample.reading.pressure.iter().map(row).collect()
    }),
    family!("workspace_seccomp_violations", Counter, "Calls that the filter denied, by call", |sample| {
        sample.violations.as_ref().map(denied).unwrap_or_default()
    }),
    family!("workspace_seccomp_kills", Counter, "Processes that the filter killed (SIGSYS)", |sample| {
        let counted = sample.violations.as_ref().filter(|violations| violations.counting != State::Off);
        count(counted.map(|violations| violations.killed))
    }),
    family!("wsbox_container_counting", Gauge, "Whether denied calls are counted: 1 or 0", |sample| {
        one(sample.violations.as_ref().map(|violations| f64::from(u8::from(violations.counting == State::On))))
    }),
    family!("container_process_count", Gauge, "Processes by name", |sample| named("process", &sample.processes)),
    family!("wsbox_container_layer_in_force", Gauge, "Whether the kernel has the layer in force: 1 or 0", |sample| {
        let row = |(layer, holds): &(&'static str, bool)| (vec![("layer", *layer)], f64::from(u8::from(*holds)));
        sample.layers.iter().map(row).collect()
    }),
    family!("container_start_time_seconds", Gauge, "When its first process began, since the epoch", |sample| {
        one(sample.started)
    }),
    family!("wsbox_container_status", Gauge, "What the container is doing: 1 for that status", |sample| {
        sample.status.map(|status| (vec![("status", lifecycle::word(status))], 1.0)).into_iter().collect()
    }),
];

/// Everything that a scrape tells.
pub fn encode(
    encoder: &mut DescriptorEncoder,
    samples: &[Sample],
    changed: &Changed,
    counters: &Counters,
) -> fmt::Result {
    for family in FAMILIES {
        let rows = samples.iter().map(|sample| (sample.name.as_str(), (family.rows)(sample)));
        encode_rows(encoder, (family.name, family.help, family.kind), rows)?;
    }
    encode_changes(encoder, changed)?;
    encode_starts(encoder, counters)?;
    encode_errors(encoder, counters)
}

/// How the scrape itself went.
pub fn encode_scrape(encoder: &mut DescriptorEncoder, failures: &Failures, begun: Instant) -> fmt::Result {
    let help = "What this scrape could not read though it is there";
    let mut metric = encoder.encode_descriptor("wsbox_scrape_errors", help, None, MetricType::Gauge)?;
    for (what, count) in failures {
        value(metric.encode_family(&[("what", *what)])?, MetricType::Gauge, *count as f64)?;
    }
    let took =
        encoder.encode_descriptor("wsbox_scrape_seconds", "How long this scrape took", None, MetricType::Gauge)?;
    value(took, MetricType::Gauge, begun.elapsed().as_secs_f64())
}

fn encode_rows<'a>(
    encoder: &mut DescriptorEncoder,
    (name, help, kind): (&str, &str, MetricType),
    rows: impl Iterator<Item = (&'a str, Rows<'a>)>,
) -> fmt::Result {
    let mut rows = rows.filter(|(_, rows)| !rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (container, rows) in rows {
        for (labels, number) in rows {
            let labels: Vec<(&str, &str)> = std::iter::once(("container", container)).chain(labels).collect();
            value(metric.encode_family(&labels)?, kind, number)?;
        }
    }
    Ok(())
}

fn value(mut encoder: MetricEncoder, kind: MetricType, number: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => encoder.encode_counter::<[(&str, &str); 0], f64, f64>(&number, None),
        _ => encoder.encode_gauge(&number),
    }
}

fn encode_changes(encoder: &mut DescriptorEncoder, changed: &Changed) -> fmt::Result {
    let rows = changed
        .watched
        .iter()
        .map(|(container, watched)| (container.as_str(), one(Some(f64::from(u8::from(*watched))))));
    let help = "Whether writes to its root, which can be written, are counted: 1 or 0";
    encode_rows(encoder, ("wsbox_container_watched", help, MetricType::Gauge), rows)?;
    let rows = changed.places.iter().map(|(container, places)| (container.as_str(), named("path", places)));
    let help = "Writes to files below a watched place of a writable root, since `wsbox metrics` watches it";
    encode_rows(encoder, ("container_fs_changes", help, MetricType::Gauge), rows)
}

fn encode_starts(encoder: &mut DescriptorEncoder, counters: &Counters) -> fmt::Result {
    let help = "How long `run` and `create` took until the container stood";
    let mut metric = encoder.encode_descriptor("wsbox_start_seconds", help, None, MetricType::Histogram)?;
    for (command, histogram) in TIMED.iter().zip(&counters.starts) {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
        let labels = [("command", *command)];
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_histogram::<[(&str, &str); 0]>(histogram.sum, histogram.counts.iter().sum(), &buckets, None)?;
    }
    Ok(())
}

fn encode_errors(encoder: &mut DescriptorEncoder, counters: &Counters) -> fmt::Result {
    let help = "Commands of wsbox that failed, by the kind of the error";
    let mut metric = encoder.encode_descriptor("wsbox_errors", help, None, MetricType::Counter)?;
    for (kind, count) in KINDS.iter().zip(&counters.errors) {
        value(metric.encode_family(&[("kind", *kind)])?, MetricType::Counter, *count as f64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::report::Blocked;

    #[test]
    fn denied_calls_without_a_row_are_told_too() {
        let row = |syscall: &str, process: &str, count| Blocked {
            syscall: syscall.into(),
            abi: "x86_64",
            process: Some(process.into()),
            count,
        };
        let blocked = vec![row("mount", "a", 3), row("mount", "b", 2), row("ptrace", "a", 1)];
        let told = |total: u64| {
            let violations = Violations { total, others: total - 6, blocked: blocked.clone(), ..Violations::default() };
            denied(&violations).into_iter().map(|(labels, count)| (labels[0].1.to_owned(), count)).collect::<Vec<_>>()
        };
        let calls =
            |rows: &[(&str, f64)]| rows.iter().map(|(call, count)| ((*call).to_owned(), *count)).collect::<Vec<_>>();
        assert_eq!(told(6), calls(&[("mount", 5.0), ("ptrace", 1.0)]));
        assert_eq!(told(10), calls(&[(OTHERS, 4.0), ("mount", 5.0), ("ptrace", 1.0)]));
    }
}
