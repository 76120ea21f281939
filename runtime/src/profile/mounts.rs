// SPDX-License-Identifier: Apache-2.0
//! L3: a read-only root, a size on every tmpfs, and a tmpfs on /tmp, /run and /dev/shm where the config mounts nothing.

use oci_spec::runtime::{Mount, Spec};

use crate::error::{Error, Result};
use crate::plan::harden;
use crate::validate::clean;

/// Where programs expect to write.
const WRITABLE: [&str; 3] = ["/tmp", "/run", "/dev/shm"];
/// For a tmpfs without a size.
const SIZE: &str = "size=64m";

pub(super) fn tighten(spec: &mut Spec) -> Result<()> {
    let mut root = spec.root().clone().ok_or_else(|| Error::invalid("root", "is missing"))?;
    root.set_readonly(Some(true));
    spec.set_root(Some(root));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    add_missing(&mut mounts)?;
    mounts.iter_mut().for_each(one);
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// First, or right after /dev: what the config mounts below them is to be seen.
fn add_missing(mounts: &mut Vec<Mount>) -> Result<()> {
    let own: Vec<Mount> = serde_json::from_value(harden::mounts())
        .map_err(|error| Error::invalid("the mounts of `wsbox spec`", error.to_string()))?;
    for place in WRITABLE {
        let find = |mounts: &[Mount], place: &str| mounts.iter().position(|mount| destination(mount) == place);
        let (None, Some(wanted)) = (find(mounts, place), find(&own, place)) else { continue };
        let after = find(mounts, "/dev").filter(|_| place.starts_with("/dev/")).map_or(0, |at| at + 1);
        mounts.insert(after, own[wanted].clone());
    }
    Ok(())
}

fn destination(mount: &Mount) -> String {
    clean(&mount.destination().to_string_lossy())
}

/// Recursive options, which overrule the others.
const LOOSE: [&str; 3] = ["rrw", "rsuid", "rdev"];

/// A later option overrules an earlier one, so what is asked is added at the end.
fn one(mount: &mut Mount) {
    // It has no size, whatever is asked.
    if mount.typ().as_deref() == Some("ramfs") {
        mount.set_typ(Some("tmpfs".into()));
    }
    let dev = destination(mount) == "/dev";
    let more: &[&str] = match mount.typ().as_deref() {
        _ if is_bind(mount) => &["nosuid", "nodev", "rnosuid", "rnodev"],
        // wsbox makes the nodes of /dev itself.
        Some("tmpfs") if dev => &["nosuid"],
        Some("tmpfs") => &["nosuid", "nodev"],
        Some("sysfs" | "cgroup" | "cgroup2") => &["ro"],
        _ => &[],
    };
    let tmpfs = mount.typ().as_deref() == Some("tmpfs") && !is_bind(mount);
    let options = mount.options_mut().get_or_insert_default();
    if !more.is_empty() {
        options.retain(|given| !LOOSE.contains(&given.as_str()));
    }
    for option in more {
        options.retain(|given| given != option);
        options.push((*option).to_owned());
    }
    if tmpfs && !options.iter().any(|option| sized(option)) {
        options.push(SIZE.to_owned());
    }
}

/// tmpfs(5): size=0 and nr_blocks=0, in any unit, are no limit.
fn sized(option: &str) -> bool {
    let value = option.strip_prefix("size=").or_else(|| option.strip_prefix("nr_blocks="));
    value.is_some_and(|value| match value.strip_prefix("0x") {
        Some(hex) => hex.contains(|c: char| c.is_ascii_hexdigit() && c != '0'),
        None => value.contains(|c: char| ('1'..='9').contains(&c)),
    })
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
    options || mount.typ().as_deref() == Some("bind")
}
