// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp allow`: one more rule at the end of a profile; the rest of the text stays as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lint::Said;
use super::source::{Source, range};
use super::{diff, lint};
use crate::cli::output;
use crate::error::{Error, Result};
use crate::seccomp;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file or a bundle, which is changed; or with --output, one of: workspace, docker-default
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// Names of system calls
    #[arg(value_name = "SYSCALL", required = true)]
    syscalls: Vec<String>,
    /// Write the profile there, and leave PROFILE as it is
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also calls by which programs got out of sandboxes
    #[arg(long)]
    force: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: Arguments) -> Result<u8> {
    let source = Source::read(&arguments.profile)?;
    let profile = source.profile()?;
    let before = Said::of(&profile)?;
    for syscall in &arguments.syscalls {
        lint::must_exist(syscall)?;
        if let Some(why) = against(&before, syscall).filter(|_| !arguments.force) {
            let error = Error::invalid(syscall, format!("should not be allowed: it {why}"));
            return Err(error.hint("--force allows it all the same"));
        }
    }
    let added: Vec<&String> = arguments.syscalls.iter().filter(|syscall| !before.allows(syscall)).collect();
    let changed = if added.is_empty() { source.text.clone() } else { add(&source, &added)? };
    let after = check(&changed, &source, &added)?;
    let changes = seccomp::check::changes(&profile, &after)?;
    output::text(&changes.iter().map(diff::line).collect::<String>())?;
    if added.is_empty() {
        output::text("all of them are allowed already\n")?;
    }
    let file = arguments.output.or(source.file);
    match file {
        _ if arguments.dry_run => Ok(0),
        None => Err(Error::invalid("--output", format!("{} is part of wsbox: say where to write", arguments.profile))),
        Some(file) => output::replace(&file, &changed).map(|()| 0),
    }
}

/// Why a call should not be allowed whatever its arguments; None if nothing speaks against it.
fn against(profile: &Said, syscall: &str) -> Option<&'static str> {
    let part = profile.tells_arguments_apart(syscall);
    lint::danger(syscall)
        .or(part
            .then_some("has arguments that the profile means to deny, and a rule without conditions allows them all"))
}

/// What was learned.
#[derive(Debug, Default)]
pub struct Learned {
    /// The changed text; none if nothing was
    pub text: Option<String>,
    /// How many calls are allowed that were not
    pub count: usize,
    /// What was not learned, and why
    pub refused: BTreeMap<String, String>,
}

/// Allows those of `syscalls` that are not allowed, in the text of `source`; without `force` none that should not be.
///
/// # Errors
/// If the profile can not be compiled.
pub fn learn(source: &Source, syscalls: impl IntoIterator<Item = String>, force: bool) -> Result<Learned> {
    let before = Said::of(&source.profile()?)?;
    let (mut may, mut learned) = (Vec::new(), Learned::default());
    for syscall in syscalls.into_iter().filter(|syscall| !before.allows(syscall)) {
        let why = match lint::must_exist(&syscall) {
            Err(_) => Some("it has no name in this wsbox's table".to_owned()),
            Ok(()) => against(&before, &syscall).filter(|_| !force).map(|why| format!("it {why} (--force)")),
        };
        // A rule that would say nothing is none to learn, and keeps no other from it.
        let why = match why {
            None => check(&add(source, &[&syscall])?, source, &[&syscall]).err().map(|error| error.to_string()),
            some => some,
        };
        match why {
            Some(why) => drop(learned.refused.insert(syscall, why)),
            None => may.push(syscall),
        }
    }
    learned.count = may.len();
    if !may.is_empty() {
        learned.text = Some(add(source, &may.iter().collect::<Vec<_>>())?);
    }
    Ok(learned)
}

#[derive(Deserialize)]
struct Rules<'a> {
    #[serde(borrow)]
    syscalls: Option<&'a RawValue>,
}

/// The text with a rule for `syscalls`.
fn add(source: &Source, syscalls: &[&String]) -> Result<String> {
    let profile = &source.text[source.place.clone()];
    let broken = |error: serde_json::Error| Error::invalid("profile", error.to_string());
    let rules: Rules = serde_json::from_str(profile).map_err(broken)?;
    let names = serde_json::to_string(syscalls).map_err(broken)?;
    let rule = format!("{{ \"names\": {names}, \"action\": \"SCMP_ACT_ALLOW\" }}");
    let (at, text) = match rules.syscalls.map(|list| (range(&source.text, list.get()).end - 1, list.get())) {
        Some((end, list)) => {
            let inside = list.trim_start_matches('[').trim_end_matches(']');
            let last = source.text[..end].trim_end().len();
            (last, if inside.trim().is_empty() { rule } else { format!(",\n    {rule}") })
        }
        // Before the profile's closing brace.
        None => {
            let end = source.place.start + profile.trim_end().len() - 1;
            (source.text[..end].trim_end().len(), format!(",\n  \"syscalls\": [{rule}]\n"))
        }
    };
    Ok(format!("{}{text}{}", &source.text[..at], &source.text[at..]))
}

/// The rule may say nothing: one without conditions that comes first wins.
fn check(text: &str, source: &Source, added: &[&String]) -> Result<LinuxSeccomp> {
    let grown = text.len() - source.text.len();
    let place = source.place.start..source.place.end + grown;
    let changed = Source { file: source.file.clone(), text: text.to_owned(), place };
    let profile = changed.profile()?;
    let said = Said::of(&profile)?;
    match added.iter().find(|syscall| !said.allows(syscall)) {
        Some(syscall) => Err(Error::invalid(
            *syscall,
            "a rule of the profile denies it, and comes first; or it has no architecture with this call",
        )
        .hint(format!("`wsbox seccomp explain PROFILE {syscall}` shows the rule: take the name out of it"))),
        None => Ok(profile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str) -> String {
        let source = Source { file: None, text: text.into(), place: 0..text.len() };
        let syscall = "io_setup".to_owned();
        let changed = add(&source, &[&syscall]).unwrap();
        check(&changed, &source, &[&syscall]).unwrap();
        changed
    }

    #[test]
    fn the_rest_of_the_text_stays() {
        let text = "{\n  \"defaultAction\": \"SCMP_ACT_ERRNO\",\n  \"syscalls\": [\n    {\"names\": [\"read\"], \"action\": \"SCMP_ACT_ALLOW\"}\n  ]\n}\n";
        let rule = ",\n    { \"names\": [\"io_setup\"], \"action\": \"SCMP_ACT_ALLOW\" }";
        assert_eq!(added(text), text.replace("\"}\n  ]", &format!("\"}}{rule}\n  ]")));
        assert!(added("{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": []}").contains("[{ \"names\""));
        assert!(added("{\"defaultAction\": \"SCMP_ACT_ERRNO\"}").contains("\"syscalls\": [{"));
    }

    #[test]
    fn a_rule_that_would_say_nothing_is_no_change() {
        let text = "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"io_setup\"], \"action\": \"SCMP_ACT_ERRNO\"}]}";
        let source = Source { file: None, text: text.into(), place: 0..text.len() };
        let syscall = "io_setup".to_owned();
        let changed = add(&source, &[&syscall]).unwrap();
        assert!(check(&changed, &source, &[&syscall]).unwrap_err().to_string().contains("comes first"));
    }
}
