// SPDX-License-Identifier: Apache-2.0
//! Links and mounts where /proc, /sys or a mount's parents should be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Canary, Door, TempDir};

use crate::{MASKED, PAYLOAD, assert_closed, assert_closed_or_safe, assert_safe, run, through};

fn tmpfs(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]})
}

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

/// Row 4, CVE-2019-16884: something else over /proc, or over what labels are written to.
#[test]
fn nothing_covers_proc() {
    for door in Door::ALL {
        let canary = Canary::new();
        let mounts = [
            tmpfs("/proc"),
            bind(canary.path(), "/proc"),
            bind(Path::new("/proc/self"), "/proc"),
            tmpfs("/proc/self/attr"),
            tmpfs("/proc/sys/kernel"),
            tmpfs("/x"),
        ];
        for mount in mounts {
            for with_proc in [true, false] {
                let what = format!("{mount} with proc {with_proc}");
                let bundle = through(door, Bundle::hardened()).script(PAYLOAD).mount(mount.clone());
                let bundle = if with_proc { bundle } else { bundle.without_mount("/proc") };
                symlink("/proc/self/attr", bundle.root().join("x")).unwrap();
                // Without a proc, a tmpfs on /x lies in the image's own folder.
                let outcome = run(&bundle, door);
                if with_proc {
                    assert_closed(&what, door, &outcome);
                }
                canary.assert_untouched();
            }
        }
    }
}

/// Row 4: the files that lxcfs and its like replace.
#[test]
fn some_files_in_proc_may_be_covered() {
    for door in Door::ALL {
        let fake = TempDir::new("fake");
        let file = fake.path().join("fake");
        fs::write(&file, "FAKE\n").unwrap();
        let names = ["cpuinfo", "meminfo", "stat", "uptime", "loadavg", "swaps", "diskstats"];
        let bundle = names.iter().fold(through(door, Bundle::hardened()), |bundle, name| {
            bundle.mount(bind(&file, &format!("/proc/{name}")))
        });
        let script = "for n in cpuinfo meminfo stat uptime loadavg swaps diskstats; do \
            [ \"$(cat /proc/$n)\" = FAKE ] || exit 3; done; exit 42";
        assert_safe("files in /proc", door, &run(&bundle.script(script), door));
    }
}

/// Row 5, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: the image has links for /proc, /sys and /dev.
#[test]
fn a_link_in_place_of_proc_sys_or_dev_is_refused() {
    for door in Door::ALL {
        for name in ["proc", "sys", "dev"] {
            let bundle = through(door, Bundle::hardened()).script(PAYLOAD);
            fs::create_dir(bundle.root().join("bad")).unwrap();
            symlink("/bad", bundle.root().join(name)).unwrap();
            let outcome = run(&bundle, door);
            assert_closed(name, door, &outcome);
            assert!(outcome.stderr.to_lowercase().contains("not a directory"), "{outcome:?}");
            assert_eq!(fs::read_dir(bundle.root().join("bad")).unwrap().count(), 0);
        }
    }
}

/// Row 5: below /dev the image's links are covered, and a destination with ".." is what it is lexically.
#[test]
fn links_elsewhere_leave_every_mask_in_place() {
    for door in Door::ALL {
        let canary = Canary::new();
        let bundle = through(door, Bundle::hardened()).script(MASKED);
        let root = bundle.root();
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::create_dir(root.join("b")).unwrap();
        symlink("b", root.join("a")).unwrap();
        for name in ["dev/pts", "dev/shm", "dev/mqueue"] {
            symlink(canary.path(), root.join(name)).unwrap();
        }
        let bundle = bundle.set("/mounts/0/destination", json!("/a/../proc"));
        assert_safe("links", door, &run(&bundle, door));
        canary.assert_untouched();
    }
}

/// A link `x` to a chain of `hops` links, the last of which is to `target`.
fn chain(root: &Path, hops: usize, target: &Path) {
    symlink(if hops > 1 { Path::new("/hop1") } else { target }, root.join("x")).unwrap();
    for hop in 1..hops {
        let next = format!("/hop{}", hop + 1);
        symlink(if hop + 1 < hops { Path::new(&next) } else { target }, root.join(format!("hop{hop}"))).unwrap();
    }
}

/// Row 6, CVE-2019-18837: mount destinations through links.
#[test]
fn links_in_destinations_stay_inside() {
    for door in Door::ALL {
        let canary = Canary::new();
        let up = Path::new("../../../../../../../..").join(canary.path().strip_prefix("/").unwrap());
        let targets = [
            canary.path().to_owned(),
            up,
            "/proc/self/root/..".into(),
            "/proc/1/cwd".into(),
            "/proc/1/root/tmp".into(),
        ];
        for target in targets {
            for hops in [1, 5, 39, 41] {
                for destination in ["/x", "/x/new/folder"] {
                    let what = format!("{} by {hops} links at {destination}", target.display());
                    let bundle = through(door, Bundle::hardened()).script(PAYLOAD).mount(tmpfs(destination));
                    chain(&bundle.root(), hops, &target);
                    assert_closed_or_safe(&what, door, &run(&bundle, door));
                    canary.assert_untouched();
                }
            }
        }
    }
}

/// Row 20, CVE-2026-87766: a link in a folder that the caller bound, as the parent of another mount.
#[test]
fn a_link_in_a_bound_folder_leads_nowhere() {
    for door in Door::ALL {
        let (canary, work) = (Canary::new(), TempDir::new("work"));
        let file = work.path().join("file");
        fs::write(&file, "FILE\n").unwrap();
        symlink(canary.path(), work.path().join("link")).unwrap();
        assert!(work.path().join("link/marker").exists(), "the link leads to the canary from the host");
        for destination in ["/ws/link/f", "/ws/link/new/f", "/ws/link/marker"] {
            let bundle = through(door, Bundle::hardened()).script(PAYLOAD);
            let bundle = bundle.mount(bind(work.path(), "/ws")).mount(bind(&file, destination));
            assert_closed_or_safe(destination, door, &run(&bundle, door));
            canary.assert_untouched();
        }
    }
}

/// Row 20: parents that only root may enter are no obstacle.
#[test]
fn parents_that_cannot_be_read_still_work() {
    for door in Door::ALL {
        let work = TempDir::new("work");
        let inner = work.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(work.path().join("a"), fs::Permissions::from_mode(0o711)).unwrap();
        let bundle = through(door, Bundle::hardened()).mount(bind(work.path(), "/ws")).mount(tmpfs("/ws/a/b"));
        let script = "[ \"$(stat -f -c %T /ws/a/b)\" = tmpfs ] || exit 3; exit 42";
        assert_safe("mode 0711", door, &run(&bundle.script(script), door));
    }
}
