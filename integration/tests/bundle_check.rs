// SPDX-License-Identifier: Apache-2.0
//! `wsbox bundle check`: every fault is found, and a bundle without faults is said to have none.

#[path = "bundle_check/config.rs"]
mod config;
#[path = "bundle_check/fix.rs"]
mod fix;
#[path = "bundle_check/hostile.rs"]
mod hostile;
#[path = "bundle_check/images.rs"]
mod images;
#[path = "bundle_check/output.rs"]
mod output;
#[path = "bundle_check/pipeline.rs"]
mod pipeline;
#[path = "bundle_check/root.rs"]
mod root;

use std::fs;

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Engine, Outcome};

/// A bundle without a fault: the hardened config, a user, an image that is known, and a root of one file.
fn faultless() -> Bundle {
    let bundle = Bundle::hardened();
    fs::remove_dir_all(bundle.root()).unwrap();
    fs::create_dir_all(bundle.root().join("app")).unwrap();
    fs::write(bundle.root().join("app/main"), "hello\n").unwrap();
    let pinned =
        json!({ "dev.wsbox.image.digest": format!("sha256:{}", "0".repeat(64)), "dev.wsbox.image.name": "app:1.2" });
    let bundle = bundle.args(&["/app/main"]).set("/process/user", json!({ "uid": 1001, "gid": 1001 }));
    bundle.set("/annotations", pinned)
}

fn check(bundle: &Bundle, flags: &[&str]) -> Outcome {
    bundle.write();
    let path = bundle.path().display().to_string();
    Engine::new().wsbox(&[&["bundle", "check", &path], flags].concat())
}

fn findings(bundle: &Bundle) -> Vec<Value> {
    let outcome = check(bundle, &["--format", "json", "--fail-on", "never"]).ok();
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    report["findings"].as_array().unwrap().clone()
}

/// Rules and places of what is found.
fn found(bundle: &Bundle) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings(bundle).iter().map(|one| (text(&one["rule"]), text(&one["where"]))).collect()
}

/// Panics unless `rule` was found at `place`, and nothing else.
fn assert_only(bundle: &Bundle, rule: &str, place: &str) {
    assert_eq!(found(bundle), [(rule.to_owned(), place.to_owned())]);
}

#[test]
fn nothing_is_found_in_a_faultless_bundle() {
    let bundle = faultless();
    assert_eq!(found(&bundle), []);
    let outcome = check(&bundle, &["--fail-on", "note"]).ok();
    assert!(outcome.stdout.ends_with(": 0 errors, 0 warnings, 0 notes\n"), "{outcome:?}");
}
