// SPDX-License-Identifier: Apache-2.0
//! A daemon with deployment/docker's settings for remapped ids, after `wsbox install-docker`, and wsbox as its default runtime.

use std::fs;

use serde_json::Value;
use wsbox_integration::docker::{Daemon, Docker, IMAGE, STRICT, open_layers, with_input};
use wsbox_integration::unique;

#[test]
fn the_runtimes_are_the_installed_ones() {
    let daemon = Daemon::installed();
    let told = fs::read_to_string(daemon.path().join("installed")).expect("what install-docker said");
    assert!(told.contains("replaced wsbox, wsbox-strict") && told.contains("systemctl reload docker"), "{told}");
    let settings = fs::read_to_string(daemon.path().join("daemon.json")).expect("settings");
    assert!(settings.contains("\"storage-driver\": \"overlay2\""), "no key is lost: {settings}");
    assert_eq!(daemon.docker(&["info", "--format", "{{.DefaultRuntime}} {{.Driver}}"]).ok().stdout, "wsbox overlay2\n");
    // Docker reads it from `wsbox --version`, as it does with runc.
    let components: Value =
        serde_json::from_str(&daemon.docker(&["version", "--format", "{{json .Server.Components}}"]).ok().stdout)
            .expect("JSON");
    let own = components.as_array().expect("a list").iter().find(|component| component["Name"] == "wsbox");
    assert_eq!(own.expect("it is there")["Version"], env!("CARGO_PKG_VERSION"), "{components}");
}

#[test]
fn containers_have_the_shipped_ids() {
    let daemon = Daemon::installed();
    let script = "tr -s ' ' </proc/self/uid_map; id -u; touch /etc/written && echo written";
    let said = daemon.docker(&["run", "--rm", IMAGE, "sh", "-c", script]).ok().stdout;
    assert_eq!(said, " 0 100000 65536\n0\nwritten\n");
    let container = Docker { daemon, runtime: STRICT }.sleeping("--publish 127.0.0.1::80");
    assert_eq!(open_layers(&container), [""; 0]);
    let seen = container.says("", "tr -s ' ' </proc/self/uid_map; id -u; touch /etc/written 2>&1 || true");
    assert_eq!(seen.lines().last(), Some("touch: /etc/written: Read-only file system"), "{seen}");
    assert_eq!(container.exec("", "exit 9").code, 9);
}

/// docker build runs its commands with the default runtime.
#[test]
fn images_are_built() {
    let (daemon, name) = (Daemon::installed(), unique("built"));
    let file =
        format!("FROM {IMAGE}\nRUN id -u >/built && cat /proc/self/uid_map >>/built\nCMD [\"cat\", \"/built\"]\n");
    let mut build = daemon.command(&["build", "--quiet", "--tag", &name, "-"]);
    with_input(build.env("DOCKER_BUILDKIT", "0"), file.as_bytes()).ok();
    let said = daemon.docker(&["run", "--rm", &name]).ok().stdout;
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "0", "100000", "65536"]);
    daemon.docker(&["rmi", &name]).ok();
}
