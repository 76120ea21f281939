// SPDX-License-Identifier: Apache-2.0
//! Secrets are in the container, for its user, and nowhere else.

use std::fs;
use std::path::Path;

use wsbox_integration::sandbox::outcome;

use crate::world::World;

const SECRET: &str = "hunter2-in-plain-sight";
const LOOK: &str = "cat /run/secrets/token /run/secrets/key; stat -c '%a %u:%g' /run/secrets /run/secrets/token; touch /run/secrets/x; env; sleep 2";

fn files_with(folder: &Path, words: &str) -> String {
    let mut grep = std::process::Command::new("grep");
    outcome(grep.args(["-r", "-l", words]).arg(folder)).stdout
}

#[test]
fn in_the_container_and_nowhere_else() {
    let world = World::new();
    world.root();
    fs::write(world.path("token.txt"), SECRET).unwrap();
    let file = format!("id=token,src={}", world.text("token.txt"));
    let flags = ["--secret", &file, "--secret", "id=key,env=WSBOX_TEST_KEY", "--user", "user", "--", "sh", "-c", LOOK];
    for (name, copy) in [("shared", &[][..]), ("copied", &["--copy"])] {
        world.create("{}/root", name, &[copy, &flags].concat()).ok();
        let bundle = world.text(name);
        let audit = world.text("audit.log");
        let arguments = ["--audit-log", &audit, "run", &bundle];
        let mut command = world.engine.command(&arguments);
        command
            .env("WSBOX_TEST_KEY", SECRET.to_uppercase())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let kept = files_with(world.engine.root(), SECRET)
            + &files_with(&world.path(name), SECRET)
            + &files_with(&world.path("store"), SECRET);
        let outcome = wsbox_integration::engine::finish(child);
        assert!(
            outcome.stdout.starts_with(&format!("{SECRET}{}755 0:0\n400 1000:1000\n", SECRET.to_uppercase())),
            "{outcome:?}"
        );
        assert_eq!(outcome.stdout.matches(&SECRET.to_uppercase()).count(), 1, "not in the environment: {outcome:?}");
        assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
        assert_eq!(kept, "");
        assert!(!fs::read_to_string(&audit).unwrap().contains(SECRET));
    }
}

/// podman copies the annotations of a manifest into a config: an image must not read the host's files so.
#[test]
fn an_image_can_not_ask_for_any() {
    use wsbox_integration::{Bundle, unique};
    let world = World::new();
    for (name, value) in [("dev.wsbox.secret.x", "file:/etc/hostname"), ("dev.wsbox.layers", "/")] {
        let bundle = Bundle::hardened().set("/annotations", serde_json::json!({ name: value })).args(&["true"]);
        bundle.write();
        let id = unique("image");
        let outcome = world.engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]);
        outcome.fails(1, &[name, "is only for bundles that `wsbox bundle create` made"]);
    }
    world.layout();
    world.tool("umoci config --image layout:app --config.label dev.wsbox.secret.x=file:/etc/hostname --config.label org.systemd.property.SuccessAction='poweroff'");
    let outcome = world.create("oci:{}/layout:app", "app", &[]).ok();
    assert_eq!(outcome.stderr.matches("is not the image's to set").count(), 2, "{outcome:?}");
    let config = world.config("app").to_string();
    assert!(!config.contains("secret.x") && !config.contains("SuccessAction"), "{config}");
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new();
    world.root();
    world.create("{}/root", "out", &["--secret", "id=token,src=/nowhere/token"]).fails(1, &["/nowhere/token"]);
    world.create("{}/root", "out", &["--secret", "id=../token,env=X"]).fails(1, &["its id"]);
    fs::write(world.path("token.txt"), SECRET).unwrap();
    let file = format!("id=token,src={}", world.text("token.txt"));
    world.create("{}/root", "file", &["--secret", &file, "--", "true"]).ok();
    fs::remove_file(world.path("token.txt")).unwrap();
    world.run("file").fails(1, &["secret \"token\"", "token.txt", "no such file"]);
    world.create("{}/root", "env", &["--secret", "id=token,env=WSBOX_TEST_NONE", "--", "true"]).ok();
    world.run("env").fails(1, &["secret \"token\": $WSBOX_TEST_NONE: is not set"]);
}
