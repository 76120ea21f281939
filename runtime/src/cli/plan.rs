// SPDX-License-Identifier: Apache-2.0
//! `wsbox plan`

use std::fmt::Write;
use std::path::PathBuf;

use super::create::open_bundle;
use super::{Global, output};
use crate::error::Result;
use crate::plan::Plan;
use crate::{cgroup, launch, plan, profile, validate};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory with a config.json
    #[arg(value_name = "BUNDLE", default_value = ".")]
    bundle: PathBuf,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<u8> {
    let bundle = open_bundle(&arguments.bundle)?;
    let raised = profile::raise(&bundle, global.profile)?;
    let bundle = &*raised.bundle;
    validate::validate(&bundle.spec)?;
    let hierarchies = cgroup::Host::detect()?;
    let host = launch::plan_host(hierarchies, None)?;
    let options = plan::Options {
        systemd: global.systemd_cgroup.then(|| cgroup::Instance::detect(hierarchies)).transpose()?,
        home: launch::home(&bundle.spec, bundle.open_root()?),
        seccomp_floor: raised.seccomp,
        ..plan::Options::default()
    };
    let plan = plan::container(&bundle.spec, "ID", &host, &options)?;
    if arguments.format == "json" { output::json(&json(&plan)) } else { output::text(&text(&plan)) }
}

fn text(plan: &Plan) -> String {
    let mut text =
        format!("clone3 flags {:#x}\nuser namespace: {:?}\n\nThe parent opens:\n", plan.namespaces, plan.user);
    for (slot, source) in plan.sources.iter().enumerate() {
        let _ = writeln!(text, "{slot:4}  {source:?}");
    }
    text += "\nThe init does:\n";
    for (at, planned) in plan.program.steps.iter().enumerate() {
        let _ = writeln!(text, "{at:4}  {:<40}  {}", planned.field, planned.step);
    }
    text
}

fn json(plan: &Plan) -> serde_json::Value {
    let sources: Vec<String> = plan.sources.iter().map(|source| format!("{source:?}")).collect();
    let step = |planned: &plan::Planned| serde_json::json!({"field": planned.field, "step": planned.step.to_string()});
    let steps: Vec<_> = plan.program.steps.iter().map(step).collect();
    serde_json::json!({"cloneFlags": plan.namespaces, "user": format!("{:?}", plan.user), "sources": sources, "steps": steps})
}
