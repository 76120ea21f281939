// SPDX-License-Identifier: Apache-2.0
//! What a host demands of images, by where they are from:
//!
//! ```json
//! { "images": [
//!     { "pattern": "docker://registry.example.org/team/*", "digest": true, "keys": ["/etc/wsbox/team.pub"] },
//!     { "pattern": "docker://*", "refuse": true } ] }
//! ```
//!
//! The first pattern that fits counts; `*` is any text, but a host is never more than a host. What is on this host is known by its path.
//! A source that none fits is taken as it is: a last pattern `*` that refuses turns that round.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// A policy file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    images: Vec<Demand>,
}

/// What is demanded of the images that `pattern` fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    pattern: String,
    /// The user has to give the digest.
    #[serde(default)]
    pub digest: bool,
    /// One of these keys has to have signed it.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    /// It may not be used at all.
    #[serde(default)]
    pub refuse: bool,
}

impl Policy {
    /// Reads the policy at `path`.
    ///
    /// # Errors
    /// If it is not there or no policy.
    pub fn read(path: &Path) -> Result<Self> {
        let subject = || format!("policy {}", path.display());
        serde_json::from_slice(&fs::read(path).context(subject)?).context(subject)
    }

    /// What holds for `source`.
    ///
    /// # Errors
    /// If it may not be used.
    pub fn of(&self, source: &str) -> Result<Demand> {
        let demand = self.images.iter().find(|demand| fits(&demand.pattern, source)).cloned().unwrap_or_default();
        match demand.refuse {
            true => Err(Error::new(source, format!("the policy refuses what {:?} fits", demand.pattern))),
            false => Ok(demand),
        }
    }
}

/// Of registries the host is matched for itself, so that no path can pass for one.
fn fits(pattern: &str, text: &str) -> bool {
    const REGISTRY: &str = "docker://";
    if pattern == "*" {
        return true;
    }
    let Some(name) = text.strip_prefix(REGISTRY) else { return glob(pattern, text) };
    let Some(pattern) = pattern.strip_prefix(REGISTRY) else { return false };
    let (host, rest) = name.split_once('/').unwrap_or((name, ""));
    match pattern.split_once('/') {
        Some((host_pattern, rest_pattern)) => {
            glob(&host_pattern.to_ascii_lowercase(), host) && glob(rest_pattern, rest)
        }
        None => glob(&pattern.to_ascii_lowercase(), host),
    }
}

/// Whether `text` is `pattern`, whose `*` are any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in
            [("*", ""), ("*", "x"), ("a*", "ab"), ("a*c", "abc"), ("a*b*c", "a1b2c"), ("abc", "abc"), ("*a*", "bab")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("abc", "abcd"), ("a*c", "ab"), ("a*a", "a"), ("a*b*c", "a1c2b"), ("", "x")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        assert!(fits("docker://*", "docker://a/b:1") && fits("docker://*.corp/*", "docker://x.corp/y:1"));
        assert!(!fits("docker://*.corp/*", "docker://evil.org/x.corp/y:1"));
    }

    #[test]
    fn the_first_counts() {
        let policy: Policy = serde_json::from_str(
            r#"{"images": [{"pattern": "docker://a/*", "digest": true}, {"pattern": "docker://*", "refuse": true}]}"#,
        )
        .unwrap();
        assert!(policy.of("docker://a/x").unwrap().digest);
        assert!(policy.of("docker://b/x").unwrap_err().to_string().contains("refuses"));
        assert_eq!(policy.of("oci:x").unwrap(), Demand::default());
        assert!(serde_json::from_str::<Policy>(r#"{"images": [{"pattern": "*", "key": []}]}"#).is_err());
    }
}
