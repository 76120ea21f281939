// SPDX-License-Identifier: Apache-2.0
//! What a config asks of its cgroup: where it lies, its limits, its devices. Pure.

use std::path::{Component, Path};

use oci_spec::runtime::LinuxResources;

use super::devices::{self, Rule};
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
}

impl Plan {
    /// The plan for container `id`, whose cgroup is /wsbox/ID unless the config says otherwise.
    ///
    /// # Errors
    /// A path that leads out of the hierarchy, or a limit that is not enforced, by its field.
    pub fn new(cgroups_path: Option<&Path>, id: &str, resources: Option<&LinuxResources>) -> Result<Self> {
        let named = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let everywhere = named.is_some();
        let path = named.map_or_else(|| Ok(format!("wsbox/{id}")), relative)?;
        let Some(resources) = resources else {
            return Ok(Self { path, everywhere, limits: Wanted::default(), devices: Vec::new() });
        };
        let devices = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        Ok(Self { path, everywhere, limits: Wanted::new(resources)?, devices })
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
            bad("is the form of the systemd manager").hint("this version of wsbox makes cgroups by itself only")
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
        let path = |path: &str| Plan::new(Some(Path::new(path)), "x", None).map(|plan| plan.path);
        assert_eq!(path("/docker/abc").unwrap(), "docker/abc");
        assert_eq!(path("a/./b").unwrap(), "a/b");
        assert_eq!(path("").unwrap(), "wsbox/x");
        for bad in ["/", "..", "a/../../b", "a\nb", "system.slice:wsbox:x"] {
            assert!(path(bad).unwrap_err().to_string().starts_with("linux.cgroupsPath:"), "{bad}");
        }
    }
}
