// SPDX-License-Identifier: Apache-2.0
//! What it prints, and its exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Engine, Outcome, TempDir, sandbox};

use crate::{check, faultless};

#[test]
fn exit_codes_by_severity() {
    let note = faultless().set("/process/rlimits", json!([]));
    let warning = faultless().set("/process/user/uid", json!(0));
    let error = faultless().remove("/linux/seccomp");
    for (bundle, bad) in [(note, 1), (warning, 2), (error, 3)] {
        for (fail_on, least) in [("note", 1), ("warning", 2), ("error", 3), ("never", 4)] {
            let outcome = check(&bundle, &["--fail-on", fail_on]);
            assert_eq!(outcome.code, i32::from(bad >= least), "{fail_on}: {outcome:?}");
        }
    }
}

#[test]
fn a_table() {
    let bundle = faultless().remove("/linux/seccomp").set("/process/user/uid", json!(0));
    let text = check(&bundle, &[]).stdout;
    let path = bundle.path().display();
    let wanted = format!(
        "error WSB002 L2 seccomp
  config.json: linux.seccomp: no filter (unconfined)
  why: every system call of the kernel is in reach, so every fault of it, too
  fix: linux.seccomp: take deployment/seccomp/workspace-seccomp.json

warning WSB021 user is root
  config.json: process.user.uid: uid 0, of the container only
  why: files of the image are its own, and every fault of the kernel that needs a uid 0 is open
  fix: wsbox bundle create --user 1001:1001, or USER in the Dockerfile

{path}: 1 error, 1 warning, 0 notes
"
    );
    assert_eq!(text, wanted);
}

#[test]
fn sarif() {
    let bundle = faultless().remove("/linux/seccomp");
    fs::write(bundle.root().join("app/su"), "").unwrap();
    fs::set_permissions(bundle.root().join("app/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    let sarif: Value = serde_json::from_str(&check(&bundle, &["--format", "sarif"]).stdout).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert!(sarif["$schema"].as_str().unwrap().ends_with("sarif-schema-2.1.0.json"));
    let run = &sarif["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(run["tool"]["driver"]["name"], "wsbox");
    for rule in rules {
        for pointer in [
            "/id",
            "/shortDescription/text",
            "/fullDescription/text",
            "/help/text",
            "/help/markdown",
            "/defaultConfiguration/level",
        ] {
            assert!(
                rule.pointer(pointer).is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty())),
                "{pointer}"
            );
        }
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, id, level, uri) in
        [(&results[0], "WSB002", "error", "config.json"), (&results[1], "WSB101", "warning", "rootfs/app/su")]
    {
        assert_eq!((&result["ruleId"], &result["level"]), (&json!(id), &json!(level)));
        assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], id);
        assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], uri);
    }
    assert_eq!(results[0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "linux.seccomp");
}

#[test]
fn the_rules() {
    let wsbox = |format: &str| Engine::new().wsbox(&["bundle", "check", "--rules", "--format", format]).ok().stdout;
    let rules: Value = serde_json::from_str(&wsbox("json")).unwrap();
    let ids: Vec<_> = rules.as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(ids, sorted);
    for format in ["table", "markdown", "sarif"] {
        let text = wsbox(format);
        assert!(ids.iter().all(|id| text.contains(id)), "{text}");
    }
    // Each is found by a test.
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundle_check");
    let tests =
        ["config.rs", "root.rs", "hostile.rs"].map(|name| fs::read_to_string(tests.join(name)).unwrap()).concat();
    assert!(ids.iter().all(|id| tests.contains(id)), "{ids:?}");
    // As it lies in the repository.
    let checks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/CHECKS.md");
    assert!(fs::read_to_string(checks).unwrap() == wsbox("markdown"), "bundles/CHECKS.md is not current");
}

#[test]
fn scanners_that_are_not_there() {
    let bundle = faultless();
    bundle.write();
    for scanner in ["trivy", "grype"] {
        let path = bundle.path().display().to_string();
        let outcome =
            Engine::new().command(&["bundle", "check", &path, "--with", scanner]).env("PATH", "/nowhere").output();
        let outcome = outcome.unwrap();
        assert_eq!(outcome.status.code(), Some(2));
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(
            stderr,
            format!("wsbox: --with {scanner}: is not installed (install it, or check without --with)\n")
        );
        assert!(outcome.stdout.is_empty());
    }
    assert_ne!(check(&bundle, &["--with", "other"]).code, 0);
}

/// A program in the place of a scanner, which says in SARIF what it was called with, and what it saw.
const SCANNER: &str = r#"#!/bin/sh
for root; do :; done
root=${root#dir:}
saw=$(cd "$root" && echo $(ls -d * */*))
test -z "$FAIL" || { echo "no database" >&2; exit 3; }
echo '{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "scanner", "rules": [{"id": "CVE-1"}]}},
    "results": [{"ruleId": "CVE-1", "level": "error", "message": {"text": "'"${0##*/} $# $1: $saw"'"}}]}]}'
"#;

fn scan(tools: &Path, bundle: &Bundle, flags: &[&str], fail: &str) -> Outcome {
    bundle.write();
    let engine = Engine::new();
    let path = bundle.path().display().to_string();
    let mut command = engine.command(&[&["bundle", "check", &path], flags].concat());
    let search = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let outcome = sandbox::outcome(command.env("PATH", search).env("FAIL", fail).env("TMPDIR", tools.join("tmp")));
    assert_eq!(fs::read_dir(tools.join("tmp")).unwrap().count(), 0);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("wsbox-scan"));
    outcome
}

/// One root, and an overlay of layers that nobody else sees; what it says is in every format.
#[test]
fn a_scanner_sees_the_root() {
    let folder = TempDir::new("scan");
    let at = |name: &str| folder.path().join(name);
    for path in ["tmp", "up/app", "low/app"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for path in ["up/app/new", "low/app/old"] {
        fs::write(at(path), "x").unwrap();
    }
    for name in ["trivy", "grype"] {
        fs::write(at(name), SCANNER).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let layers = json!(format!("{}:{}", at("up").display(), at("low").display()));
    let layered = faultless().set("/annotations/dev.wsbox.layers", layers);
    for (bundle, saw) in [(faultless(), "app app/main"), (layered, "app app/new app/old")] {
        let outcome = scan(folder.path(), &bundle, &["--with", "trivy", "--with", "grype"], "");
        assert_eq!(outcome.code, 1, "{outcome:?}");
        for line in [format!("  no place: trivy 5 rootfs: {saw}"), format!("  no place: grype 4 --quiet: {saw}")] {
            assert!(outcome.stdout.lines().any(|one| one == line), "{line}: {outcome:?}");
        }
        let sarif = scan(folder.path(), &bundle, &["--with", "grype", "--format", "sarif"], "").stdout;
        let sarif: Value = serde_json::from_str(&sarif).unwrap();
        assert_eq!(sarif["runs"][0]["results"], json!([]));
        assert_eq!(sarif["runs"][1]["results"][0]["message"]["text"], format!("grype 4 --quiet: {saw}"));
        let failed =
            scan(folder.path(), &bundle, &["--with", "grype"], "yes").fails(2, &["--with grype", "no database"]);
        assert!(failed.stdout.is_empty());
    }
}
