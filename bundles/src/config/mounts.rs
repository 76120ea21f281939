// SPDX-License-Identifier: Apache-2.0
//! `--tmpfs`, `--volume` and `--mount` as mounts of the config.

use std::path::Path;

use serde_json::{Value, json};

use super::{User, bytes};
use crate::error::{Error, Result};

/// What a tmpfs has if nothing else is asked.
const SIZE: &str = "size=64m";

/// `PATH[:OPTION,...]`: owned by the user, and filled with what the image has there.
///
/// # Errors
/// If the path is not absolute, or an option is not one of tmpfs's.
pub fn tmpfs(text: &str, user: &User) -> Result<Value> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let bad = |why: String| Error::new(format!("--tmpfs {text:?}"), why).hint("for example /work:size=256m,mode=700");
    let path = absolute(path).map_err(bad)?;
    let mut all = vec!["nosuid".to_owned(), "nodev".into(), "tmpcopyup".into()];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => all.push(format!("size={}", bytes(size)?)),
            Some(("mode" | "uid" | "gid" | "nr_inodes", _)) => all.push(option.into()),
            None if ["ro", "rw", "noexec", "exec", "noatime"].contains(&option) => all.push(option.into()),
            _ => return Err(bad(format!("{option:?} is no option of a tmpfs here"))),
        }
    }
    let has = |key: &str| all.iter().any(|option| option.starts_with(key));
    let mut more = Vec::new();
    if !has("size=") {
        more.push(SIZE.to_owned());
    }
    if !has("mode=") {
        more.push("mode=755".into());
    }
    for (key, id) in [("uid=", user.uid), ("gid=", user.gid)] {
        if !has(key) && id != 0 {
            more.push(format!("{key}{id}"));
        }
    }
    all.extend(more);
    Ok(json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": all }))
}

/// `SOURCE:PATH[:ro|rw]`.
///
/// # Errors
/// If one of the paths is not absolute, or nothing is at the source.
pub fn bind(text: &str) -> Result<Value> {
    let parts: Vec<_> = text.split(':').collect();
    let bad = |why: String| Error::new(format!("--volume {text:?}"), why).hint("for example /srv/data:/data:ro");
    let (source, path, options) = match parts[..] {
        [source, path] => (source, path, "rw"),
        [source, path, options] => (source, path, options),
        _ => return Err(bad("is not SOURCE:PATH[:ro|rw]".into())),
    };
    let read_only = match options {
        "ro" => true,
        "rw" => false,
        other => return Err(bad(format!("{other:?} is neither ro nor rw"))),
    };
    if !source.starts_with('/') {
        return Err(bad(format!("{source:?} is not an absolute path; there are no named volumes")));
    }
    bound(source, path, read_only).map_err(bad)
}

/// `type=bind|tmpfs,KEY=VALUE,...`.
///
/// # Errors
/// If a key is unknown or missing, or as [`tmpfs`] and [`bind`].
pub fn mount(text: &str, user: &User) -> Result<Value> {
    let bad = |why: String| {
        Error::new(format!("--mount {text:?}"), why)
            .hint("for example type=bind,source=/srv/data,target=/data,readonly")
    };
    let (mut kind, mut source, mut target, mut read_only, mut options) = ("", "", "", false, String::new());
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => source = value,
            "target" | "dst" | "destination" => target = value,
            "readonly" | "ro" => read_only = value == "true" || value == "1",
            "tmpfs-size" => options += &format!(",size={value}"),
            "tmpfs-mode" => options += &format!(",mode={value}"),
            _ => return Err(bad(format!("{key:?} is unknown"))),
        }
    }
    match kind {
        "bind" if options.is_empty() => bound(source, target, read_only).map_err(bad),
        "tmpfs" if source.is_empty() => {
            let options = if read_only { options + ",ro" } else { options };
            tmpfs(&format!("{target}:{options}"), user)
        }
        "bind" | "tmpfs" => Err(bad("has what its type can not have".into())),
        other => Err(bad(format!("the type {other:?} is neither bind nor tmpfs"))),
    }
}

fn bound(source: &str, path: &str, read_only: bool) -> Result<Value, String> {
    let (source, path) = (absolute(source)?, absolute(path)?);
    if !Path::new(source).exists() {
        return Err(format!("{source} is not there"));
    }
    let way = if read_only { "ro" } else { "rw" };
    Ok(json!({ "destination": path, "type": "bind", "source": source, "options": ["rbind", way, "nosuid", "nodev"] }))
}

fn absolute(path: &str) -> Result<&str, String> {
    let inside = path.starts_with('/') && path != "/" && !path.split('/').any(|part| part == "..");
    if inside { Ok(path) } else { Err(format!("{path:?} is not an absolute path without \"..\"")) }
}
