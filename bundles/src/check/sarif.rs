// SPDX-License-Identifier: Apache-2.0
//! SARIF 2.1.0, which code hosts and editors read: ours, and what other tools say in it.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};

use super::finding::{Finding, Place, plain};
use super::rules::{ALL, Rule, Severity};
use crate::error::{Error, Result};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The document of `findings`, with `others`, documents of other tools, as runs of their own. `root` is where the bundle's root is, as
/// its config has it.
///
/// # Errors
/// If one of the others is no SARIF.
pub fn write(findings: &[Finding], version: &str, root: &str, others: &[Value]) -> Result<Value> {
    let results: Vec<_> = findings.iter().filter_map(|finding| result(finding, root)).collect();
    let driver =
        json!({ "name": "wsbox", "version": version, "rules": ALL.iter().map(|one| rule(one)).collect::<Vec<_>>() });
    let mut runs = vec![json!({ "tool": { "driver": driver }, "results": results, "columnKind": "utf16CodeUnits" })];
    for other in others {
        runs.extend(self::runs(other)?.iter().cloned());
    }
    Ok(json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": runs }))
}

fn rule(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.title },
        "fullDescription": { "text": format!("{}: {}.", rule.title, rule.why) },
        "help": {
            "text": format!("Why: {}.\nFix: {}.", rule.why, rule.fix),
            "markdown": format!("**Why:** {}.\n\n**Fix:** {}.", rule.why, rule.fix)
        },
        "defaultConfiguration": { "level": rule.severity.name() },
        "properties": { "tags": ["security", "container"], "security-severity": score(rule.severity) }
    })
}

/// As code hosts sort by: high, medium, low.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "8.0",
        Severity::Warning => "5.0",
        Severity::Note => "2.0",
    }
}

/// Those of other tools are in runs of their own.
fn result(finding: &Finding, root: &str) -> Option<Value> {
    let index = ALL.iter().position(|rule| rule.id == finding.rule)?;
    let text = if finding.what.is_empty() { &finding.title } else { &finding.what };
    let message = format!("{}: {text} ({})", finding.place, finding.fix);
    let location = match &finding.place {
        Place::Field(path) => json!({
            "physicalLocation": at("config.json"),
            "logicalLocations": [{ "fullyQualifiedName": path }]
        }),
        Place::File(path) => json!({ "physicalLocation": at(&uri(root, path)) }),
        Place::Other(text) => json!({ "logicalLocations": [{ "fullyQualifiedName": text }] }),
    };
    Some(json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity.name(),
        "message": { "text": message },
        "locations": [location]
    }))
}

/// Code hosts want a line, though it is the whole file.
fn at(uri: &str) -> Value {
    json!({ "artifactLocation": { "uri": uri }, "region": { "startLine": 1 } })
}

/// Relative to the bundle, with what a URI can not have in percents (RFC 3986).
fn uri(root: &str, path: &Path) -> String {
    let whole = [root.trim_end_matches('/').as_bytes(), path.as_os_str().as_bytes()].concat();
    whole.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

fn runs(document: &Value) -> Result<&Vec<Value>> {
    let bad = |why: &str| Error::new("SARIF", why);
    if document["version"] != "2.1.0" {
        return Err(bad("is not version 2.1.0"));
    }
    document["runs"].as_array().ok_or_else(|| bad("has no runs"))
}

/// The findings of another tool's document.
///
/// # Errors
/// If it is no SARIF 2.1.0.
pub fn read(document: &Value) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for run in runs(document)? {
        for result in run["results"].as_array().into_iter().flatten() {
            all.push(foreign(&run["tool"]["driver"], result));
        }
    }
    Ok(all)
}

fn foreign(driver: &Value, result: &Value) -> Finding {
    let id = result["ruleId"].as_str().or(result["rule"]["id"].as_str()).unwrap_or_default();
    let rules = driver["rules"].as_array();
    let rule = rules.and_then(|rules| rules.iter().find(|rule| rule["id"] == id)).unwrap_or(&Value::Null);
    let text = |value: &Value| plain(value["text"].as_str().unwrap_or_default().lines().next().unwrap_or_default());
    let level = result["level"].as_str().or(rule["defaultConfiguration"]["level"].as_str());
    let tool = driver["name"].as_str().unwrap_or("another tool");
    let place = &result["locations"][0]["physicalLocation"];
    let file = place["artifactLocation"]["uri"].as_str().unwrap_or("no place");
    let line = place["region"]["startLine"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
    Finding {
        rule: plain(id),
        severity: match level {
            Some("error") => Severity::Error,
            Some("note" | "none") => Severity::Note,
            // What SARIF says of a result without one.
            _ => Severity::Warning,
        },
        title: plain(tool),
        what: text(&result["message"]),
        place: Place::Other(format!("{file}{line}")),
        why: text(&rule["shortDescription"]),
        fix: plain(rule["helpUri"].as_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules;

    /// As scanners of vulnerabilities write them: a rule, a result with its own level, and one without.
    fn document() -> Value {
        json!({
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "Scanner", "rules": [
                    { "id": "CVE-1", "shortDescription": { "text": "a hole" }, "helpUri": "https://example.org/CVE-1",
                      "defaultConfiguration": { "level": "error" } },
                    { "id": "CVE-2" }
                ] } },
                "results": [
                    { "ruleId": "CVE-1", "ruleIndex": 0, "message": { "text": "Package: x\nInstalled: 1" },
                      "locations": [{ "physicalLocation": { "artifactLocation": { "uri": "usr/lib/x" }, "region": { "startLine": 3 } } }] },
                    { "ruleId": "CVE-1", "level": "note", "message": { "text": "\u{1b}[2J" } },
                    { "ruleId": "CVE-2", "message": { "text": "y" } }
                ]
            }]
        })
    }

    #[test]
    fn what_others_say() {
        let found = read(&document()).unwrap();
        assert_eq!(
            found[0],
            Finding {
                rule: "CVE-1".into(),
                severity: Severity::Error,
                title: "Scanner".into(),
                what: "Package: x".into(),
                place: Place::Other("usr/lib/x:3".into()),
                why: "a hole".into(),
                fix: "https://example.org/CVE-1".into(),
            }
        );
        let rest: Vec<_> = found[1..].iter().map(|one| (one.severity, &*one.what, one.place.to_string())).collect();
        let nowhere = || "no place".to_owned();
        assert_eq!(rest, [(Severity::Note, "\\u{1b}[2J", nowhere()), (Severity::Warning, "y", nowhere())]);
    }

    #[test]
    fn merged() {
        let ours = Finding::new(&rules::SETID, Place::File("/bin/su".into()), "set-uid");
        let all = [read(&document()).unwrap(), vec![ours]].concat();
        let merged = write(&all, "1", "rootfs", &[document(), document()]).unwrap();
        let runs = merged["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 3);
        assert_eq!(runs[0]["results"].as_array().unwrap().len(), 1, "theirs are in their own run alone");
        assert_eq!(runs[1..], [document()["runs"][0].clone(), document()["runs"][0].clone()]);
        assert_eq!(read(&merged).unwrap().len(), 7);
    }

    #[test]
    fn what_is_none() {
        for text in ["{}", "[]", "null", r#"{"version": "2.0.0", "runs": []}"#, r#"{"version": "2.1.0"}"#] {
            let document = serde_json::from_str(text).unwrap();
            assert!(read(&document).is_err() && write(&[], "1", "", &[document]).is_err(), "{text}");
        }
        assert_eq!(read(&json!({ "version": "2.1.0", "runs": [{ "results": 3 }, 4, null] })).unwrap(), []);
    }
}
