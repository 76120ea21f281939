// SPDX-License-Identifier: Apache-2.0
//! Docker: whether wsbox is among its runtimes, can be run, and has the ids that userns-remap takes.

use std::path::Path;

use serde_json::Value;

use super::{Check, Status};
use crate::docker::{self, RUNTIMES, remap};
use crate::error::{Error, Result};

const NAME: &str = "Docker registration";

pub(super) fn checks(config: &Path) -> Vec<Check> {
    [registration(config)].into_iter().chain(remapped(config)).collect()
}

fn registration(config: &Path) -> Check {
    let missing: Vec<&str> =
        RUNTIMES.into_iter().filter(|name| matches!(docker::registered(config, name), Ok(None))).collect();
    let by_hand = |_: &Error| format!("correct that in {} by hand, then {}", config.display(), install(config, ""));
    match registered(config) {
        Ok(evidence) if missing.is_empty() => Check::ok(NAME, evidence),
        Ok(_) => Check {
            name: NAME,
            status: Status::Note,
            evidence: format!("{}: {} not registered", config.display(), missing.join(" and ")),
            fix: Some(install(config, "")),
        },
        Err(error) => Check::failed(NAME, &error, by_hand),
    }
}

/// The command that registers them in this file.
fn install(config: &Path, more: &str) -> String {
    let file = if config == Path::new(docker::CONFIG) {
        String::new()
    } else {
        format!(" --config {}", docker::quoted(config))
    };
    format!("wsbox install-docker{more}{file} && systemctl reload docker")
}

/// Each runtime that is registered can be executed.
fn registered(config: &Path) -> Result<String> {
    let mut paths = Vec::new();
    for name in RUNTIMES {
        let Some(settings) = docker::registered(config, name)? else { continue };
        let wrong = |why: String, hint: Option<&str>| {
            let hint = hint.map_or_else(|| install(config, " --force"), str::to_owned);
            Error::invalid(format!("{}: runtimes.{name}.path", config.display()), why).hint(hint)
        };
        let path = settings["path"].as_str().ok_or_else(|| wrong("is missing".into(), None))?;
        docker::executable(Path::new(path)).map_err(|error| {
            let (why, hint) = error.parts();
            wrong(why, hint)
        })?;
        paths.push(format!("{name} is {path}"));
    }
    Ok(paths.join(", "))
}

/// Only where userns-remap is on.
fn remapped(config: &Path) -> Option<Check> {
    let settings: Value = serde_json::from_str(&std::fs::read_to_string(config).ok()?).ok()?;
    let user = settings["userns-remap"].as_str().filter(|user| !user.is_empty())?;
    let tried = remap::check(user).map(|()| format!("{user:?} has its ids"));
    Some(Check::new("Docker userns-remap", tried, |_| format!("echo {} >> /etc/subuid", remap::LINE)))
}
