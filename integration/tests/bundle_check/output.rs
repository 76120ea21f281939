// SPDX-License-Identifier: Apache-2.0
//! What it prints, and its exit codes.

use std::fs;

use serde_json::{Value, json};
use wsbox_integration::Engine;

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
    fs::set_permissions(bundle.root().join("app/su"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
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
