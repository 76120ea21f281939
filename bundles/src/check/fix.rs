// SPDX-License-Identifier: Apache-2.0
//! What can be mended in a config without a question: what is missing is taken from the hardened config. What somebody put there on
//! purpose, such as a mount or a namespace that is joined, stays.

use serde_json::Value;

use super::config::{lacking, unbounded};

/// Mends `config` after `base`, the hardened config; a line for each change.
pub fn fix(config: &mut Value, base: &Value) -> Vec<String> {
    let mut mend = Mend { config, base, changes: Vec::new() };
    mend.namespaces();
    mend.missing("/linux/seccomp");
    mend.set("/root/readonly");
    if mend.config["process"].is_object() {
        mend.set("/process/noNewPrivileges");
        mend.set_unless("/process/capabilities", no_capabilities);
        mend.append_all("/process/rlimits", "type");
    }
    mend.limits();
    mend.append_all("/linux/maskedPaths", "");
    mend.append_all("/linux/readonlyPaths", "");
    mend.tmpfs();
    mend.mount_options();
    mend.changes
}

struct Mend<'a> {
    config: &'a mut Value,
    base: &'a Value,
    changes: Vec<String>,
}

fn no_capabilities(sets: &Value) -> bool {
    sets.as_object().into_iter().flatten().all(|(_, set)| set.as_array().is_none_or(Vec::is_empty))
}

fn is_limit(number: &Value) -> bool {
    number.as_i64().is_some_and(|number| number > 0)
}

impl Mend<'_> {
    fn set(&mut self, pointer: &str) {
        let wanted = self.base.pointer(pointer).cloned();
        self.set_unless(pointer, |old| Some(old) == wanted.as_ref());
    }

    fn missing(&mut self, pointer: &str) {
        self.set_unless(pointer, |old| !old.is_null());
    }

    /// Puts what the base has there, unless what is there is right.
    fn set_unless(&mut self, pointer: &str, right: impl Fn(&Value) -> bool) {
        let Some(wanted) = self.base.pointer(pointer) else { return };
        let place = place(self.config, pointer);
        if right(place) {
            return;
        }
        let what = if wanted.is_object() || wanted.is_array() { "as hardened".into() } else { wanted.to_string() };
        *place = wanted.clone();
        self.changes.push(format!("{}: {what}", name(pointer)));
    }

    /// Adds what a list of the base has and this one lacks.
    fn append_all(&mut self, pointer: &str, key: &str) {
        let wanted = self.base.pointer(pointer).and_then(Value::as_array).cloned();
        self.append(pointer, wanted.unwrap_or_default(), key);
    }

    /// What is the same has the same field, or is the same as a whole.
    fn append(&mut self, pointer: &str, wanted: Vec<Value>, key: &str) {
        let has = list(self.config, pointer);
        let same = |one: &Value, other: &Value| if key.is_empty() { one == other } else { one[key] == other[key] };
        let more: Vec<_> = wanted.into_iter().filter(|one| !has.iter().any(|other| same(one, other))).collect();
        let said = |one: &Value| one[key].as_str().or(one.as_str()).unwrap_or_default().to_owned();
        if !more.is_empty() {
            let names: Vec<_> = more.iter().map(said).collect();
            self.changes.push(format!("{}: adds {}", name(pointer), names.join(", ")));
            has.extend(more);
        }
    }

    /// A namespace that is joined belongs to a user namespace of its own, in which a new one has no rights.
    fn namespaces(&mut self) {
        let joins = list(self.config, "/linux/namespaces").iter().any(|one| !one["path"].is_null());
        let wanted = self.base["linux"]["namespaces"].as_array().into_iter().flatten();
        let wanted = wanted.filter(|one| !joins || one["type"] != "user").cloned().collect();
        self.append("/linux/namespaces", wanted, "type");
    }

    fn limits(&mut self) {
        for pointer in ["/linux/resources/pids/limit", "/linux/resources/memory/limit"] {
            self.set_unless(pointer, is_limit);
        }
        let mut cpu = |pointer| self.set_unless(pointer, is_limit);
        cpu("/linux/resources/cpu/quota");
        cpu("/linux/resources/cpu/period");
        let memory = &mut self.config["linux"]["resources"]["memory"];
        let limit = memory["limit"].clone();
        if !is_limit(&memory["swap"]) || memory["swap"].as_i64() > limit.as_i64() {
            self.changes.push(format!("linux.resources.memory.swap: {limit}"));
            memory["swap"] = limit;
        }
    }

    /// What a read-only root needs.
    fn tmpfs(&mut self) {
        for mount in self.base["mounts"].as_array().into_iter().flatten().filter(|mount| mount["type"] == "tmpfs") {
            let mounts = list(self.config, "/mounts");
            if !mounts.iter().any(|one| one["destination"] == mount["destination"]) {
                mounts.push(mount.clone());
                self.changes.push(format!("mounts: adds {}", said(mount)));
            }
        }
    }

    fn mount_options(&mut self) {
        for mount in list(self.config, "/mounts") {
            let mut wanted = lacking(mount);
            if unbounded(mount) {
                wanted.push("size=64m");
            }
            if !wanted.is_empty() {
                self.changes.push(format!("mounts: {} gets {}", said(mount), wanted.join(", ")));
                list(mount, "/options").extend(wanted.into_iter().map(Value::from));
            }
        }
    }
}

fn said(mount: &Value) -> &str {
    mount["destination"].as_str().unwrap_or_default()
}

/// `/linux/seccomp` as users read it.
fn name(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// The place at a pointer, with the objects on the way made.
fn place<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Value {
    pointer.split('/').skip(1).fold(config, |at, key| {
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        &mut at[key]
    })
}

fn list<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    crate::config::array(config, &pointer.split('/').skip(1).collect::<Vec<_>>())
}
