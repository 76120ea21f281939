// SPDX-License-Identifier: Apache-2.0
//! `wsbox inspect`

use serde::Serialize;

use super::{Global, output};
use crate::error::Result;
use crate::monitor::report::{self, State, Violations};
use crate::state::layers;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The container
    #[arg(value_name = "ID")]
    id: String,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let record = global.root().read(&arguments.id)?;
    let layers = layers::observe(&record)?;
    let violations = report::of(&record)?;
    if arguments.format == "json" {
        return output::json(&Inspected { layers, violations });
    }
    let head = ["LAYER", "IN FORCE", "WHAT THE KERNEL SAYS"].map(str::to_owned).to_vec();
    let row = |layer: &layers::Layer| {
        let name = format!("{} {}", layer.id, layer.name);
        vec![name, if layer.in_force { "yes" } else { "no" }.to_owned(), layer.evidence.clone()]
    };
    output::table(&std::iter::once(head).chain(layers.layers.iter().map(row)).collect::<Vec<_>>())?;
    output::text(&counted(&violations))
}

/// Everything in one object.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    layers: layers::Layers,
    violations: Violations,
}

fn counted(violations: &Violations) -> String {
    let state = match (violations.counting, violations.reason.as_deref()) {
        (State::Off, _) => return "\nviolations: not counted (--count-violations does)\n".into(),
        (State::Impossible, reason) => return format!("\nviolations: not counted: {}\n", reason.unwrap_or_default()),
        (_, None) => String::new(),
        (_, Some(reason)) => format!("; counting has stopped: {reason}"),
    };
    let mut text = format!("\nviolations: {}{state}\n", violations.total);
    if !violations.blocked.is_empty() {
        text += &format!("blocked: {}\n", violations.line());
    }
    text
}
