// SPDX-License-Identifier: Apache-2.0
//! Where images go: a disk that is full, and a way there that others can change.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use wsbox_integration::unique;

use super::common::{World, confined, program};

/// A small file system.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &str, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let options = format!("mode=700,size={size}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(path.into())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Others fill the disk while criu is at work: the container is gone then, and its images are of use.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_disk_that_is_full_at_the_end() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    let (criu, images) = (world.images("criu"), world.images("one"));
    let disk = Disk::new(&images, "24m");
    let fill = "dd if=/dev/zero of=$full bs=4096 2>/dev/null; [ $(df --output=avail $full | tail -n 1) = 0 ] || exit 9";
    program(
        &criu,
        &format!("[ $1 = dump ] || exec criu \"$@\"\nfull={images}/full\ncriu \"$@\"\nstatus=$?\n{fill}\nexit $status"),
    );
    let number = world.count(&id);
    world.engine.wsbox(&["--criu", &criu, "checkpoint", "--image-path", &images, &id]).ok();
    world.engine.wsbox(&["state", &id]).fails(1, &["does not exist"]);
    let names = fs::read_dir(&images).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".tmp")));
    fs::remove_file(disk.0.join("full")).unwrap();
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}

/// Without room for all that belongs to the images criu is not started, and those of an earlier dump are as they were.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_disk_that_is_full_before() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    let disk = Disk::new(&world.images("one"), "24m");
    world.checkpoint(&id, &["--leave-running"]).ok();
    let _ = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(disk.0.join("full")).unwrap());
    let log = fs::metadata(disk.0.join("dump.log")).unwrap().modified().unwrap();
    world.checkpoint(&id, &[]).fails(1, &["wsbox.json: no space left on device"]);
    assert_eq!(fs::metadata(disk.0.join("dump.log")).unwrap().modified().unwrap(), log);
    assert!(!disk.0.join("wsbox.json.tmp").exists());
    let number = world.count(&id);
    world.goes_on(&id, number);
    fs::remove_file(disk.0.join("full")).unwrap();
    world.engine.wsbox(&["delete", "--force", &id]).ok();
    world.restore(&up, &[]).ok();
    world.goes_on(&up, 1);
}

/// Who can rename a folder on the way could put other images in its place.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_way_that_others_can_change() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    let (open, path) = (world.images("open"), world.path());
    let (images, log) = (format!("{open}/own/one"), format!("{open}/log"));
    fs::create_dir(&open).unwrap();
    let mode = |mode: u32| fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
    let checkpoint = || world.engine.wsbox(&["checkpoint", "--image-path", &images, &id]);
    let restore = || world.engine.wsbox(&["restore", "--detach", "--bundle", &path, "--image-path", &images, &up]);
    let words = |why: &str| format!("--image-path {images}: {open} above it {why}");
    mode(0o777);
    checkpoint().fails(1, &[&words("can be written by others (mode 0777)")]);
    assert!(!Path::new(&images).exists(), "nothing is made there");
    mode(0o755);
    chown(&open, Some(1000), None).unwrap();
    checkpoint().fails(1, &[&words("belongs to uid 1000")]);
    chown(&open, Some(0), None).unwrap();
    let elsewhere = world.images("one");
    mode(0o777);
    let logs = ["checkpoint", "--image-path", &elsewhere, "--work-path", &log, &id];
    world.engine.wsbox(&logs).fails(1, &[&format!("--work-path {log}: {open} above it can be written by others")]);
    let number = world.count(&id);
    world.goes_on(&id, number);
    // Where everybody has their own it is ours that counts.
    mode(0o1777);
    checkpoint().ok();
    mode(0o775);
    restore().fails(1, &[&words("can be written by others (mode 0775)")]);
    world.nothing_left(&up);
    mode(0o1777);
    restore().ok();
    world.goes_on(&up, number);
}
