// SPDX-License-Identifier: Apache-2.0
//! The kernel, what it lets users do, and what wsbox may do; and the fixes that several checks share.

use std::fs;

use nix::errno::Errno;

use super::{Check, Status, rights, root};
use crate::error::{Context, Error, Result};
use crate::launch::memfd;
use crate::state::process;
use crate::sys::pidfd;

/// The oldest kernel that wsbox is tested on.
const OLDEST: (u32, u32) = (6, 1);

pub(super) fn checks() -> Vec<Check> {
    vec![kernel(), user_namespaces(), executable_memfd(), identity(), namespaces_by_pidfd(), rights::oom_score()]
}

pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What to do where a right is missing.
pub(super) fn as_root(what: &str) -> String {
    if is_root() {
        format!(
            "it takes {what}, which this root does not have: run wsbox outside of the container or service that took it away"
        )
    } else {
        format!("it takes {what}: sudo wsbox doctor")
    }
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok().map(|text| text.trim().to_owned())
}

/// Why a namespace could not be made, by the error and the settings that cause it.
pub(super) fn namespace_fix(error: &Error, kind: &str) -> String {
    let says = |path: &str, value: &str| sysctl(path).as_deref() == Some(value);
    let none_left = format!("user/max_{kind}_namespaces");
    match error.errno() {
        _ if says("user/max_user_namespaces", "0") && !is_root() => "sysctl -w user.max_user_namespaces=65536".into(),
        Some(Errno::ENOSPC | Errno::EUSERS) if says("user/max_user_namespaces", "0") => {
            "sysctl -w user.max_user_namespaces=65536".into()
        }
        Some(Errno::ENOSPC | Errno::EUSERS) => {
            format!("sysctl -w {}=65536, or end containers that are no longer used", none_left.replace('/', "."))
        }
        Some(Errno::EINVAL) => {
            "boot a kernel with CONFIG_NAMESPACES, CONFIG_USER_NS, CONFIG_PID_NS and CONFIG_NET_NS".into()
        }
        _ if is_root() => as_root(
            "CAP_SYS_ADMIN in the initial user namespace, and a seccomp filter that lets clone3 and mount calls through",
        ),
        _ if says("kernel/apparmor_restrict_unprivileged_userns", "1") => {
            "sudo wsbox doctor; for users: an AppArmor profile for wsbox with the rule `userns,`".into()
        }
        _ if says("kernel/unprivileged_userns_clone", "0") => {
            "sudo wsbox doctor; for users: sysctl -w kernel.unprivileged_userns_clone=1".into()
        }
        _ => as_root("CAP_SYS_ADMIN"),
    }
}

fn kernel() -> Check {
    let tried = || {
        let name = nix::sys::utsname::uname().context(|| "uname".into())?;
        let release = name.release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
        let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if found >= OLDEST {
            return Ok(format!("Linux {release}"));
        }
        Err(Error::invalid("kernel", format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1)))
    };
    // What counts is what the other checks tried.
    Check::new("kernel", tried(), |_| format!("boot Linux {}.{} or later", OLDEST.0, OLDEST.1)).into_note()
}

/// For users: root may make user namespaces in any case.
fn user_namespaces() -> Check {
    const SETTINGS: [(&str, &str); 3] = [
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    let mut found = Vec::new();
    let mut fix = None;
    for (path, forbids) in SETTINGS {
        let (name, value) = (path.replace('/', "."), sysctl(path));
        if value.as_deref() == Some(forbids) {
            let open = if forbids == "1" {
                "0"
            } else if path.starts_with("user") {
                "65536"
            } else {
                "1"
            };
            fix.get_or_insert(format!("sysctl -w {name}={open} (only containers of users need it; root's do not, unless it is max_user_namespaces)"));
        }
        found.push(format!("{name} {}", value.as_deref().unwrap_or("not there")));
    }
    let status = if fix.is_some() { Status::Note } else { Status::Ok };
    Check { name: "user namespaces for users", status, evidence: found.join(", "), fix }
}

fn executable_memfd() -> Check {
    let tried = memfd::init().map(|_| "a sealed memfd that can be executed was made".to_owned());
    Check::new("memfd", tried, |_| "sysctl -w vm.memfd_noexec=0".into())
}

/// Without it a recorded process is known by its start time (before Linux 6.9).
fn identity() -> Check {
    let tried = || -> Result<String> {
        let own = nix::unistd::Pid::this();
        let known = process::remember(own, pidfd::open(own).context(|| "pidfd_open".into())?)?;
        if known.pidfd_inode == 0 {
            return Err(Error::invalid("pidfs", "there is none: processes are told apart by their start time"));
        }
        Ok("pidfds have inodes of their own".into())
    };
    Check::new("pidfs identity", tried(), |_| "boot Linux 6.9 or later; until then the fallback is in use".into())
        .into_note()
}

fn namespaces_by_pidfd() -> Check {
    let tried = root::pidfd_namespaces().map(|()| "PIDFD_GET_USER_NAMESPACE works".to_owned());
    Check::new("namespaces by pidfd", tried, |_| "boot Linux 6.11 or later; until then /proc/PID/ns is in use".into())
        .into_note()
}
