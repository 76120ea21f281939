// SPDX-License-Identifier: Apache-2.0
//! The limits that a config asks for. Pure.

use oci_spec::runtime::{LinuxBlockIo, LinuxInterfacePriority, LinuxResources};

use crate::error::{Error, Result};

/// The limits of a config, each as the config has it; None where it has none. A zero means "unset" in the configs of engines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Bytes, or -1 for no limit
    pub memory: Option<i64>,
    /// Memory and swap together, in bytes, or -1
    pub swap: Option<i64>,
    /// Bytes that are best kept
    pub reservation: Option<i64>,
    /// Bytes of TCP buffers, or -1
    pub kernel_tcp: Option<i64>,
    /// 0 to 100
    pub swappiness: Option<u64>,
    /// Let processes wait for memory instead of killing one
    pub no_oom_killer: bool,
    /// Processes and threads, or less than 1 for no limit
    pub pids: Option<i64>,
    /// Microseconds in each period, or -1
    pub quota: Option<i64>,
    /// Microseconds
    pub period: Option<u64>,
    /// Microseconds that may be saved up
    pub burst: Option<u64>,
    /// SCHED_IDLE for all of it
    pub idle: Option<i64>,
    /// v1's relative weight, 2 to 262144
    pub shares: Option<u64>,
    /// Microseconds of realtime scheduling in each realtime period
    pub realtime_runtime: Option<i64>,
    /// Microseconds
    pub realtime_period: Option<u64>,
    /// A list of CPUs
    pub cpus: Option<String>,
    /// A list of memory nodes
    pub mems: Option<String>,
    /// Weights and throttles of block devices
    pub block_io: LinuxBlockIo,
    /// (page size such as 2MB, bytes)
    pub hugepages: Vec<(String, i64)>,
    /// The class of its packets
    pub class_id: Option<u32>,
    /// The priority of its packets, by interface
    pub priorities: Vec<LinuxInterfacePriority>,
    /// (device, handles and objects as the file takes them)
    pub rdma: Vec<(String, String)>,
    /// Files of v2 and what is written to them
    pub unified: Vec<(String, String)>,
}

impl Wanted {
    /// What `resources` asks.
    ///
    /// # Errors
    /// A value that can not be, by its field.
    pub fn new(resources: &LinuxResources) -> Result<Self> {
        let wanted = Self::of(resources)?;
        wanted.check()?;
        Ok(wanted)
    }

    /// The same, not checked against one another: for a part of what is asked.
    pub fn of(resources: &LinuxResources) -> Result<Self> {
        let memory = resources.memory().unwrap_or_default();
        let cpu = resources.cpu().clone().unwrap_or_default();
        let network = resources.network().clone().unwrap_or_default();
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        let positive = |value: Option<u64>| value.filter(|value| *value != 0);
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if memory.kernel().is_some_and(|limit| limit > 0) {
            let error = Error::invalid("linux.resources.memory.kernel", "Linux has not had this limit since 5.16");
            return Err(error.hint("remove it: memory.limit counts the kernel's memory as well"));
        }
        Ok(Self {
            memory: set(memory.limit()),
            swap: set(memory.swap()),
            reservation: set(memory.reservation()),
            kernel_tcp: set(memory.kernel_tcp()),
            swappiness: memory.swappiness(),
            no_oom_killer: memory.disable_oom_killer().unwrap_or_default(),
            pids: resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0),
            quota: set(cpu.quota()),
            period: positive(cpu.period()),
            // Zero takes these back.
            burst: cpu.burst(),
            idle: cpu.idle(),
            shares: positive(cpu.shares()),
            realtime_runtime: set(cpu.realtime_runtime()),
            realtime_period: positive(cpu.realtime_period()),
            cpus: text(cpu.cpus()),
            mems: text(cpu.mems()),
            block_io: resources.block_io().clone().unwrap_or_default(),
            hugepages: hugepages(resources)?,
            class_id: network.class_id().filter(|class| *class != 0),
            priorities: network.priorities().clone().unwrap_or_default(),
            rdma: rdma(resources)?,
            unified: unified(resources)?,
        })
    }

    fn check(&self) -> Result<()> {
        let bad = |field: &str, why: String| Err(Error::invalid(format!("linux.resources.{field}"), why));
        for (field, value) in [
            ("memory.limit", self.memory),
            ("memory.swap", self.swap),
            ("memory.reservation", self.reservation),
            ("memory.kernelTCP", self.kernel_tcp),
            ("cpu.quota", self.quota),
            ("cpu.realtimeRuntime", self.realtime_runtime),
        ] {
            if value.is_some_and(|value| value < -1) {
                return bad(field, format!("{} is negative; -1 is no limit", value.unwrap_or_default()));
            }
        }
        if let Some(value) = self.swappiness.filter(|value| *value > 100) {
            return bad("memory.swappiness", format!("{value} is more than 100"));
        }
        if let Some(value) = self.block_io.weight().filter(|weight| *weight != 0 && !(10..=1000).contains(weight)) {
            return bad("blockIO.weight", format!("{value} is not from 10 to 1000"));
        }
        for (field, list) in [("cpu.cpus", &self.cpus), ("cpu.mems", &self.mems)] {
            let Some(list) = list else { continue };
            if !list.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-' | ' ')) {
                return bad(field, format!("{list:?} is no list such as 0-3,7"));
            }
        }
        match (self.memory, self.swap) {
            (Some(memory), Some(swap)) if swap > 0 && swap < memory => {
                bad("memory.swap", format!("{swap} is memory and swap together: it can not be below limit {memory}"))
            }
            (None | Some(-1), Some(swap)) if swap > 0 => bad("memory.swap", "needs memory.limit".into()),
            _ => self.check_cpu(),
        }
    }

    /// The bounds of the kernel (sched-bwc.rst), so that an error comes before anything is made or changed.
    fn check_cpu(&self) -> Result<()> {
        let bad = |field: &str, why: String| Err(Error::invalid(format!("linux.resources.{field}"), why));
        match self {
            Self { quota: Some(quota @ 0..1000), .. } => {
                bad("cpu.quota", format!("{quota} is below 1000, the least that the kernel takes; -1 is no limit"))
            }
            Self { period: Some(period), .. } if !(1000..=1_000_000).contains(period) => {
                bad("cpu.period", format!("{period} is not from 1000 to 1000000 microseconds"))
            }
            Self { idle: Some(idle), .. } if !(0..=1).contains(idle) => {
                bad("cpu.idle", format!("{idle} is not 0 or 1"))
            }
            _ => Ok(()),
        }
    }
}

/// A name that becomes part of a file's name or line.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'))
}

fn hugepages(resources: &LinuxResources) -> Result<Vec<(String, i64)>> {
    let mut sizes = Vec::new();
    for (at, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        if !size.ends_with(['B', 'b']) || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            let field = format!("linux.resources.hugepageLimits[{at}].pageSize");
            return Err(Error::invalid(field, format!("{size:?} is no size such as 2MB")));
        }
        sizes.push((size.clone(), limit.limit()));
    }
    Ok(sizes)
}

fn rdma(resources: &LinuxResources) -> Result<Vec<(String, String)>> {
    let mut devices = Vec::new();
    for (device, limit) in resources.rdma().iter().flatten() {
        if !plain(device) {
            return Err(Error::invalid(format!("linux.resources.rdma[{device:?}]"), "is no name of a device"));
        }
        let count = |count: Option<u32>| count.map_or("max".to_owned(), |count| count.to_string());
        let value = format!("hca_handle={} hca_object={}", count(limit.hca_handles()), count(limit.hca_objects()));
        devices.push((device.clone(), value));
    }
    devices.sort();
    Ok(devices)
}

fn unified(resources: &LinuxResources) -> Result<Vec<(String, String)>> {
    let mut files: Vec<(String, String)> =
        resources.unified().iter().flatten().map(|(file, value)| (file.clone(), value.clone())).collect();
    files.sort();
    for (file, _) in &files {
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        if !plain || file.starts_with("cgroup.") || file.starts_with('.') || !file.contains('.') {
            let why = "is no limit: a controller's file such as memory.high is";
            return Err(Error::invalid(format!("linux.resources.unified[{file:?}]"), why));
        }
    }
    Ok(files)
}
