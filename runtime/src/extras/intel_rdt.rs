// SPDX-License-Identifier: Apache-2.0
//! linux.intelRdt (config-linux.md, "IntelRdt"): shares of caches and memory bandwidth, by the kernel's resctrl file system
//! (filesystems/resctrl.rst).

use std::path::{Path, PathBuf};

use libcontainer::process::intel_rdt::setup_intel_rdt;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{Error, Kind, Result};

/// Where the kernel's documentation mounts it (resctrl.rst).
const RESCTRL: &str = "/sys/fs/resctrl";

/// Puts process `pid` into its group; says which folders were made for it, the innermost first.
///
/// # Errors
/// What the kernel said.
pub fn join(wanted: &LinuxIntelRdt, id: &str, pid: Pid) -> Result<Vec<PathBuf>> {
    let place = Path::new(RESCTRL).join(wanted.clos_id().as_deref().unwrap_or(id));
    let ours = !place.exists();
    let theirs = nix029::unistd::Pid::from_raw(pid.as_raw());
    let (group, monitoring) = setup_intel_rdt(Some(id), &theirs, wanted)
        .map_err(|error| Error::new(Kind::System, "linux.intelRdt", error.to_string().to_lowercase()))
        // It is made before its schemata are written, which may be refused.
        .inspect_err(|_| drop(ours.then(|| std::fs::remove_dir(&place))))?;
    Ok(monitoring.into_iter().chain(group).collect())
}
