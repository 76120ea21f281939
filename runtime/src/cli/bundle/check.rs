// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle check`

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use wsbox_bundles::check::{self, Finding, Scanner, Severity, Subject, sarif};
use wsbox_bundles::image::Platform;
use wsbox_bundles::store::Store;
use wsbox_bundles::unpack::Limits;
use wsbox_bundles::{Progress, Request, config};

use super::progress::Bar;
use super::report::{self, Report};
use super::{scanner, unpacker};
use crate::bundle::Bundle;
use crate::cli::temporary::Temporary;
use crate::cli::{log, output};
use crate::error::{Error, Result};
use crate::plan::harden;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The exit code is 0 if nothing is as bad as --fail-on, 1 if something is, and 2 if it could not be checked.

Examples:
  wsbox bundle check ./box
  wsbox bundle check ./box --fix
  docker save app:1 > app.tar; wsbox bundle check app.tar --fail-on warning
  wsbox bundle check oci:./layout:app --format sarif > wsbox.sarif
  wsbox bundle check ./box --with trivy
  wsbox bundle check --rules"
)]
pub struct Arguments {
    /// A bundle, or an image as `bundle create` takes it, of which a bundle is made and removed again
    #[arg(required_unless_present = "rules")]
    bundle: Option<String>,
    /// Mend in config.json what can be mended without a question, and say each change
    #[arg(long)]
    fix: bool,
    /// How bad a finding has to be for exit code 1: error, warning, note or never
    #[arg(long, value_name = "SEVERITY", default_value = "error", value_parser = ["error", "warning", "note", "never"])]
    fail_on: String,
    /// Run a scanner that is installed on the root, too: trivy or grype
    #[arg(long, value_name = "SCANNER")]
    with: Vec<Scanner>,
    /// Print what is looked for, instead
    #[arg(long, conflicts_with_all = ["bundle", "fix", "with"])]
    rules: bool,
    /// Refuse images whose layers have more bytes
    #[arg(long, value_name = "SIZE", default_value = "16g", value_parser = config::bytes)]
    max_size: u64,
    /// How the result is printed: table, json, sarif or, for --rules, markdown
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json", "sarif", "markdown"])]
    format: String,
}

/// Exit code of what could not be checked.
const NOT_CHECKED: u8 = 2;

pub fn run(arguments: &Arguments) -> Result<u8> {
    many_files();
    let done = match arguments.rules {
        true => report::rules(&arguments.format),
        false => checked(arguments),
    };
    done.or_else(|error| {
        log::error(&error.to_string());
        Ok(NOT_CHECKED)
    })
}

fn checked(arguments: &Arguments) -> Result<u8> {
    if arguments.format == "markdown" {
        return Err(Error::invalid("--format markdown", "is for --rules alone"));
    }
    let name = arguments.bundle.as_deref().unwrap_or_default();
    let path = Path::new(name);
    let report = match path.is_dir() && !path.join("oci-layout").is_file() {
        true => bundle(arguments, path, &Progress::default())?,
        false if arguments.fix => {
            return Err(Error::invalid("--fix", "an image has no config.json to mend").hint("make a bundle of it"));
        }
        false => image(arguments, name)?,
    };
    report.print(&arguments.format)?;
    let bad = |finding: &Finding| threshold(&arguments.fail_on).is_some_and(|least| finding.severity >= least);
    Ok(u8::from(report.findings.iter().any(bad)))
}

/// Each folder on the way holds a descriptor, and does so for each layer that has it.
fn many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn threshold(name: &str) -> Option<Severity> {
    [Severity::Note, Severity::Warning, Severity::Error].into_iter().find(|severity| severity.name() == name)
}

fn bundle(arguments: &Arguments, dir: &Path, progress: &Progress) -> Result<Report> {
    let mut bundle = Bundle::open(dir)?;
    let mut fixed = Vec::new();
    if arguments.fix {
        (bundle, fixed) = mended(bundle)?;
    }
    // As the runtime understands it, whichever of JSON's ways it is written in.
    let config = serde_json::to_value(&bundle.spec).map_err(not_json)?;
    // Each begins with the field.
    let unknown = bundle.warnings.iter().filter_map(|warning| warning.split_once(": "));
    let unknown: Vec<_> = unknown.map(|(field, why)| (field.to_owned(), why.to_owned())).collect();
    let subject = Subject { dir: &bundle.path, config: &config, unknown: &unknown };
    let mut findings = check::check(&subject, progress)?;
    let others = scanner::run(&arguments.with, &check::folders(&subject)?)?;
    for other in &others {
        findings.extend(sarif::read(other)?);
    }
    check::sort(&mut findings);
    let root = config["root"]["path"].as_str().unwrap_or("rootfs").to_owned();
    Ok(Report { bundle: dir.to_owned(), root, fixed, findings, others })
}

/// The bundle with a mended config, which is in its config.json, and what was mended.
fn mended(bundle: Bundle) -> Result<(Bundle, Vec<String>)> {
    let mut config: Value = serde_json::from_slice(&bundle.config).map_err(not_json)?;
    for pointer in ["", "/process", "/root", "/linux", "/linux/resources", "/linux/resources/memory"] {
        if config.pointer(pointer).is_some_and(Value::is_array) {
            return Err(Error::invalid(format!("--fix: config.json: {pointer}"), "is a list, and not an object"));
        }
    }
    let fixed = check::fix(&mut config, &harden::config()?);
    if fixed.is_empty() {
        return Ok((bundle, fixed));
    }
    let text = format!("{config:#}\n");
    let new = Bundle::from_config(bundle.path.clone(), text.clone().into_bytes())?;
    output::replace(&bundle.path.join("config.json"), &text)?;
    Ok((new, fixed))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::invalid("config.json", error.to_string())
}

/// Of an image: of the bundle that `bundle create` makes of it, which is gone at the end.
fn image(arguments: &Arguments, source: &str) -> Result<Report> {
    let progress = Progress::default();
    // From here on a signal ends the work, and not the process: nothing is left.
    let _bar = Bar::start(&progress)?;
    // What images bring, set-id files too, is for nobody else.
    let folder = Temporary::new("check")?;
    let dir = folder.path().join("bundle");
    let request = Request {
        source: source.to_owned(),
        dir: dir.clone(),
        platform: Platform::host(),
        // Layers still have what later ones remove; only root can unpack them as they are, and a scanner is to see one root.
        copy: !arguments.with.is_empty() || !nix::unistd::geteuid().is_root(),
        limits: Limits { size: arguments.max_size, ..Limits::default() },
        pin: None,
        keys: Vec::new(),
        policies: Vec::new(),
        flags: config::Flags::default(),
        base: harden::config()?,
    };
    let store = Store::open(Some(folder.path().join("store")))?;
    wsbox_bundles::create(&request, &unpacker()?, &store, &progress)?;
    let mut report = bundle(arguments, &dir, &progress)?;
    report.bundle = source.into();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// The same layers in the same words as `wsbox run` says.
    #[test]
    fn layers_are_lacking_as_the_runtime_says() {
        let dir = std::env::temp_dir().join(format!("wsbox-check-test-{}", std::process::id()));
        fs::create_dir_all(dir.join("rootfs")).unwrap();
        let base = harden::config().unwrap();
        let joined = json!([{ "type": "network", "path": "/x" }, { "type": "user", "path": "/x" }]);
        for (pointer, value) in [
            ("/hostname", json!("x")),
            ("/linux/namespaces", json!([])),
            ("/linux/namespaces", joined),
            ("/linux/seccomp", Value::Null),
            ("/root/readonly", json!(false)),
            ("/process/capabilities/ambient", json!(["CAP_CHOWN"])),
            ("/process/capabilities", Value::Null),
            ("/linux/resources/pids/limit", json!(0)),
            ("/linux/resources/memory/limit", json!(-1)),
            ("/linux/resources/cpu/quota", json!(-1)),
            ("/linux/resources", Value::Null),
            ("/process/noNewPrivileges", Value::Null),
            ("/process", Value::Null),
            ("/linux", Value::Null),
        ] {
            let mut config = base.clone();
            *config.pointer_mut(pointer).unwrap() = value;
            let spec = serde_json::from_value(config.clone()).unwrap();
            let found =
                check::check(&Subject { dir: &dir, config: &config, unknown: &[] }, &Progress::default()).unwrap();
            let mut layers: Vec<_> =
                found.iter().filter(|one| one.rule.as_str() <= "WSB008").map(|one| &*one.title).collect();
            layers.dedup();
            assert_eq!(layers, harden::lacking(&spec), "{pointer}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
