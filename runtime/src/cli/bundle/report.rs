// SPDX-License-Identifier: Apache-2.0
//! What `wsbox bundle check` prints.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use wsbox_bundles::check::{Finding, Severity, markdown, rules, sarif};

use crate::cli::output;
use crate::error::Result;

/// Places of one rule that the table has.
const PLACES: usize = 10;

/// What was found of one bundle.
pub struct Report {
    /// As the user called it.
    pub bundle: PathBuf,
    /// Where its root is, in it.
    pub root: String,
    /// What was mended.
    pub fixed: Vec<String>,
    /// Ours and those of scanners, the worst first.
    pub findings: Vec<Finding>,
    /// The documents of scanners.
    pub others: Vec<Value>,
}

impl Report {
    /// Prints it.
    pub fn print(&self, format: &str) -> Result<()> {
        match format {
            "json" => output::json(&self.json()).map(drop),
            "sarif" => {
                self.fixed.iter().for_each(|change| eprintln!("wsbox: fixed {change}"));
                output::json(&sarif::write(&self.findings, VERSION, &self.root, &self.others)?).map(drop)
            }
            _ => output::text(&self.text()).map(drop),
        }
    }

    fn json(&self) -> Value {
        json!({
            "bundle": self.bundle,
            "fixed": self.fixed,
            "findings": self.findings,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note)
        })
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// By rule: all places of it, then why and what to do.
    fn text(&self) -> String {
        let mut text: String = self.fixed.iter().map(|change| format!("fixed {change}\n")).collect();
        if !text.is_empty() {
            text += "\n";
        }
        for group in self.findings.chunk_by(|one, other| one.rule == other.rule && one.severity == other.severity) {
            group_text(&mut text, group);
        }
        let count = |severity, name: &str| {
            let number = self.count(severity);
            format!("{number} {name}{}", if number == 1 { "" } else { "s" })
        };
        let all = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
        let all = all.map(|(severity, name)| count(severity, name)).join(", ");
        text + &format!("{}: {all}\n", self.bundle.display())
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn group_text(text: &mut String, group: &[Finding]) {
    let Some(first) = group.first() else { return };
    let _ = writeln!(text, "{} {} {}", first.severity.name(), first.rule, first.title);
    for finding in group.iter().take(PLACES) {
        let what = if finding.what.is_empty() { String::new() } else { format!(": {}", finding.what) };
        let _ = writeln!(text, "  {}{what}", finding.place);
    }
    if let Some(more @ 1..) = group.len().checked_sub(PLACES) {
        let _ = writeln!(text, "  and {more} more (--format json has them)");
    }
    for (name, what) in [("why", &first.why), ("fix", &first.fix)] {
        if !what.is_empty() {
            let _ = writeln!(text, "  {name}: {what}");
        }
    }
    text.push('\n');
}

/// Prints what is looked for.
pub fn rules(format: &str) -> Result<u8> {
    match format {
        "json" => output::json(&rules::ALL),
        "sarif" => output::json(&sarif::write(&[], VERSION, "", &[])?),
        "markdown" => output::text(&markdown()),
        _ => {
            let head = ["RULE", "SEVERITY", "WHAT"].map(str::to_owned).to_vec();
            let row = |rule: &&rules::Rule| [rule.id, rule.severity.name(), rule.title].map(str::to_owned).to_vec();
            output::table(&std::iter::once(head).chain(rules::ALL.iter().map(row)).collect::<Vec<_>>())
        }
    }
}
