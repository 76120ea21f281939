// SPDX-License-Identifier: Apache-2.0
//! What only some kernels have: a profile of AppArmor, a label of SELinux, shares of caches by resctrl. Where this one lacks it,
//! the field that asks for it is an error before anything is made.

use oci_spec::runtime::{Process, Spec};

use crate::error::{Error, Result};

/// What this kernel has in force.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    apparmor: bool,
    selinux: bool,
    resctrl: bool,
}

const NO_SELINUX: &str = "this kernel has no SELinux with a policy, or it is switched off (/sys/fs/selinux/enforce)";

impl Kernel {
    #[expect(clippy::disallowed_methods, reason = "fixed files of the host's /sys")]
    fn here() -> Self {
        Self {
            apparmor: apparmor(),
            selinux: selinux(),
            resctrl: std::path::Path::new("/sys/fs/resctrl/schemata").exists(),
        }
    }

    fn check(self, process: &Process) -> Result<()> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        // Where there is no AppArmor everything is unconfined.
        let profile = given(process.apparmor_profile()) && process.apparmor_profile().as_deref() != Some("unconfined");
        if profile && !self.apparmor {
            let why = "this kernel has no AppArmor, or it is switched off (/sys/module/apparmor/parameters/enabled)";
            return Err(
                Error::invalid("process.apparmorProfile", why).hint("boot with apparmor=1, or leave the profile out")
            );
        }
        if given(process.selinux_label()) && !self.selinux {
            return Err(Error::invalid("process.selinuxLabel", NO_SELINUX).hint("leave the label out"));
        }
        Ok(())
    }

    fn check_intel_rdt(self) -> Result<()> {
        if self.resctrl {
            return Ok(());
        }
        let why = "this kernel has no resctrl file system mounted at /sys/fs/resctrl";
        Err(Error::invalid("linux.intelRdt", why).hint("mount -t resctrl resctrl /sys/fs/resctrl, or remove it"))
    }
}

/// Checks a process, whichever door it comes through.
///
/// # Errors
/// The field that this kernel can not enforce.
pub fn check_process(process: &Process) -> Result<()> {
    // A look at the kernel costs as much as a dozen system calls: only where somebody asks.
    let asked = process.apparmor_profile().is_some() || process.selinux_label().is_some();
    if asked { Kernel::here().check(process) } else { Ok(()) }
}

/// Checks a container's config.
///
/// # Errors
/// As [`check_process`].
pub fn check(spec: &Spec) -> Result<()> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref()).unwrap_or_default();
    if !label.is_empty() && !Kernel::here().selinux {
        return Err(Error::invalid("linux.mountLabel", NO_SELINUX).hint("leave the label out"));
    }
    spec.process().as_ref().map_or(Ok(()), check_process)?;
    match spec.linux().as_ref().is_some_and(|linux| linux.intel_rdt().is_some()) {
        true => Kernel::here().check_intel_rdt(),
        false => Ok(()),
    }
}

/// Whether SELinux has a policy: without one it takes any label for the kernel's own, and confines nobody (is_selinux_enabled(3)).
#[expect(clippy::disallowed_methods, reason = "fixed files of the host's /sys and /proc")]
fn selinux() -> bool {
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    std::path::Path::new("/sys/fs/selinux/enforce").exists() && own.trim_matches(['\0', '\n']) != "kernel"
}

/// Whether AppArmor is in force.
#[expect(clippy::disallowed_methods, reason = "a fixed file of the host's /sys")]
pub fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether AppArmor and SELinux are in force: what `features` says.
pub fn enabled() -> (bool, bool) {
    let kernel = Kernel::here();
    (kernel.apparmor, kernel.selinux)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(apparmor: bool, selinux: bool, json: serde_json::Value) -> Result<()> {
        let mut process = Process::default();
        process.set_apparmor_profile(json["apparmor"].as_str().map(str::to_owned));
        process.set_selinux_label(json["selinux"].as_str().map(str::to_owned));
        Kernel { apparmor, selinux, resctrl: false }.check(&process)
    }

    #[test]
    fn a_kernel_enforces_what_it_has() {
        let (profile, label) =
            (serde_json::json!({"apparmor": "docker-default"}), serde_json::json!({"selinux": "a:b:c"}));
        assert!(check(true, false, profile.clone()).is_ok() && check(false, true, label.clone()).is_ok());
        let error = |result: Result<()>| result.unwrap_err().to_string();
        assert!(error(check(false, true, profile)).starts_with("process.apparmorProfile: this kernel has no AppArmor"));
        assert!(error(check(true, false, label)).starts_with("process.selinuxLabel: this kernel has no SELinux"));
        assert!(check(false, false, serde_json::json!({"apparmor": "unconfined", "selinux": ""})).is_ok());
    }
}
