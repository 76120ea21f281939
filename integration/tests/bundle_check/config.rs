// SPDX-License-Identifier: Apache-2.0
//! Faults of config.json, one at a time.

use serde_json::json;
use wsbox_integration::{Bundle, Engine, TempDir};

use crate::{assert_only, check, faultless, findings, found};

fn without_namespace(mut bundle: Bundle, kind: &str) -> Bundle {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != kind);
    bundle
}

fn joining(bundle: Bundle, kind: &str) -> Bundle {
    let mut bundle = without_namespace(bundle, kind);
    let joined = json!({ "type": kind, "path": format!("/proc/1/ns/{kind}") });
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(joined);
    bundle
}

fn resources(name: &str) -> String {
    format!("/linux/resources/{name}")
}

#[test]
fn the_eight_layers() {
    let capability =
        json!({ "bounding": ["CAP_CHOWN"], "effective": [], "inheritable": [], "permitted": [], "ambient": [] });
    for (bundle, rule, place) in [
        (without_namespace(faultless(), "network"), "WSB001", "linux.namespaces"),
        (joining(faultless(), "network"), "WSB001", "linux.namespaces"),
        (faultless().remove("/linux/seccomp"), "WSB002", "linux.seccomp"),
        (faultless().remove("/root/readonly"), "WSB003", "root.readonly"),
        (faultless().set("/root/readonly", json!(false)), "WSB003", "root.readonly"),
        (faultless().set("/process/capabilities", capability), "WSB004", "process.capabilities"),
        (faultless().remove(&resources("pids")), "WSB005", "linux.resources.pids.limit"),
        (faultless().set(&resources("pids/limit"), json!(-1)), "WSB005", "linux.resources.pids.limit"),
        (faultless().remove(&resources("memory")), "WSB006", "linux.resources.memory.limit"),
        (faultless().set(&resources("cpu/quota"), json!(-1)), "WSB006", "linux.resources.cpu.quota"),
        (faultless().user_namespace(false), "WSB007", "linux.namespaces"),
        (faultless().remove("/process/noNewPrivileges"), "WSB008", "process.noNewPrivileges"),
    ] {
        assert_only(&bundle, rule, &format!("config.json: {place}"));
        assert_eq!(check(&bundle, &[]).code, 1);
    }
}

#[test]
fn what_makes_a_layer_worth_less() {
    let core = json!([{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }]);
    let hook = json!({ "createRuntime": [{ "path": "/usr/bin/true" }] });
    let device = json!([{ "path": "/dev/kvm", "type": "c", "major": 10, "minor": 232 }]);
    let every = json!([{ "allow": true, "access": "rwm" }]);
    let disk = json!([{ "allow": true, "type": "b", "major": 8, "minor": 0, "access": "r" }]);
    let maps = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    for (bundle, rule, place) in [
        (
            faultless().set("/linux/seccomp/defaultAction", json!("SCMP_ACT_ALLOW")),
            "WSB009",
            "linux.seccomp.defaultAction",
        ),
        (faultless().set(&resources("memory/swap"), json!(-1)), "WSB011", "linux.resources.memory.swap"),
        (faultless().remove(&resources("memory/swap")), "WSB011", "linux.resources.memory.swap"),
        (faultless().set(&resources("memory/swap"), json!(1_u64 << 40)), "WSB011", "linux.resources.memory.swap"),
        (faultless().set("/process/rlimits", core), "WSB012", "process.rlimits"),
        (without_namespace(faultless(), "pid"), "WSB013", "linux.namespaces"),
        (joining(faultless(), "ipc"), "WSB013", "linux.namespaces"),
        (faultless().set("/linux/devices", device), "WSB019", "linux.devices[0]"),
        (faultless().set(&resources("devices"), every), "WSB019", "linux.resources.devices[0]"),
        (faultless().set(&resources("devices"), disk), "WSB019", "linux.resources.devices[0]"),
        (faultless().set("/linux/uidMappings", maps), "WSB007", "linux.uidMappings[0]"),
        (faultless().set("/linux/rootfsPropagation", json!("shared")), "WSB013", "linux.rootfsPropagation"),
        (faultless().set("/linux/maskedPaths", json!([])), "WSB020", "linux.maskedPaths"),
        (faultless().remove("/linux/readonlyPaths"), "WSB020", "linux.readonlyPaths"),
        (faultless().set("/process/user/uid", json!(0)), "WSB021", "process.user.uid"),
        (faultless().set("/hooks", hook), "WSB026", "hooks.createRuntime[0]"),
    ] {
        assert_only(&bundle, rule, &format!("config.json: {place}"));
    }
    // What Docker writes.
    let one = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
    let docker = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "access": "m" }, one]);
    assert_eq!(found(&faultless().set(&resources("devices"), docker)), []);
}

#[test]
fn capabilities_of_root() {
    let sets = json!({ "bounding": ["CAP_SYS_ADMIN", "CAP_CHOWN"], "effective": ["CAP_SYS_ADMIN"] });
    let found = found(&faultless().set("/process/capabilities", sets));
    assert_eq!(found.iter().map(|(rule, _)| &**rule).collect::<Vec<_>>(), ["WSB004", "WSB010"]);
}

fn bind(source: &str, options: &[&str]) -> Bundle {
    let options = [&["rbind", "nosuid", "nodev"], options].concat();
    faultless().mount(json!({ "destination": "/data", "type": "bind", "source": source, "options": options }))
}

#[test]
fn mounts_of_the_host() {
    let at = faultless().config["mounts"].as_array().unwrap().len();
    let place = format!("config.json: mounts[{at}]");
    let folder = TempDir::new("check");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    let (folder, link) = (folder.path().display().to_string(), link.display().to_string());
    for socket in
        ["/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/x/../run/docker.sock"]
    {
        assert_only(&bind(socket, &["ro"]), "WSB014", &place);
    }
    for path in [
        "/",
        "/etc",
        "/etc/shadow",
        "/proc",
        "/proc/1",
        "/sys",
        "/dev/sda",
        "/var/run",
        "/root/.ssh",
        "/home",
        "/var/lib/docker",
        "//etc/.",
        &link,
    ] {
        assert_only(&bind(path, &["ro"]), "WSB015", &place);
    }
    // Below the bundle's own folder, as relative sources are.
    assert_only(&bind("../../etc", &["ro"]), "WSB015", &place);
    for path in ["/etc/resolv.conf", "/etc/localtime", "/srv/data", &folder, "data"] {
        assert_eq!(found(&bind(path, &["ro"])), [], "{path}");
    }
    assert_only(&bind(&folder, &["rw"]), "WSB016", &place);
    assert_only(&bind("/etc/hosts", &[]), "WSB015", &place);
}

/// A bundle may lie below /root, and be named as seen from where one is.
#[test]
fn what_is_the_bundles_own() {
    let home = TempDir::new("check");
    let bundle = faultless().mount(
        json!({ "destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro", "nosuid", "nodev"] }),
    );
    bundle.write();
    let place = std::path::Path::new("/root").join(home.path().file_name().unwrap());
    std::fs::rename(bundle.path(), &place).unwrap();
    let outcome = Engine::new().command(&["bundle", "check", ".", "--fail-on", "note"]).current_dir(&place).output();
    std::fs::rename(&place, bundle.path()).unwrap();
    let outcome = outcome.unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stdout));
}

/// The host's own root, by name and by a link.
#[test]
fn a_root_of_the_host() {
    let mut bundle = faultless();
    for path in ["/etc", "link"] {
        bundle.config["root"]["path"] = json!(path);
        let _ = std::os::unix::fs::symlink("/etc", bundle.path().join("link"));
        let all = found(&bundle);
        assert!(all.contains(&("WSB015".into(), "config.json: root.path".into())), "{all:?}");
    }
}

#[test]
fn mount_options() {
    let at = faultless().config["mounts"].as_array().unwrap().len();
    let place = format!("config.json: mounts[{at}]");
    let tmpfs = |options: &[&str]| {
        faultless().mount(json!({ "destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": options }))
    };
    assert_only(&tmpfs(&["nosuid", "nodev"]), "WSB017", &place);
    assert_only(&tmpfs(&["nosuid", "size=1m"]), "WSB018", &place);
    assert_eq!(found(&tmpfs(&["nosuid", "nodev", "size=1m"])), []);
}

#[test]
fn where_it_is_from() {
    let digest = "config.json: annotations[\"dev.wsbox.image.digest\"]";
    assert_only(&faultless().remove("/annotations/dev.wsbox.image.digest"), "WSB022", digest);
    for name in ["app:latest", "host/team/app"] {
        let bundle = faultless().set("/annotations/dev.wsbox.image.name", json!(name));
        assert_only(&bundle, "WSB023", "config.json: annotations[\"dev.wsbox.image.name\"]");
    }
}

#[test]
fn fields_that_nobody_knows() {
    let bundle = faultless().set("/linux/resources/pids/limt", json!(7)).set("/rot", json!({}));
    let places: Vec<_> = found(&bundle).into_iter().map(|(rule, place)| format!("{rule} {place}")).collect();
    assert_eq!(places, ["WSB024 config.json: linux.resources.pids.limt", "WSB024 config.json: rot"]);
}

#[test]
fn secrets_are_named_but_not_shown() {
    let env = |variable: &str| faultless().set("/process/env", json!([variable]));
    let key = "ghp_".to_owned() + &"aB3".repeat(12);
    let private = format!("K=-----BEGIN PRIVATE KEY-----\n{}\n", "MIIEvQ".repeat(10));
    for variable in ["DB_PASSWORD=hunter2", &format!("X={key}"), "U=postgres://a:hunter2@db/x", &private] {
        let bundle = env(variable);
        assert_only(&bundle, "WSB025", "config.json: process.env[0]");
        for format in ["table", "json", "sarif"] {
            let text = check(&bundle, &["--format", format]).stdout;
            assert!(!["hunter2", &key, "MIIEvQ"].iter().any(|secret| text.contains(secret)), "{text}");
        }
    }
    for variable in
        ["DB_PASSWORD_FILE=/run/secrets/db", "TOKEN=/run/secrets/token", "DB_PASSWORD=", "PATH=/bin", "USE_TOKEN=1"]
    {
        assert_eq!(found(&env(variable)), [], "{variable}");
    }
    assert_only(&faultless().args(&["app", "--password=hunter2"]), "WSB025", "config.json: process.args[1]");
    let bundle = faultless().set("/annotations/label", json!(key));
    assert_only(&bundle, "WSB025", "config.json: annotations[\"label\"]");
}

/// Each says what, where, why and what to do.
#[test]
fn findings_are_whole() {
    let mut bundle = faultless().args(&["app", "--password=hunter2"]);
    bundle.config["linux"] = json!({});
    let findings = findings(&bundle);
    assert!(findings.len() > 8, "{findings:?}");
    for name in ["rule", "severity", "title", "what", "where", "why", "fix"] {
        assert!(findings.iter().all(|one| one[name].as_str().is_some_and(|text| !text.is_empty())), "{name}");
    }
}
