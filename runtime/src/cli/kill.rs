// SPDX-License-Identifier: Apache-2.0
//! `wsbox kill`

use std::str::FromStr;

use nix::sys::signal::Signal;

use super::Global;
use crate::error::{Error, Result};
use crate::state::lifecycle;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// By name (TERM, SIGTERM) or number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

/// A signal's number, from its number or its name with or without SIG.
fn number(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(Error::invalid("signal", format!("{number} is no signal")))
        };
    }
    let upper = text.to_ascii_uppercase();
    if let Some(number) = realtime(upper.strip_prefix("SIG").unwrap_or(&upper)) {
        return Ok(number);
    }
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name)
        .map(|signal| signal as i32)
        .map_err(|_| Error::invalid("signal", format!("{text:?} is unknown")))
}

/// RTMIN+n and RTMAX-n, as kill(1) numbers them.
fn realtime(name: &str) -> Option<i32> {
    const RANGE: std::ops::RangeInclusive<i32> = 34..=64;
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok().filter(|n| (0..=30).contains(n)),
    };
    let from_min = name.strip_prefix("RTMIN").and_then(|rest| Some(RANGE.start() + offset(rest, '+')?));
    let from_max = || name.strip_prefix("RTMAX").and_then(|rest| Some(RANGE.end() - offset(rest, '-')?));
    from_min.or_else(from_max).filter(|number| RANGE.contains(number))
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    lifecycle::kill(&global.root(), &arguments.id, number(&arguments.signal)?, arguments.all).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals() {
        for (text, want) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("term", 15),
            ("64", 64),
            ("0", 0),
            ("RTMIN", 34),
            ("sigrtmin+2", 36),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number(text).unwrap(), want);
        }
        for text in ["65", "-1", "", "NOPE", "9 ", "RTMIN+31", "RTMIN2", "RTMAX+1"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
