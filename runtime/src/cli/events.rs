// SPDX-License-Identifier: Apache-2.0
//! `wsbox events`

use std::time::Duration;

use super::{Global, output};
use crate::error::Result;
use crate::state::events::Watch;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// Print what it uses now, and nothing else
    #[arg(long)]
    stats: bool,
    /// Time between two prints, such as 500ms, 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    interval: Duration,
}

/// As Go writes them: numbers with units, one after the other.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: such as 500ms, 5s or 1m30s");
    let (mut rest, mut sum) = (text, 0f64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        let unit = &rest[end..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        sum += number * seconds;
        rest = &rest[end + unit.len()..];
    }
    let sum = Duration::try_from_secs_f64(sum).map_err(|_| bad())?;
    // Less would be a busy loop, more than a year no clock can add.
    if (Duration::from_millis(1)..Duration::from_secs(366 * 86400)).contains(&sum) { Ok(sum) } else { Err(bad()) }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let watch = Watch::new(&global.root(), &arguments.id)?;
    if arguments.stats {
        return output::line(&watch.stats()).map(|_| 0);
    }
    watch.follow(arguments.interval, output::line).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for bad in ["", "0", "0s", "5", "-1s", "s", "5 s", "5x", "1ns", "99999999h", "1e300s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
