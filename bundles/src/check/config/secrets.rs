// SPDX-License-Identifier: Apache-2.0
//! Secrets in the config. None is ever shown.

use serde_json::Value;

use super::list;
use crate::check::finding::Findings;
use crate::check::rules;
use crate::check::tokens;

/// The environment, by names and values; arguments and annotations by values.
pub fn check(config: &Value, found: &mut Findings) {
    for (at, variable) in list(config, "/process/env").iter().enumerate() {
        let (name, value) = variable.as_str().and_then(|one| one.split_once('=')).unwrap_or_default();
        if let Some(kind) = kind(value).or_else(|| by_name(name, value)) {
            found.field(&rules::SECRET_IN_CONFIG, format!("process.env[{at}]"), format!("{name}: {kind}"));
        }
    }
    for (at, argument) in list(config, "/process/args").iter().enumerate() {
        let text = argument.as_str().unwrap_or_default();
        if let Some(kind) = kind(text).or_else(|| by_flag(text)) {
            found.field(&rules::SECRET_IN_CONFIG, format!("process.args[{at}]"), kind);
        }
    }
    for (name, value) in config["annotations"].as_object().into_iter().flatten() {
        if let Some(kind) = kind(value.as_str().unwrap_or_default()) {
            found.field(&rules::SECRET_IN_CONFIG, format!("annotations[{name:?}]"), kind);
        }
    }
}

fn kind(text: &str) -> Option<&'static str> {
    match tokens::private_key_in(text.as_bytes()) {
        true => Some("private key"),
        false => {
            tokens::token_in(text.as_bytes()).or_else(|| tokens::has_login(text).then_some("address with a password"))
        }
    }
}

/// A path is where a secret is, and a switch is none.
fn by_name(name: &str, value: &str) -> Option<&'static str> {
    let is_value = !value.is_empty()
        && !value.starts_with('/')
        && !matches!(value.to_ascii_lowercase().as_str(), "0" | "1" | "true" | "false" | "yes" | "no" | "none");
    (is_value && tokens::is_secret_name(name)).then_some("a value, by its name a secret")
}

/// `--password=X`.
fn by_flag(text: &str) -> Option<&'static str> {
    let (name, value) = text.strip_prefix("--")?.split_once('=')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    by_name(name, value).filter(|_| is_name)
}
