// SPDX-License-Identifier: Apache-2.0
//! Flags that change how criu works or what wsbox says, and not what comes back.

use std::fs;

use wsbox_integration::unique;

use super::common::{World, confined, program};

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn cgroups_in_the_images() {
    let (world, up) = (World::new(confined()), unique("up"));
    let id = world.running();
    for mode in ["soft", "full", "strict"] {
        let number = world.count(&id);
        world.checkpoint(&id, &["--leave-running", "--manage-cgroups-mode", mode]).ok();
        world.restore(&up, &[]).ok();
        world.goes_on(&up, number);
        world.engine.wsbox(&["delete", "--force", &up]).ok();
    }
    for mode in ["full", "strict", "ignore"] {
        world.restore(&up, &["--manage-cgroups-mode", mode]).fails(1, &["--manage-cgroups-mode: ", "only soft"]);
    }
    world.restore(&up, &["--manage-cgroups-mode", "soft"]).ok();
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn an_empty_network() {
    let (world, up, full) = (World::new(confined()), unique("up"), unique("full"));
    let id = world.running();
    let number = world.count(&id);
    let addresses = |id: &str| world.proc(id, "net/fib_trie");
    assert!(addresses(&id).contains("127.0.0.1"));
    world.checkpoint(&id, &["--leave-running"]).ok();
    world.restore(&full, &[]).ok();
    assert!(addresses(&full).contains("127.0.0.1"));
    world.checkpoint(&id, &["--empty-ns", "network"]).ok();
    world.restore(&up, &["--empty-ns", "network"]).ok();
    world.goes_on(&up, number);
    assert!(!addresses(&up).contains("127.0.0.1"), "{}", addresses(&up));
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_restore_with_runc_s_flags() {
    let (world, up, bad) = (World::new(confined()), unique("up"), unique("bad"));
    let number = world.checkpointed();
    let nowhere = world.images("no/such/pid");
    world.restore(&bad, &["--pid-file", &nowhere]).fails(1, &["/no/such/pid", "no such file"]);
    world.nothing_left(&bad);
    let file = world.images("pid");
    world.restore(&up, &["--no-pivot", "--no-subreaper", "--pid-file", &file]).ok();
    assert_eq!(fs::read_to_string(file).unwrap(), world.engine.state(&up)["pid"].to_string());
    world.goes_on(&up, number);
}

/// Somebody lays a link among the images while criu is at work: nobody is told that they can be restored.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn images_that_are_refused_at_the_end() {
    let (world, up) = (World::new(confined()), unique("up"));
    let (id, criu, images) = (world.running(), world.images("criu"), world.images("one"));
    program(&criu, &format!("criu \"$@\" || exit\n[ $1 != dump ] || ln -sf /etc/passwd {images}/x.img"));
    let checkpoint = |flags: &[&str]| {
        world.engine.wsbox(&[&["--criu", &criu, "checkpoint", "--image-path", &images], flags, &[&id]].concat())
    };
    let words =
        "x.img: is a symbolic link, and criu would follow it; without wsbox.json the images can not be restored";
    checkpoint(&["--leave-running"]).fails(1, &[words, "the container goes on"]);
    let number = world.count(&id);
    world.goes_on(&id, number);
    fs::remove_file(format!("{images}/x.img")).unwrap();
    checkpoint(&[]).fails(1, &[words, "criu has ended the container"]);
    assert_eq!(world.engine.state(&id)["status"], "stopped");
    world.engine.wsbox(&["delete", &id]).ok();
    world.nothing_left(&id);
    fs::remove_file(format!("{images}/x.img")).unwrap();
    world.restore(&up, &[]).fails(1, &["wsbox.json: no such file"]);
}
