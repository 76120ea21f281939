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
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name)
        .map(|signal| signal as i32)
        .map_err(|_| Error::invalid("signal", format!("{text:?} is unknown")))
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    lifecycle::kill(&global.root(), &arguments.id, number(&arguments.signal)?, arguments.all).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals() {
        for (text, want) in [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("term", 15), ("64", 64), ("0", 0)] {
            assert_eq!(number(text).unwrap(), want);
        }
        for text in ["65", "-1", "", "NOPE", "9 "] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
