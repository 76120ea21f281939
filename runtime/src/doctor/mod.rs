// SPDX-License-Identifier: Apache-2.0
//! What this host can enforce. Every answer is tried: the same init that starts containers makes the namespaces, installs the
//! filter, joins the cgroup, and what the kernel then shows of it is read as `inspect` reads it. Nothing is left behind.

mod docker;
mod host;
mod ids;
mod limits;
mod network;
mod probe;
mod rights;
mod root;

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::state::layers::Layer;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works
    Ok,
    /// No layer needs it, but something does
    Note,
    /// It does not work
    Failed,
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What
    pub name: &'static str,
    /// How it went
    pub status: Status,
    /// What the kernel, or the file, says
    pub evidence: String,
    /// A command or a line of a file
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// One of the eight layers.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// L1 to L8
    pub id: &'static str,
    /// What it is
    pub name: &'static str,
    /// Whether every check of it went well
    pub enforceable: bool,
    /// What it takes
    pub checks: Vec<Check>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether all eight layers can be enforced
    pub enforceable: bool,
    /// L1 to L8
    pub layers: Vec<LayerReport>,
    /// What is no layer's alone
    pub host: Vec<Check>,
}

/// Tries everything; `config` is Docker's daemon.json.
pub fn examine(config: &Path) -> Report {
    let ids = ids::pool();
    let range = ids.range.as_ref();
    let layers = vec![
        layer("L1", "network", network::checks(range)),
        layer("L2", "seccomp", vec![rights::filter()]),
        layer("L3", "read-only root", vec![root::read_only(range), root::size()]),
        layer("L4", "capabilities", vec![rights::capabilities(range)]),
        layer("L5", "pids", vec![limits::pids()]),
        layer("L6", "memory and cpu", vec![limits::memory(), limits::cpu()]),
        layer(
            "L7",
            "user namespace",
            [ids.checks, vec![ids::user_namespace(range), ids::id_mapped(range), root::proc(range)]].concat(),
        ),
        layer("L8", "no_new_privs", vec![rights::no_new_privs()]),
    ];
    let host = [host::checks(), vec![limits::controllers(), limits::devices()], docker::checks(config)].concat();
    Report { enforceable: layers.iter().all(|layer| layer.enforceable), layers, host }
}

fn layer(id: &'static str, name: &'static str, checks: Vec<Check>) -> LayerReport {
    let enforceable = checks.iter().all(|check| check.status != Status::Failed);
    LayerReport { id, name, enforceable, checks }
}

impl Check {
    fn ok(name: &'static str, evidence: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, evidence: evidence.into(), fix: None }
    }

    /// An error with its own way out, or else with `fix`.
    fn failed(name: &'static str, error: &Error, fix: impl FnOnce(&Error) -> String) -> Self {
        let (evidence, hint) = error.parts();
        let fix = hint.map_or_else(|| fix(error), str::to_owned);
        Self { name, status: Status::Failed, evidence, fix: Some(fix) }
    }

    /// From what was tried.
    fn new(name: &'static str, result: Result<String>, fix: impl FnOnce(&Error) -> String) -> Self {
        match result {
            Ok(evidence) => Self::ok(name, evidence),
            Err(error) => Self::failed(name, &error, fix),
        }
    }

    /// From a layer as `inspect` sees it.
    fn of_layer(name: &'static str, result: Result<Layer>, fix: impl FnOnce(&Error) -> String) -> Self {
        let in_force = |layer: Layer| match layer.in_force {
            true => Ok(layer.evidence),
            false => Err(Error::invalid(layer.id, format!("was set and is not in force: {}", layer.evidence))),
        };
        Self::new(name, result.and_then(in_force), fix)
    }

    /// Of no weight for the layers.
    fn into_note(mut self) -> Self {
        if self.status == Status::Failed {
            self.status = Status::Note;
        }
        self
    }
}
