// SPDX-License-Identifier: Apache-2.0
//! `--fix` mends what is safe to, says so, and what it mended is not found again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use wsbox_integration::cgroup::on_v1;
use wsbox_integration::{Bundle, Engine};

use crate::{check, faultless, found};

fn config(bundle: &Bundle) -> Value {
    serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap()
}

/// What runc writes lacks most of the layers; mended, it runs in all of them.
#[test]
fn a_plain_bundle_is_hardened() {
    let bundle =
        Bundle::plain().script("grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status; touch /tmp/x && touch /x");
    let first = check(&bundle, &["--fix", "--fail-on", "error"]).ok();
    for line in [
        // `runc spec` has one of cgroups on v2.
        if on_v1() { "fixed linux.namespaces: adds user, cgroup" } else { "fixed linux.namespaces: adds user" },
        "fixed linux.seccomp: as hardened",
        "fixed process.capabilities: as hardened",
        "fixed linux.resources.pids.limit: 256",
        "fixed linux.resources.memory.limit: 536870912",
        "fixed mounts: adds /tmp",
    ] {
        assert!(first.stdout.lines().any(|one| one == line), "{line}: {}", first.stdout);
    }
    let path = bundle.path().display().to_string();
    let again = Engine::new().wsbox(&["bundle", "check", &path, "--fix"]).ok();
    assert!(!again.stdout.contains("fixed"), "{}", again.stdout);
    let ran = Engine::new().wsbox(&["run", &format!("{path}/")]);
    assert!(ran.stdout.contains("Seccomp:\t2") && ran.stdout.contains("CapBnd:\t0000000000000000"), "{ran:?}");
    assert!(ran.stderr.contains("/x: Read-only file system") && !ran.stderr.contains("/tmp/x"), "{ran:?}");
}

#[test]
fn every_layer_alone() {
    for (bundle, change) in [
        (faultless().user_namespace(false), "linux.namespaces: adds user"),
        (faultless().remove("/linux/seccomp"), "linux.seccomp: as hardened"),
        (faultless().set("/root/readonly", json!(false)), "root.readonly: true"),
        (faultless().set("/process/capabilities/bounding", json!(["CAP_CHOWN"])), "process.capabilities: as hardened"),
        (faultless().remove("/linux/resources/pids"), "linux.resources.pids.limit: 256"),
        (faultless().set("/linux/resources/cpu/quota", json!(-1)), "linux.resources.cpu.quota: 100000"),
        (faultless().set("/process/noNewPrivileges", json!(false)), "process.noNewPrivileges: true"),
        (faultless().remove("/linux/resources/memory/swap"), "linux.resources.memory.swap: 536870912"),
        (faultless().remove("/process/rlimits"), "process.rlimits: adds RLIMIT_CORE, RLIMIT_NOFILE"),
        (faultless().without_mount("/tmp"), "mounts: adds /tmp"),
    ] {
        let outcome = check(&bundle, &["--fix", "--fail-on", "note"]).ok();
        let fixed: Vec<_> = outcome.stdout.lines().filter_map(|line| line.strip_prefix("fixed ")).collect();
        assert_eq!(fixed, [change]);
        // As it was before somebody spoilt it, but for the order of lists.
        assert_eq!(config(&bundle)["linux"]["resources"], faultless().config["linux"]["resources"], "{change}");
    }
}

#[test]
fn options_of_mounts() {
    let mount = json!({ "destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] });
    let bundle = faultless().mount(mount);
    let outcome = check(&bundle, &["--fix", "--format", "json", "--fail-on", "note"]).ok();
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["fixed"], json!(["mounts: /work gets nodev, size=64m"]));
    assert_eq!(
        config(&bundle)["mounts"].as_array().unwrap().last().unwrap()["options"],
        json!(["nosuid", "nodev", "size=64m"])
    );
}

/// What somebody put there stays, and is still said.
#[test]
fn what_is_not_safe_is_left() {
    let socket = json!({ "destination": "/s", "type": "bind", "source": "/run/docker.sock", "options": ["bind", "nosuid", "nodev"] });
    let mut bundle = faultless().mount(socket).user_namespace(false);
    bundle.config["linux"]["namespaces"][0] = json!({ "type": "network", "path": "/proc/1/ns/net" });
    let before = bundle.config.clone();
    let outcome = check(&bundle, &["--fix"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(["WSB001", "WSB007", "WSB014"].iter().all(|rule| outcome.stdout.contains(rule)), "{outcome:?}");
    assert_eq!(config(&bundle), before);
}

/// The file keeps its mode, and nothing lies beside it.
#[test]
fn it_is_written_whole() {
    let bundle = faultless().remove("/linux/seccomp");
    bundle.write();
    let file = bundle.path().join("config.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    check(&bundle, &["--fix"]).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    let mut names: Vec<_> = fs::read_dir(bundle.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "rootfs"]);
    let mended = config(&bundle);
    assert_eq!(mended["linux"]["seccomp"], faultless().config["linux"]["seccomp"]);
    // Without --fix nothing is touched.
    let bundle = faultless().remove("/linux/seccomp");
    assert_eq!(found(&bundle).len(), 1);
    assert_eq!(config(&bundle), bundle.config);
}
