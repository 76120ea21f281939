// SPDX-License-Identifier: Apache-2.0
//! Step 2, validate: refuses what can not be done, naming the field. Nothing here touches the host.

mod linux;
mod mounts;
mod process;
mod unsupported;

use oci_spec::runtime::{Hook, Spec};

pub use linux::sysctl_path;
pub use mounts::clean;
pub use process::process;

use crate::error::{Error, Result};
use crate::{extras, hooks};

/// Checks a whole config.
///
/// # Errors
/// The first thing that is wrong, by its JSON path.
pub fn validate(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    unsupported::check(spec)?;
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root", "is missing"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path", "is empty"));
    }
    let wanted = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
    process(wanted, "process")?;
    linux::check(spec)?;
    mounts::check(spec)?;
    extras::check(spec)?;
    let hooks = spec.hooks().as_ref().map(hooks::all).unwrap_or_default();
    hooks.iter().try_for_each(|(field, hook)| check_hook(field, hook))
}

/// config.md, "POSIX-platform Hooks".
fn check_hook(field: &str, hook: &Hook) -> Result<()> {
    if !hook.path().is_absolute() {
        return Err(Error::invalid(format!("{field}.path"), format!("{} is no absolute path", hook.path().display())));
    }
    no_nul(&format!("{field}.path"), &hook.path().to_string_lossy())?;
    for text in hook.args().iter().flatten().chain(hook.env().iter().flatten()) {
        no_nul(field, text)?;
    }
    match hook.timeout() {
        Some(seconds) if seconds <= 0 => Err(Error::invalid(format!("{field}.timeout"), "must be more than 0 seconds")),
        _ => Ok(()),
    }
}

/// The config must be one of runtime-spec 1.x (config.md, "Specification version").
fn version(version: &str) -> Result<()> {
    if version == "1" || version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::invalid("ociVersion", format!("is {version:?}, wsbox knows 1.x")))
}

/// Refuses a text with a NUL byte, which no system call could take.
pub(crate) fn no_nul(field: &str, text: &str) -> Result<()> {
    if text.contains('\0') { Err(Error::invalid(field, "holds a NUL byte")) } else { Ok(()) }
}

/// A container's id: what runc allows, at most 1024 bytes, and never a path.
///
/// # Errors
/// If it is anything else.
pub fn container_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    let why = if id.is_empty() {
        "is empty"
    } else if id == "." || id == ".." || id.starts_with('-') {
        "must not be . or .. nor begin with -"
    } else if id == "ids" {
        "is the name of wsbox's own folder of host ids"
    } else if id.len() > 255 {
        "is longer than 255 bytes"
    } else if !id.chars().all(allowed) {
        "may hold letters, digits and _ + - . only"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("container id {id:?}"), why))
}

#[cfg(test)]
mod tests {
    use super::container_id;

    #[test]
    fn ids_are_no_paths() {
        for id in ["ids", "", ".", "..", "a/b", "/a", "-x", "a\nb", "a b", "ü", &"x".repeat(256)] {
            assert!(container_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "A_1+2-3.4", "..a", &"x".repeat(255)] {
            assert!(container_id(id).is_ok(), "{id:?}");
        }
    }
}
