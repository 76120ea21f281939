// SPDX-License-Identifier: Apache-2.0
//! `wsbox inspect`

use super::{Global, output};
use crate::error::{Kind, Result};
use crate::monitor::report::{self, State, Violations};
use crate::state::layers;
use crate::state::met::{self, LimitWatch};

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
    let (root, id) = (global.root(), &arguments.id);
    let record = root.read(id)?;
    let met = LimitWatch::new(&root, id)?.met();
    let violations = report::of(&record)?;
    let layers = match layers::observe(&record) {
        // What ended a container is asked when it has ended.
        Err(error) if error.kind() == Kind::State && !(met.is_empty() && violations.total == 0) => None,
        result => Some(result?),
    };
    if arguments.format == "json" {
        let mut value = match &layers {
            Some(layers) => serde_json::to_value(layers).unwrap_or_default(),
            None => serde_json::json!({"id": id, "pid": 0, "layers": []}),
        };
        value["limitsMet"] = met::to_json(&met);
        value["violations"] = serde_json::to_value(&violations).unwrap_or_default();
        return output::json(&value);
    }
    if let Some(layers) = &layers {
        let head = ["LAYER", "IN FORCE", "WHAT THE KERNEL SAYS"].map(str::to_owned).to_vec();
        let row = |layer: &layers::Layer| {
            let name = format!("{} {}", layer.id, layer.name);
            vec![name, if layer.in_force { "yes" } else { "no" }.to_owned(), layer.evidence.clone()]
        };
        output::table(&std::iter::once(head).chain(layers.layers.iter().map(row)).collect::<Vec<_>>())?;
    }
    let lines: String = met.iter().map(|met| format!("limit met: {met}\n")).collect();
    output::text(&(lines + &counted(&violations)))
}

const COUNTED_BY: &str = "run --count-violations, the annotation dev.wsbox.violations=true or --profile production";

fn counted(violations: &Violations) -> String {
    let state = match (violations.counting, violations.reason.as_deref()) {
        (State::Off, _) => return format!("\nviolations: not counted ({COUNTED_BY} counts them)\n"),
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
