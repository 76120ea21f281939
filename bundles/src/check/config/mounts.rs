// SPDX-License-Identifier: Apache-2.0
//! What the config mounts.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::list;
use crate::check::finding::Findings;
use crate::check::rules;

/// Of Docker, containerd, Podman, CRI-O and BuildKit.
const SOCKETS: [&str; 7] = [
    "docker.sock",
    "containerd.sock",
    "containerd.sock.ttrpc",
    "podman.sock",
    "crio.sock",
    "buildkitd.sock",
    "cri-dockerd.sock",
];
/// Sensitive with all that is below.
const TREES: [&str; 7] = ["/etc", "/proc", "/sys", "/dev", "/boot", "/root", "/var/lib/kubelet"];
/// Sensitive themselves; single folders below are people's volumes.
const FOLDERS: [&str; 14] = [
    "/",
    "/bin",
    "/home",
    "/lib",
    "/opt",
    "/run",
    "/sbin",
    "/srv",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/log",
];
/// What engines and people mount of /etc, and everybody may read.
const OPEN: [&str; 7] = [
    "/etc/ca-certificates",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/etc/timezone",
];

/// Each mount, and the root; `dir` is the bundle's, which relative paths begin at.
pub fn check(dir: &Path, config: &Value, found: &mut Findings) {
    root(dir, config, found);
    for (at, mount) in list(config, "/mounts").iter().enumerate() {
        let (field, to) = (format!("mounts[{at}]"), mount["destination"].as_str().unwrap_or_default());
        if is_bind(mount) {
            bind(dir, mount, &field, found);
        }
        if unbounded(mount) {
            found.field(&rules::TMPFS_SIZE, &field, to);
        }
        let lacking = lacking(mount);
        if !lacking.is_empty() {
            found.field(&rules::MOUNT_OPTIONS, field, format!("{to} has no {}", lacking.join(" and no ")));
        }
    }
}

/// The options that keep set-id programs and devices out, and are not there. /dev holds the nodes that the runtime makes.
pub fn lacking(mount: &Value) -> Vec<&'static str> {
    let wanted: &[_] = match (mount["type"] == "tmpfs" || is_bind(mount), mount["destination"] == "/dev") {
        (false, _) => &[],
        (true, true) => &["nosuid"],
        (true, false) => &["nosuid", "nodev"],
    };
    wanted.iter().copied().filter(|name| !option(mount, name)).collect()
}

/// Whether it is a tmpfs that can be filled without an end.
pub fn unbounded(mount: &Value) -> bool {
    mount["type"] == "tmpfs" && !option(mount, "ro") && !list(mount, "/options").iter().any(is_size)
}

fn is_size(option: &Value) -> bool {
    option.as_str().is_some_and(|option| option.starts_with("size="))
}

fn option(mount: &Value, name: &str) -> bool {
    list(mount, "/options").iter().any(|one| one == name)
}

fn is_bind(mount: &Value) -> bool {
    mount["type"] == "bind" || option(mount, "bind") || option(mount, "rbind")
}

fn root(dir: &Path, config: &Value, found: &mut Findings) {
    let path = dir.join(config["root"]["path"].as_str().unwrap_or_default());
    if any(&path, |place| is_sensitive(place, dir, false)) {
        found.field(&rules::HOST_PATH, "root.path", format!("{} is the root", clean(&path).display()));
    }
}

/// Whether it holds for a path, or for where its links lead on this host, which need not be the one it runs on.
fn any(path: &Path, test: impl Fn(&Path) -> bool) -> bool {
    test(&clean(path)) || path.canonicalize().is_ok_and(|place| test(&place))
}

fn bind(dir: &Path, mount: &Value, field: &str, found: &mut Findings) {
    let source = dir.join(mount["source"].as_str().unwrap_or_default());
    let read_only = option(mount, "ro");
    let text = format!("{} on {}", clean(&source).display(), mount["destination"].as_str().unwrap_or_default());
    if any(&source, is_socket) {
        found.field(&rules::ENGINE_SOCKET, field, text);
    } else if any(&source, |place| is_sensitive(place, dir, read_only)) {
        found.field(&rules::HOST_PATH, field, text);
    } else if !read_only {
        found.field(&rules::HOST_WRITABLE, field, text);
    }
}

fn is_socket(place: &Path) -> bool {
    place.file_name().is_some_and(|name| SOCKETS.iter().any(|socket| name == *socket))
}

/// What lies in the bundle is its own, wherever that is.
fn is_sensitive(place: &Path, bundle: &Path, read_only: bool) -> bool {
    if place.starts_with(bundle) || (read_only && OPEN.iter().any(|open| place.starts_with(open))) {
        return false;
    }
    TREES.iter().any(|tree| place.starts_with(tree)) || FOLDERS.iter().any(|folder| place == Path::new(folder))
}

/// The path without `.`, `..` and links that every host has.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    match clean.strip_prefix("/var/run") {
        Ok(rest) if rest.as_os_str().is_empty() => "/run".into(),
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => clean,
    }
}
