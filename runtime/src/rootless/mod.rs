// SPDX-License-Identifier: Apache-2.0
//! For a caller who is not the host's root. wsbox enters a user namespace of its own first, in which it has the rights to make a
//! container's mounts; root in there is the user, ids from 1 on are those that /etc/subuid and /etc/subgid give the user. An engine such as
//! podman has done the same before it calls wsbox.
//!
//! What no user namespace gives is the host's root's alone: device nodes (those of the host are bound in their place), eBPF programs (what
//! is not in the container's /dev can not be opened: every other mount is nodev), and cgroups that were not delegated.

mod enter;
mod owned;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

pub use enter::{enter, has_range};

/// The inode of the initial user namespace, PROC_USER_INIT_INO of linux/proc_ns.h.
const INITIAL: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace, whoever made it.
pub fn in_namespace() -> bool {
    // Where it can not be seen, the rights of the host's root are not to be relied on.
    std::fs::metadata("/proc/self/ns/user").map_or(true, |namespace| namespace.ino() != INITIAL)
}

/// Whether the caller lacks the rights of the host's root.
pub fn is_user() -> bool {
    !geteuid().is_root() || in_namespace()
}

/// Whether the systemd that makes cgroups for the caller is a user's own. Root in a user namespace may be that of a whole system (LXC), or an
/// engine of a user's such as podman, which leaves the user's XDG_RUNTIME_DIR as it is.
pub fn has_users_systemd() -> bool {
    let user = || {
        std::env::var_os("XDG_RUNTIME_DIR")
            .is_some_and(|dir| !dir.is_empty() && Path::new(&dir) != Path::new("/run/user/0"))
    };
    enter::entered() || !geteuid().is_root() || in_namespace() && user()
}

/// The caller's id where its user namespace was made: for a user's namespace, the user's own (user_namespaces(7)).
pub fn outer_uid() -> u32 {
    let own = geteuid().as_raw();
    if !in_namespace() {
        return own;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let entry = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, outside, size) = (numbers.next()?, numbers.next()?, numbers.next()?);
        own.checked_sub(inside).filter(|offset| *offset < size).map(|offset| outside + offset)
    };
    map.lines().find_map(entry).unwrap_or(own)
}

/// Whether setgroups(2) is allowed in the user namespace of a process, or in ours. If that can not be read, the call itself will tell.
pub fn may_set_groups(pid: Option<i32>) -> bool {
    let of = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    std::fs::read_to_string(format!("/proc/{of}/setgroups")).map_or(true, |text| text.trim() != "deny")
}
