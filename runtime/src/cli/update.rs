// SPDX-License-Identifier: Apache-2.0
//! `wsbox update`

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{Global, log};
use crate::bundle;
use crate::error::{Context, Error, Result};
use crate::state::update;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// Take the limits from this file, as in config.json's linux.resources; - is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "Limits")]
    resources: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

/// Zero leaves a limit as it is.
#[derive(Debug, clap::Args)]
struct Limits {
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Microseconds in which --cpu-quota is counted
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Microseconds of CPU time in each period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Microseconds that may be saved up
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Relative weight of CPU time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Microseconds in which --cpu-rt-runtime is counted
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Microseconds of realtime scheduling in each realtime period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1: run only when nobody else wants the CPU (SCHED_IDLE); 0: not so
    #[arg(long, value_name = "WHETHER", allow_negative_numbers = true)]
    cpu_idle: Option<i64>,
    /// CPUs to run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Bytes, or with a unit such as 512m; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory: Option<i64>,
    /// Bytes that are best kept
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Kernel memory in bytes (no kernel since 5.4 limits it: an error)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// Bytes of TCP buffers (cgroup v1 only)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    kernel_memory_tcp: Option<i64>,
    /// Processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Intel RDT's share of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT's share of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

impl Limits {
    /// The flags as what they are in config.json.
    fn resources(&self) -> Result<LinuxResources> {
        for (flag, given) in [("--l3-cache-schema", &self.l3_cache_schema), ("--mem-bw-schema", &self.mem_bw_schema)] {
            if given.is_some() {
                return Err(Error::invalid(flag, "linux.intelRdt is not enforced by this version of wsbox"));
            }
        }
        let json = json!({
            "blockIO": {"weight": self.blkio_weight},
            "cpu": {
                "period": self.cpu_period, "quota": self.cpu_quota, "burst": self.cpu_burst, "shares": self.cpu_share,
                "realtimePeriod": self.cpu_rt_period, "realtimeRuntime": self.cpu_rt_runtime, "idle": self.cpu_idle,
                "cpus": self.cpuset_cpus, "mems": self.cpuset_mems,
            },
            "memory": {
                "limit": self.memory, "reservation": self.memory_reservation, "swap": self.memory_swap,
                "kernel": self.kernel_memory, "kernelTCP": self.kernel_memory_tcp,
            },
            "pids": self.pids_limit.map_or(Value::Null, |limit| json!({"limit": limit})),
        });
        serde_json::from_value(json).map_err(|error| Error::invalid("update", error.to_string()))
    }
}

/// A number with an optional unit of 1024s: k, m, g, t, p, each with an optional b or ib, in either case.
fn bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let bad = || format!("{text:?} is no number of bytes: such as 1048576, 512m, 1.5GiB or -1");
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.contains('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let scale = 1i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(number) => number.checked_mul(scale).ok_or_else(bad),
        Err(_) => {
            let bytes = number.parse::<f64>().map_err(|_| bad())? * scale as f64;
            if (0.0..9e18).contains(&bytes) { Ok(bytes as i64) } else { Err(bad()) }
        }
    }
}

fn from_file(path: &Path) -> Result<LinuxResources> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(path).map(|bytes| text = bytes)
    };
    read.context(|| format!("--resources {}", path.display()))?;
    let (resources, warnings) = bundle::parse_resources(&text, path)?;
    warnings.iter().for_each(|warning| log::warning(warning));
    Ok(resources)
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let change = match &arguments.resources {
        Some(path) => from_file(path)?,
        None => arguments.limits.resources()?,
    };
    update::update(&global.root(), &arguments.id, &change, global.profile)?
        .iter()
        .for_each(|warning| log::warning(warning));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("-1", -1),
            ("1048576", 1 << 20),
            ("1k", 1024),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 mb", 64 << 20),
            ("1.5G", 3 << 29),
            ("1b", 1),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for bad in
            ["", "-2", "m", "10x", "1ib", "1kk", "1.2.3", "1e3", "0x10", "99999999999999999999", "9999999999g", "nan"]
        {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
