// SPDX-License-Identifier: Apache-2.0
//! Names of units: SLICE:PREFIX:NAME, as engines that use systemd write linux.cgroupsPath, to a scope in a slice. Pure.

use std::path::Path;

use crate::error::{Error, Result};

/// The most bytes of a unit's name (systemd.unit(5)).
const MOST: usize = 255;

/// A scope in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// PREFIX-NAME.scope
    pub name: String,
    /// a-b.slice
    pub slice: String,
    /// Where that lies: a.slice/a-b.slice (systemd.slice(5)); empty for the root slice
    pub slice_path: String,
}

impl Unit {
    /// What `cgroups_path` names; without one, wsbox-ID.scope in the usual slice.
    pub fn new(cgroups_path: Option<&Path>, id: &str, user: bool) -> Result<Self> {
        let text = cgroups_path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let bad = |why: String| Error::invalid("linux.cgroupsPath", format!("{text:?} {why}"));
        let parts: Vec<&str> = text.split(':').collect();
        let (slice, prefix, name) = match parts[..] {
            [""] => ("", "wsbox", id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                let error = bad("is not SLICE:PREFIX:NAME, which --systemd-cgroup takes".into());
                return Err(error.hint("system.slice:wsbox:web1 is one; or leave --systemd-cgroup out"));
            }
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        let slice_path =
            expand(slice).ok_or_else(|| bad(format!("{slice:?} is no name of a slice such as a-b.slice")))?;
        let name = match (prefix, name) {
            (_, "") => return Err(bad("has no name".into())),
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        if !plain(&name) {
            return Err(
                bad(format!("makes {name:?}, which is no name of a unit")).hint("letters, digits and : - _ . \\ are")
            );
        }
        Ok(Self { name, slice: slice.to_owned(), slice_path })
    }
}

/// An `@` would make a template of it.
fn plain(name: &str) -> bool {
    name.len() <= MOST && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\'))
}

/// The path of a slice: each dash of its name is a level.
fn expand(slice: &str) -> Option<String> {
    let stem = slice.strip_suffix(".slice").filter(|stem| plain(slice) && !stem.is_empty())?;
    if stem == "-" {
        return Some(String::new());
    }
    if stem.split('-').any(str::is_empty) {
        return None;
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str, user: bool) -> Result<Unit> {
        Unit::new(Some(Path::new(path)), "x", user)
    }

    #[test]
    fn three_parts_name_a_scope() {
        let docker = unit("system.slice:docker:abc", false).unwrap();
        assert_eq!((docker.name.as_str(), docker.slice_path.as_str()), ("docker-abc.scope", "system.slice"));
        let pod = unit("kubepods-burstable-pod1.slice:cri-containerd:abc", false).unwrap();
        assert_eq!(pod.slice_path, "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice");
        assert_eq!(
            unit("-.slice::abc", false).unwrap(),
            Unit { name: "abc.scope".into(), slice: "-.slice".into(), slice_path: String::new() }
        );
        assert_eq!(unit(":p:n", false).unwrap().slice, "system.slice");
        assert_eq!(unit(":p:n", true).unwrap().slice, "user.slice");
        assert_eq!(Unit::new(None, "x", false).unwrap().name, "wsbox-x.scope");
        assert_eq!(unit("", false).unwrap().name, "wsbox-x.scope");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("a.slice:p:{}", "n".repeat(250));
        for bad in [
            "/docker/abc",
            "a.slice:b",
            "a.slice:b:c:d",
            "a:b:c",
            ".slice:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a.slice:b:",
            "a/b.slice:b:c",
            "a.slice:b:../c",
            "a.slice:b:c+d",
            "a.slice:b@:c",
            "a.slice:b:c\n",
            &long,
        ] {
            assert!(unit(bad, false).unwrap_err().to_string().starts_with("linux.cgroupsPath:"), "{bad}");
        }
    }
}
