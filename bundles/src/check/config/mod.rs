// SPDX-License-Identifier: Apache-2.0
//! Rules of config.json.

mod image;
mod layers;
mod limits;
mod mounts;
mod secrets;

use serde_json::Value;

use super::Subject;
use super::finding::Findings;
use super::rules;

pub use mounts::{clean, lacking, unbounded};

/// All of them.
pub fn check(subject: &Subject<'_>, found: &mut Findings) {
    let config = subject.config;
    layers::check(config, found);
    limits::check(config, found);
    mounts::check(subject.dir, config, found);
    devices(config, found);
    masks(config, found);
    hooks(config, found);
    image::check(config, found);
    secrets::check(config, found);
    for (field, why) in subject.unknown {
        found.field(&rules::UNKNOWN_FIELD, field, why);
    }
}

/// The array at a JSON pointer; none is an empty one.
pub fn list<'a>(config: &'a Value, pointer: &str) -> &'a [Value] {
    config.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What every container has (runtime-spec, "Default Devices"), and tun, which Docker once allowed to all.
const COMMON: [(u64, Option<u64>); 10] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (10, Some(200)),
    (136, None),
];

fn devices(config: &Value, found: &mut Findings) {
    for (at, device) in list(config, "/linux/devices").iter().enumerate() {
        let path = device["path"].as_str().unwrap_or_default();
        found.field(&rules::DEVICES, format!("linux.devices[{at}]"), path);
    }
    for (at, rule) in list(config, "/linux/resources/devices").iter().enumerate() {
        // Docker lets nodes of any device be made, but not opened.
        let opens = rule["access"].as_str().is_none_or(|access| access.is_empty() || access.contains(['r', 'w']));
        if rule["allow"] == true && opens && !is_common(rule) {
            let number = |name: &str| rule[name].as_u64().map_or("*".to_owned(), |number| number.to_string());
            let kind = rule["type"].as_str().unwrap_or("a");
            let what = format!("{kind} {}:{} is allowed", number("major"), number("minor"));
            found.field(&rules::DEVICES, format!("linux.resources.devices[{at}]"), what);
        }
    }
}

fn is_common(rule: &Value) -> bool {
    let (major, minor) = (rule["major"].as_u64(), rule["minor"].as_u64());
    let is = |common: &(u64, Option<u64>)| major == Some(common.0) && (common.1.is_none() || minor == common.1);
    rule["type"] == "c" && COMMON.iter().any(is)
}

/// What has to be masked or read-only on every host; `wsbox spec` writes more.
const MASKED: [&str; 5] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn masks(config: &Value, found: &mut Findings) {
    for (name, wanted) in [("maskedPaths", MASKED), ("readonlyPaths", READ_ONLY)] {
        let has = list(config, &format!("/linux/{name}"));
        let lacking: Vec<_> = wanted.into_iter().filter(|path| !has.iter().any(|one| one == path)).collect();
        if !lacking.is_empty() {
            found.field(&rules::MASKS, format!("linux.{name}"), format!("lacks {}", lacking.join(", ")));
        }
    }
}

fn hooks(config: &Value, found: &mut Findings) {
    for (kind, hooks) in config["hooks"].as_object().into_iter().flatten() {
        for (at, hook) in hooks.as_array().into_iter().flatten().enumerate() {
            let path = hook["path"].as_str().unwrap_or_default();
            found.field(&rules::HOOKS, format!("hooks.{kind}[{at}]"), path);
        }
    }
}
