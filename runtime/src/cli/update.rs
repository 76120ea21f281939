// SPDX-License-Identifier: Apache-2.0
//! `wsbox update`

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::Global;
use crate::bundle;
use crate::error::{Context, Error, Result};
use crate::state;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// Take all of it from this file, as in config.json's linux.resources; - is stdin. Zeros change nothing
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Most memory: bytes, or with k, m, g; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory: Option<i64>,
    /// Memory that is best kept
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Most memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Taken for runc's sake: no kernel from 5.16 on has this limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// Most memory for TCP buffers (cgroup v1)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    kernel_memory_tcp: Option<i64>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// CPU time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "USECS")]
    cpu_period: Option<u64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "USECS")]
    cpu_burst: Option<u64>,
    /// Relative weight, 2 to 262144
    #[arg(long, alias = "cpu-shares", value_name = "WEIGHT")]
    cpu_share: Option<u64>,
    /// 1: run only when nothing else does
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Realtime CPU time in each realtime period, in microseconds (cgroup v1)
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// The period of --cpu-rt-runtime (cgroup v1)
    #[arg(long, value_name = "USECS")]
    cpu_rt_period: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Refused: a cache schema of resctrl
    #[arg(long, value_name = "SCHEMA", hide = true)]
    l3_cache_schema: Option<String>,
    /// Refused: a bandwidth schema of resctrl
    #[arg(long, value_name = "SCHEMA", hide = true)]
    mem_bw_schema: Option<String>,
}

impl Arguments {
    /// The resources, as runc reads them: a file is all of it.
    fn resources(&self) -> Result<LinuxResources> {
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            return Err(
                Error::invalid("linux.intelRdt", "this version of wsbox does not enforce it").hint("leave it out")
            );
        }
        let Some(file) = &self.resources else { return self.flags() };
        let bytes = read(file)?;
        bundle::parse_resources(&bytes, file)
    }

    fn flags(&self) -> Result<LinuxResources> {
        let all = json!({
            "memory": {
                "limit": self.memory, "reservation": self.memory_reservation, "swap": self.memory_swap,
                "kernel": self.kernel_memory, "kernelTCP": self.kernel_memory_tcp,
            },
            "pids": self.pids_limit.map(|limit| json!({ "limit": limit })),
            "cpu": {
                "quota": self.cpu_quota, "period": self.cpu_period, "burst": self.cpu_burst, "shares": self.cpu_share,
                "idle": self.cpu_idle, "realtimeRuntime": self.cpu_rt_runtime, "realtimePeriod": self.cpu_rt_period,
                "cpus": self.cpuset_cpus, "mems": self.cpuset_mems,
            },
            "blockIO": { "weight": self.blkio_weight },
        });
        if all.as_object().into_iter().flatten().all(|(_, value)| empty(value)) {
            return Err(Error::invalid("update", "needs a limit to change, or --resources FILE"));
        }
        serde_json::from_value(all).map_err(|error| Error::invalid("update", error.to_string()))
    }
}

fn empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|map| map.values().all(Value::is_null))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return std::fs::read(file).context(|| format!("--resources {}", file.display()));
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context(|| "--resources: stdin".into())?;
    Ok(bytes)
}

/// A number of bytes as runc takes it: 67108864, 64m, 64MB, 64MiB, 1.5g, -1.
fn bytes(text: &str) -> std::result::Result<i64, String> {
    let bad = || format!("{text:?} is no number of bytes such as 67108864, 64m or -1");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &lower[..lower.len() - unit.len()];
    let unit = unit.trim_start_matches(' ').trim_end_matches("ib").trim_end_matches('b');
    let shift = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit).ok_or_else(bad)? * 10;
    let value =
        number.parse::<f64>().ok().filter(|_| number.starts_with(|c: char| c.is_ascii_digit())).ok_or_else(bad)?;
    let bytes = value * (1u64 << shift) as f64;
    if bytes < i64::MAX as f64 { Ok(bytes as i64) } else { Err(bad()) }
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    state::update(&global.root(), &arguments.id, &arguments.resources()?, global.profile).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("-1", -1),
            ("67108864", 67_108_864),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("10b", 10),
            ("2K", 2048),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "-2", "m", "1x", "1e3", ".5m", "1 2", "0x10", "9999999p", "64mm"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
