// SPDX-License-Identifier: Apache-2.0
//! Images with a hostile /dev.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use wsbox_integration::{Bundle, Canary, Door};

use crate::{MASKED, PAYLOAD, assert_closed, assert_safe, run, through};

fn without_dev(door: Door) -> Bundle {
    let bundle = through(door, Bundle::hardened());
    ["/dev", "/dev/pts", "/dev/shm"].iter().fold(bundle, |bundle, place| bundle.without_mount(place))
}

/// Puts one of the attacker's things at `null`.
fn plant(variant: &str, null: &Path) {
    match variant {
        "core_pattern" => symlink("/proc/sys/kernel/core_pattern", null).unwrap(),
        "sysrq" => symlink("/proc/sysrq-trigger", null).unwrap(),
        "file" => fs::write(null, "ATTACKER").unwrap(),
        "zero" => mknod(null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap(),
        _ => {}
    }
}

/// Row 13, CVE-2025-31133, CVE-2025-62161: the image's /dev/null is never what masks.
#[test]
fn masks_do_not_come_from_the_image() {
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for door in Door::ALL {
        for variant in ["core_pattern", "sysrq", "file", "zero", "absent"] {
            let bundle =
                without_dev(door).script(&format!("[ \"$(stat -c %t:%T /dev/null)\" = 1:3 ] || exit 8; {MASKED}"));
            fs::create_dir(bundle.root().join("dev")).unwrap();
            plant(variant, &bundle.root().join("dev/null"));
            assert_safe(variant, door, &run(&bundle, door));
            assert_eq!(pattern, fs::read("/proc/sys/kernel/core_pattern").unwrap());
        }
    }
}

/// Row 16, CVE-2026-41579: /dev is a link to a folder of the host that has a ptmx.
#[test]
fn a_link_in_place_of_dev_changes_nothing_outside() {
    for door in Door::ALL {
        let canary = Canary::new();
        let up = Path::new("../../../../../../..").join(canary.path().strip_prefix("/").unwrap());
        let magic = Path::new("/proc/self/root").join(canary.path().strip_prefix("/").unwrap());
        for target in [canary.path(), &up, &magic] {
            for with_mount in [false, true] {
                let bundle = if with_mount { through(door, Bundle::hardened()) } else { without_dev(door) };
                let bundle = bundle.script(PAYLOAD);
                let link = bundle.root().join("dev");
                symlink(target, &link).unwrap();
                assert!(link.join("ptmx").exists(), "the link leads to the canary from the host");
                assert_closed(&target.display().to_string(), door, &run(&bundle, door));
                canary.assert_untouched();
            }
        }
    }
}

/// Row 16: links below /dev are covered, and what they lead to stays as it is.
#[test]
fn links_below_dev_change_nothing_outside() {
    for door in Door::ALL {
        for name in ["pts", "shm", "mqueue", "ptmx", "fd"] {
            let canary = Canary::new();
            let bundle = without_dev(door)
                .script("[ -e /dev/null ] && [ ! -e /dev/pts/marker ] && [ ! -e /dev/shm/marker ] || exit 3; exit 42");
            fs::create_dir(bundle.root().join("dev")).unwrap();
            symlink(canary.path(), bundle.root().join("dev").join(name)).unwrap();
            let bundle = bundle
                .mount(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid"]}));
            assert_safe(name, door, &run(&bundle, door));
            canary.assert_untouched();
        }
    }
}
