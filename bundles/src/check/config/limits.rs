// SPDX-License-Identifier: Apache-2.0
//! Limits that the config lacks.

use serde_json::Value;

use super::list;
use crate::check::finding::Findings;
use crate::check::rules;

/// L5 and L6, swap, and the limits that every process has.
pub fn check(config: &Value, found: &mut Findings) {
    let resources = &config["linux"]["resources"];
    let limit = |one: &Value| one.as_i64().filter(|number| *number > 0);
    if limit(&resources["pids"]["limit"]).is_none() {
        found.field(&rules::PIDS, "linux.resources.pids.limit", "no limit");
    }
    let memory = limit(&resources["memory"]["limit"]);
    if memory.is_none() {
        found.field(&rules::MEMORY_CPU, "linux.resources.memory.limit", "no limit");
    }
    if limit(&resources["cpu"]["quota"]).is_none() {
        found.field(&rules::MEMORY_CPU, "linux.resources.cpu.quota", "no limit");
    }
    // Memory and swap together.
    if let Some(memory) = memory {
        match limit(&resources["memory"]["swap"]) {
            None => found.field(&rules::SWAP, "linux.resources.memory.swap", "no limit"),
            Some(swap) if swap > memory => {
                let what = format!("{} bytes of swap", swap - memory);
                found.field(&rules::SWAP, "linux.resources.memory.swap", what);
            }
            Some(_) => {}
        }
    }
    for name in ["RLIMIT_CORE", "RLIMIT_NOFILE"] {
        if !list(config, "/process/rlimits").iter().any(|one| one["type"] == name) {
            found.field(&rules::RLIMITS, "process.rlimits", format!("no {name}"));
        }
    }
}
