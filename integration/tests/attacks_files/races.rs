// SPDX-License-Identifier: Apache-2.0
//! Names that are swapped while a container is being made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use wsbox_integration::race::Swapper;
use wsbox_integration::{Bundle, Canary, Door, TempDir};

use crate::{MASKED, assert_closed, assert_closed_or_safe, assert_safe, run, through};

/// Runs through the first door and through each of the others.
const MANY: usize = 500;
const FEW: usize = 50;

/// Exits with 42 when no mount is of the canary and nothing of it can be read.
const NO_CANARY: &str = "cut -d' ' -f4 /proc/self/mountinfo | grep -q canary && exit 3; \
    cat /v/x/marker /v/x/y/marker /v/x/z 2>/dev/null | grep -q HOST && exit 4; exit 42";

fn times(door: Door) -> usize {
    if door == Door::Root { MANY } else { FEW }
}

fn bind(source: &Path, destination: &str) -> serde_json::Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

/// Runs the bundle while `a` and `b` are swapped; returns how often the payload found everything safe.
fn raced(what: &str, door: Door, bundle: &Bundle, a: &Path, b: &Path, check: impl Fn()) -> usize {
    let swapper = Swapper::start(a, b);
    let mut safe = 0;
    for _ in 0..times(door) {
        let outcome = run(bundle, door);
        assert_closed_or_safe(what, door, &outcome);
        safe += usize::from(outcome.code == crate::SAFE);
        check();
    }
    assert!(swapper.count() > 0, "{what}: nothing was swapped");
    safe
}

/// A shared volume whose folder `x` is swapped for a link to the canary.
fn shared_volume(door: Door, prepare: impl Fn(Bundle, &Path) -> Bundle) {
    let (canary, volume) = (Canary::new(), TempDir::new("volume"));
    let (folder, link) = (volume.path().join("x"), volume.path().join("x2"));
    fs::create_dir(&folder).unwrap();
    symlink(canary.path(), &link).unwrap();
    assert!(link.join("marker").exists(), "the link leads to the canary from the host");
    let bundle = through(door, Bundle::hardened()).mount(bind(volume.path(), "/v"));
    let bundle = prepare(bundle, volume.path()).script(NO_CANARY);
    raced("a shared volume", door, &bundle, &folder, &link, || canary.assert_untouched());
}

/// Row 7, CVE-2021-30465: mounts below a folder that is swapped.
#[test]
fn mounts_below_a_swapped_folder_stay_inside() {
    for door in Door::ALL {
        shared_volume(door, |bundle, volume| {
            let file = volume.join("file");
            fs::write(&file, "FILE").unwrap();
            bundle
                .mount(json!({"destination": "/v/x/y", "type": "tmpfs", "source": "tmpfs"}))
                .mount(bind(&file, "/v/x/z"))
        });
    }
}

/// Row 12, CVE-2024-45310: mount points eight levels deep that must be made.
#[test]
fn mount_points_are_made_inside() {
    for door in Door::ALL {
        shared_volume(door, |bundle, _| {
            bundle.mount(json!({"destination": "/v/x/b/c/d/e/f/g/h", "type": "tmpfs", "source": "tmpfs"}))
        });
    }
}

/// Row 13 f: the image's /dev/null is swapped for a link.
#[test]
fn a_swapped_dev_null_masks_nothing() {
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for door in Door::ALL {
        let bundle = ["/dev", "/dev/pts", "/dev/shm"]
            .iter()
            .fold(Bundle::hardened(), |bundle, place| bundle.without_mount(place));
        let bundle = through(door, bundle).script(MASKED);
        let dev = bundle.root().join("dev");
        fs::create_dir(&dev).unwrap();
        fs::write(dev.join("null"), "ATTACKER").unwrap();
        symlink("/proc/sys/kernel/core_pattern", dev.join("other")).unwrap();
        let safe = raced("/dev/null", door, &bundle, &dev.join("null"), &dev.join("other"), || {});
        assert_eq!(safe, times(door));
    }
    assert_eq!(pattern, fs::read("/proc/sys/kernel/core_pattern").unwrap());
}

/// Row 15, CVE-2025-52881: where the payload runs, the value is really set, whatever /proc was meanwhile.
#[test]
fn sysctls_reach_the_real_proc() {
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for door in Door::ALL {
        let script = "[ \"$(tr '\\t' ' ' < /proc/sys/net/ipv4/ping_group_range)\" = '0 0' ] || exit 3; exit 42";
        let bundle = through(door, Bundle::hardened()).script(script);
        let bundle = bundle.set("/linux/sysctl", json!({"net.ipv4.ping_group_range": "0 0"}));
        assert_safe("no race", door, &run(&bundle, door));
        let (proc, link) = (bundle.root().join("proc"), bundle.root().join("other"));
        fs::create_dir_all(&proc).unwrap();
        fs::create_dir(bundle.root().join("bad")).unwrap();
        symlink("/bad", &link).unwrap();
        // The payload itself may meet the link; what it can read must be right.
        let script = "v=$(cat /proc/sys/net/ipv4/ping_group_range 2>/dev/null) || exit 42; [ \"$(echo $v)\" = '0 0' ] || exit 3; exit 42";
        let bundle = bundle.script(script);
        raced("/proc", door, &bundle, &proc, &link, || {});
    }
    assert_eq!(pattern, fs::read("/proc/sys/kernel/core_pattern").unwrap());
}

/// Row 15: names that lead out of the namespaced sysctls.
#[test]
fn sysctl_names_lead_nowhere_else() {
    for door in Door::ALL {
        for name in
            ["../../sysrq-trigger", "net/../../kernel/core_pattern", "kernel.core_pattern", "net.ipv4.conf.eth0/1.x"]
        {
            let bundle =
                through(door, Bundle::hardened()).script(crate::PAYLOAD).set("/linux/sysctl", json!({name: "0"}));
            assert_closed(name, door, &run(&bundle, door));
        }
    }
}
