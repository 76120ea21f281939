// SPDX-License-Identifier: Apache-2.0
//! What a container may leave on the host: nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether a name holds `id` and no longer number: `x-20` does not hold `x-2`.
fn holds(name: &str, id: &str) -> bool {
    name.match_indices(id).any(|(at, _)| !name[at + id.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// Cgroups of containers whose id holds `id`, in every hierarchy.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let top = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&top).expect("cgroups").flatten().map(|hierarchy| hierarchy.path());
    for hierarchy in hierarchies.filter(|path| path.is_dir()).chain([top.clone()]) {
        for place in [hierarchy.clone(), hierarchy.join("wsbox")] {
            let entries = fs::read_dir(place).into_iter().flatten().flatten();
            found.extend(
                entries.filter(|entry| holds(&entry.file_name().to_string_lossy(), id)).map(|entry| entry.path()),
            );
        }
    }
    found
}

/// Processes whose command line holds `words`.
pub fn processes(words: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(pid)).replace('\0', " ").contains(words)).collect()
}

/// Processes that have a mount of `bundle`: the container's, however they are called, and the host's if one leaked there.
pub fn inside(bundle: &Path) -> Vec<i32> {
    let words = format!("{}/", bundle.display());
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(&words)))
        .collect()
}

/// Mounts of this process whose line holds `words`.
pub fn mounts(words: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

/// Host id ranges that belong to containers below `root`.
pub fn ids(root: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/run/wsbox/ids").into_iter().flatten().flatten();
    links
        .filter(|link| fs::read_link(link.path()).is_ok_and(|owner| owner.starts_with(root)))
        .map(|link| link.path())
        .collect()
}

/// Panics unless nothing of container `id` below state root `root` is left.
pub fn assert_nothing_left(root: &Path, id: &str) {
    assert!(!root.join(id).exists(), "the state folder of {id} is left");
    assert_eq!(cgroups(id), Vec::<PathBuf>::new(), "cgroups of {id} are left");
    assert_eq!(ids(&root.join(id)), Vec::<PathBuf>::new(), "host ids of {id} are left");
    assert_eq!(mounts(&root.display().to_string()), Vec::<String>::new(), "mounts are left");
}
