// SPDX-License-Identifier: Apache-2.0
//! `wsbox list`

use std::collections::BTreeMap;

use super::{Global, log, output};
use crate::error::Result;
use crate::state::lifecycle::{self, State};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let root = global.root();
    let ids = root.ids()?;
    if arguments.quiet {
        return output::text(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let (mut states, mut owners) = (Vec::with_capacity(ids.len()), BTreeMap::new());
    for id in ids {
        match root.read(&id).and_then(|record| Ok((record.owner, lifecycle::state(&record)?))) {
            Ok((uid, state)) => {
                let owner = owners.entry(uid).or_insert_with(|| owner(uid)).clone();
                states.push(State { owner, ..state });
            }
            // Deleted while we looked.
            Err(error) if error.kind() == crate::error::Kind::NotFound => {}
            Err(error) => log::warning(&error.to_string()),
        }
    }
    if arguments.format == "json" { output::json(&states) } else { output::table(&rows(&states)) }
}

/// The user's name, else its number.
fn owner(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| format!("#{uid}"), |user| user.name)
}

fn rows(states: &[State]) -> Vec<Vec<String>> {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec();
    let row = |state: &State| {
        let status = lifecycle::word(state.status).to_owned();
        vec![
            state.id.clone(),
            state.pid.to_string(),
            status,
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    };
    std::iter::once(head).chain(states.iter().map(row)).collect()
}
