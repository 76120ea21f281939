// SPDX-License-Identifier: Apache-2.0
//! `wsbox events`

use std::time::Duration;

use super::{Global, output};
use crate::error::Result;
use crate::state::events;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// Print what it uses now, once
    #[arg(long)]
    stats: bool,
    /// How often: 5s, 500ms, 1m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    interval: Duration,
}

/// A duration as Go writes it, of one unit.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 5s, 500ms or 1m");
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    // Go's tickers take no zero, and a program that polls faster than this measures itself.
    if seconds < 0.001 { Err(bad()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| bad()) }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let root = global.root();
    if arguments.stats {
        return output::line(&events::stats(&root, &arguments.id)?).map(|_| 0);
    }
    events::follow(&root, &arguments.id, arguments.interval, output::line).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        for (text, millis) in [("5s", 5000), ("500ms", 500), ("1.5m", 90_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text).map(|time| time.as_millis()), Ok(millis));
        }
        for text in ["", "5", "s", "-1s", "0s", "5x", "1e3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
