// SPDX-License-Identifier: Apache-2.0
//! What was found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::rules::{Rule, Severity};

/// Findings of one rule that are kept; of more only the number is.
const MOST: usize = 100;

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A JSON path of config.json.
    Field(String),
    /// A path of the container.
    File(PathBuf),
    /// As another tool has it.
    Other(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(path) => write!(f, "config.json: {}", plain(path)),
            Self::File(path) => write!(f, "{}", plain(&path.to_string_lossy())),
            Self::Other(text) => write!(f, "{}", plain(text)),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Names come from the image: what would steer a terminal is shown escaped.
pub fn plain(text: &str) -> String {
    let one = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    text.chars().map(one).collect()
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// How bad it is here.
    pub severity: Severity,
    /// What the rule is called.
    pub title: String,
    /// What it is here; never a secret itself.
    pub what: String,
    /// Where.
    #[serde(rename = "where")]
    pub place: Place,
    /// What can happen.
    pub why: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    /// Of a rule, as bad as the rule says.
    pub fn new(rule: &Rule, place: Place, what: impl Into<String>) -> Self {
        Self {
            rule: rule.id.into(),
            severity: rule.severity,
            title: rule.title.into(),
            what: plain(&what.into()),
            place,
            why: rule.why.into(),
            fix: rule.fix.into(),
        }
    }
}

/// Findings, of which a hostile root can not make too many.
#[derive(Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
    counts: BTreeMap<&'static str, usize>,
}

impl Findings {
    /// Something in config.json, at a JSON path.
    pub fn field(&mut self, rule: &'static Rule, path: impl Into<String>, what: impl Into<String>) {
        self.add(rule, rule.severity, Place::Field(path.into()), what.into());
    }

    /// Something in config.json that is not as bad as the rule says, or worse.
    pub fn field_as(&mut self, rule: &'static Rule, severity: Severity, path: impl Into<String>, what: String) {
        self.add(rule, severity, Place::Field(path.into()), what);
    }

    /// Something of the root file system.
    pub fn file(&mut self, rule: &'static Rule, severity: Severity, path: PathBuf, what: impl Into<String>) {
        self.add(rule, severity, Place::File(path), what.into());
    }

    fn add(&mut self, rule: &'static Rule, severity: Severity, place: Place, what: String) {
        let count = self.counts.entry(rule.id).or_default();
        *count += 1;
        if *count <= MOST {
            self.all.push(Finding { severity, ..Finding::new(rule, place, what) });
        }
    }

    /// The worst first, then by rule and place; with how many are not there.
    pub fn sorted(mut self) -> Vec<Finding> {
        for (id, count) in &self.counts {
            if let (Some(more @ 1..), Some(last)) =
                (count.checked_sub(MOST), self.all.iter().rev().find(|one| one.rule == *id).cloned())
            {
                let what = format!("{more} more like these");
                self.all.push(Finding { what, place: Place::Other("and elsewhere".into()), ..last });
            }
        }
        sort(&mut self.all);
        self.all.dedup();
        self.all
    }
}

/// The worst first.
pub fn sort(all: &mut [Finding]) {
    all.sort_by(|one, other| {
        let key = |finding: &Finding| (std::cmp::Reverse(finding.severity), finding.rule.clone());
        key(one).cmp(&key(other)).then_with(|| one.place.cmp(&other.place))
    });
}
