// SPDX-License-Identifier: Apache-2.0
use serde_json::{Value, json};

use super::settings::{Settings, Source, combine, parse};
use super::*;
use crate::plan::harden;

const DOCKER_20: &str = include_str!("../../../integration/data/docker20.10-default.json");
const DOCKER_29: &str = include_str!("../../../integration/data/docker29-default.json");
const PRIVILEGED: &str = include_str!("../../../integration/data/docker20.10-privileged.json");

fn floor(profile: Profile) -> Floor {
    Floor { profile, user_namespace: profile > Profile::Development, seccomp: Vec::new() }
}

fn spec(config: &Value) -> Spec {
    serde_json::from_value(config.clone()).unwrap()
}

/// No layer at all: a joined network, everything else as weak as it is allowed to be.
fn bare() -> Value {
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    let namespaces: Vec<Value> =
        [json!({ "type": "network", "path": "/run/netns/x" })].into_iter().chain(namespaces).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": namespaces }
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut config = bare();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = &mut config;
    for part in parent.split('/').skip(1) {
        at = if at.is_array() { &mut at[part.parse::<usize>().unwrap()] } else { &mut at[part] };
    }
    at[key] = value;
    config
}

/// The field at `pointer` after tightening.
fn field(config: &Value, pointer: &str) -> Value {
    let (spec, _) = tighten(&spec(config), &floor(Profile::Production)).unwrap();
    serde_json::to_value(spec).unwrap().pointer(pointer).cloned().unwrap_or_default()
}

fn refusal(config: &Value, profile: Profile) -> String {
    tighten(&spec(config), &floor(profile)).unwrap_err().to_string()
}

#[test]
fn a_bundle_without_layers_gets_them() {
    let (tight, _) = tighten(&spec(&bare()), &floor(Profile::Production)).unwrap();
    // L2 comes from the floor's filters.
    assert_eq!(harden::lacking(&tight), ["L2 seccomp"]);
    let (tight, _) = tighten(&spec(&bare()), &floor(Profile::Development)).unwrap();
    assert_eq!(harden::lacking(&tight), ["L2 seccomp", "L7 user namespace"]);
    assert_eq!(field(&bare(), "/annotations/dev.wsbox.profile"), "production");
}

#[test]
fn a_hardened_bundle_stays_as_it_is() {
    let mut config = harden::config().unwrap();
    let tight = |pointer: &str| field(&config, pointer);
    for pointer in
        ["/root", "/linux/namespaces", "/linux/resources", "/linux/readonlyPaths", "/process/noNewPrivileges"]
    {
        assert_eq!(tight(pointer), config.pointer(pointer).cloned().unwrap(), "{pointer}");
    }
    assert_eq!(tight("/mounts").as_array().unwrap().len(), config["mounts"].as_array().unwrap().len());
    config["process"]["rlimits"] = json!([]);
    assert_eq!(field(&config, "/process/rlimits"), json!([{ "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }]));
}

#[test]
fn tightening_twice_changes_nothing() {
    for config in [bare(), harden::config().unwrap(), serde_json::from_str(DOCKER_20).unwrap()] {
        let floor = floor(Profile::Production);
        let (once, _) = tighten(&spec(&config), &floor).unwrap();
        assert_eq!(tighten(&once, &floor).unwrap().0, once);
    }
}

#[test]
fn l1_a_fresh_network_in_place_of_the_given_one() {
    assert_eq!(field(&bare(), "/linux/namespaces/0"), json!({ "type": "network" }));
    let sysctls = json!({ "net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1", "kernel.msgmax": "1" });
    let (tight, warnings) = tighten(&spec(&with("/linux/sysctl", sysctls)), &floor(Profile::Production)).unwrap();
    let left: Vec<String> =
        tight.linux().as_ref().unwrap().sysctl().iter().flatten().map(|(key, _)| key.clone()).collect();
    assert_eq!(left, ["kernel.msgmax"]);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with("linux.sysctl[\"net.ipv4.ip_forward\"]: left out"), "{warnings:?}");
}

#[test]
fn l3_read_only_root_and_sized_tmpfs() {
    assert_eq!(field(&bare(), "/root"), json!({ "path": "rootfs", "readonly": true }));
    let mounts = field(&bare(), "/mounts");
    let places: Vec<&str> =
        mounts.as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(places, ["/dev/shm", "/run", "/tmp", "/proc"]);
    // Before what lies below them.
    let below = ["/dev", "/run/secrets"].map(|place| json!({ "destination": place, "type": "tmpfs", "source": "x" }));
    let mounts = field(&with("/mounts", json!(below)), "/mounts");
    let places: Vec<&str> =
        mounts.as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(places, ["/run", "/tmp", "/dev", "/dev/shm", "/run/secrets"]);
    // Where the config mounts something, that stays.
    let own =
        json!([{ "destination": "/tmp/", "type": "bind", "source": "/srv/tmp", "options": ["rbind", "suid", "rw"] }]);
    let mounts = field(&with("/mounts", own), "/mounts");
    assert_eq!(mounts.as_array().unwrap().len(), 3);
    assert_eq!(mounts[2]["source"], "/srv/tmp");
    assert_eq!(mounts[2]["options"], json!(["rbind", "suid", "rw", "nosuid", "nodev", "rnosuid", "rnodev"]));
    for (kind, options, wanted) in [
        ("tmpfs", json!(["mode=755"]), json!(["mode=755", "nosuid", "nodev", "size=64m"])),
        ("tmpfs", json!(["size=0", "dev"]), json!(["size=0", "dev", "nosuid", "nodev", "size=64m"])),
        ("tmpfs", json!(["nosuid", "size=1g"]), json!(["size=1g", "nosuid", "nodev"])),
        ("tmpfs", json!(["rdev", "size=1g", "rsuid"]), json!(["size=1g", "nosuid", "nodev"])),
        ("tmpfs", json!(["size=1m", "size=0"]), json!(["size=1m", "size=0", "nosuid", "nodev", "size=64m"])),
        ("tmpfs", json!(["size=1m", "nr_blocks=0"]), json!(["size=1m", "nr_blocks=0", "nosuid", "nodev", "size=64m"])),
        (
            "tmpfs",
            json!(["size=18446744073709551616"]),
            json!(["size=18446744073709551616", "nosuid", "nodev", "size=64m"]),
        ),
        ("tmpfs", json!(["size=16e"]), json!(["size=16e", "nosuid", "nodev", "size=64m"])),
        ("tmpfs", json!(["size=0x10K"]), json!(["size=0x10K", "nosuid", "nodev"])),
        ("tmpfs", json!(["size=5%"]), json!(["size=5%", "nosuid", "nodev"])),
        ("sysfs", json!(["rrw"]), json!(["nosuid", "nodev", "ro"])),
        ("cgroup", json!(["rw", "rrw"]), json!(["rw", "nosuid", "nodev", "ro"])),
        ("devpts", json!(["rdev"]), json!(["nosuid"])),
        ("tmpfs", json!(["size=0k"]), json!(["size=0k", "nosuid", "nodev", "size=64m"])),
        ("ramfs", json!([]), json!(["nosuid", "nodev", "size=64m"])),
        ("sysfs", json!(["rw"]), json!(["rw", "nosuid", "nodev", "ro"])),
        ("cgroup", json!([]), json!(["nosuid", "nodev", "ro"])),
        ("mqueue", json!([]), json!(["nosuid", "nodev"])),
    ] {
        let mount = json!([{ "destination": "/x", "type": kind, "source": kind, "options": options }]);
        assert_eq!(field(&with("/mounts", mount), "/mounts/3/options"), wanted, "{kind}");
    }
    let dev = json!([{ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }]);
    assert_eq!(field(&with("/mounts", dev), "/mounts/2/options"), json!(["nosuid", "size=64m"]));
}

#[test]
fn l4_no_capabilities_and_l8_no_new_privs() {
    let some = json!(["CAP_KILL", "CAP_SYS_ADMIN"]);
    let sets = json!({ "bounding": some, "effective": some, "permitted": some, "inheritable": some, "ambient": some });
    let none = json!({ "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] });
    assert_eq!(field(&with("/process/capabilities", sets), "/process/capabilities"), none);
    assert_eq!(field(&with("/process/noNewPrivileges", json!(false)), "/process/noNewPrivileges"), true);
    let limits =
        json!([{ "type": "RLIMIT_CORE", "soft": 1, "hard": 9 }, { "type": "RLIMIT_NOFILE", "soft": 7, "hard": 9 }]);
    let wanted =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 7, "hard": 9 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
    assert_eq!(field(&with("/process/rlimits", limits), "/process/rlimits"), wanted);
}

#[test]
fn l5_l6_the_stricter_limit() {
    const MIB: i64 = 1 << 20;
    for (given, wanted) in [
        (json!(null), 256),
        (json!({}), 256),
        (json!({ "limit": -1 }), 256),
        (json!({ "limit": 257 }), 256),
        (json!({ "limit": 7 }), 7),
    ] {
        assert_eq!(
            field(&with("/linux/resources", json!({ "pids": given })), "/linux/resources/pids/limit"),
            wanted,
            "{given}"
        );
    }
    for (given, wanted) in [
        (json!({}), 512 * MIB),
        (json!({ "limit": -1, "swap": -1 }), 512 * MIB),
        (json!({ "limit": 1024 * MIB }), 512 * MIB),
        (json!({ "limit": 64 * MIB }), 64 * MIB),
        (json!({ "limit": 64 * MIB, "swap": 128 * MIB }), 64 * MIB),
        (json!({ "limit": 0, "disableOOMKiller": false }), 512 * MIB),
    ] {
        let memory = field(&with("/linux/resources", json!({ "memory": given })), "/linux/resources/memory");
        assert_eq!((&memory["limit"], &memory["swap"]), (&json!(wanted), &json!(wanted)), "{given}");
    }
    for (given, quota, period) in [
        (json!({}), 100_000, 100_000),
        (json!({ "quota": -1, "shares": 5 }), 100_000, 100_000),
        (json!({ "quota": 50_000 }), 50_000, 0),
        (json!({ "quota": 200_000, "period": 100_000, "burst": 5 }), 100_000, 100_000),
        (json!({ "quota": 200_000, "period": 400_000 }), 200_000, 400_000),
        (json!({ "quota": 0, "period": 400_000 }), 100_000, 100_000),
    ] {
        let cpu = field(&with("/linux/resources", json!({ "cpu": given })), "/linux/resources/cpu");
        assert_eq!((cpu["quota"].as_i64(), cpu["period"].as_i64().unwrap_or(0)), (Some(quota), period), "{given}");
        assert_eq!(cpu["shares"], given["shares"]);
        assert_eq!(cpu["burst"], Value::Null);
    }
}

#[test]
fn l7_own_maps_stay_and_the_hosts_root_never_maps() {
    let namespaces = field(&bare(), "/linux/namespaces");
    assert!(namespaces.as_array().unwrap().contains(&json!({ "type": "user" })), "{namespaces}");
    let mut config = with("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]));
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
    config["linux"]["namespaces"][4] = json!({ "type": "user" });
    let users = |list: &Value| list.as_array().unwrap().iter().filter(|one| one["type"] == "user").count();
    assert_eq!(users(&field(&config, "/linux/namespaces")), 1);
    assert_eq!(field(&config, "/linux/uidMappings"), config["linux"]["uidMappings"]);
    config["linux"]["gidMappings"] = json!([{ "containerID": 5, "hostID": 0, "size": 1 }]);
    let error = refusal(&config, Profile::Production);
    assert!(error.starts_with("linux.gidMappings[0]: maps id 0 of the host"), "{error}");
}

#[test]
fn paths_are_joined() {
    let masked = field(&with("/linux/maskedPaths", json!(["/proc/kcore", "/x"])), "/linux/maskedPaths");
    let masked: Vec<&str> = masked.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(masked[..2], ["/proc/kcore", "/x"]);
    assert!(harden::MASKED.iter().all(|path| masked.iter().filter(|own| *own == path).count() == 1));
    assert!(masked.contains(&"/sys/class/net"));
    assert_eq!(field(&bare(), "/linux/readonlyPaths"), json!(harden::READ_ONLY));
}

#[test]
fn what_is_refused_is_refused_by_name() {
    let device = json!([{ "path": "/dev/kvm", "type": "c", "major": 10, "minor": 232 }]);
    let rule = |rule: Value| json!({ "devices": [{ "allow": false, "access": "rwm" }, rule] });
    let bind = |source: &str| json!([{ "destination": "/x", "type": "bind", "source": source, "options": ["rbind"] }]);
    let cases = [
        (
            with("/linux/devices", device),
            "linux.devices[0]: adds the device /dev/kvm: profile staging refuses it (leave out --device /dev/kvm)",
        ),
        (
            with("/linux/resources", rule(json!({ "allow": true, "access": "rwm" }))),
            "linux.resources.devices[1]: allows all devices, as --privileged does",
        ),
        (
            with("/linux/resources", rule(json!({ "allow": true, "type": "c", "major": -1, "access": "r" }))),
            "linux.resources.devices[1]: allows all",
        ),
        (
            with("/linux/resources", rule(json!({ "allow": true, "type": "b", "major": 8, "minor": 0 }))),
            "linux.resources.devices[1]: allows the device 8:0",
        ),
        (
            with("/linux/resources", rule(json!({ "allow": true, "type": "c", "major": 10, "access": "rw" }))),
            "linux.resources.devices[1]: allows the device 10:*",
        ),
        (
            with("/linux/resources", json!({ "unified": { "pids.max": "max" } })),
            "linux.resources.unified[\"pids.max\"]: would overrule",
        ),
        (
            with("/process/scheduler", json!({ "policy": "SCHED_RR", "priority": 1 })),
            "process.scheduler.policy: SCHED_RR is not bound by the limit of CPU",
        ),
        (with("/mounts", bind("/dev/kvm")), "mounts[0].source: /dev/kvm adds devices"),
        (with("/mounts", bind("/x/../dev")), "mounts[0].source: /dev adds devices"),
    ];
    for (config, words) in cases {
        let error = refusal(&config, Profile::Staging);
        assert!(error.starts_with(words), "{error}");
    }
    for (at, kind, flag) in
        [(0, "network", "--network host"), (1, "pid", "--pid host"), (2, "ipc", "--ipc host"), (3, "uts", "--uts host")]
    {
        let mut config = bare();
        config["linux"]["namespaces"].as_array_mut().unwrap().remove(at);
        let error = refusal(&config, Profile::Development);
        assert!(
            error.starts_with(&format!("linux.namespaces: without {kind} it is the host's")) && error.contains(flag),
            "{error}"
        );
    }
    let privileged = serde_json::from_str(PRIVILEGED).unwrap();
    assert!(refusal(&privileged, Profile::Development).contains("--privileged"));
}

#[test]
fn joined_namespaces_of_the_host_are_refused() {
    let check = |kind: &str, path: &str| {
        let config =
            with("/linux/namespaces", json!([{"type": "pid"}, {"type": "mount"}, {"type": kind, "path": path}]));
        refuse::joined_host_namespaces(&spec(&config), Profile::Production)
    };
    for (path, ok) in [("/proc/1/ns/ipc", false), ("/proc/self/ns/ipc", false), ("/nothing", false), ("", true)] {
        let checked = check("ipc", path);
        assert_eq!(checked.is_ok(), ok, "{path}");
        assert!(ok || checked.unwrap_err().to_string().starts_with("linux.namespaces[2].path: "), "{path}");
    }
    assert!(check("network", "/proc/self/ns/net").unwrap_err().to_string().contains("--network host"));
    assert!(check("network", "/nothing").is_ok(), "it is left for a fresh one");
}

#[test]
fn dockers_configs() {
    for (name, json) in [("20.10", DOCKER_20), ("29", DOCKER_29)] {
        let config: Value = serde_json::from_str(json).unwrap();
        let (tight, warnings) = tighten(&spec(&config), &floor(Profile::Production)).unwrap();
        assert_eq!(harden::lacking(&tight), [""; 0], "{name}");
        assert_eq!(warnings.len(), 2, "{name}: {warnings:?}");
        // What Docker mounted is still there.
        let mounts = field(&config, "/mounts");
        for mount in config["mounts"].as_array().unwrap() {
            assert!(
                mounts.as_array().unwrap().iter().any(|own| own["destination"] == mount["destination"]),
                "{name}: {mount}"
            );
        }
    }
}

fn source(profile: Option<Profile>, remap: Option<bool>) -> Source {
    Source { profile, remap, seccomp: None }
}

/// (profile, user namespace), or the error.
fn joined(
    file: (Option<Profile>, Option<bool>),
    environment: (Option<Profile>, Option<bool>),
    flag: Option<Profile>,
) -> Result<Option<(Profile, bool)>> {
    let settings = combine(&source(file.0, file.1), &source(environment.0, environment.1), flag)?;
    Ok(settings.map(|settings| (settings.profile, settings.user_namespace)))
}

#[test]
fn the_file_is_the_floor() {
    use Profile::{Development, Production, Staging};
    let (dev, stage, prod) = (Some(Development), Some(Staging), Some(Production));
    for (file, environment, flag, wanted) in [
        ((None, None), (None, None), None, None),
        // The environment's alone is no profile, so no change.
        ((None, None), (None, Some(true)), None, None),
        ((None, None), (None, None), prod, Some((Production, true))),
        ((None, None), (dev, None), None, Some((Development, false))),
        ((None, None), (dev, Some(true)), None, Some((Development, true))),
        ((None, None), (stage, None), None, Some((Staging, true))),
        ((None, None), (stage, Some(false)), None, Some((Staging, false))),
        ((stage, None), (None, Some(false)), None, Some((Staging, true))),
        ((stage, Some(false)), (None, None), None, Some((Staging, false))),
        ((stage, Some(false)), (None, Some(true)), None, Some((Staging, true))),
        ((prod, None), (dev, None), stage, Some((Production, true))),
        ((dev, None), (stage, None), prod, Some((Production, true))),
        ((dev, None), (None, None), stage, Some((Staging, true))),
    ] {
        assert_eq!(joined(file, environment, flag).unwrap(), wanted, "{file:?} {environment:?} {flag:?}");
    }
    for (file, environment, flag) in [
        ((prod, Some(false)), (None, None), None),
        ((None, None), (prod, Some(false)), None),
        ((dev, Some(false)), (None, None), prod),
    ] {
        let error = joined(file, environment, flag).unwrap_err().to_string();
        assert!(error.starts_with("USERNS_REMAP_ENABLED in ") && error.contains("production"), "{error}");
    }
    let error = joined((None, Some(true)), (None, None), None).unwrap_err().to_string();
    assert!(error.contains("WSBOX_PROFILE"), "{error}");
}

#[test]
fn who_asks_for_less_is_told() {
    let settings: Settings =
        combine(&source(Some(Profile::Production), None), &Source::default(), Some(Profile::Staging)).unwrap().unwrap();
    assert_eq!(settings.warnings, ["--profile staging: /etc/wsbox/wsbox.env asks for production, which stands"]);
}

#[test]
fn the_file_is_read_as_systemd_reads_it() {
    let text =
        "# comment\n\n WSBOX_PROFILE = \"staging\"\nSECCOMP_PROFILE_PATH='/etc/x y.json'\nUSERNS_REMAP_ENABLED=off\n";
    let wanted = Source { profile: Some(Profile::Staging), seccomp: Some("/etc/x y.json".into()), remap: Some(false) };
    assert_eq!(parse(text).unwrap(), wanted);
    let shipped = parse(include_str!("../../../deployment/env/wsbox.env")).unwrap();
    assert_eq!(shipped, source(Some(Profile::Production), Some(true)));
    for (bad, words) in [
        ("WSBOX_PROFILE=prod", "/etc/wsbox/wsbox.env:1: profile: \"prod\" is none of"),
        ("\nWSBOX_PROFIL=production", "/etc/wsbox/wsbox.env:2: \"WSBOX_PROFIL\" is none of"),
        ("USERNS_REMAP_ENABLED=maybe", "/etc/wsbox/wsbox.env:1: \"maybe\" is neither"),
        ("SECCOMP_PROFILE_PATH=x.json", "/etc/wsbox/wsbox.env:1: \"x.json\" is no absolute path"),
        ("production", "/etc/wsbox/wsbox.env:1: is no NAME=value"),
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}
