// SPDX-License-Identifier: Apache-2.0
//! The eight layers, as the config asks for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::list;
use crate::check::finding::Findings;
use crate::check::rules::{self, Severity};

/// With one of these a payload is root of the host, or soon will be (capabilities(7)).
const AS_ROOT: [&str; 12] = [
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_BOOT",
    "CAP_SYS_TIME",
    "CAP_DAC_READ_SEARCH",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_NET_ADMIN",
];

/// L1 to L8, and what makes one of them worth less.
pub fn check(config: &Value, found: &mut Findings) {
    network_and_users(config, found);
    seccomp(&config["linux"]["seccomp"], found);
    if config["root"]["readonly"] != true {
        found.field(&rules::READ_ONLY, "root.readonly", "the root can be written");
    }
    capabilities(&config["process"]["capabilities"], found);
    if config["process"]["noNewPrivileges"] != true {
        found.field(&rules::NO_NEW_PRIVS, "process.noNewPrivileges", "is not set");
    }
    shared(config, found);
    mapped_to_root(config, found);
    if config["process"]["user"]["uid"] == 0 {
        let what = match own_namespace(config, "user") {
            true => "uid 0, of the container only",
            false => "uid 0 of the host",
        };
        found.field(&rules::ROOT_USER, "process.user.uid", what);
    }
}

/// Whether the container gets a new namespace of a kind.
pub fn own_namespace(config: &Value, kind: &str) -> bool {
    list(config, "/linux/namespaces").iter().any(|one| one["type"] == kind && one["path"].is_null())
}

/// The path of the namespace of a kind that the container joins.
fn joined<'a>(config: &'a Value, kind: &str) -> Option<&'a str> {
    list(config, "/linux/namespaces").iter().find(|one| one["type"] == kind).and_then(|one| one["path"].as_str())
}

fn network_and_users(config: &Value, found: &mut Findings) {
    for (kind, rule) in [("network", &rules::NETWORK), ("user", &rules::USER_NAMESPACE)] {
        if !own_namespace(config, kind) {
            let what = joined(config, kind).map_or("the host's".to_owned(), |path| format!("joins {path}"));
            found.field(rule, "linux.namespaces", what);
        }
    }
}

/// Namespaces that take nothing away.
fn mapped_to_root(config: &Value, found: &mut Findings) {
    for (at, map) in list(config, "/linux/uidMappings").iter().enumerate() {
        if map["hostID"] == 0 && map["size"] != 0 {
            found.field(&rules::USER_NAMESPACE, format!("linux.uidMappings[{at}]"), "maps a user to root of the host");
        }
    }
    let propagation = &config["linux"]["rootfsPropagation"];
    if propagation == "shared" || propagation == "rshared" {
        let what = "mounts of the container appear on the host";
        found.field(&rules::NAMESPACES, "linux.rootfsPropagation", what);
    }
}

/// One that is joined is most often a pod's.
fn shared(config: &Value, found: &mut Findings) {
    for kind in ["pid", "mount", "ipc", "uts", "cgroup"].into_iter().filter(|kind| !own_namespace(config, kind)) {
        match joined(config, kind) {
            Some(path) => {
                let what = format!("{kind}: joins {path}");
                found.field_as(&rules::NAMESPACES, Severity::Warning, "linux.namespaces", what);
            }
            None => found.field(&rules::NAMESPACES, "linux.namespaces", format!("{kind}: the host's")),
        }
    }
}

fn seccomp(profile: &Value, found: &mut Findings) {
    if profile.is_null() {
        return found.field(&rules::SECCOMP, "linux.seccomp", "no filter (unconfined)");
    }
    let action = profile["defaultAction"].as_str().unwrap_or_default();
    if matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG") {
        found.field(&rules::SECCOMP_OPEN, "linux.seccomp.defaultAction", action);
    }
}

fn capabilities(sets: &Value, found: &mut Findings) {
    let all = sets.as_object().into_iter().flatten().flat_map(|(_, set)| set.as_array().into_iter().flatten());
    let all: BTreeSet<_> = all.filter_map(Value::as_str).collect();
    if !all.is_empty() {
        let names = all.iter().copied().collect::<Vec<_>>().join(", ");
        found.field(&rules::CAPABILITIES, "process.capabilities", format!("has {names}"));
    }
    for name in all.into_iter().filter(|name| AS_ROOT.contains(name)) {
        found.field(&rules::CAPABILITY_OF_ROOT, "process.capabilities", name);
    }
}
