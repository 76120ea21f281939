// SPDX-License-Identifier: Apache-2.0
//! Memory that goes another way than into one folder: page servers, lazy pages, pre-dumps, one dump over another.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use wsbox_integration::engine::{finish, until};
use wsbox_integration::{leftover, unique};

use super::common::{World, confined};

/// A program of criu's that serves on `port`.
fn serve(verb: &str, folder: &str, port: &str, more: &[&str]) -> Child {
    fs::create_dir_all(folder).unwrap();
    let mut criu = Command::new("criu");
    criu.args([verb, "--images-dir", folder, "--work-dir", folder, "--log-file", "server.log", "--port", port]);
    criu.args(["--address", "127.0.0.1"]).args(more).stdin(Stdio::null()).spawn().unwrap()
}

fn listens(port: &str) -> bool {
    let hex = format!(":{:04X} 00000000:0000 0A", port.parse::<u16>().unwrap());
    fs::read_to_string("/proc/net/tcp").unwrap().contains(&hex)
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_page_server() {
    let (world, up, port) = (World::new(confined()), unique("up"), "7101");
    let (id, pages) = (world.running(), world.images("pages"));
    let number = world.count(&id);
    let mut server = serve("page-server", &pages, port, &[]);
    until("a page server", || listens(port));
    world.checkpoint(&id, &["--page-server", &format!("127.0.0.1:{port}")]).ok();
    assert!(server.wait().unwrap().success());
    let is_memory = |name: &str| name.starts_with("pages-") || name.starts_with("pagemap-");
    let names =
        |folder: &str| fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    assert!(!names(&world.images("one")).any(|name| name.starts_with("pages-")));
    for name in names(&pages).filter(|name| is_memory(name)) {
        fs::rename(Path::new(&pages).join(&name), Path::new(&world.images("one")).join(&name)).unwrap();
    }
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
    world.checkpoint(&up, &["--page-server", "127.0.0.1:7102"]).fails(1, &["connect to server 127.0.0.1:7102"]);
    world.goes_on(&up, number);
}

/// `checkpoint` with lazy pages, once it says that they can be asked for.
fn lazy(world: &World, id: &str, port: &str) -> Child {
    let (mut read, write) = std::io::pipe().unwrap();
    let write = OwnedFd::from(write);
    fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (fd, server) = (write.as_raw_fd().to_string(), format!("127.0.0.1:{port}"));
    let images = world.images("one");
    let args =
        ["checkpoint", "--lazy-pages", "--page-server", &server, "--status-fd", &fd, "--image-path", &images, id];
    let dump = world.engine.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(write);
    let mut byte = [1];
    read.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0]);
    dump
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn pages_when_they_are_asked_for() {
    let (world, up, port) = (World::new(confined()), unique("up"), "7103");
    let id = world.running();
    let number = world.count(&id);
    let dump = lazy(&world, &id, port);
    let work = world.images("work");
    world.restore(&up, &["--lazy-pages", "--work-path", &work]).fails(1, &["criu restore failed", "lazy"]);
    leftover::assert_nothing_left(world.engine.root(), &up);
    let mut pages = serve("lazy-pages", &world.images("one"), port, &["--page-server", "--work-dir", &work]);
    until("the socket of criu lazy-pages", || Path::new(&work).join("lazy-pages.socket").exists());
    world.restore(&up, &["--lazy-pages", "--work-path", &work]).ok();
    world.goes_on(&up, number);
    assert!(pages.wait().unwrap().success());
    finish(dump).ok();
    leftover::assert_nothing_left(world.engine.root(), &id);
    world.goes_on(&up, number);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn a_status_that_nobody_can_be_told() {
    let world = World::new(confined());
    let id = world.running();
    let lazy = ["--lazy-pages", "--page-server", "127.0.0.1:7104", "--status-fd", "77"];
    world.checkpoint(&id, &lazy).fails(1, &["--status-fd 77: bad file"]);
    let number = world.count(&id);
    world.goes_on(&id, number);
}

#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn one_dump_after_another() {
    let world = World::new(confined());
    let (id, other) = (world.running(), world.images("other"));
    world.checkpoint(&id, &["--leave-running"]).ok();
    let number = world.count(&id);
    world.checkpoint(&id, &["--leave-running"]).ok();
    world.engine.wsbox(&["checkpoint", "--leave-running", "--image-path", &other, &id]).ok();
    world.goes_on(&id, number);
    for images in [world.images("one"), other] {
        let up = unique("up");
        world.bundle.write();
        world.engine.wsbox(&["restore", "--detach", "--bundle", &world.path(), "--image-path", &images, &up]).ok();
        world.goes_on(&up, number);
    }
}

/// What a later dump has is no longer in the earlier one.
#[test]
#[ignore = "criu on Linux 6.1: make test-guest-qemu"]
fn dumps_that_share_nothing() {
    let (world, up) = (World::new(confined()), unique("up"));
    let (id, before) = (world.running(), world.images("before"));
    world.engine.wsbox(&["checkpoint", "--pre-dump", "--image-path", &before, &id]).ok();
    let blocks = || fs::metadata(format!("{before}/pages-1.img")).unwrap().blocks();
    let all = blocks();
    let number = world.count(&id);
    world.checkpoint(&id, &["--parent-path", "../before", "--auto-dedup"]).ok();
    assert!(blocks() < all, "{} of {all}", blocks());
    world.restore(&up, &[]).ok();
    world.goes_on(&up, number);
}
