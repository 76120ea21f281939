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
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32);
    known.or_else(|| real_time(name)).ok_or_else(|| Error::invalid("signal", format!("{text:?} is unknown")))
}

/// RTMIN, RTMIN+n, RTMAX, RTMAX-n, as Docker names them: glibc keeps 32 and 33 to itself (signal(7)).
fn real_time(name: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    const LAST: i32 = 64;
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        None => text.is_empty().then_some(0),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => FIRST.checked_add(offset(rest, '+')?)?,
        (_, Some(rest)) => LAST.checked_sub(offset(rest, '-')?)?,
        _ => return None,
    };
    (FIRST..=LAST).contains(&number).then_some(number)
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
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("RTMAX", 64),
            ("SIGRTMIN+30", 64),
        ] {
            assert_eq!(number(text).unwrap(), want);
        }
        for text in [
            "65",
            "-1",
            "",
            "NOPE",
            "9 ",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMAX+1",
            "RTMAX-31",
            "RTMIN+-1",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
