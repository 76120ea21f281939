// SPDX-License-Identifier: Apache-2.0
//! The flags of docker run that a bundle can have.

use std::fs;
use std::path::PathBuf;

use wsbox_bundles::config::{self, Network, Seccomp, Secret};

use crate::cli::seccomp::Source;
use crate::error::{Context, Error, Result};
use crate::profile::Profile;

#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Name or number of the image's
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set a variable, or pass this one of your own on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The same, a line each
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Writable folder in memory, filled with what the image has there, the user's own
    #[arg(long, value_name = "PATH[:size=SIZE,mode=MODE]")]
    tmpfs: Vec<String>,
    /// type=bind|tmpfs,source=PATH,target=PATH,readonly
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Folder or file of the host
    #[arg(short, long, value_name = "SOURCE:PATH[:ro]")]
    volume: Vec<String>,
    /// Bytes, as 512m; swap is none
    #[arg(short, long, value_name = "SIZE", value_parser = config::bytes)]
    memory: Option<u64>,
    /// Number of CPUs, as 0.5
    #[arg(long, value_name = "N", value_parser = config::cpus)]
    cpus: Option<u64>,
    /// Number of processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Capability that the container has
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Whether the root is read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = ["true", "false"])]
    read_only: String,
    /// none, host or ns:PATH
    #[arg(long, value_name = "NETWORK", default_value = "none")]
    network: String,
    /// seccomp=PROFILE (a file, or workspace, docker-default, unconfined)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The host's name in the container
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// id=NAME,src=FILE or id=NAME,env=VARIABLE: becomes /run/secrets/NAME, read when the container starts
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Floor of the bundle: development, staging or production
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// What is run, instead of the image's command
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Flags {
    /// With all that they name read.
    pub fn read(self) -> Result<config::Flags> {
        let mut env = Vec::new();
        for file in &self.env_file {
            let text = fs::read_to_string(file).context(|| format!("--env-file {}", file.display()))?;
            let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
            env.extend(
                lines.map(|line| variable(line, "--env-file")).collect::<Result<Vec<_>>>()?.into_iter().flatten(),
            );
        }
        env.extend(
            self.env.iter().map(|text| variable(text, "--env")).collect::<Result<Vec<_>>>()?.into_iter().flatten(),
        );
        Ok(config::Flags {
            user: self.user,
            env,
            workdir: self.workdir.map(|folder| absolute("--workdir", folder)).transpose()?,
            tmpfs: self.tmpfs,
            mounts: self.mount,
            volumes: self.volume,
            memory: self.memory,
            cpu_quota: self.cpus,
            pids_limit: self.pids_limit,
            ulimits: self.ulimit.iter().map(|text| Ok(config::ulimit(text)?)).collect::<Result<_>>()?,
            cap_add: self.cap_add,
            writable: self.read_only == "false",
            network: network(&self.network)?,
            seccomp: seccomp(&self.security_opt)?,
            entrypoint: self.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
            arguments: self.command,
            hostname: self.hostname,
            secrets: self.secret.iter().map(|text| Ok(text.parse::<Secret>()?)).collect::<Result<_>>()?,
            profile: self.profile.map(|profile| profile.to_string()),
        })
    }
}

/// `NAME=VALUE`; a name alone is passed on if it is set here.
fn variable(text: &str, flag: &str) -> Result<Option<String>> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("{flag} {text:?}"), "has no name of a variable"));
    }
    Ok(if text.contains('=') {
        Some(text.to_owned())
    } else {
        std::env::var(name).ok().map(|value| format!("{name}={value}"))
    })
}

fn absolute(flag: &str, path: String) -> Result<String> {
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(Error::invalid(format!("{flag} {path:?}"), "is not an absolute path"))
    }
}

fn network(text: &str) -> Result<Network> {
    match text.strip_prefix("ns:") {
        Some(path) => Ok(Network::Path(absolute("--network ns:", path.into())?.into())),
        None if text == "none" => Ok(Network::None),
        None if text == "host" => Ok(Network::Host),
        None => Err(Error::invalid(format!("--network {text:?}"), "is not none, host or ns:PATH")
            .hint("bridges are Docker's: docker run --runtime=wsbox")),
    }
}

fn seccomp(options: &[String]) -> Result<Seccomp> {
    let mut found = Seccomp::Shipped;
    for option in options {
        found = match option.split_once('=') {
            Some(("seccomp", "unconfined")) => Seccomp::Unconfined,
            Some(("seccomp", name)) => {
                let source = Source::read(name)?;
                source.profile()?;
                let profile = serde_json::from_str(&source.text[source.place.clone()])
                    .map_err(|error| Error::invalid(format!("--security-opt {option}"), error.to_string()));
                Seccomp::Profile(profile?)
            }
            // It is always so.
            _ if matches!(option.as_str(), "no-new-privileges" | "no-new-privileges=true") => continue,
            _ => return Err(Error::invalid(format!("--security-opt {option:?}"), "is unknown").hint("seccomp=FILE")),
        };
    }
    Ok(found)
}
