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

impl Kernel {
    #[expect(clippy::disallowed_methods, reason = "fixed files of the host's /sys")]
    fn here() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
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
            let why = "this kernel has no SELinux, or it is switched off (/sys/fs/selinux/enforce)";
            return Err(Error::invalid("process.selinuxLabel", why).hint("leave the label out"));
        }
        Ok(())
    }

    fn check_intel_rdt(self, spec: &Spec) -> Result<()> {
        if spec.linux().as_ref().is_none_or(|linux| linux.intel_rdt().is_none()) {
            return Ok(());
        }
        let why = if self.resctrl {
            "this version of wsbox does not make resctrl groups"
        } else {
            "this kernel has no resctrl file system mounted at /sys/fs/resctrl"
        };
        Err(Error::invalid("linux.intelRdt", why).hint("remove it, or run this bundle with runc"))
    }
}

/// Checks a process, whichever door it comes through.
///
/// # Errors
/// The field that this kernel can not enforce.
pub fn check_process(process: &Process) -> Result<()> {
    Kernel::here().check(process)
}

/// Checks a container's config.
///
/// # Errors
/// As [`check_process`].
pub fn check(spec: &Spec) -> Result<()> {
    spec.process().as_ref().map_or(Ok(()), check_process)?;
    Kernel::here().check_intel_rdt(spec)
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
