// SPDX-License-Identifier: Apache-2.0
//! L5 and L6: a finite limit stands if it is stricter; an absent, unlimited or looser one gets the default.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::plan::harden::{CPU_PERIOD, CPU_QUOTA, MEMORY, PIDS};

pub(super) fn tighten(resources: &mut LinuxResources) {
    let pids = strict(resources.pids().map(|pids| pids.limit()), PIDS);
    let mut wanted = LinuxPids::default();
    wanted.set_limit(pids);
    resources.set_pids(Some(wanted));
    resources.set_memory(Some(memory(resources.memory().unwrap_or_default())));
    resources.set_cpu(Some(cpu(resources.cpu().clone().unwrap_or_default())));
}

fn strict(limit: Option<i64>, most: u64) -> i64 {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    limit.filter(|limit| (1..=most).contains(limit)).unwrap_or(most)
}

/// `swap` is memory and swap together: the same as the limit is no swap.
fn memory(mut memory: LinuxMemory) -> LinuxMemory {
    let limit = strict(memory.limit(), MEMORY);
    memory.set_limit(Some(limit)).set_swap(Some(limit));
    memory
}

/// Compared as parts of a CPU, whatever the periods.
fn cpu(mut cpu: LinuxCpu) -> LinuxCpu {
    let quota = cpu.quota().and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0);
    let period = cpu.period().filter(|period| *period > 0).unwrap_or(CPU_PERIOD);
    let stands = quota
        .is_some_and(|quota| u128::from(quota) * u128::from(CPU_PERIOD) <= u128::from(period) * u128::from(CPU_QUOTA));
    if !stands {
        cpu.set_quota(i64::try_from(CPU_QUOTA).ok()).set_period(Some(CPU_PERIOD)).set_burst(None);
    }
    cpu
}
