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
        Some("sysfs" | "cgroup" | "cgroup2") => &["nosuid", "nodev", "ro"],
        // Its nodes are the terminals.
        Some("devpts") => &["nosuid"],
        _ => &["nosuid", "nodev"],
    };
    let tmpfs = mount.typ().as_deref() == Some("tmpfs") && !is_bind(mount);
    let options = mount.options_mut().get_or_insert_default();
    options.retain(|given| !LOOSE.contains(&given.as_str()));
    for option in more {
        options.retain(|given| given != option);
        options.push((*option).to_owned());
    }
    if tmpfs && !limited(options) {
        options.push(SIZE.to_owned());
    }
}

/// Whether the last size says so: 0 is no limit, and the kernel rounds up to pages in 64 bits (tmpfs(5), mm/shmem.c).
fn limited(options: &[String]) -> bool {
    let size = |option: &str| option.strip_prefix("size=").or_else(|| option.strip_prefix("nr_blocks=")).map(number);
    options.iter().filter_map(|option| size(option)).next_back().flatten().is_some_and(|size| size > 0)
}

/// As memparse of the kernel's lib/cmdline.c reads it, if that fits, or a percentage.
fn number(text: &str) -> Option<i64> {
    let (radix, text) = match (text.strip_prefix("0x").or(text.strip_prefix("0X")), text.strip_prefix('0')) {
        (Some(hex), _) => (16, hex),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        _ => (10, text),
    };
    let (digits, unit) = text.split_at(text.find(|letter: char| !letter.is_digit(radix)).unwrap_or(text.len()));
    let number = i64::from_str_radix(digits, radix).ok()?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        "%" => return (number <= 100).then_some(number),
        _ => return None,
    };
    number.checked_mul(1 << unit)
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
    options || mount.typ().as_deref() == Some("bind")
}
