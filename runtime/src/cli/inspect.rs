// SPDX-License-Identifier: Apache-2.0
//! `wsbox inspect`

use super::{Global, output};
use crate::error::Result;
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
    let layers = layers::observe(&global.root().read(&arguments.id)?)?;
    if arguments.format == "json" {
        return output::json(&layers);
    }
    let head = ["LAYER", "IN FORCE", "WHAT THE KERNEL SAYS"].map(str::to_owned).to_vec();
    let row = |layer: &layers::Layer| {
        let name = format!("{} {}", layer.id, layer.name);
        vec![name, if layer.in_force { "yes" } else { "no" }.to_owned(), layer.evidence.clone()]
    };
    output::table(&std::iter::once(head).chain(layers.layers.iter().map(row)).collect::<Vec<_>>())
}
