// SPDX-License-Identifier: Apache-2.0
//! deployment/ci/security.yml says nothing that wsbox does not know, and what needs no registry works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use wsbox_integration::engine::wsbox_path;
use wsbox_integration::{Engine, Outcome, TempDir, bundle, sandbox};

/// Its lines that call wsbox.
fn lines() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deployment/ci/security.yml");
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| line.split_once("run: sudo wsbox ")).map(|(_, line)| line.to_owned()).collect()
}

#[test]
fn every_flag_is_one() {
    let lines = lines();
    assert_eq!(lines.len(), 6);
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let verb = if words[0] == "bundle" { 2 } else { 1 };
        let help = Engine::new().wsbox(&[&words[..verb], &["--help"]].concat()).ok().stdout;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(
                help.split(|letter: char| letter.is_whitespace() || letter == ',').any(|word| word == *flag),
                "{line}: {flag}"
            );
        }
    }
}

/// An image as `docker save` writes it, of busybox and nothing more.
fn image(folder: &Path) {
    bundle::fill(&folder.join("root"));
    let tool = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        sandbox::outcome(Command::new(words[0]).args(&words[1..]).current_dir(folder)).ok()
    };
    tool("umoci init --layout layout");
    tool("umoci new --image layout:app");
    tool("umoci insert --image layout:app root /");
    tool("umoci config --image layout:app --config.cmd id");
    tool("skopeo --insecure-policy copy oci:layout:app docker-archive:app.tar:app:1");
}

#[test]
fn from_the_image_to_the_container() {
    let (folder, engine) = (TempDir::new("pipeline"), Engine::new());
    image(folder.path());
    // A wsbox with a store and containers of its own.
    let (bin, store) = (folder.path().join("bin"), folder.path().join("store"));
    fs::create_dir(&bin).unwrap();
    let (wsbox, root, store) = (wsbox_path(), engine.root().display(), store.display());
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2\" in 'bundle create') set -- \"$@\" --store {store};; esac\nexec {wsbox} --root {root} \"$@\"\n"
    );
    fs::write(bin.join("wsbox"), script).unwrap();
    fs::set_permissions(bin.join("wsbox"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let sh = |line: &str| -> Outcome {
        let line = format!("wsbox {line}");
        sandbox::outcome(Command::new("sh").args(["-ec", &line]).current_dir(folder.path()).env("PATH", &path))
    };
    for line in lines().into_iter().filter(|line| !line.contains("docker://")) {
        // Scanners are for another test.
        sh(&line.replace("--with trivy --with grype ", "")).ok();
    }
    let sarif = fs::read_to_string(folder.path().join("wsbox.sarif")).unwrap();
    assert!(sarif.contains("WSB108"), "{sarif}");
    let ran = sh("run ./bundle/").ok();
    assert!(ran.stdout.starts_with("uid=1001 gid=1001"), "{ran:?}");
}
