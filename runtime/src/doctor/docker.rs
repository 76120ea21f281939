// SPDX-License-Identifier: Apache-2.0
//! Docker: whether wsbox is among its runtimes, can be run, and has the ids that userns-remap takes.

use std::path::Path;

use serde_json::Value;

use super::{Check, Status};
use crate::docker::{self, RUNTIMES, remap};
use crate::error::{Error, Result};

pub(super) fn checks(config: &Path) -> Vec<Check> {
    let missing: Vec<&str> =
        RUNTIMES.into_iter().filter(|name| matches!(docker::registered(config, name), Ok(None))).collect();
    let registration = match registered(config) {
        Ok(evidence) if missing.is_empty() => Check::ok("Docker registration", evidence),
        Ok(_) => Check {
            name: "Docker registration",
            status: Status::Note,
            evidence: format!("{}: {} not registered", config.display(), missing.join(" and ")),
            fix: Some("wsbox install-docker && systemctl reload docker".into()),
        },
        Err(error) => Check::failed("Docker registration", &error, |_| format!("mend {}", config.display())),
    };
    [registration].into_iter().chain(remapped(config)).collect()
}

/// Each runtime that is registered can be executed.
fn registered(config: &Path) -> Result<String> {
    let mut paths = Vec::new();
    for name in RUNTIMES {
        let Some(settings) = docker::registered(config, name)? else { continue };
        let path =
            settings["path"].as_str().ok_or_else(|| Error::invalid(format!("runtimes.{name}.path"), "is missing"))?;
        docker::executable(Path::new(path)).map_err(|error| {
            let (why, hint) = error.parts();
            let hint = hint.map_or("wsbox install-docker --force && systemctl reload docker".into(), str::to_owned);
            Error::invalid(format!("runtimes.{name}.path"), why).hint(hint)
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
