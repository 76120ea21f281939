// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp convert`: Docker's extended format to the OCI's. What a rule includes and excludes is decided here, once, for the
//! capabilities, the machine and the kernel that are given.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::source::{parse, read};
use crate::cli::output;
use crate::error::{Error, Result};
use crate::seccomp::{self, Arch, Options};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A file in Docker's format
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A capability that the container has; may be repeated
    #[arg(long, value_name = "CAP")]
    cap: Vec<String>,
    /// The kernel's version [default: this one's]
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = kernel)]
    kernel: Option<(u32, u32)>,
    /// Write the profile there
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Docker {
    default_action: Value,
    default_errno_ret: Option<Value>,
    #[serde(default)]
    architectures: Vec<Value>,
    #[serde(default)]
    arch_map: Vec<Map>,
    #[serde(default)]
    flags: Vec<Value>,
    listener_path: Option<Value>,
    listener_metadata: Option<Value>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Map {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: Value,
    errno_ret: Option<Value>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    comment: Option<String>,
    #[serde(default)]
    includes: When,
    #[serde(default)]
    excludes: When,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct When {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What rules are decided by.
struct Host {
    caps: Vec<String>,
    arch: &'static str,
    kernel: (u32, u32),
}

pub fn run(arguments: Arguments) -> Result<u8> {
    let kernel = match arguments.kernel {
        Some(kernel) => kernel,
        None => this_kernel()?,
    };
    let cap = |name: &String| {
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    };
    // Docker's words are Go's.
    let arch = if Arch::native() == Arch::X86_64 { "amd64" } else { "arm64" };
    let host = Host { caps: arguments.cap.iter().map(cap).collect(), arch, kernel };
    let docker: Docker = serde_json::from_str(&read(&arguments.file)?)
        .map_err(|error| Error::invalid(arguments.file.display().to_string(), error.to_string()))?;
    let profile = convert(docker, &host).map_err(|why| Error::invalid(arguments.file.display().to_string(), why))?;
    let text = serde_json::to_string_pretty(&profile).map_err(|error| Error::invalid("profile", error.to_string()))?;
    seccomp::compile(&parse(&text, &arguments.file)?, &Options::default())?;
    match arguments.output {
        Some(file) => output::replace(&file, &(text + "\n")).map(|()| 0),
        None => output::text(&(text + "\n")),
    }
}

fn convert(docker: Docker, host: &Host) -> Result<Value, String> {
    let mut profile = json!({ "defaultAction": docker.default_action });
    let native = if host.arch == "amd64" { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    let mapped = docker.arch_map.iter().find(|map| map.architecture == native);
    let mapped = mapped.map(|map| {
        std::iter::once(json!(map.architecture)).chain(map.sub_architectures.iter().flatten().map(|sub| json!(sub)))
    });
    let architectures: Vec<Value> = mapped.map_or(docker.architectures, Iterator::collect);
    for (key, value) in [
        ("defaultErrnoRet", docker.default_errno_ret),
        ("architectures", (!architectures.is_empty()).then(|| architectures.into())),
        ("flags", (!docker.flags.is_empty()).then(|| docker.flags.into())),
        ("listenerPath", docker.listener_path),
        ("listenerMetadata", docker.listener_metadata),
    ] {
        if let Some(value) = value {
            profile[key] = value;
        }
    }
    let mut rules = Vec::new();
    for (at, rule) in docker.syscalls.into_iter().enumerate() {
        if holds(&rule, host).map_err(|why| format!("syscalls[{at}]: {why}"))? {
            rules.push(oci(rule));
        }
    }
    profile["syscalls"] = rules.into();
    Ok(profile)
}

/// All that a rule includes has to be there, and nothing of what it excludes (moby, profiles/seccomp).
fn holds(rule: &Rule, host: &Host) -> Result<bool, String> {
    let old = |version: &Option<String>| {
        version.as_deref().map(kernel).transpose().map(|wanted| wanted.is_some_and(|wanted| host.kernel < wanted))
    };
    let (includes, excludes) = (&rule.includes, &rule.excludes);
    let arch = |arches: &[String]| arches.iter().any(|arch| arch == host.arch);
    let included = (includes.arches.is_empty() || arch(&includes.arches))
        && includes.caps.iter().all(|cap| host.caps.contains(cap))
        && !old(&includes.min_kernel)?;
    let excluded = arch(&excludes.arches)
        || excludes.caps.iter().any(|cap| host.caps.contains(cap))
        || excludes.min_kernel.is_some() && !old(&excludes.min_kernel)?;
    Ok(included && !excluded)
}

fn oci(rule: Rule) -> Value {
    let names: Vec<String> = rule.names.into_iter().chain(rule.name).collect();
    let mut oci = json!({ "names": names, "action": rule.action });
    if let Some(args) = rule.args.filter(|args| !args.is_empty()) {
        oci["args"] = args.into();
    }
    if let Some(errno) = rule.errno_ret {
        oci["errnoRet"] = errno;
    }
    oci
}

fn kernel(text: &str) -> Result<(u32, u32), String> {
    let mut parts = text.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(format!("{text:?} is no version of a kernel")),
    }
}

fn this_kernel() -> Result<(u32, u32)> {
    let name = nix::sys::utsname::uname().map_err(|errno| Error::system("uname", errno))?;
    kernel(&name.release().to_string_lossy()).map_err(|why| Error::invalid("uname", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}, {"architecture": "SCMP_ARCH_AARCH64"}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"name": "uname", "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["s390"]}}
        ]}"#;

    fn names(caps: &[&str], arch: &'static str, kernel: (u32, u32)) -> String {
        let host = Host { caps: caps.iter().map(|cap| (*cap).to_owned()).collect(), arch, kernel };
        let profile = convert(serde_json::from_str(DOCKER).unwrap(), &host).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        rules.iter().map(|rule| rule["names"][0].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_by_capability_machine_and_kernel() {
        assert_eq!(names(&[], "amd64", (6, 1)), "read clone3 arch_prctl ptrace uname");
        assert_eq!(names(&["CAP_SYS_ADMIN"], "amd64", (6, 1)), "read mount arch_prctl ptrace uname");
        assert_eq!(names(&[], "arm64", (4, 7)), "read clone3 uname");
        let host = Host { caps: vec![], arch: "amd64", kernel: (6, 1) };
        let profile = convert(serde_json::from_str(DOCKER).unwrap(), &host).unwrap();
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(profile["syscalls"][1], json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |text: &str| {
            let host = Host { caps: vec![], arch: "amd64", kernel: (6, 1) };
            let docker = serde_json::from_str::<Docker>(text).map_err(|error| error.to_string());
            docker.and_then(|docker| convert(docker, &host)).unwrap_err()
        };
        assert!(wrong(r#"{"defaultAction": "x", "syscals": []}"#).contains("syscals"));
        let kernel =
            r#"{"defaultAction": "x", "syscalls": [{"names": [], "action": "x", "includes": {"minKernel": "new"}}]}"#;
        assert!(wrong(kernel).starts_with("syscalls[0]: \"new\" is no version"));
    }
}
