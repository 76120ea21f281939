// SPDX-License-Identifier: Apache-2.0
//! Images, of which a bundle is made and removed again; and what Debian's own root has.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wsbox_integration::{Engine, Outcome, TempDir, bundle, engine, sandbox};

fn tool(folder: &Path, line: &str) -> Outcome {
    let words: Vec<_> = line.split_whitespace().collect();
    sandbox::outcome(Command::new(words[0]).args(&words[1..]).current_dir(folder)).ok()
}

/// `wsbox bundle check` with a folder of its own for what is temporary, in which nothing is left.
fn check(folder: &Path, source: &str, flags: &[&str]) -> Outcome {
    let tmp = folder.join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let engine = Engine::new();
    let mut command = engine.command(&[&["bundle", "check", source], flags].concat());
    let outcome = sandbox::outcome(command.env("TMPDIR", &tmp).current_dir(folder));
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    outcome
}

fn ids(outcome: &Outcome) -> Vec<String> {
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let mut ids: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap().to_owned()).collect();
    ids.dedup();
    ids
}

#[test]
fn an_image_in_every_form() {
    let folder = TempDir::new("check");
    let at = |name: &str| folder.path().join(name);
    bundle::fill(&at("root"));
    fs::write(at("root/etc/key"), format!("-----BEGIN PRIVATE KEY-----\n{}\n", "MIIEvQ".repeat(10))).unwrap();
    tool(folder.path(), "umoci init --layout layout");
    tool(folder.path(), "umoci new --image layout:latest");
    tool(folder.path(), "umoci insert --image layout:latest root /");
    tool(folder.path(), "skopeo --insecure-policy copy oci:layout:latest docker-archive:app.tar:app:latest");
    for source in ["oci:layout:latest", "layout", "docker-archive:app.tar", "app.tar"] {
        let outcome = check(folder.path(), source, &["--format", "json"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let named = source.contains("app");
        let wanted: &[_] =
            if named { &["WSB105", "WSB021", "WSB023", "WSB108"] } else { &["WSB105", "WSB021", "WSB108"] };
        let found: Vec<_> = ids(&outcome).into_iter().filter(|id| named || id != "WSB023").collect();
        assert_eq!(found, wanted, "{source}");
    }
    // Removed by a later layer, it is still there for who has the image.
    tool(folder.path(), "umoci insert --image layout:latest --whiteout /etc/key");
    let outcome = check(folder.path(), "oci:layout:latest", &["--format", "json"]);
    assert!(outcome.code == 1 && outcome.stdout.contains("still in the image"), "{outcome:?}");
    // Fixing is for bundles.
    check(folder.path(), "app.tar", &["--fix"]).fails(2, &["--fix", "image"]);
    // What is refused leaves nothing, too.
    check(folder.path(), "app.tar", &["--max-size", "1k"]).fails(2, &["--max-size"]);
    fs::write(at("broken.tar"), "no tar").unwrap();
    check(folder.path(), "broken.tar", &[]).fails(2, &["broken.tar"]);
}

/// Interrupted while it unpacks, it leaves nothing.
#[test]
fn interrupted() {
    let folder = TempDir::new("check");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("root")).unwrap();
    fs::create_dir_all(at("tmp")).unwrap();
    // A file of 8 GB without content takes long to read, but no room.
    fs::File::create(at("root/slow")).unwrap().set_len(8 << 30).unwrap();
    let mut tar = Command::new("tar");
    sandbox::outcome(tar.args(["--sparse", "-C"]).arg(at("root")).arg("-cf").arg(at("slow.tar")).arg(".")).ok();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let own = Engine::new();
        let mut command = own.command(&["bundle", "check", "slow.tar", "--max-size", "1t"]);
        let mut child = command.env("TMPDIR", at("tmp")).current_dir(folder.path()).spawn().unwrap();
        engine::until("it is at work", || fs::read_dir(at("tmp")).unwrap().count() > 0);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2));
        assert_eq!(fs::read_dir(at("tmp")).unwrap().count(), 0);
    }
}

/// The bundle of an image has its layers in the store; a folder of a small Debian has what one would expect of it.
#[test]
fn a_debian_root() {
    let folder = TempDir::new("check");
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    for path in ["usr/bin", "usr/sbin", "var/tmp", "tmp"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    for program in ["usr/bin/su", "usr/bin/passwd", "usr/bin/dpkg", "usr/bin/apt", "usr/bin/dash", "usr/bin/chage"] {
        let status = Command::new("cp").arg("-a").arg(Path::new("/").join(program)).arg(root.join(program)).status();
        assert!(status.unwrap().success(), "{program}");
    }
    for path in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(path), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    }
    let (root, made, store) = (root.display().to_string(), folder.path().join("made"), folder.path().join("store"));
    let (made, store) = (made.display().to_string(), store.display().to_string());
    let flags = ["--store", &store, "--user", "1001:1001", "--profile", "production"];
    Engine::new().wsbox(&[&["bundle", "create", &root, &made], &flags[..]].concat()).ok();
    let outcome = check(folder.path(), &made, &["--format", "json"]).ok();
    assert_eq!(ids(&outcome), ["WSB022", "WSB101", "WSB107", "WSB108", "WSB110"], "{}", outcome.stdout);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    for (place, what) in
        [("/usr/bin/su", "set-uid, of uid 0"), ("/usr/bin/chage", "set-gid"), ("/var/tmp", "of everybody")]
    {
        let found =
            |one: &Value| one["where"] == place && one["what"].as_str().is_some_and(|text| text.starts_with(what));
        assert!(report["findings"].as_array().unwrap().iter().any(found), "{place}: {}", outcome.stdout);
    }
}
