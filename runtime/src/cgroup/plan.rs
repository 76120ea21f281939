// SPDX-License-Identifier: Apache-2.0
//! What a config asks of its cgroup: where it lies, its limits, its devices. Pure.

use std::collections::HashMap;
use std::path::{Component, Path};

use oci_spec::runtime::LinuxResources;

use super::devices::{self, Rule};
use super::systemd::{self, Instance};
use super::wanted::Wanted;
use crate::error::{Error, Result};

/// Where the cgroup lies and what limits it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Below the root of a hierarchy, without a leading slash
    pub path: String,
    /// In every v1 hierarchy, not only where it has limits: who names a cgroup, or shows it inside, looks for it there
    pub everywhere: bool,
    /// The limits
    pub limits: Wanted,
    /// The device rules; none: no program
    pub devices: Vec<Rule>,
    /// The scope of systemd's that it is, if systemd makes it
    pub scope: Option<systemd::Plan>,
}

impl Plan {
    /// The plan for container `id`, whose cgroup is wsbox/ID unless the config says otherwise; below `delegated` for a user.
    ///
    /// # Errors
    /// A path that leads out of the hierarchy, or a limit that is not enforced, by its field.
    pub fn new(
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        delegated: Option<&str>,
    ) -> Result<Self> {
        let named = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let everywhere = named.is_some();
        let usual = || match delegated {
            Some(own) if !own.is_empty() => format!("{own}/wsbox/{id}"),
            _ => format!("wsbox/{id}"),
        };
        let path = named.map_or_else(|| Ok(usual()), relative)?;
        Self::at(path, everywhere, resources)
    }

    /// The plan for container `id` whose cgroup is a scope of this systemd's, wsbox-ID.scope unless the config says otherwise.
    ///
    /// # Errors
    /// As [`Plan::new`]; and an annotation for systemd that is not taken.
    pub fn in_scope(
        instance: &Instance,
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Self> {
        let scope = systemd::Plan::new(instance, cgroups_path, id, annotations)?;
        Ok(Self { scope: Some(scope.clone()), ..Self::at(scope.path(), true, resources)? })
    }

    fn at(path: String, everywhere: bool, resources: Option<&LinuxResources>) -> Result<Self> {
        let Some(resources) = resources else {
            return Ok(Self { path, everywhere, limits: Wanted::default(), devices: Vec::new(), scope: None });
        };
        let devices = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        Ok(Self { path, everywhere, limits: Wanted::new(resources)?, devices, scope: None })
    }
}

/// Below the root of the hierarchy, whether it begins with a slash (Docker) or not; never the root itself.
fn relative(path: &Path) -> Result<String> {
    let bad = |why: &str| Error::invalid("linux.cgroupsPath", format!("{path:?} {why}"));
    let text = path.to_str().ok_or_else(|| bad("is no UTF-8"))?;
    if text.contains(['\0', '\n']) {
        return Err(bad("holds a NUL or a line break"));
    }
    if text.contains(':') && !text.contains('/') {
        return Err(
            bad("is the form of the systemd manager").hint("give --systemd-cgroup, or a path such as /wsbox/web1")
        );
    }
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir | Component::Prefix(_) => return Err(bad("must not hold ..")),
        }
    }
    if parts.is_empty() { Err(bad("is the root of the hierarchy")) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_hierarchy() {
        let path = |path: &str| Plan::new(Some(Path::new(path)), "x", None, None).map(|plan| plan.path);
        assert_eq!(path("/docker/abc").unwrap(), "docker/abc");
        assert_eq!(path("a/./b").unwrap(), "a/b");
        assert_eq!(path("").unwrap(), "wsbox/x");
        assert_eq!(Plan::new(None, "x", None, Some("user.slice/own")).unwrap().path, "user.slice/own/wsbox/x");
        for bad in ["/", "..", "a/../../b", "a\nb", "system.slice:wsbox:x"] {
            assert!(path(bad).unwrap_err().to_string().starts_with("linux.cgroupsPath:"), "{bad}");
        }
    }
}
