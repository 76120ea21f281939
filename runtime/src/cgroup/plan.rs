// SPDX-License-Identifier: Apache-2.0
//! What a config asks of its cgroup, and what that is in the files of cgroup v2. Pure.

use std::path::{Component, Path};

use oci_spec::runtime::LinuxResources;

use super::devices::{self, Rule};
use crate::error::{Error, Result};

/// Where the cgroup lies and what limits it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Below the root of a hierarchy, without a leading slash
    pub path: String,
    /// In every v1 hierarchy, not only where it has limits: who names a cgroup, or shows it inside, looks for it there
    pub everywhere: bool,
    /// The limits
    pub limits: Wanted,
    /// The device rules; none: no program
    pub devices: Vec<Rule>,
}

/// The limits of a config, each as the config has it; None where it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Bytes, or -1 for no limit
    pub memory: Option<i64>,
    /// Memory and swap together, in bytes, or -1
    pub swap: Option<i64>,
    /// Bytes that are best kept
    pub reservation: Option<i64>,
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
    pub rt_runtime: Option<i64>,
    /// Microseconds
    pub rt_period: Option<u64>,
    /// Relative weight of block I/O, 10 to 1000
    pub io_weight: Option<u16>,
    /// A list of CPUs
    pub cpus: Option<String>,
    /// A list of memory nodes
    pub mems: Option<String>,
    /// Files of v2 and what is written to them
    pub unified: Vec<(String, String)>,
}

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
}

fn write(file: &str, value: impl ToString, field: &str) -> Write {
    Write { file: file.into(), value: value.to_string(), field: format!("linux.resources.{field}") }
}

impl Plan {
    /// The plan for container `id`, whose cgroup is /wsbox/ID unless the config says otherwise.
    ///
    /// # Errors
    /// A path that leads out of the hierarchy, or a limit that is not enforced, by its field.
    pub fn new(cgroups_path: Option<&Path>, id: &str, resources: Option<&LinuxResources>) -> Result<Self> {
        let named = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let everywhere = named.is_some();
        let path = named.map_or_else(|| Ok(format!("wsbox/{id}")), relative)?;
        let Some(resources) = resources else {
            return Ok(Self { path, everywhere, limits: Wanted::default(), devices: Vec::new() });
        };
        refuse_unenforced(resources)?;
        let devices = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        let limits = Wanted::of(resources)?;
        check(&limits)?;
        Ok(Self { path, everywhere, limits, devices })
    }
}

/// Below the root of the hierarchy, whether it begins with a slash (Docker) or not; never the root itself.
fn relative(path: &Path) -> Result<String> {
    let bad = |why: &str| Error::invalid("linux.cgroupsPath", format!("{path:?} {why}"));
    let text = path.to_str().ok_or_else(|| bad("is no UTF-8"))?;
    if text.contains(['\0', '\n']) {
        return Err(bad("holds a NUL or a line break"));
    }
    if text.contains(':') && !text.contains('/') {
        return Err(
            bad("is the form of the systemd manager").hint("this version of wsbox makes cgroups by itself only")
        );
    }
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir | Component::Prefix(_) => return Err(bad("must not hold ..")),
        }
    }
    if parts.is_empty() { Err(bad("is the root of the hierarchy")) } else { Ok(parts.join("/")) }
}

/// Fields whose zero value means "unset" in Docker's configs are let pass.
fn refuse_unenforced(resources: &LinuxResources) -> Result<()> {
    let memory = resources.memory().unwrap_or_default();
    let block_io = resources.block_io().as_ref().is_some_and(|io| {
        let throttles = [
            io.throttle_read_bps_device(),
            io.throttle_write_bps_device(),
            io.throttle_read_iops_device(),
            io.throttle_write_iops_device(),
        ];
        io.leaf_weight().unwrap_or_default() != 0
            || io.weight_device().as_ref().is_some_and(|list| !list.is_empty())
            || throttles.into_iter().flatten().any(|list| !list.is_empty())
    });
    let network = resources.network().as_ref();
    let unenforced = [
        ("memory.kernel", memory.kernel().is_some_and(|limit| limit > 0)),
        ("memory.kernelTCP", memory.kernel_tcp().is_some_and(|limit| limit > 0)),
        ("memory.swappiness", memory.swappiness().is_some_and(|value| value != 60 && value != 0)),
        ("memory.disableOOMKiller", memory.disable_oom_killer().unwrap_or_default()),
        ("blockIO", block_io),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())),
        ("network.classID", network.is_some_and(|network| network.class_id().unwrap_or_default() != 0)),
        (
            "network.priorities",
            network.is_some_and(|network| network.priorities().as_ref().is_some_and(|list| !list.is_empty())),
        ),
        ("rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty())),
    ];
    match unenforced.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            let error = Error::invalid(format!("linux.resources.{field}"), "this version of wsbox does not enforce it");
            Err(error.hint("remove it: a limit is never dropped in silence"))
        }
        None => Ok(()),
    }
}

fn check(wanted: &Wanted) -> Result<()> {
    let bad = |field: &str, why: String| Err(Error::invalid(format!("linux.resources.{field}"), why));
    for (field, value) in [
        ("memory.limit", wanted.memory),
        ("memory.swap", wanted.swap),
        ("memory.reservation", wanted.reservation),
        ("cpu.quota", wanted.quota),
    ] {
        if value.is_some_and(|value| value < -1) {
            return bad(field, format!("{} is negative; -1 is no limit", value.unwrap_or_default()));
        }
    }
    match (wanted.memory, wanted.swap) {
        (Some(memory), Some(swap)) if swap > 0 && swap < memory => {
            bad("memory.swap", format!("{swap} is memory and swap together: it can not be below limit {memory}"))
        }
        (None | Some(-1), Some(swap)) if swap > 0 => bad("memory.swap", "needs memory.limit".into()),
        _ => check_cpu(wanted),
    }
}

/// The bounds of the kernel (sched-bwc.rst), so that an error comes before anything is made or changed.
fn check_cpu(wanted: &Wanted) -> Result<()> {
    let bad = |field: &str, why: String| Err(Error::invalid(format!("linux.resources.{field}"), why));
    match wanted {
        Wanted { quota: Some(quota @ 0..1000), .. } => {
            bad("cpu.quota", format!("{quota} is below 1000, the least that the kernel takes; -1 is no limit"))
        }
        Wanted { period: Some(period), .. } if !(1000..=1_000_000).contains(period) => {
            bad("cpu.period", format!("{period} is not from 1000 to 1000000 microseconds"))
        }
        Wanted { idle: Some(idle), .. } if !(0..=1).contains(idle) => bad("cpu.idle", format!("{idle} is not 0 or 1")),
        Wanted { io_weight: Some(weight), .. } if !(10..=1000).contains(weight) => {
            bad("blockIO.weight", format!("{weight} is not from 10 to 1000"))
        }
        _ => Ok(()),
    }
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

impl Wanted {
    /// The limits of a config, not checked against one another. Zero is unset, as in Docker's configs.
    ///
    /// # Errors
    /// A file of `unified` that is no limit.
    pub fn of(resources: &LinuxResources) -> Result<Self> {
        let memory = resources.memory().unwrap_or_default();
        let cpu = resources.cpu().clone().unwrap_or_default();
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        let positive = |value: Option<u64>| value.filter(|value| *value != 0);
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Ok(Self {
            memory: set(memory.limit()),
            swap: set(memory.swap()),
            reservation: set(memory.reservation()),
            pids: resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0),
            quota: set(cpu.quota()),
            period: positive(cpu.period()),
            // Zero takes these back.
            burst: cpu.burst(),
            idle: cpu.idle(),
            shares: positive(cpu.shares()),
            rt_runtime: set(cpu.realtime_runtime()),
            rt_period: positive(cpu.realtime_period()),
            io_weight: resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight != 0),
            cpus: text(cpu.cpus()),
            mems: text(cpu.mems()),
            unified: unified(resources)?,
        })
    }

    /// Of these limits those that `change` names, and those that are written together with them.
    pub fn touched_by(&self, change: &Self) -> Self {
        let memory = change.memory.is_some() || change.swap.is_some();
        let cpu = change.quota.is_some() || change.period.is_some();
        let named = |file: &String| change.unified.iter().any(|(changed, _)| changed == file);
        Self {
            memory: self.memory.filter(|_| memory),
            swap: self.swap.filter(|_| memory),
            reservation: change.reservation.and(self.reservation),
            pids: change.pids.and(self.pids),
            quota: self.quota.filter(|_| cpu),
            period: self.period.filter(|_| cpu),
            burst: change.burst.and(self.burst),
            idle: change.idle.and(self.idle),
            shares: change.shares.and(self.shares),
            rt_runtime: change.rt_runtime.and(self.rt_runtime),
            rt_period: change.rt_period.and(self.rt_period),
            io_weight: change.io_weight.and(self.io_weight),
            cpus: change.cpus.as_ref().and(self.cpus.clone()),
            mems: change.mems.as_ref().and(self.mems.clone()),
            unified: self.unified.iter().filter(|(file, _)| named(file)).cloned().collect(),
        }
    }

    /// The writes that make the limits on v1 (cgroup-v1/*.rst), in no order.
    pub fn v1_writes(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        writes.extend(self.memory.map(|limit| write("memory.limit_in_bytes", limit, "memory.limit")));
        writes.extend(self.swap.map(|swap| write("memory.memsw.limit_in_bytes", swap, "memory.swap")));
        writes.extend(self.reservation.map(|low| write("memory.soft_limit_in_bytes", low, "memory.reservation")));
        writes.extend(self.pids.map(|limit| {
            write("pids.max", if limit < 1 { "max".to_owned() } else { limit.to_string() }, "pids.limit")
        }));
        writes.extend(self.period.map(|period| write("cpu.cfs_period_us", period, "cpu.period")));
        writes.extend(self.quota.map(|quota| write("cpu.cfs_quota_us", quota, "cpu.quota")));
        writes.extend(self.shares.map(|shares| write("cpu.shares", shares, "cpu.shares")));
        writes.extend(self.cpus.as_ref().map(|cpus| write("cpuset.cpus", cpus, "cpu.cpus")));
        writes.extend(self.mems.as_ref().map(|mems| write("cpuset.mems", mems, "cpu.mems")));
        writes.extend(self.v1_extra_writes());
        writes
    }

    /// Those of them that cgroups-rs does not know.
    pub fn v1_extra_writes(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        writes.extend(self.burst.map(|burst| write("cpu.cfs_burst_us", burst, "cpu.burst")));
        writes.extend(self.idle.map(|idle| write("cpu.idle", idle, "cpu.idle")));
        writes.extend(self.rt_period.map(|period| write("cpu.rt_period_us", period, "cpu.realtimePeriod")));
        writes.extend(self.rt_runtime.map(|runtime| write("cpu.rt_runtime_us", runtime, "cpu.realtimeRuntime")));
        writes.extend(self.io_weight.map(|weight| write("blkio.bfq.weight", weight, "blockIO.weight")));
        writes
    }

    /// The writes that make the limits in cgroup v2 (cgroup-v2.rst), in an order that the kernel takes.
    pub fn v2_writes(&self) -> Vec<Write> {
        let max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        let mut writes = Vec::new();
        if let Some(limit) = self.memory {
            writes.push(write("memory.max", max(limit), "memory.limit"));
            // One process of a container is not to survive the others: the kernel ends all of it.
            writes.extend((limit > 0).then(|| write("memory.oom.group", 1, "memory.limit")));
        }
        if let Some(swap) = self.swap {
            // v2 counts swap alone, the config memory and swap together.
            let alone = if swap < 0 { swap } else { swap - self.memory.unwrap_or_default() };
            writes.push(write("memory.swap.max", max(alone), "memory.swap"));
        }
        writes.extend(self.reservation.map(|low| write("memory.low", max(low), "memory.reservation")));
        writes.extend(self.pids.map(|limit| {
            write("pids.max", if limit < 1 { "max".to_owned() } else { limit.to_string() }, "pids.limit")
        }));
        if self.quota.is_some() || self.period.is_some() {
            let value = format!("{} {}", self.quota.map_or("max".to_owned(), max), self.period.unwrap_or(100_000));
            writes.push(write("cpu.max", value, "cpu.quota"));
        }
        writes.extend(self.burst.map(|burst| write("cpu.max.burst", burst, "cpu.burst")));
        writes.extend(self.shares.map(|shares| write("cpu.weight", weight(shares), "cpu.shares")));
        writes.extend(self.idle.map(|idle| write("cpu.idle", idle, "cpu.idle")));
        // The kernel has no realtime limits there (cgroup-v2.rst): the file is missing, which names the field.
        writes.extend(self.rt_period.map(|period| write("cpu.rt_period_us", period, "cpu.realtimePeriod")));
        writes.extend(self.rt_runtime.map(|runtime| write("cpu.rt_runtime_us", runtime, "cpu.realtimeRuntime")));
        writes.extend(self.io_weight.map(|weight| write("io.weight", io_weight(weight), "blockIO.weight")));
        writes.extend(self.cpus.as_ref().map(|cpus| write("cpuset.cpus", cpus, "cpu.cpus")));
        writes.extend(self.mems.as_ref().map(|mems| write("cpuset.mems", mems, "cpu.mems")));
        writes.extend(self.unified.iter().map(|(file, value)| write(file, value, &format!("unified[{file:?}]"))));
        writes
    }

    /// The controllers that these files belong to.
    pub fn controllers(writes: &[Write]) -> Vec<&str> {
        let mut controllers: Vec<&str> = writes.iter().filter_map(|write| write.file.split('.').next()).collect();
        controllers.sort_unstable();
        controllers.dedup();
        controllers
    }
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, on a straight line as runc draws it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// v1's 10 to 1000 as v2's 1 to 10000, on a straight line as runc draws it.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: serde_json::Value) -> Result<Plan> {
        Plan::new(None, "x", Some(&serde_json::from_value(json).unwrap()))
    }

    fn writes(json: serde_json::Value) -> Vec<(String, String)> {
        plan(json).unwrap().limits.v2_writes().into_iter().map(|write| (write.file, write.value)).collect()
    }

    #[test]
    fn paths_stay_in_the_hierarchy() {
        let path = |path: &str| Plan::new(Some(Path::new(path)), "x", None).map(|plan| plan.path);
        assert_eq!(path("/docker/abc").unwrap(), "docker/abc");
        assert_eq!(path("a/./b").unwrap(), "a/b");
        assert_eq!(path("").unwrap(), "wsbox/x");
        for bad in ["/", "..", "a/../../b", "a\nb", "system.slice:wsbox:x"] {
            assert!(path(bad).unwrap_err().to_string().starts_with("linux.cgroupsPath:"), "{bad}");
        }
    }

    #[test]
    fn limits_become_writes() {
        let json = serde_json::json!({"memory": {"limit": 1000, "swap": 1500}, "pids": {"limit": 7}, "cpu": {"quota": 5000, "period": 10000, "shares": 1024}});
        let want = [
            ("memory.max", "1000"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "500"),
            ("pids.max", "7"),
            ("cpu.max", "5000 10000"),
            ("cpu.weight", "39"),
        ];
        assert_eq!(writes(json), want.map(|(file, value)| (file.to_owned(), value.to_owned())));
        assert_eq!(writes(serde_json::json!({"memory": {"limit": -1}})), [("memory.max".to_owned(), "max".to_owned())]);
        assert_eq!(writes(serde_json::json!({"pids": {"limit": -1}})), [("pids.max".to_owned(), "max".to_owned())]);
        assert_eq!(writes(serde_json::json!({"memory": {"limit": 0}, "pids": {"limit": 0}, "cpu": {"shares": 0}})), []);
        assert_eq!((weight(2), weight(1), weight(262_144), weight(999_999_999)), (1, 1, 10_000, 10_000));
    }

    #[test]
    fn what_is_not_enforced_is_refused_by_field() {
        for (json, field) in [
            (serde_json::json!({"blockIO": {"leafWeight": 10}}), "linux.resources.blockIO:"),
            (serde_json::json!({"blockIO": {"weight": 1001}}), "linux.resources.blockIO.weight:"),
            (serde_json::json!({"cpu": {"quota": 999}}), "linux.resources.cpu.quota:"),
            (serde_json::json!({"cpu": {"period": 1_000_001}}), "linux.resources.cpu.period:"),
            (serde_json::json!({"cpu": {"idle": 2}}), "linux.resources.cpu.idle:"),
            (
                serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
                "linux.resources.hugepageLimits:",
            ),
            (serde_json::json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller:"),
            (serde_json::json!({"unified": {"../x": "1"}}), "linux.resources.unified"),
            (serde_json::json!({"unified": {"cgroup.procs": "1"}}), "linux.resources.unified"),
            (serde_json::json!({"memory": {"limit": 10, "swap": 5}}), "linux.resources.memory.swap:"),
            (serde_json::json!({"memory": {"limit": -5}}), "linux.resources.memory.limit:"),
        ] {
            assert!(plan(json.clone()).unwrap_err().to_string().starts_with(field), "{json}");
        }
        assert!(plan(serde_json::json!({"blockIO": {"weight": 0}, "memory": {"disableOOMKiller": false}})).is_ok());
    }
}
