// SPDX-License-Identifier: Apache-2.0
//! mounts[]: destinations, and what may lie on /proc and /sys.

use oci_spec::runtime::{Mount, Spec};

use super::no_nul;
use crate::error::{Error, Result};
use crate::plan::is_bind;

/// Files of /proc that a user-space file system such as lxcfs may cover; nothing else below /proc may be hidden
/// (CVE-2019-16884).
const COVERABLE: [&str; 8] = ["cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"];

/// Checks every mount, and that /proc stays a proc.
pub fn check(spec: &Spec) -> Result<()> {
    spec.mounts().iter().flatten().enumerate().try_for_each(|(at, mount)| check_one(mount, &format!("mounts[{at}]")))
}

fn check_one(mount: &Mount, field: &str) -> Result<()> {
    let destination =
        mount.destination().to_str().ok_or_else(|| Error::invalid(format!("{field}.destination"), "is no UTF-8"))?;
    no_nul(&format!("{field}.destination"), destination)?;
    let source = mount.source().as_ref().and_then(|source| source.to_str()).unwrap_or_default();
    no_nul(&format!("{field}.source"), source)?;
    for (at, option) in mount.options().iter().flatten().enumerate() {
        no_nul(&format!("{field}.options[{at}]"), option)?;
    }
    let place = clean(destination);
    let kind = mount.typ().as_deref().unwrap_or_default();
    no_nul(&format!("{field}.type"), kind)?;
    if place == "/" {
        return Err(Error::invalid(format!("{field}.destination"), "/ is the root itself"));
    }
    // That a bind is one is seen when its source is opened (launch/sources.rs).
    if place == "/proc" && kind != "proc" && !is_bind(mount) {
        return Err(Error::invalid(
            format!("{field}.destination"),
            "only a proc may be mounted on /proc (CVE-2019-16884)",
        ));
    }
    if let Some(below) = place.strip_prefix("/proc/")
        && !COVERABLE.contains(&below)
    {
        return Err(Error::invalid(
            format!("{field}.destination"),
            format!("{place} may not be covered (CVE-2019-16884)"),
        ));
    }
    Ok(())
}

/// A path without `.`, `..`, double slashes; absolute, never above `/`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_stays_inside() {
        for (path, want) in
            [("/a/../proc", "/proc"), ("../../x", "/x"), ("/a//b/./c/", "/a/b/c"), ("/..", "/"), ("", "/")]
        {
            assert_eq!(clean(path), want);
        }
    }

    #[test]
    fn proc_is_not_hidden() {
        for (place, kind, ok) in [
            ("/proc", "proc", true),
            ("/proc", "tmpfs", false),
            ("/x/../proc", "bind", true),
            ("/proc/self/attr", "tmpfs", false),
            ("/proc/sys/kernel", "tmpfs", false),
            ("/proc/meminfo", "bind", true),
            ("/", "tmpfs", false),
            ("/procs", "tmpfs", true),
        ] {
            let mount: Mount = serde_json::from_value(serde_json::json!({"destination": place, "type": kind})).unwrap();
            assert_eq!(check_one(&mount, "mounts[0]").is_ok(), ok, "{place}");
        }
    }
}
