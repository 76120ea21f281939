// SPDX-License-Identifier: Apache-2.0
//! Sockets that a service manager opened for the payload (sd_listen_fds(3)): descriptors from 3 on, and three variables.

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Context, Error, Result};

/// The most descriptors that a payload may be given.
const MOST: u32 = 1 << 10;

/// How many descriptors were passed to this very process, and the variables that tell the payload of them.
///
/// # Errors
/// If LISTEN_FDS is no number, or names what is not open; or the payload would not be the process that LISTEN_PID names.
pub fn passed(spec: &Spec) -> Result<(u32, Vec<String>)> {
    let variable = |name: &str| std::env::var(name).ok();
    // They are somebody else's: a shell between the manager and us, as sd_listen_fds(3) has it.
    let ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let Some(text) = variable("LISTEN_FDS").filter(|_| ours) else { return Ok((0, Vec::new())) };
    let count = text.parse::<u32>().ok().filter(|count| *count <= MOST);
    let count = count.ok_or_else(|| Error::invalid("LISTEN_FDS", format!("{text:?} is no number up to {MOST}")))?;
    if count == 0 {
        return Ok((0, Vec::new()));
    }
    (3..3 + count as i32).try_for_each(is_open)?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let new = |path: &std::path::PathBuf| path.as_os_str().is_empty();
    let first = |namespace: &oci_spec::runtime::LinuxNamespace| {
        namespace.typ() == LinuxNamespaceType::Pid && namespace.path().as_ref().is_none_or(new)
    };
    if !namespaces.iter().any(first) {
        let why = "needs a new pid namespace in linux.namespaces: the payload is told that it is process 1";
        return Err(Error::invalid("LISTEN_FDS", why));
    }
    let names = variable("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}"));
    let own = [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    Ok((count, own.into_iter().chain(names).collect()))
}

fn is_open(fd: i32) -> Result<()> {
    let path = format!("/proc/self/fd/{fd}");
    std::fs::symlink_metadata(&path).map(drop).context(|| format!("LISTEN_FDS: {path}"))
}
