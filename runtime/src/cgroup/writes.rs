// SPDX-License-Identifier: Apache-2.0
//! Limits as writes to the files of cgroup v2 (cgroup-v2.rst) and of the v1 controllers (Documentation/admin-guide/cgroup-v1).
//! Pure; in an order that the kernel takes for a new cgroup.

use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::LinuxThrottleDevice;

use super::wanted::Wanted;
use crate::error::{Error, Result};

/// One write to a file of the cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The file
    pub file: String,
    /// What is written
    pub value: String,
    /// The field that asks for it
    pub field: String,
    /// The file that a kernel whose scheduler of block devices is BFQ has for it, and what is written there
    pub bfq: Option<(String, String)>,
}

impl Write {
    /// A limit of memory must not meet the init while it shares the memory of the program that starts it: the kernel's OOM
    /// killer ends every process that shares its victim's (mm/oom_kill.c, __oom_kill_process).
    pub fn waits(&self) -> bool {
        self.file.starts_with("memory.")
    }

    /// The same for the cgroup in which `exists` tells of files.
    pub fn settled(&self, exists: impl Fn(&str) -> bool) -> std::borrow::Cow<'_, Self> {
        match &self.bfq {
            Some((file, value)) if exists(file) => std::borrow::Cow::Owned(Self {
                file: file.clone(),
                value: value.clone(),
                field: self.field.clone(),
                bfq: None,
            }),
            _ => std::borrow::Cow::Borrowed(self),
        }
    }

    /// Whether a kernel without the file is as good: one that has no swap, and so no limit of it.
    pub fn needs_no_file(&self) -> bool {
        self.file == "memory.swap.max"
            && (self.value == "max" || (self.value == "0" && !Path::new("/proc/swaps").exists()))
    }

    /// The error for a kernel that did not take it, with the way out.
    pub fn refused(&self, path: &Path, errno: Errno) -> Error {
        let error = Error::system(format!("{}: write {:?} to {}", self.field, self.value, path.display()), errno);
        match errno {
            Errno::ENOENT if self.field.contains(".unified[") => {
                error.hint("cgroups have no file of this name: the kernel's cgroup-v2.rst lists them")
            }
            Errno::ENOENT => error.hint("this kernel has no such limit"),
            Errno::EBUSY if self.file.starts_with("memory.") => {
                error.hint("more than that is in use: choose a higher limit, or end some of its processes")
            }
            Errno::ENODEV => error.hint("there is no device of this number"),
            Errno::EINVAL if self.file.starts_with("cpu.weight") || self.file == "cpu.shares" => {
                error.hint("the kernel does not take this value, or cpu.idle is 1, which leaves no weight")
            }
            Errno::EINVAL if self.file.starts_with("cpu.rt") => {
                error.hint("the cgroup above has not so much realtime to give: see its cpu.rt_runtime_us")
            }
            Errno::EINVAL | Errno::ERANGE | Errno::EACCES | Errno::EOPNOTSUPP => {
                error.hint("the kernel does not take this value here")
            }
            _ => error,
        }
    }

    /// The controller that the file belongs to.
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// The controllers that these files belong to.
pub fn controllers(writes: &[Write]) -> Vec<&str> {
    let mut controllers: Vec<&str> = writes.iter().map(Write::controller).collect();
    controllers.sort_unstable();
    controllers.dedup();
    controllers
}

/// Collects writes.
#[derive(Default)]
struct List(Vec<Write>);

impl List {
    fn add(&mut self, file: &str, value: Option<impl ToString>, field: &str) {
        let write = |value: &dyn ToString| Write {
            file: file.into(),
            value: value.to_string(),
            field: format!("linux.resources.{field}"),
            bfq: None,
        };
        self.0.extend(value.map(|value| write(&value)));
    }

    /// A weight of block devices.
    fn add_weight(&mut self, files: [&str; 2], values: Option<[String; 2]>, field: &str) {
        let Some([value, bfq]) = values else { return };
        self.add(files[0], Some(value), field);
        if let Some(write) = self.0.last_mut() {
            write.bfq = Some((files[1].to_owned(), bfq));
        }
    }
}

fn max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// pids.max is the same file in both.
fn pids(limit: i64) -> String {
    if limit < 1 { "max".to_owned() } else { limit.to_string() }
}

type Throttles<'a> = [(&'a str, &'a Option<Vec<LinuxThrottleDevice>>); 4];

fn throttles(wanted: &Wanted) -> Throttles<'_> {
    let io = &wanted.block_io;
    [
        ("throttleReadBpsDevice", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", io.throttle_write_iops_device()),
    ]
}

fn only(version: &str, fields: &[(&str, bool)]) -> Result<()> {
    match fields.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            let why =
                format!("is a limit of cgroup {version} alone, and this host has its controllers on the other one");
            Err(Error::invalid(format!("linux.resources.{field}"), why)
                .hint("remove it: a limit is never dropped in silence"))
        }
        None => Ok(()),
    }
}

impl Wanted {
    /// The writes for cgroup v2.
    ///
    /// # Errors
    /// What v2 does not have, by its field.
    pub fn v2_writes(&self) -> Result<Vec<Write>> {
        let leaf = self.block_io.leaf_weight().unwrap_or_default() != 0;
        only(
            "v1",
            &[
                ("memory.kernelTCP", self.kernel_tcp.is_some_and(|limit| limit > 0)),
                ("memory.swappiness", self.swappiness.is_some_and(|value| value != 60 && value != 0)),
                ("memory.disableOOMKiller", self.no_oom_killer),
                ("cpu.realtimeRuntime", self.realtime_runtime.is_some()),
                ("cpu.realtimePeriod", self.realtime_period.is_some()),
                ("blockIO.leafWeight", leaf),
                ("network.classID", self.class_id.is_some()),
                ("network.priorities", !self.priorities.is_empty()),
            ],
        )?;
        let mut list = List::default();
        self.v2_memory(&mut list);
        list.add("pids.max", self.pids.map(pids), "pids.limit");
        self.v2_cpu(&mut list);
        self.v2_io(&mut list);
        for (at, (size, limit)) in self.hugepages.iter().enumerate() {
            let field = format!("hugepageLimits[{at}].limit");
            // Reservations too: else a page too many is told at its first use, by SIGBUS.
            list.add(&format!("hugetlb.{size}.max"), Some(max(*limit)), &field);
            list.add(&format!("hugetlb.{size}.rsvd.max"), Some(max(*limit)), &field);
        }
        for (device, limit) in &self.rdma {
            list.add("rdma.max", Some(format!("{device} {limit}")), &format!("rdma[{device:?}]"));
        }
        for (file, value) in &self.unified {
            // Files of one line for each device take one of them at a time.
            for line in value.lines() {
                list.add(file, Some(line), &format!("unified[{file:?}]"));
            }
        }
        Ok(list.0)
    }

    fn v2_memory(&self, list: &mut List) {
        list.add("memory.max", self.memory.map(max), "memory.limit");
        // One process of a container is not to survive the others: the kernel ends all of it.
        list.add("memory.oom.group", self.memory.filter(|limit| *limit > 0).map(|_| 1), "memory.limit");
        // v2 counts swap alone, the config memory and swap together.
        let alone = |swap: i64| if swap < 0 { swap } else { swap - self.memory.unwrap_or_default() };
        list.add("memory.swap.max", self.swap.map(alone).map(max), "memory.swap");
        list.add("memory.low", self.reservation.map(max), "memory.reservation");
    }

    fn v2_cpu(&self, list: &mut List) {
        if self.quota.is_some() || self.period.is_some() {
            let value = format!("{} {}", self.quota.map_or("max".to_owned(), max), self.period.unwrap_or(100_000));
            list.add("cpu.max", Some(value), "cpu.quota");
        }
        list.add("cpu.max.burst", self.burst, "cpu.burst");
        list.add("cpu.weight", self.shares.map(weight), "cpu.shares");
        list.add("cpu.idle", self.idle, "cpu.idle");
        list.add("cpuset.cpus", self.cpus.as_ref(), "cpu.cpus");
        list.add("cpuset.mems", self.mems.as_ref(), "cpu.mems");
    }

    fn v2_io(&self, list: &mut List) {
        // BFQ has v1's scale.
        let of = |of: &str, weight: u16| [format!("{of} {}", io_weight(u64::from(weight))), format!("{of} {weight}")];
        let files = ["io.weight", "io.bfq.weight"];
        let general = self.block_io.weight().filter(|weight| *weight != 0);
        list.add_weight(files, general.map(|weight| of("default", weight)), "blockIO.weight");
        for device in self.block_io.weight_device().iter().flatten() {
            let own = device.weight().map(|own| of(&format!("{}:{}", device.major(), device.minor()), own));
            list.add_weight(files, own, "blockIO.weightDevice");
        }
        for ((field, devices), key) in throttles(self).into_iter().zip(["rbps", "wbps", "riops", "wiops"]) {
            for device in devices.iter().flatten() {
                let value = format!("{}:{} {key}={}", device.major(), device.minor(), unlimited(device.rate(), "max"));
                list.add("io.max", Some(value), &format!("blockIO.{field}"));
            }
        }
    }

    /// The writes for the v1 controllers.
    ///
    /// # Errors
    /// What v1 does not have, by its field.
    pub fn v1_writes(&self) -> Result<Vec<Write>> {
        only("v2", &[("unified", !self.unified.is_empty())])?;
        // The kernel clamps others without a word (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
        if let Some(shares) = self.shares.filter(|shares| !(2..=262_144).contains(shares)) {
            let why = format!("is {shares}, must be from 2 to 262144");
            return Err(Error::invalid("linux.resources.cpu.shares", why));
        }
        let mut list = List::default();
        list.add("memory.limit_in_bytes", self.memory, "memory.limit");
        list.add("memory.memsw.limit_in_bytes", self.swap, "memory.swap");
        list.add("memory.soft_limit_in_bytes", self.reservation, "memory.reservation");
        list.add("memory.kmem.tcp.limit_in_bytes", self.kernel_tcp, "memory.kernelTCP");
        list.add("memory.swappiness", self.swappiness, "memory.swappiness");
        list.add("memory.oom_control", self.no_oom_killer.then_some(1), "memory.disableOOMKiller");
        list.add("pids.max", self.pids.map(pids), "pids.limit");
        self.v1_cpu(&mut list);
        self.v1_io(&mut list);
        for (at, (size, limit)) in self.hugepages.iter().enumerate() {
            let field = format!("hugepageLimits[{at}].limit");
            list.add(&format!("hugetlb.{size}.limit_in_bytes"), Some(limit), &field);
            list.add(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), Some(limit), &field);
        }
        list.add("net_cls.classid", self.class_id, "network.classID");
        for priority in &self.priorities {
            let value = format!("{} {}", priority.name(), priority.priority());
            list.add("net_prio.ifpriomap", Some(value), "network.priorities");
        }
        for (device, limit) in &self.rdma {
            list.add("rdma.max", Some(format!("{device} {limit}")), &format!("rdma[{device:?}]"));
        }
        Ok(list.0)
    }

    fn v1_cpu(&self, list: &mut List) {
        list.add("cpu.cfs_period_us", self.period, "cpu.period");
        list.add("cpu.cfs_quota_us", self.quota, "cpu.quota");
        list.add("cpu.cfs_burst_us", self.burst, "cpu.burst");
        list.add("cpu.shares", self.shares, "cpu.shares");
        list.add("cpu.idle", self.idle, "cpu.idle");
        list.add("cpu.rt_period_us", self.realtime_period, "cpu.realtimePeriod");
        list.add("cpu.rt_runtime_us", self.realtime_runtime, "cpu.realtimeRuntime");
        list.add("cpuset.cpus", self.cpus.as_ref(), "cpu.cpus");
        list.add("cpuset.mems", self.mems.as_ref(), "cpu.mems");
    }

    fn v1_io(&self, list: &mut List) {
        let set = |weight: &u16| *weight != 0;
        let both = |value: String| [value.clone(), value];
        let general = self.block_io.weight().filter(set).map(|weight| both(weight.to_string()));
        list.add_weight(["blkio.weight", "blkio.bfq.weight"], general, "blockIO.weight");
        list.add("blkio.leaf_weight", self.block_io.leaf_weight().filter(set), "blockIO.leafWeight");
        for device in self.block_io.weight_device().iter().flatten() {
            let number = format!("{}:{}", device.major(), device.minor());
            let line = |weight: u16| format!("{number} {weight}");
            let files = ["blkio.weight_device", "blkio.bfq.weight_device"];
            list.add_weight(files, device.weight().map(line).map(both), "blockIO.weightDevice");
            list.add("blkio.leaf_weight_device", device.leaf_weight().map(line), "blockIO.weightDevice");
        }
        let files = ["read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device"];
        for ((field, devices), file) in throttles(self).into_iter().zip(files) {
            for device in devices.iter().flatten() {
                let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
                list.add(&format!("blkio.throttle.{file}"), Some(value), &format!("blockIO.{field}"));
            }
        }
    }
}

/// v1 knows no limit as 0.
fn unlimited(rate: u64, word: &str) -> String {
    if rate == 0 { word.to_owned() } else { rate.to_string() }
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, on the curve that takes the default 1024 to the default 100, as runc since 1.3.2 and
/// crun since 1.23 draw it; before, it was a straight line, on which 1024 came to 39. The spec leaves it open.
fn weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Rounded up, but for what is whole but for the last bits.
            (10f64.powf(exponent) - 1e-6).ceil() as u64
        }
    }
}

/// A weight of 10 to 1000 as one of 1 to 10000, as runc has it.
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
#[path = "writes_tests.rs"]
mod tests;
