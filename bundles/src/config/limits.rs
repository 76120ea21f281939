// SPDX-License-Identifier: Apache-2.0
//! Sizes and limits as docker run has them.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Bytes, with `b`, `k`, `m`, `g` or `t` for powers of 1024.
///
/// # Errors
/// If it is none, or more than 64 bits.
pub fn bytes(text: &str) -> Result<u64> {
    let bad = || Error::new(format!("size {text:?}"), "is none").hint("a number with b, k, m, g or t: 512m");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// CPUs, such as 0.5, as microseconds in 100 ms (cgroup-v2.rst, "cpu.max").
///
/// # Errors
/// If it is no positive number of at most three digits after the point, or less than the kernel's smallest quota.
pub fn cpus(text: &str) -> Result<u64> {
    let bad = |why: &str| Error::new(format!("--cpus {text:?}"), why).hint("for example 1.5");
    let number: f64 = text.parse().map_err(|_| bad("is no number"))?;
    if !(number.is_finite() && (0.01..=10_000.0).contains(&number)) {
        return Err(bad("is not between 0.01 and 10000"));
    }
    Ok((number * 100_000.0).round() as u64)
}

/// `NAME=SOFT[:HARD]`, as `process.rlimits` has it; -1 is no limit.
///
/// # Errors
/// If it is no limit, or the soft one is above the hard one.
pub fn ulimit(text: &str) -> Result<Value> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let bad = |why: String| Error::new(format!("--ulimit {text:?}"), why).hint("for example nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(|| bad("is not NAME=SOFT[:HARD]".into()))?;
    if !NAMES.contains(&name) {
        return Err(bad(format!("{name} is no limit; there are: {}", NAMES.join(", "))));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text.parse::<u64>().map_err(|_| bad(format!("{text:?} is no number"))),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is above the hard one".into()));
    }
    Ok(json!({ "type": format!("RLIMIT_{}", name.to_ascii_uppercase()), "soft": soft, "hard": hard }))
}
