// SPDX-License-Identifier: Apache-2.0
//! The config.json of a bundle: the eight layers that the caller gives, then what the image says, then what the user says.

mod flags;
mod image;
mod limits;
mod mounts;
mod secrets;
mod users;

use serde_json::Value;

pub use flags::{Flags, Network, Seccomp};
pub use limits::{bytes, cpus, ulimit};
pub use mounts::{bind, mount, tmpfs};
pub use secrets::{From as SecretFrom, SECRET, Secret};
pub use users::{Files, User};

use crate::error::Result;
use crate::source::Pinned;

/// The config, and what a user has to know of it.
#[derive(Debug, Default)]
pub struct Made {
    /// config.json.
    pub config: Value,
    /// One line for each layer that a flag weakens, and for other things to look at.
    pub warnings: Vec<String>,
}

/// Makes the config of a bundle from `base`, the image and the flags. `files` reads the image's own passwd and group.
///
/// # Errors
/// If a flag is wrong, or the image's user is nobody in it.
pub fn make(base: Value, image: Option<&Pinned>, flags: &Flags, files: &Files) -> Result<Made> {
    let mut made = Made { config: base, warnings: Vec::new() };
    if let Some(image) = image {
        image::apply(&mut made, image);
    }
    let declared = image.and_then(|image| image.config.config().as_ref());
    let user = flags.user.as_deref().or_else(|| declared.and_then(|config| config.user().as_deref()));
    let user = files.resolve(user.unwrap_or_default())?;
    made.config["process"]["user"] = user.json();
    if user.uid == 0 {
        made.warnings.push("the user is root, though of the container only; --user 1001:1001 makes it nobody's".into());
    }
    flags::apply(&mut made, declared, flags, &user)?;
    Ok(made)
}

/// The array at `pointer`, which is made if it is not there.
pub(crate) fn array<'a>(config: &'a mut Value, pointer: &[&str]) -> &'a mut Vec<Value> {
    let mut at = config;
    for key in pointer {
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        at = &mut at[*key];
    }
    if !at.is_array() {
        *at = Value::Array(Vec::new());
    }
    match at {
        Value::Array(all) => all,
        // It was made one above.
        _ => unreachable!("an array"),
    }
}

#[cfg(test)]
mod tests;
