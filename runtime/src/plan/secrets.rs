// SPDX-License-Identifier: Apache-2.0
//! Secrets: the config says where they come from, and what they are is read when the container is made.

use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use super::{Builder, Source, Step};
use crate::bundle::own::SECRET;
use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// Where Docker and podman have them.
const PLACE: &str = "/run/secrets";

/// A tmpfs with a file for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    /// Name, and where it comes from
    pub all: Vec<(String, SecretSource)>,
    /// Who may read them, as ids of the container
    pub uid: u32,
    /// See `uid`
    pub gid: u32,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file of the host
    File(PathBuf),
    /// A variable of the environment of who makes the container
    Env(String),
}

/// Whether a config has any.
pub(super) fn has(spec: &Spec) -> bool {
    first(spec).is_some()
}

/// The annotation of one, if a config has any.
pub fn first(spec: &Spec) -> Option<&str> {
    spec.annotations().iter().flatten().map(|(key, _)| key.as_str()).find(|key| key.starts_with(SECRET))
}

impl Builder<'_> {
    /// A read-only mount of all of them, over whatever the config has there.
    pub(super) fn secrets(&mut self, spec: &Spec, process: &Process) -> Result<()> {
        let all = spec.annotations().iter().flatten();
        let mut all = all
            .filter_map(|(key, value)| Some((key.strip_prefix(SECRET)?, value)))
            .map(|(name, value)| Ok((name.to_owned(), source(name, value)?)))
            .collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            return Ok(());
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let slot = self.source(Source::Secrets(Secrets { all, uid: process.user().uid(), gid: process.user().gid() }));
        self.attach_dir("annotations", slot, PLACE, 0);
        self.push("annotations", Step::SetAttr { slot, set: attr::RDONLY, propagation: 0, recursive: false });
        Ok(())
    }
}

fn source(name: &str, value: &str) -> Result<SecretSource> {
    let field = || format!("annotations[\"{SECRET}{name}\"]");
    if matches!(name, "" | "." | "..") || name.len() > 255 || name.contains('/') {
        return Err(Error::invalid(field(), "is no name for a file"));
    }
    match value.split_once(':') {
        Some(("file", path)) if path.starts_with('/') => Ok(SecretSource::File(path.into())),
        Some(("env", variable)) if !variable.is_empty() && !variable.contains(['=', '\0']) => {
            Ok(SecretSource::Env(variable.into()))
        }
        // The value may be the secret itself, put there by mistake.
        _ => Err(Error::invalid(field(), "is neither file:PATH nor env:VARIABLE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        assert_eq!(source("a", "file:/x"), Ok(SecretSource::File("/x".into())));
        assert_eq!(source("a", "env:X"), Ok(SecretSource::Env("X".into())));
        for (name, value) in
            [("a/b", "env:X"), ("..", "env:X"), ("", "env:X"), ("a", "env:"), ("a", "file:x"), ("a", "hunter2")]
        {
            let error = source(name, value).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
