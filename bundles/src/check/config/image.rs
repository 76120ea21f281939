// SPDX-License-Identifier: Apache-2.0
//! What the bundle was made of.

use serde_json::Value;

use crate::check::finding::Findings;
use crate::check::rules;

/// Tags that mean whatever was pushed last.
const MOVING: [&str; 10] =
    ["latest", "stable", "edge", "main", "master", "dev", "nightly", "current", "rolling", "unstable"];

/// Its digest, and its tag.
pub fn check(config: &Value, found: &mut Findings) {
    let annotation = |name: &str| config["annotations"][name].as_str();
    if annotation("dev.wsbox.image.digest").is_none() {
        let what = "it is not known which image this was";
        found.field(&rules::UNPINNED, "annotations[\"dev.wsbox.image.digest\"]", what);
    }
    if let Some(name) = annotation("dev.wsbox.image.name").filter(|name| moves(name)) {
        found.field(&rules::MOVING_TAG, "annotations[\"dev.wsbox.image.name\"]", name);
    }
}

/// A layout may have a tag alone for a name.
fn moves(name: &str) -> bool {
    if name.contains('@') {
        return false;
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.rsplit_once(':') {
        Some((_, tag)) => MOVING.contains(&tag),
        None => MOVING.contains(&last) || name.contains('/'),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        for name in ["app:latest", "latest", "host:5000/team/app", "host:5000/app:main", "team/app"] {
            assert!(super::moves(name), "{name}");
        }
        for name in ["app:1.2", "1.2", "host:5000/app:1", "app@sha256:00", "host/app:latest@sha256:00"] {
            assert!(!super::moves(name), "{name}");
        }
    }
}
