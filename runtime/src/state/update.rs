// SPDX-License-Identifier: Apache-2.0
//! `update`: other limits for a container that is there. They are checked with those that it has, put in force, and kept in the
//! config of its state folder, where later commands find them.

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::{Folder, Record, Root, Status, lifecycle};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup, Plan, Rule, Wanted};
use crate::error::{Error, Kind, Result};
use crate::profile::{self, Profile};

/// Changes the limits of container `id` to what `change` (linux.resources, where zero is unset) names. What the user should know is
/// returned, one sentence each.
///
/// # Errors
/// `container not running`, in runc's words; or the limit that is not taken, by its field: then nothing is changed.
pub fn update(root: &Root, id: &str, change: &LinuxResources, asked: Option<Profile>) -> Result<Vec<String>> {
    let folder = root.open(id)?;
    let not_running = || Error::new(Kind::State, "", format!("container not running: {id}"));
    let mut record = folder.record()?.ok_or_else(not_running)?;
    if !matches!(lifecycle::status(&record)?, Status::Created | Status::Running | Status::Paused) {
        return Err(not_running());
    }
    let bundle = Bundle::from_config(record.bundle.clone(), root.config(id)?.0)?;
    let devices = other_devices(&bundle, change, asked)?;
    let (change, config) = merged(&bundle, change)?;
    let merged = Bundle::from_config(record.bundle.clone(), config)?;
    let (change, mut resources) = (change, resources(&merged));
    let warnings = profile::keep_limits(&bundle.spec, &mut resources, asked)?;
    let all = Plan::new(None, id, Some(&resources), None)?.limits;
    let config = with_resources(&merged.config, &to_json(&resources)?)?;
    let mut cgroup = Cgroup::open(&record.cgroup)?;
    if change.memory().is_some_and(|memory| memory.check_before_update().unwrap_or_default()) {
        fits(&cgroup, all.memory)?;
    }
    let updated = cgroup.update(&Wanted::of(&change)?, &all, &devices)?;
    keep(&folder, &mut record, &cgroup, &config).inspect_err(|_| cgroup.undo(&updated))?;
    cgroup.settle(&updated).map(|()| warnings)
}

fn resources(bundle: &Bundle) -> LinuxResources {
    bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default()
}

/// What may be opened from now on. Nodes of a container are made at its start: rules for others let a payload open what it can make
/// itself, so under a profile they stay as they are. An engine sends those that it sent before.
fn other_devices(bundle: &Bundle, change: &LinuxResources, asked: Option<Profile>) -> Result<Vec<Rule>> {
    let given = change.devices().as_deref().unwrap_or_default();
    if given.is_empty() || Some(given) == resources(bundle).devices().as_deref() {
        return Ok(Vec::new());
    }
    if profile::binds(&bundle.spec, asked)? {
        let error = Error::invalid("linux.resources.devices", "a profile settles them when the container is created");
        return Err(error.hint("leave them out, or give those of its config.json"));
    }
    cgroup::device_rules(given)
}

/// The change without what is unset, and the config with it.
fn merged(bundle: &Bundle, change: &LinuxResources) -> Result<(LinuxResources, Vec<u8>)> {
    let mut change = set_only(to_json(change)?);
    // runc: whoever takes the limit of memory away does not mean to keep that of memory and swap.
    if change["memory"]["limit"] == -1 && change["memory"]["swap"].is_null() {
        change["memory"]["swap"] = (-1).into();
    }
    let mut all = set_only(to_json(&resources(bundle))?);
    overlay(&mut all, &change);
    if let Some(memory) = all["memory"].as_object_mut() {
        memory.remove("checkBeforeUpdate");
    }
    let typed = serde_json::from_value(change).map_err(bad)?;
    Ok((typed, with_resources(&bundle.config, &all)?))
}

fn bad(error: serde_json::Error) -> Error {
    Error::invalid("linux.resources", error.to_string())
}

fn to_json(resources: &LinuxResources) -> Result<Value> {
    serde_json::to_value(resources).map_err(bad)
}

/// Without what engines write for "unset"; zero takes back a burst, and SCHED_IDLE.
fn set_only(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let unset = |key: &str, value: &Value| {
                matches!(value, Value::Null | Value::Bool(false))
                    || value.as_str() == Some("")
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(Map::is_empty)
                    || (value.as_f64() == Some(0.0) && !matches!(key, "idle" | "burst"))
            };
            let kept = map.into_iter().map(|(key, value)| (key, set_only(value)));
            Value::Object(kept.filter(|(key, value)| !unset(key, value)).collect())
        }
        other => other,
    }
}

/// Objects are merged, all else is replaced.
fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The config with other resources, and all else as it is.
fn with_resources(config: &[u8], resources: &Value) -> Result<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).map_err(bad)?;
    config["linux"]["resources"] = resources.clone();
    serde_json::to_vec(&config).map_err(bad)
}

/// config-linux.md, checkBeforeUpdate.
fn fits(cgroup: &Cgroup, limit: Option<i64>) -> Result<()> {
    match (limit.and_then(|limit| u64::try_from(limit).ok()), cgroup.memory_in_use()) {
        (Some(limit), Some(used)) if used > limit => {
            Err(Error::invalid("linux.resources.memory.limit", format!("{limit} is below the {used} bytes in use")))
        }
        _ => Ok(()),
    }
}

fn keep(folder: &Folder, record: &mut Record, cgroup: &Cgroup, config: &[u8]) -> Result<()> {
    if record.cgroup != *cgroup.saved() {
        record.cgroup = cgroup.saved().clone();
        folder.write(record)?;
    }
    folder.replace_config(config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unset_changes_nothing() {
        let docker = json!({"memory": {"limit": 7, "swap": 0}, "cpu": {"cpus": "", "burst": 0}, "pids": {"limit": 0}, "blockIO": {"weight": 0}, "devices": [], "unified": {"a.b": "0"}});
        assert_eq!(set_only(docker), json!({"memory": {"limit": 7}, "cpu": {"burst": 0}, "unified": {"a.b": "0"}}));
    }

    #[test]
    fn a_change_is_laid_over_what_there_is() {
        let mut base = json!({"memory": {"limit": 1, "swap": 2}, "pids": {"limit": 3}});
        overlay(&mut base, &json!({"memory": {"limit": 9}, "cpu": {"shares": 4}}));
        assert_eq!(base, json!({"memory": {"limit": 9, "swap": 2}, "pids": {"limit": 3}, "cpu": {"shares": 4}}));
    }
}
