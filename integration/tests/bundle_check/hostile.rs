// SPDX-License-Identifier: Apache-2.0
//! Roots that were made to hang, crash or mislead who looks at them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::{Engine, TempDir, sandbox};

use crate::{assert_only, check, faultless, findings, found};

/// What is outside has a key in it; no way leads there.
#[test]
fn links_out() {
    let outside = TempDir::new("outside");
    fs::write(outside.path().join("key"), format!("-----BEGIN PRIVATE KEY-----\n{}\n", "MIIEvQ".repeat(10))).unwrap();
    let bundle = faultless();
    for (name, to) in
        [("folder", outside.path().to_owned()), ("file", outside.path().join("key")), ("up", "../../../..".into())]
    {
        symlink(to, bundle.root().join(name)).unwrap();
    }
    symlink("loop", bundle.root().join("loop")).unwrap();
    symlink(".", bundle.root().join("self")).unwrap();
    assert_eq!(found(&bundle), []);
}

#[test]
fn what_would_wait() {
    let bundle = faultless();
    nix::unistd::mkfifo(&bundle.root().join("app/fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(bundle.root().join("etc")).unwrap();
    nix::unistd::mkfifo(&bundle.root().join("etc/shadow"), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(bundle.root().join("app/socket")).unwrap();
    fs::set_permissions(bundle.root().join("app/socket"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let begin = Instant::now();
    assert_eq!(found(&bundle), []);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn huge_files() {
    let bundle = faultless();
    for number in 0..20 {
        fs::File::create(bundle.root().join(format!("app/{number}"))).unwrap().set_len(1 << 42).unwrap();
    }
    let begin = Instant::now();
    assert_eq!(found(&bundle), []);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// Said where, and not gone down to its end.
#[test]
fn very_deep() {
    let bundle = faultless();
    let mut folder = std::fs::File::open(bundle.root()).unwrap();
    for _ in 0..3000 {
        nix::sys::stat::mkdirat(&folder, "d", Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        folder = nix::fcntl::openat(&folder, "d", flags, Mode::empty()).unwrap().into();
    }
    let places = found(&bundle);
    assert_eq!(places.len(), 1);
    assert_eq!(places[0].0, "WSB109");
    sandbox::outcome(std::process::Command::new("rm").arg("-r").arg(bundle.root().join("d"))).ok();
}

/// A hundred are kept, and the rest is counted.
#[test]
fn many_findings() {
    let bundle = faultless();
    for number in 0..1234 {
        let file = bundle.root().join(format!("app/{number}"));
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    }
    let all = findings(&bundle);
    assert_eq!(all.len(), 101);
    assert!(all.iter().any(|one| one["what"] == "1134 more like these"), "{all:?}");
}

/// More names than can be looked at is an error, not a good word: the same layer many times has many.
#[test]
fn too_many_names() {
    let folder = TempDir::new("names");
    for number in 0..4100 {
        fs::write(folder.path().join(number.to_string()), "").unwrap();
    }
    let layers = vec![folder.path().display().to_string(); 500].join(":");
    let bundle = faultless().set("/annotations/dev.wsbox.layers", json!(layers));
    check(&bundle, &[]).fails(2, &["the root", "names"]);
}

/// Deep in many layers takes many descriptors.
#[test]
fn deep_in_many_layers() {
    let folder = TempDir::new("layers");
    let mut layers = Vec::new();
    for number in 0..100 {
        let layer = folder.path().join(number.to_string());
        fs::create_dir_all(layer.join(vec!["d"; 20].join("/"))).unwrap();
        layers.push(layer.display().to_string());
    }
    let bundle = faultless().set("/annotations/dev.wsbox.layers", json!(layers.join(":")));
    assert_eq!(found(&bundle), []);
}

/// A name can not write to the terminal, and is whole in SARIF.
#[test]
fn names_of_bytes() {
    let bundle = faultless();
    let name = OsStr::from_bytes(b"\x1b]0;x\x07\n \xff%");
    fs::write(bundle.root().join(name), "").unwrap();
    fs::set_permissions(bundle.root().join(name), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let text = check(&bundle, &[]).stdout;
    assert!(text.contains("/\\u{1b}]0;x\\u{7}\\n "), "{text}");
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    let sarif: Value = serde_json::from_str(&check(&bundle, &["--format", "sarif"]).stdout).unwrap();
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(place, "rootfs/%1B%5D0%3Bx%07%0A%20%FF%25");
}

/// Another file system in the root is not looked at, and that is said.
#[test]
fn mounts_in_the_root() {
    let bundle = faultless();
    let place = bundle.root().join("proc");
    fs::create_dir(&place).unwrap();
    mount(Some("proc"), &place, Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
    let found = std::panic::catch_unwind(|| assert_only(&bundle, "WSB109", "/proc"));
    umount2(&place, MntFlags::MNT_DETACH).unwrap();
    found.unwrap();
}

/// Who may not read all of it is told what was not looked at; the check goes on.
#[test]
fn unreadable() {
    let bundle = faultless();
    fs::DirBuilder::new().mode(0o700).create(bundle.root().join("closed")).unwrap();
    fs::write(bundle.root().join("app/closed"), "x").unwrap();
    fs::set_permissions(bundle.root().join("app/closed"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    bundle.write();
    let mut command = std::process::Command::new(wsbox_path());
    command.args(["bundle", "check", "--format", "json"]).arg(bundle.path()).uid(65534).gid(65534);
    let outcome = sandbox::outcome(&mut command).ok();
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let places: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|one| (&one["rule"], &one["where"])).collect();
    let rule = json!("WSB109");
    assert_eq!(places, [(&rule, &json!("/app/closed")), (&rule, &json!("/closed"))]);
}

/// What can not be checked is never said to be without a fault.
#[test]
fn no_bundle() {
    let folder = TempDir::new("check");
    let wsbox = |path: &str| Engine::new().wsbox(&["bundle", "check", path]);
    let path = folder.path().display().to_string();
    wsbox(&path).fails(2, &["config.json"]);
    wsbox(&format!("{path}/nothing")).fails(2, &["nothing"]);
    nix::unistd::mkfifo(&folder.path().join("config.json"), Mode::S_IRWXU).unwrap();
    wsbox(&path).fails(2, &["config.json"]);
    fs::remove_file(folder.path().join("config.json")).unwrap();
    for (text, word) in [("{", "config.json"), ("{}", "root.path"), ("[]", "root.path")] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        wsbox(&path).fails(2, &[word]);
    }
    let bundle = faultless();
    fs::remove_dir_all(bundle.root()).unwrap();
    check(&bundle, &[]).fails(2, &["rootfs"]);
    symlink("/dev/zero", bundle.root()).unwrap();
    check(&bundle, &[]).fails(2, &["rootfs"]);
    let bundle = faultless().set("/annotations/dev.wsbox.layers", json!("/nowhere/fs:"));
    check(&bundle, &[]).fails(2, &["/nowhere/fs"]);
}

/// The runtime takes a list for an object, so that is no way to hide something.
#[test]
fn lists_for_objects() {
    let mount = json!(["/data", "bind", "/etc", ["rbind", "ro", "nosuid", "nodev"]]);
    let bundle = faultless().mount(mount);
    let at = bundle.config["mounts"].as_array().unwrap().len() - 1;
    assert_only(&bundle, "WSB015", &format!("config.json: mounts[{at}]"));
    let bundle = faultless().set("/linux", json!([]));
    check(&bundle, &["--fix"]).fails(2, &["/linux"]);
}
