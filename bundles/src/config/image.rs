// SPDX-License-Identifier: Apache-2.0
//! What an image says (image-spec, "Conversion to OCI Runtime Configuration").

use serde_json::{Value, json};

use super::{Made, array};
use crate::source::Pinned;

/// Annotations that change what runtimes and systemd do: not for an image to set.
const RESERVED: [&str; 5] = ["dev.wsbox.", "org.systemd.", "run.oci.", "org.criu.", "org.opencontainers.runc."];

/// Entrypoint, environment, working directory and labels. The user and the volumes are for the flags to change first.
pub fn apply(made: &mut Made, image: &Pinned) {
    let digest = image.digest.to_string();
    let mut annotations = serde_json::Map::new();
    let mut note = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(key.into(), value.into());
        }
    };
    let config = &image.config;
    for (key, value) in config.config().iter().flat_map(|config| config.labels().iter().flatten()) {
        match RESERVED.iter().any(|prefix| key.starts_with(prefix)) {
            true => made.warnings.push(format!("the label {key} is not the image's to set; it is left out")),
            false => note(key, Some(value.clone())),
        }
    }
    note("org.opencontainers.image.os", Some(config.os().to_string()));
    note("org.opencontainers.image.architecture", Some(config.architecture().to_string()));
    note("org.opencontainers.image.variant", config.variant().clone());
    note("org.opencontainers.image.author", config.author().clone());
    note("org.opencontainers.image.created", config.created().clone());
    let declared = config.config().as_ref();
    note("org.opencontainers.image.stopSignal", declared.and_then(|config| config.stop_signal().clone()));
    let ports = declared.and_then(|config| config.exposed_ports().clone()).unwrap_or_default();
    note("org.opencontainers.image.exposedPorts", Some(ports.join(",")));
    note("dev.wsbox.image.digest", Some(digest));
    note("dev.wsbox.image.name", image.name.clone());
    made.config["annotations"] = Value::Object(annotations);

    let Some(declared) = declared else { return };
    let env = declared.env().clone().unwrap_or_default();
    env.iter().for_each(|variable| set_env(&mut made.config, variable));
    if let Some(folder) = declared.working_dir().as_deref().filter(|folder| folder.starts_with('/')) {
        made.config["process"]["cwd"] = json!(folder);
    }
}

/// Sets `NAME=VALUE`, in the place where `NAME` was set before.
pub fn set_env(config: &mut Value, variable: &str) {
    let name = variable.split_once('=').map_or(variable, |(name, _)| name);
    let env = array(config, &["process", "env"]);
    let same = |old: &Value| old.as_str().and_then(|old| old.split_once('=')).is_some_and(|(old, _)| old == name);
    match env.iter_mut().find(|old| same(old)) {
        Some(old) => *old = json!(variable),
        None => env.push(json!(variable)),
    }
}
