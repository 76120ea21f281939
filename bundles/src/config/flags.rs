// SPDX-License-Identifier: Apache-2.0
//! What the user says, in the words of docker run.

use std::path::PathBuf;

use oci_spec::image::Config;
use serde_json::{Value, json};

use super::image::set_env;
use super::secrets::{SECRET, Secret};
use super::{Made, User, array, mounts};
use crate::error::{Error, Result};

/// `--network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of its own, with a loopback only: L1.
    #[default]
    None,
    /// The host's.
    Host,
    /// The one at this path.
    Path(PathBuf),
}

/// `--security-opt seccomp=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The profile of the eight layers.
    #[default]
    Shipped,
    /// None at all.
    Unconfined,
    /// This one, as JSON of `linux.seccomp`.
    Profile(Value),
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// See [`mounts::tmpfs`].
    pub tmpfs: Vec<String>,
    /// See [`mounts::mount`].
    pub mounts: Vec<String>,
    /// See [`mounts::bind`].
    pub volumes: Vec<String>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Microseconds in 100 ms.
    pub cpu_quota: Option<u64>,
    /// Zero and less is no limit.
    pub pids_limit: Option<i64>,
    /// As `process.rlimits` has them.
    pub ulimits: Vec<Value>,
    /// `CAP_NAME`.
    pub cap_add: Vec<String>,
    /// The root can be written.
    pub writable: bool,
    /// See [`Network`].
    pub network: Network,
    /// See [`Seccomp`].
    pub seccomp: Seccomp,
    /// In place of the image's; its arguments do not hold then.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's.
    pub arguments: Vec<String>,
    /// The host's name in the container.
    pub hostname: Option<String>,
    /// See [`Secret`].
    pub secrets: Vec<Secret>,
    /// The floor that `wsbox` raises the bundle to.
    pub profile: Option<String>,
}

/// Puts `flags` into the config. `declared` is what the image says.
pub fn apply(made: &mut Made, declared: Option<&Config>, flags: &Flags, user: &User) -> Result<()> {
    process(&mut made.config, declared, flags, user);
    mount_all(made, declared, flags, user)?;
    weaken(made, flags)?;
    limits(made, flags);
    let config = &mut made.config;
    if let Some(hostname) = &flags.hostname {
        config["hostname"] = json!(hostname);
    }
    if let Some(profile) = &flags.profile {
        config["annotations"]["dev.wsbox.profile"] = json!(profile);
    }
    for secret in &flags.secrets {
        config["annotations"][format!("{SECRET}{}", secret.id)] = json!(secret.reference());
    }
    Ok(())
}

fn process(config: &mut Value, declared: Option<&Config>, flags: &Flags, user: &User) {
    let words = |words: Option<&Vec<String>>| words.cloned().unwrap_or_default();
    let command = match (&flags.arguments[..], &flags.entrypoint) {
        ([], None) => words(declared.and_then(|config| config.cmd().as_ref())),
        (given, _) => given.to_vec(),
    };
    let entrypoint =
        flags.entrypoint.clone().unwrap_or_else(|| words(declared.and_then(|config| config.entrypoint().as_ref())));
    let all = [entrypoint, command].concat();
    if !all.is_empty() {
        config["process"]["args"] = json!(all);
    }
    if let Some(home) = &user.home {
        let has = array(config, &["process", "env"])
            .iter()
            .any(|one| one.as_str().is_some_and(|one| one.starts_with("HOME=")));
        if !has {
            set_env(config, &format!("HOME={home}"));
        }
    }
    flags.env.iter().for_each(|variable| set_env(config, variable));
    if let Some(folder) = &flags.workdir {
        config["process"]["cwd"] = json!(folder);
    }
    array(config, &["process", "rlimits"]).retain(|old| !flags.ulimits.iter().any(|new| new["type"] == old["type"]));
    array(config, &["process", "rlimits"]).extend(flags.ulimits.iter().cloned());
}

/// The image's volumes are tmpfs, unless a flag puts something there.
fn mount_all(made: &mut Made, declared: Option<&Config>, flags: &Flags, user: &User) -> Result<()> {
    let mut all = Vec::new();
    for text in &flags.tmpfs {
        all.push(mounts::tmpfs(text, user)?);
    }
    for text in &flags.volumes {
        all.push(mounts::bind(text)?);
    }
    for text in &flags.mounts {
        all.push(mounts::mount(text, user)?);
    }
    let mut volumes = declared.and_then(|config| config.volumes().clone()).unwrap_or_default();
    volumes.sort();
    for path in volumes {
        let path = path.trim_end_matches('/');
        let kernels = ["/proc", "/sys", "/dev"].iter().any(|place| std::path::Path::new(path).starts_with(place));
        if kernels || path.contains(':') {
            return Err(Error::new(format!("the image's volume {path:?}"), "is no place for one"));
        }
        if !all.iter().any(|mount| mount["destination"] == path) {
            all.push(mounts::tmpfs(path, user).map_err(|error| Error::new("the image's volumes", error.to_string()))?);
        }
    }
    for mount in all.iter().filter(|mount| mount["type"] == "bind") {
        let source = mount["source"].as_str().unwrap_or_default();
        if source.ends_with(".sock")
            || matches!(source, "/" | "/etc" | "/proc" | "/sys" | "/dev" | "/run" | "/var" | "/root" | "/boot")
        {
            made.warnings.push(format!("{source} of the host is given to the container"));
        }
    }
    let mounts = array(&mut made.config, &["mounts"]);
    mounts.retain(|old| !all.iter().any(|new| new["destination"] == old["destination"]));
    mounts.extend(all);
    Ok(())
}

/// What takes from a layer, with a line for each.
fn weaken(made: &mut Made, flags: &Flags) -> Result<()> {
    let config = &mut made.config;
    match &flags.network {
        Network::None => {}
        Network::Host => {
            array(config, &["linux", "namespaces"]).retain(|namespace| namespace["type"] != "network");
            made.warnings
                .push("L1 is off: the container has the host's network, with all that listens on its loopback".into());
        }
        Network::Path(path) => {
            let text = path.to_str().ok_or_else(|| Error::new("--network", "is no UTF-8"))?;
            for namespace in array(config, &["linux", "namespaces"]).iter_mut().filter(|one| one["type"] == "network") {
                namespace["path"] = json!(text);
            }
            made.warnings.push(format!("L1 is what {text} is: the container shares that network"));
        }
    }
    match &flags.seccomp {
        Seccomp::Shipped if flags.network == Network::None => {}
        Seccomp::Shipped => {
            let rules = array(config, &["linux", "seccomp", "syscalls"]);
            rules.extend([libc::AF_INET, libc::AF_INET6].map(socket));
            made.warnings.push("L2 is weaker: IP sockets are allowed, without which a network is of no use".into());
        }
        Seccomp::Unconfined => {
            config["linux"].as_object_mut().map(|linux| linux.remove("seccomp"));
            made.warnings.push("L2 is off: every system call is allowed".into());
        }
        Seccomp::Profile(profile) => {
            config["linux"]["seccomp"] = profile.clone();
            made.warnings.push("L2 is as the given profile has it, not as the shipped one".into());
        }
    }
    if flags.writable {
        config["root"]["readonly"] = json!(false);
        made.warnings.push("L3 is off: the root can be written".into());
    }
    for name in &flags.cap_add {
        let name = capability(name)?;
        for set in ["bounding", "effective", "permitted"] {
            let set = array(config, &["process", "capabilities", set]);
            if !set.contains(&json!(name)) {
                set.push(json!(name));
            }
        }
        made.warnings.push(format!("L4 is weaker: the container has {name}"));
    }
    Ok(())
}

/// Allows sockets of a family; the upper half of the argument is not the kernel's (socket(2) takes an int).
fn socket(family: i32) -> Value {
    let first = json!({ "index": 0, "value": u32::MAX, "valueTwo": family, "op": "SCMP_CMP_MASKED_EQ" });
    json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [first] })
}

fn limits(made: &mut Made, flags: &Flags) {
    let resources = &mut made.config["linux"]["resources"];
    if let Some(bytes) = flags.memory {
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(quota) = flags.cpu_quota {
        resources["cpu"] = json!({ "quota": quota, "period": 100_000 });
    }
    match flags.pids_limit {
        None => {}
        Some(limit) if limit > 0 => resources["pids"] = json!({ "limit": limit }),
        Some(_) => {
            resources.as_object_mut().map(|resources| resources.remove("pids"));
            made.warnings.push("L5 is off: nothing stops a fork bomb".into());
        }
    }
}

/// With or without `CAP_`, in any case.
fn capability(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    let known = full.parse::<caps::Capability>();
    known.map(|_| full).map_err(|_| Error::new(format!("--cap-add {name}"), "is no capability (capabilities(7))"))
}
