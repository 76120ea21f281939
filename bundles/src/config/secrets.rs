// SPDX-License-Identifier: Apache-2.0
//! Secrets: config.json says where they come from, never what they are. The runtime reads them when a container starts.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The annotation of a secret begins so; its name follows.
pub const SECRET: &str = "dev.wsbox.secret.";

/// Where a secret is when the container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// In a file of the host.
    File(PathBuf),
    /// In a variable of the environment of `wsbox`.
    Env(String),
}

/// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its file in /run/secrets.
    pub id: String,
    /// See [`From`].
    pub from: From,
}

impl Secret {
    /// What stands in the annotation.
    pub fn reference(&self) -> String {
        match &self.from {
            From::File(path) => format!("file:{}", path.display()),
            From::Env(name) => format!("env:{name}"),
        }
    }
}

impl FromStr for Secret {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(format!("--secret {text:?}"), why).hint("id=NAME,src=FILE or id=NAME,env=VARIABLE")
        };
        let (mut id, mut from) = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => from = Some(From::File(absolute(value).map_err(bad)?)),
                Some(("env", value)) if !value.is_empty() => from = Some(From::Env(value.into())),
                _ => return Err(bad(format!("{part:?} is unknown"))),
            }
        }
        let id = id.ok_or_else(|| bad("has no id".into()))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(bad("its id is no file name of letters, digits, \".\", \"_\" and \"-\"".into()));
        }
        Ok(Self { id, from: from.ok_or_else(|| bad("has no source".into()))? })
    }
}

/// The file has to be there now; that it still is when the container starts, the runtime sees.
fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("its source {} is not there, or is no file", path.display())),
    }
}
