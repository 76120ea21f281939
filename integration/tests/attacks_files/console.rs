// SPDX-License-Identifier: Apache-2.0
//! A hostile image and the terminal.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;
use serde_json::json;
use wsbox_integration::{Bundle, Canary, Door, Engine, Outcome, TempDir, leftover, unique};

use crate::{SAFE, assert_closed, assert_safe, through};

/// Character device 136:n, in the devpts.
const CONSOLE: &str = "[ \"$(stat -c %t /dev/console)\" = 88 ] || exit 3; exit 42";

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Runs with a terminal; also what came over the socket.
fn with_terminal(bundle: Bundle) -> (Outcome, Option<OwnedFd>) {
    let (engine, folder, id) = (Engine::new(), TempDir::new("socket"), unique("c"));
    let socket = folder.path().join("socket").display().to_string();
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let bundle = bundle.set("/process/terminal", json!(true));
    bundle.write();
    let outcome =
        engine.wsbox(&["run", "--console-socket", &socket, "--bundle", &bundle.path().display().to_string(), &id]);
    leftover::assert_nothing_left(engine.root(), &id);
    (outcome, received(&listener))
}

/// The descriptor that waits in the socket's queue.
#[allow(unsafe_code)]
fn received(listener: &UnixListener) -> Option<OwnedFd> {
    let (stream, _) = listener.accept().ok()?;
    let (mut bytes, mut space) = ([0u8; 256], nix::cmsg_space!([i32; 1]));
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
    let fds = message.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    })?;
    // SAFETY: the kernel has just made it for us.
    Some(unsafe { OwnedFd::from_raw_fd(fds) })
}

fn assert_real(what: &str, door: Door, fd: Option<OwnedFd>) {
    let fd = fd.unwrap_or_else(|| panic!("{what} through {door:?}: no terminal came"));
    let kind = nix::sys::statfs::fstatfs(&fd).unwrap().filesystem_type().0 as i64;
    assert_eq!(kind, DEVPTS_SUPER_MAGIC, "{what} through {door:?}");
}

fn plant(variant: &str, bundle: &Bundle, canary: &Canary) {
    let console = bundle.root().join("dev/console");
    fs::create_dir(bundle.root().join("dev")).unwrap();
    match variant {
        "new" => symlink(canary.path().join("new"), console).unwrap(),
        "marker" => symlink(canary.path().join("marker"), console).unwrap(),
        "core_pattern" => symlink("/proc/sys/kernel/core_pattern", console).unwrap(),
        "fifo" => nix::unistd::mkfifo(&console, Mode::from_bits_truncate(0o666)).unwrap(),
        _ => fs::create_dir(console).unwrap(),
    }
}

/// Rows 14 and 18, CVE-2025-52565, CVE-2026-88264: the image's /dev/console, with and without a /dev in the config.
#[test]
fn the_console_is_never_the_images() {
    for door in [Door::Root, Door::Userns] {
        for variant in ["new", "marker", "core_pattern", "fifo", "folder"] {
            for (with_dev, read_only) in [(true, true), (false, true), (false, false)] {
                let canary = Canary::new();
                let bundle = through(door, Bundle::hardened()).script(CONSOLE).set("/root/readonly", json!(read_only));
                let bundle = if with_dev { bundle } else { bundle.without_mount("/dev") };
                plant(variant, &bundle, &canary);
                let (outcome, fd) = with_terminal(bundle);
                let what = format!("{variant}, /dev {with_dev}, read-only {read_only}");
                assert_safe(&what, door, &outcome);
                assert_real(&what, door, fd);
                canary.assert_untouched();
            }
        }
    }
}

/// Row 14: a folder with a ptmx and numbers of the attacker's for /dev/pts.
#[test]
fn a_false_devpts_gives_no_terminal() {
    for door in [Door::Root, Door::Userns] {
        let (canary, pts) = (Canary::new(), TempDir::new("pts"));
        fs::write(pts.path().join("ptmx"), "").unwrap();
        (0..10).for_each(|n| symlink(canary.path().join("marker"), pts.path().join(n.to_string())).unwrap());
        let mount =
            json!({"destination": "/dev/pts", "type": "bind", "source": pts.path(), "options": ["rbind", "rw"]});
        for with_devpts in [true, false] {
            let bundle = through(door, Bundle::hardened()).script(CONSOLE);
            let bundle = if with_devpts { bundle } else { bundle.without_mount("/dev/pts") };
            let (outcome, fd) = with_terminal(bundle.mount(mount.clone()));
            if outcome.code == SAFE {
                assert_real("a false devpts", door, fd);
            } else {
                assert_closed("a false devpts", door, &outcome);
            }
            canary.assert_untouched();
        }
    }
}
