// SPDX-License-Identifier: Apache-2.0
//! Images with a hostile /dev.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use wsbox_integration::{Bundle, Canary, Door, TempDir};

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

fn make_node(at: &Path, major: u64, minor: u64) {
    mknod(at, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor)).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(fs::File::open(at).is_ok(), "the host opens {}", at.display());
}

/// Nodes in the image, or in a folder of the host, are none of the container's: also without device rules.
#[test]
fn nodes_of_others_can_not_be_opened() {
    for door in Door::ALL {
        for bundle in [Bundle::hardened(), Bundle::plain().remove("/linux/resources")] {
            let work = TempDir::new("nodes");
            let mount =
                json!({"destination": "/work", "type": "bind", "source": work.path(), "options": ["rbind", "rw"]});
            let bundle = through(door, bundle).mount(mount);
            make_node(&bundle.root().join("kmsg"), 1, 11);
            make_node(&bundle.root().join("zero"), 1, 5);
            make_node(&work.path().join("kmsg"), 1, 11);
            let script = "for n in /kmsg /zero /work/kmsg; do probe open-read $n | grep -q ': E' || exit 3; done; \
                probe open-read /dev/zero | grep -q ok && exit 42";
            assert_safe("nodes", door, &run(&bundle.script(script), door));
        }
    }
}

/// The links that wsbox itself puts into /dev would lead into the host's /proc while it makes the nodes: it makes them later.
#[test]
fn devices_stay_in_dev() {
    for door in Door::ALL {
        let canary = Canary::new();
        for fd in 3..16 {
            let path = format!("/dev/fd/{fd}/out/made/evil");
            let device = json!({"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666});
            let script = format!("[ -c {path} ] && [ ! -e /out/made ] || exit 3; exit 42");
            let bundle = through(door, Bundle::hardened()).script(&script).set("/linux/devices", json!([device]));
            symlink(canary.path(), bundle.root().join("out")).unwrap();
            assert_safe(&path, door, &run(&bundle, door));
            canary.assert_untouched();
        }
    }
}
