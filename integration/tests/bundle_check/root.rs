// SPDX-License-Identifier: Apache-2.0
//! Faults of the root file system, one at a time, in a folder and in layers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use wsbox_integration::{Bundle, TempDir, sandbox};

use crate::{assert_only, check, faultless, findings, found};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file that anybody may run.
fn program(bundle: &Bundle, path: &str, bits: u32) {
    let file = bundle.root().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "#!\n").unwrap();
    mode(&file, bits);
}

fn file(bundle: &Bundle, path: &str, text: &str) {
    let file = bundle.root().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

#[test]
fn rights_of_programs() {
    for bits in [0o4755, 0o2755] {
        let bundle = faultless();
        program(&bundle, "app/su", bits);
        assert_only(&bundle, "WSB101", "/app/su");
        mode(&bundle.root().join("app/su"), 0o755);
        assert_eq!(found(&bundle), []);
    }
    let bundle = faultless();
    program(&bundle, "app/ping", 0o755);
    let path = bundle.root().join("app/ping");
    sandbox::outcome(Command::new("setcap").arg("cap_net_raw,cap_net_admin+ep").arg(&path)).ok();
    assert_only(&bundle, "WSB102", "/app/ping");
    assert_eq!(findings(&bundle)[0]["what"], "CAP_NET_ADMIN, CAP_NET_RAW");
    sandbox::outcome(Command::new("setcap").arg("-r").arg(&path)).ok();
    assert_eq!(found(&bundle), []);
}

#[test]
fn what_everybody_may_write() {
    let bundle = faultless();
    program(&bundle, "app/open", 0o646);
    assert_only(&bundle, "WSB103", "/app/open");
    let bundle = faultless();
    fs::create_dir(bundle.root().join("tmp")).unwrap();
    mode(&bundle.root().join("tmp"), 0o777);
    assert_only(&bundle, "WSB103", "/tmp");
    mode(&bundle.root().join("tmp"), 0o1777);
    assert_eq!(found(&bundle), []);
    // A link's mode is nobody's.
    symlink("nowhere", bundle.root().join("app/link")).unwrap();
    assert_eq!(found(&bundle), []);
}

#[test]
fn folders_that_are_meant_to_be_written() {
    let bundle = faultless();
    for name in ["srv", "srv/uploads", "srv/uploads/new", "var", "var/tmp", "run"] {
        fs::create_dir(bundle.root().join(name)).unwrap();
    }
    for name in ["srv/uploads", "srv/uploads/new"] {
        chown(bundle.root().join(name), Some(1001), Some(1001)).unwrap();
    }
    mode(&bundle.root().join("var/tmp"), 0o1777);
    mode(&bundle.root().join("run"), 0o1777);
    let places: Vec<_> = found(&bundle).into_iter().map(|(rule, place)| format!("{rule} {place}")).collect();
    assert_eq!(places, ["WSB110 /srv/uploads", "WSB110 /var/tmp"]);
    let options = json!(["nosuid", "nodev", "size=1m"]);
    let tmpfs = |path| json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": options });
    assert_eq!(found(&bundle.mount(tmpfs("/srv/uploads/")).mount(tmpfs("/var"))), []);
}

#[test]
fn device_nodes() {
    let bundle = faultless();
    mknod(&bundle.root().join("app/disk"), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(8, 0)).unwrap();
    assert_only(&bundle, "WSB104", "/app/disk");
    assert_eq!(findings(&bundle)[0]["what"], "b 8:0");
}

#[test]
fn keys_and_tokens() {
    let base64 = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj";
    let letters = "aB3".repeat(12);
    let late = format!("{}\n-----BEGIN PRIVATE KEY-----\n{base64}\n", "x".repeat(900_000));
    for (path, text, rule) in [
        ("root/.ssh/id_rsa", format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{base64}\n"), "WSB105"),
        (
            "app/server.pem",
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----BEGIN RSA PRIVATE KEY-----\n{base64}"),
            "WSB105",
        ),
        ("app/late", late, "WSB105"),
        ("app/.env", format!("GITHUB_TOKEN=ghp_{letters}\n"), "WSB106"),
        ("root/.docker/config.json", r#"{"auths": {"host": {"auth": "dTpw"}}}"#.into(), "WSB106"),
        ("root/.aws/credentials", "aws_secret_access_key = x\n".into(), "WSB106"),
        ("root/.netrc", "machine host login me password x\n".into(), "WSB106"),
        ("etc/shadow", "root:*:1::::::\napp:$6$x$y:1::::::\n".into(), "WSB111"),
        ("etc/shadow", "root::1::::::\n".into(), "WSB111"),
    ] {
        let bundle = faultless();
        file(&bundle, path, &text);
        assert_only(&bundle, rule, &format!("/{path}"));
        for format in ["table", "json", "sarif"] {
            let said = check(&bundle, &["--format", format]).stdout;
            assert!(![base64, &letters, "dTpw", "$6$x$y"].iter().any(|secret| said.contains(secret)), "{said}");
        }
    }
    let bundle = faultless();
    file(&bundle, "app/manual", "begins with -----BEGIN PRIVATE KEY----- and ends so. AKIAIOSFODNN7EXAMPLE\n");
    file(&bundle, "app/.docker/config.json", "{\"auths\": {}}");
    file(&bundle, "etc/shadow", "root:*:1::::::\napp:!:1::::::\n");
    assert_eq!(found(&bundle), []);
}

#[test]
fn tools_in_production_are_worse() {
    let bundle = faultless();
    for path in ["usr/bin/apt-get", "bin/bash"] {
        program(&bundle, path, 0o755);
    }
    symlink("bash", bundle.root().join("bin/sh")).unwrap();
    // Not what is no program, and not elsewhere.
    program(&bundle, "usr/share/bash", 0o755);
    program(&bundle, "usr/bin/zsh", 0o644);
    let wanted = [("WSB107", "/usr/bin/apt-get"), ("WSB108", "/bin/bash"), ("WSB108", "/bin/sh")];
    assert_eq!(found(&bundle), wanted.map(|(rule, place)| (rule.to_owned(), place.to_owned())));
    assert!(findings(&bundle).iter().all(|one| one["severity"] == "note"));
    let bundle = bundle.set("/annotations/dev.wsbox.profile", json!("production"));
    assert!(findings(&bundle).iter().all(|one| one["severity"] == "warning"));
    assert_eq!(check(&bundle, &["--fail-on", "error"]).code, 0);
    assert_eq!(check(&bundle, &["--fail-on", "warning"]).code, 1);
}

/// Layers are looked at as the overlay of them is: a whiteout, an opaque folder and a file hide what is below.
#[test]
fn layers() {
    let folder = TempDir::new("layers");
    let at = |path: &str| folder.path().join(path);
    for path in ["low/app/deep", "low/opaque", "low/gone", "low/was", "low/both", "up/app", "up/opaque", "up/both"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    let programs =
        ["low/app/su", "low/app/deep/su", "low/opaque/su", "low/gone/su", "low/was/su", "low/hidden", "low/mended"];
    for path in programs.into_iter().chain(["low/both/low", "up/both/up", "up/opaque/new"]) {
        fs::write(at(path), "").unwrap();
        mode(&at(path), 0o4755);
    }
    for path in ["up/gone", "up/hidden"] {
        mknod(&at(path), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }
    for path in ["up/was", "up/mended"] {
        fs::write(at(path), "").unwrap();
    }
    xattr::set(at("up/opaque"), "user.overlay.opaque", b"y").unwrap();
    let text = format!("{}:{}", at("up").display(), at("low").display());
    let bundle = faultless().set("/annotations/dev.wsbox.layers", json!(text));
    let found = found(&bundle);
    assert!(found.iter().all(|(rule, _)| rule == "WSB101"), "{found:?}");
    let places: Vec<_> = found.into_iter().map(|(_, place)| place).collect();
    assert_eq!(places, ["/app/deep/su", "/app/su", "/both/low", "/both/up", "/opaque/new"]);
}

/// A secret that a layer above hides or replaces is found, once; all else of there is nobody's concern.
#[test]
fn secrets_below() {
    let folder = TempDir::new("layers");
    let at = |path: &str| folder.path().join(path);
    for path in ["low/app", "low/gone", "up/app"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n", "MIIEvQ".repeat(10));
    for path in ["low/app/seen", "low/app/replaced", "low/gone/removed"] {
        fs::write(at(path), &key).unwrap();
        mode(&at(path), 0o4757);
    }
    fs::write(at("up/app/replaced"), "x").unwrap();
    mknod(&at("up/gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    let text = format!("{}:{}", at("up").display(), at("low").display());
    let bundle = faultless().set("/annotations/dev.wsbox.layers", json!(text));
    let keys: Vec<_> = findings(&bundle).into_iter().filter(|one| one["rule"] == "WSB105").collect();
    let places: Vec<_> = keys.iter().map(|one| one["where"].as_str().unwrap()).collect();
    assert_eq!(places, ["/app/replaced", "/app/seen", "/gone/removed"]);
    let hidden: Vec<_> = keys.iter().map(|one| one["what"].as_str().unwrap().contains("layer below")).collect();
    assert_eq!(hidden, [true, false, true]);
    let rest: Vec<_> = found(&bundle).into_iter().filter(|(rule, _)| rule != "WSB105").collect();
    assert_eq!(rest, ["WSB101", "WSB103"].map(|rule| (rule.to_owned(), "/app/seen".to_owned())));
}
