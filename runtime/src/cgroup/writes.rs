// SPDX-License-Identifier: Apache-2.0
//! Limits as writes to the files of cgroup v2 (cgroup-v2.rst) and of the v1 controllers (Documentation/admin-guide/cgroup-v1).
//! Pure; in an order that the kernel takes for a new cgroup.

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
}

impl Write {
    /// A limit of memory must not meet the init while it shares the memory of the program that starts it: the kernel's OOM
    /// killer ends every process that shares its victim's (mm/oom_kill.c, __oom_kill_process).
    pub fn waits(&self) -> bool {
        self.file.starts_with("memory.")
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
        };
        self.0.extend(value.map(|value| write(&value)));
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
        for (size, limit) in &self.hugepages {
            list.add(&format!("hugetlb.{size}.max"), Some(max(*limit)), "hugepageLimits");
        }
        for (device, limit) in &self.rdma {
            list.add("rdma.max", Some(format!("{device} {limit}")), &format!("rdma[{device:?}]"));
        }
        for (file, value) in &self.unified {
            list.add(file, Some(value), &format!("unified[{file:?}]"));
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
        let weight = |weight: u16| io_weight(u64::from(weight));
        let general = self.block_io.weight().filter(|weight| *weight != 0).map(weight);
        list.add("io.weight", general.map(|weight| format!("default {weight}")), "blockIO.weight");
        for device in self.block_io.weight_device().iter().flatten() {
            let value = device.weight().map(|own| format!("{}:{} {}", device.major(), device.minor(), weight(own)));
            list.add("io.weight", value, "blockIO.weightDevice");
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
        for (size, limit) in &self.hugepages {
            list.add(&format!("hugetlb.{size}.limit_in_bytes"), Some(limit), "hugepageLimits");
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
        list.add("blkio.weight", self.block_io.weight().filter(set), "blockIO.weight");
        list.add("blkio.leaf_weight", self.block_io.leaf_weight().filter(set), "blockIO.leafWeight");
        for device in self.block_io.weight_device().iter().flatten() {
            let number = format!("{}:{}", device.major(), device.minor());
            let line = |weight: u16| format!("{number} {weight}");
            list.add("blkio.weight_device", device.weight().map(line), "blockIO.weightDevice");
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

/// Shares of 2 to 262144 as a weight of 1 to 10000, on a straight line as runc draws it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// A weight of 10 to 1000 as one of 1 to 10000, as runc has it.
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(json: Value) -> Result<Wanted> {
        Wanted::new(&serde_json::from_value(json).unwrap())
    }

    fn pairs(writes: Vec<Write>) -> Vec<(String, String)> {
        writes.into_iter().map(|write| (write.file, write.value)).collect()
    }

    fn v1(json: Value) -> Vec<(String, String)> {
        pairs(wanted(json).unwrap().v1_writes().unwrap())
    }

    fn v2(json: Value) -> Vec<(String, String)> {
        pairs(wanted(json).unwrap().v2_writes().unwrap())
    }

    fn owned<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(file, value)| (file.to_owned(), value.to_owned())).to_vec()
    }

    #[test]
    fn limits_become_writes() {
        let json = json!({"memory": {"limit": 1000, "swap": 1500}, "pids": {"limit": 7}, "cpu": {"quota": 5000, "period": 10000, "shares": 1024}});
        let want = [
            ("memory.max", "1000"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "500"),
            ("pids.max", "7"),
            ("cpu.max", "5000 10000"),
            ("cpu.weight", "39"),
        ];
        assert_eq!(v2(json.clone()), owned(want));
        let want = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.memsw.limit_in_bytes", "1500"),
            ("pids.max", "7"),
            ("cpu.cfs_period_us", "10000"),
            ("cpu.cfs_quota_us", "5000"),
            ("cpu.shares", "1024"),
        ];
        assert_eq!(v1(json), owned(want));
        assert_eq!(v2(json!({"memory": {"limit": -1}})), owned([("memory.max", "max")]));
        assert_eq!(v1(json!({"memory": {"limit": -1}})), owned([("memory.limit_in_bytes", "-1")]));
        assert_eq!(v2(json!({"pids": {"limit": -1}})), owned([("pids.max", "max")]));
        assert_eq!((weight(2), weight(1), weight(262_144), weight(999_999_999)), (1, 1, 10_000, 10_000));
        assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
    }

    #[test]
    fn zeros_of_engines_ask_nothing() {
        let zeros = json!({"memory": {"limit": 0, "disableOOMKiller": false}, "pids": {"limit": 0}, "cpu": {"shares": 0, "quota": 0},
            "blockIO": {"weight": 0, "leafWeight": 0}, "network": {"classID": 0, "priorities": []}, "hugepageLimits": []});
        assert_eq!((v1(zeros.clone()), v2(zeros)), (vec![], vec![]));
    }

    #[test]
    fn block_devices() {
        let json = json!({"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]}});
        let want = [
            ("io.weight", "default 4950"),
            ("io.weight", "8:0 1"),
            ("io.max", "8:0 rbps=1048576"),
            ("io.max", "8:16 wiops=max"),
        ];
        assert_eq!(v2(json.clone()), owned(want));
        let want = [
            ("blkio.weight", "500"),
            ("blkio.weight_device", "8:0 10"),
            ("blkio.throttle.read_bps_device", "8:0 1048576"),
            ("blkio.throttle.write_iops_device", "8:16 0"),
        ];
        assert_eq!(v1(json), owned(want));
    }

    #[test]
    fn the_rest() {
        let json =
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}], "rdma": {"mlx5_1": {"hcaHandles": 3}}});
        let rdma = ("rdma.max", "mlx5_1 hca_handle=3 hca_object=max");
        assert_eq!(v2(json.clone()), owned([("hugetlb.2MB.max", "4194304"), rdma]));
        assert_eq!(v1(json), owned([("hugetlb.2MB.limit_in_bytes", "4194304"), rdma]));
        let json = json!({"memory": {"swappiness": 10, "disableOOMKiller": true, "kernelTCP": 4096}, "cpu": {"realtimeRuntime": 5, "idle": 1},
            "network": {"classID": 3, "priorities": [{"name": "eth0", "priority": 5}]}});
        let want = [
            ("memory.kmem.tcp.limit_in_bytes", "4096"),
            ("memory.swappiness", "10"),
            ("memory.oom_control", "1"),
            ("cpu.idle", "1"),
            ("cpu.rt_runtime_us", "5"),
            ("net_cls.classid", "3"),
            ("net_prio.ifpriomap", "eth0 5"),
        ];
        assert_eq!(v1(json), owned(want));
    }

    #[test]
    fn what_the_other_version_has_is_refused_by_field() {
        for (json, field) in [
            (json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller:"),
            (json!({"memory": {"swappiness": 10}}), "linux.resources.memory.swappiness:"),
            (json!({"network": {"classID": 1}}), "linux.resources.network.classID:"),
        ] {
            assert!(wanted(json.clone()).unwrap().v2_writes().unwrap_err().to_string().starts_with(field), "{json}");
        }
        let unified = wanted(json!({"unified": {"memory.high": "1"}})).unwrap();
        assert!(unified.v1_writes().unwrap_err().to_string().starts_with("linux.resources.unified:"));
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        for (json, field) in [
            (json!({"unified": {"../x": "1"}}), "linux.resources.unified"),
            (json!({"unified": {"cgroup.procs": "1"}}), "linux.resources.unified"),
            (json!({"memory": {"limit": 10, "swap": 5}}), "linux.resources.memory.swap:"),
            (json!({"memory": {"swap": 5}}), "linux.resources.memory.swap:"),
            (json!({"memory": {"limit": -5}}), "linux.resources.memory.limit:"),
            (json!({"memory": {"swappiness": 101}}), "linux.resources.memory.swappiness:"),
            (json!({"memory": {"kernel": 4096}}), "linux.resources.memory.kernel:"),
            (json!({"blockIO": {"weight": 5}}), "linux.resources.blockIO.weight:"),
            (json!({"cpu": {"cpus": "0;1"}}), "linux.resources.cpu.cpus:"),
            (
                json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}),
                "linux.resources.hugepageLimits[0].pageSize:",
            ),
            (json!({"rdma": {"a b": {}}}), "linux.resources.rdma"),
        ] {
            assert!(wanted(json.clone()).unwrap_err().to_string().starts_with(field), "{json}");
        }
    }
}
