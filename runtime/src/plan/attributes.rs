// SPDX-License-Identifier: Apache-2.0
//! Scheduling, I/O priority, execution domain and memory policy: the config's words as the kernel's numbers.

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use super::{Builder, Step};
use crate::error::{Error, Result};
use crate::sys::sched::SchedAttr;

/// linux/personality.h
const PER_LINUX32: u32 = 8;
/// include/linux/numa.h: no kernel has more nodes than 1 << 10.
const MOST_NODES: u32 = 1 << 10;

/// What the parent sets on the process: most of it takes rights on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// sched_setattr(2)
    pub scheduler: Option<SchedAttr>,
    /// ioprio_set(2): class and priority
    pub io_priority: Option<u32>,
    /// The CPUs to run on before and after it joins the cgroup; of `exec` only
    pub affinity: (Option<Vec<u32>>, Option<Vec<u32>>),
}

impl Attributes {
    /// Those of a process found at `path`.
    ///
    /// # Errors
    /// A value that the kernel does not have, by its field.
    pub fn new(process: &Process, path: &str) -> Result<Self> {
        let scheduler = process.scheduler().as_ref().map(|wanted| scheduler(wanted, &format!("{path}.scheduler")));
        let affinity = process.exec_cpu_affinity().as_ref();
        let cpus = |name: &str, list: Option<&String>| {
            let list = list.filter(|list| !list.is_empty());
            list.map(|list| numbers(list, 1 << 13, &format!("{path}.execCPUAffinity.{name}"))).transpose()
        };
        Ok(Self {
            scheduler: scheduler.transpose()?,
            io_priority: io_priority(process, path)?,
            affinity: (
                cpus("initial", affinity.and_then(|affinity| affinity.initial().as_ref()))?,
                cpus("final", affinity.and_then(|affinity| affinity.cpu_affinity_final().as_ref()))?,
            ),
        })
    }
}

/// linux/sched.h
fn scheduler(wanted: &Scheduler, field: &str) -> Result<SchedAttr> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::invalid(format!("{field}.policy"), "SCHED_ISO is in no kernel"));
        }
    };
    let nice = wanted.nice().unwrap_or_default();
    let priority = wanted.priority().unwrap_or_default();
    if !(-20..=19).contains(&nice) {
        return Err(Error::invalid(format!("{field}.nice"), format!("{nice} is not from -20 to 19")));
    }
    let realtime = matches!(policy, 1 | 2);
    if realtime != (1..=99).contains(&priority) {
        let why = format!("{priority}: must be from 1 to 99 with SCHED_FIFO and SCHED_RR, and 0 with all others");
        return Err(Error::invalid(format!("{field}.priority"), why));
    }
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(Error::invalid(format!("{field}.flags"), "a config has no values for utilization clamps"));
            }
        };
    }
    let [runtime, deadline, period] =
        [wanted.runtime(), wanted.deadline(), wanted.period()].map(|time| time.unwrap_or_default());
    Ok(SchedAttr { policy, flags, nice, priority: priority as u32, runtime, deadline, period, ..SchedAttr::default() })
}

/// linux/ioprio.h
fn io_priority(process: &Process, path: &str) -> Result<Option<u32>> {
    let Some(wanted) = process.io_priority() else { return Ok(None) };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(wanted.priority()) {
        Ok(priority @ 0..=7) => Ok(Some(class << 13 | priority)),
        _ => {
            let why = format!("{} is not from 0 to 7", wanted.priority());
            Err(Error::invalid(format!("{path}.ioPriority.priority"), why))
        }
    }
}

/// A list such as 0-3,7.
fn numbers(list: &str, most: u32, field: &str) -> Result<Vec<u32>> {
    let bad = || Error::invalid(field, format!("{list:?} is no list such as 0-3,7, of numbers below {most}"));
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < most).ok_or_else(bad);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        all.extend(first..=last);
    }
    Ok(all)
}

/// linux/mempolicy.h
fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<Step> {
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let list = wanted.nodes().as_deref().filter(|list| !list.is_empty());
    let nodes = list.map_or(Ok(Vec::new()), |list| numbers(list, MOST_NODES, "linux.memoryPolicy.nodes"))?;
    let mut mask = vec![0u64; nodes.iter().max().map_or(0, |most| *most as usize / 64 + 1)];
    nodes.iter().for_each(|node| mask[*node as usize / 64] |= 1 << (node % 64));
    Ok(Step::MemoryPolicy { mode: mode | flags, mask })
}

impl Builder<'_> {
    /// What only the process itself can set.
    pub(super) fn attributes(&mut self, linux: &Linux) -> Result<()> {
        if let Some(wanted) = linux.personality() {
            if wanted.flags().iter().flatten().next().is_some() {
                return Err(Error::invalid("linux.personality.flags", "the runtime-spec defines none"));
            }
            let domain = if wanted.domain() == LinuxPersonalityDomain::PerLinux32 { PER_LINUX32 } else { 0 };
            self.push("linux.personality", Step::Personality { domain });
        }
        if let Some(wanted) = linux.memory_policy() {
            self.push("linux.memoryPolicy", memory_policy(wanted)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn attributes(json: Value) -> Result<Attributes> {
        let mut process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["x"]});
        process.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        Attributes::new(&serde_json::from_value(process).unwrap(), "process")
    }

    #[test]
    fn numbers_of_the_kernel() {
        let wanted = attributes(json!({
            "scheduler": {"policy": "SCHED_RR", "priority": 7, "flags": ["SCHED_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 2},
            "execCPUAffinity": {"initial": "0-2,5", "final": "1"},
        }));
        let scheduler = SchedAttr { policy: 2, priority: 7, flags: 1, ..SchedAttr::default() };
        let affinity = (Some(vec![0, 1, 2, 5]), Some(vec![1]));
        assert_eq!(
            wanted.unwrap(),
            Attributes { scheduler: Some(scheduler), io_priority: Some(3 << 13 | 2), affinity }
        );
    }

    #[test]
    fn memory_policies() {
        let step = |json: Value| memory_policy(&serde_json::from_value(json).unwrap());
        let wanted = json!({"mode": "MPOL_BIND", "nodes": "0,65", "flags": ["MPOL_F_STATIC_NODES"]});
        assert_eq!(step(wanted).unwrap(), Step::MemoryPolicy { mode: 2 | 1 << 15, mask: vec![1, 2] });
        assert_eq!(step(json!({"mode": "MPOL_LOCAL"})).unwrap(), Step::MemoryPolicy { mode: 4, mask: vec![] });
        for nodes in ["x", "1-", "3-1", "1024", "-1"] {
            let error = step(json!({"mode": "MPOL_BIND", "nodes": nodes})).unwrap_err().to_string();
            assert!(error.starts_with("linux.memoryPolicy.nodes:"), "{nodes}: {error}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        for (json, field) in [
            (json!({"scheduler": {"policy": "SCHED_ISO"}}), "process.scheduler.policy:"),
            (json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}), "process.scheduler.nice:"),
            (json!({"scheduler": {"policy": "SCHED_FIFO"}}), "process.scheduler.priority:"),
            (json!({"scheduler": {"policy": "SCHED_OTHER", "priority": 1}}), "process.scheduler.priority:"),
            (json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}), "process.ioPriority.priority:"),
            (json!({"execCPUAffinity": {"final": "9999"}}), "process.execCPUAffinity.final:"),
        ] {
            assert!(attributes(json.clone()).unwrap_err().to_string().starts_with(field), "{json}");
        }
    }
}
