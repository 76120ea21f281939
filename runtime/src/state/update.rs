// SPDX-License-Identifier: Apache-2.0
//! Other limits for a container that exists: what is given takes the place of what it had, all else stays.

use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Value, json};

use super::{Root, Status, lifecycle};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup, Host};
use crate::error::{Error, Kind, Result};
use crate::profile::{self, Profile};

/// Changes the limits of container `id`; a profile that it is under stays the floor.
///
/// # Errors
/// If it is stopped; a limit that can not be enforced, by its field, before any is changed; or what the kernel refuses.
pub fn update(root: &Root, id: &str, changes: &LinuxResources, asked: Option<Profile>) -> Result<()> {
    let folder = root.open(id)?;
    let record = folder.record()?.ok_or_else(|| Error::new(Kind::State, "", "container not running"))?;
    if matches!(lifecycle::status(&record)?, Status::Creating | Status::Stopped) {
        return Err(Error::new(
            Kind::State,
            "",
            format!("cannot update a stopped container: container not running: {id}"),
        ));
    }
    let (config, _) = root.config(id)?;
    let old = Bundle::from_config(record.bundle.clone(), config)?;
    let config = changed(&old, changes, asked)?;
    let new = Bundle::from_config(record.bundle.clone(), config)?;
    let host = Host::detect()?;
    Cgroup::open(&record.cgroup)?.update(host, &plan(&old.spec, id)?, &plan(&new.spec, id)?)?;
    folder.replace_config(&new.config)
}

fn plan(spec: &Spec, id: &str) -> Result<cgroup::Plan> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    cgroup::Plan::new(linux.cgroups_path().as_deref(), id, linux.resources().as_ref())
}

/// The config with the changes in it, as bytes.
fn changed(bundle: &Bundle, changes: &LinuxResources, asked: Option<Profile>) -> Result<Vec<u8>> {
    let json = |error: serde_json::Error| Error::invalid("resources", error.to_string());
    let linux = bundle.spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    let own = linux.resources().clone().unwrap_or_default();
    if changes.devices().as_ref().is_some_and(|rules| !rules.is_empty() && Some(rules) != own.devices().as_ref()) {
        let error = Error::invalid("linux.resources.devices", "can not be changed while the container exists");
        return Err(error.hint("leave it out, or delete the container and create it with other rules"));
    }
    let mut resources = serde_json::to_value(&own).map_err(json)?;
    merge(&mut resources, &serde_json::to_value(changes).map_err(json)?);
    let mut resources: LinuxResources = serde_json::from_value(resources).map_err(json)?;
    profile::raise_resources(&mut resources, &bundle.spec, asked)?;
    let mut config: Value = serde_json::from_slice(&bundle.config).map_err(json)?;
    config["linux"]["resources"] = serde_json::to_value(&resources).map_err(json)?;
    serde_json::to_vec(&config).map_err(json)
}

/// Zeros and empty texts and lists mean "unset" in what engines send.
fn merge(into: &mut Value, from: &Value) {
    let unset = |value: &Value| match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) => false,
    };
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from.iter().filter(|(_, value)| !unset(value)) {
                let empty = if value.is_object() { json!({}) } else { Value::Null };
                merge(into.entry(key).or_insert(empty), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_takes_the_place_of_what_was() {
        let mut own =
            json!({"memory": {"limit": 5, "swap": 7}, "cpu": {"quota": 1, "cpus": "0"}, "unified": {"a.b": "1"}});
        let changes = json!({"memory": {"limit": 6, "swap": 0}, "cpu": {"cpus": "", "shares": 9}, "pids": {"limit": -1},
            "blockIO": {"weight": 0, "throttleReadBpsDevice": []}, "network": null, "unified": {"c.d": "2"}});
        merge(&mut own, &changes);
        let wanted = json!({"memory": {"limit": 6, "swap": 7}, "cpu": {"quota": 1, "cpus": "0", "shares": 9}, "pids": {"limit": -1},
            "blockIO": {}, "unified": {"a.b": "1", "c.d": "2"}});
        assert_eq!(own, wanted);
    }
}
