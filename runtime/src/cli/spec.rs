// SPDX-License-Identifier: Apache-2.0
//! `wsbox spec`

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Global;
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::harden;
use crate::rootless;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where config.json is written
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a caller without root's rights: its own ids, and no limits where they are root's alone (cgroup v1)
    #[arg(long)]
    rootless: bool,
}

/// With entries in /etc/subuid and /etc/subgid the ids are left to `run`. Else the one id that anybody may map is its own
/// (user_namespaces(7)); a terminal's group is none of those then. Whether there are limits.
pub(super) fn rootless(config: &mut Value) -> bool {
    let limits = cgroup::Host::detect().is_ok_and(|host| host == cgroup::Host::V2);
    if !limits {
        config["linux"].as_object_mut().map(|linux| linux.remove("resources"));
    }
    if !rootless::has_range() {
        one_id(config);
    }
    limits
}

fn one_id(config: &mut Value) {
    let own = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    config["linux"]["uidMappings"] = own(nix::unistd::geteuid().as_raw());
    config["linux"]["gidMappings"] = own(nix::unistd::getegid().as_raw());
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with("gid=")));
        }
    }
}

pub fn run(_: &Global, arguments: Arguments) -> Result<u8> {
    let path = arguments.bundle.join("config.json");
    let mut config = harden::config()?;
    if arguments.rootless {
        rootless(&mut config);
    }
    let json = serde_json::to_string_pretty(&config).map_err(|error| Error::invalid("spec", error.to_string()))?;
    let context = || path.display().to_string();
    let mut file = File::create_new(&path)
        .context(context)
        .map_err(|error| error.hint("an existing config.json is never overwritten"))?;
    file.write_all((json + "\n").as_bytes()).context(context)?;
    Ok(0)
}
