// SPDX-License-Identifier: Apache-2.0
//! The embedded profiles: wsbox's own, which every bundle that wsbox makes carries, and Docker's default.

use oci_spec::runtime::LinuxSeccomp;

/// `deployment/seccomp/workspace-seccomp.json`, in the format of `linux.seccomp`; its README says what it is for.
pub const WORKSPACE: &str = include_str!("../../../deployment/seccomp/workspace-seccomp.json");

/// `deployment/seccomp/docker-default-seccomp.json`: what Docker 29 gives a container without added capabilities.
pub const DOCKER: &str = include_str!("../../../deployment/seccomp/docker-default-seccomp.json");

/// [`WORKSPACE`], read.
///
/// # Panics
/// Never: the file is part of the program, and a test reads it.
pub fn workspace() -> LinuxSeccomp {
    serde_json::from_str(WORKSPACE).expect("the embedded profile is valid")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_profile_is_valid() {
        assert!(super::workspace().syscalls().is_some());
    }
}
