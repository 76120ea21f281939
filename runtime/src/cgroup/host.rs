// SPDX-License-Identifier: Apache-2.0
//! Which hierarchies this host has.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::error::{Context, Error, Result};

pub const V2_ROOT: &str = "/sys/fs/cgroup";
const HYBRID_ROOT: &str = "/sys/fs/cgroup/unified";

/// How this host's hierarchies are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// cgroup v2 alone, at /sys/fs/cgroup
    V2,
    /// v1 controllers, and a cgroup2 without any at /sys/fs/cgroup/unified
    Hybrid,
}

impl Host {
    /// Looks at the mounts: one or two statfs(2).
    ///
    /// # Errors
    /// If there is no cgroup2.
    pub fn detect() -> Result<Self> {
        let is_v2 = |path: &str| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if is_v2(V2_ROOT) {
            Ok(Host::V2)
        } else if cfg!(feature = "cgroup-compat") && is_v2(HYBRID_ROOT) {
            Ok(Host::Hybrid)
        } else {
            let error = Error::invalid(V2_ROOT, "there is no cgroup v2 hierarchy on this host");
            Err(error.hint(format!("mkdir -p {HYBRID_ROOT} && mount -t cgroup2 cgroup2 {HYBRID_ROOT}")))
        }
    }

    /// The root of the v2 hierarchy.
    pub fn root(self) -> &'static str {
        match self {
            Host::V2 => V2_ROOT,
            Host::Hybrid => HYBRID_ROOT,
        }
    }

    /// The v1 hierarchies by their controllers, as /proc/self/cgroup lists them (cgroups(7)); none on a v2 host.
    pub fn v1_hierarchies(self) -> Result<Vec<String>> {
        if self == Host::V2 {
            return Ok(Vec::new());
        }
        let file = "/proc/self/cgroup";
        let text = std::fs::read_to_string(file).context(|| file.into())?;
        let controllers = text.lines().filter_map(|line| line.split(':').nth(1));
        Ok(controllers.filter(|controllers| !controllers.is_empty()).map(str::to_owned).collect())
    }
}
