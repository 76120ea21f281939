// SPDX-License-Identifier: Apache-2.0
//! The examples print what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wsbox_integration::engine::wsbox_path;
use wsbox_integration::sandbox::outcome;
use wsbox_integration::user::User;

use crate::world::World;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/examples")
}

fn example(name: &str) {
    let world = World::new();
    fs::create_dir_all(world.path("bin")).unwrap();
    fs::create_dir_all(world.path("work")).unwrap();
    // Its containers are this test's own.
    let script = format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", wsbox_path(), world.engine.root().display());
    fs::write(world.path("bin/wsbox"), script).unwrap();
    fs::set_permissions(world.path("bin/wsbox"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", world.text("bin"), std::env::var("PATH").unwrap());
    let mut command = Command::new(folder().join(name).join("run.sh"));
    command.current_dir(world.path("work")).env("PATH", path).env("WSBOX_STORE", world.text("store"));
    let found = outcome(&mut command);
    assert_eq!(found.stdout, fs::read_to_string(folder().join(name).join("expected")).unwrap(), "{}", found.stderr);
    assert_eq!(found.code, 0, "{found:?}");
}

#[test]
fn minimal() {
    example("minimal");
}

#[test]
fn web() {
    example("web");
}

#[test]
fn python_agent() {
    example("python-agent");
}

#[test]
fn ci_job() {
    example("ci-job");
}

/// As a user, in a cgroup of the user's.
#[test]
fn rootless() {
    let user = User::new().delegated("+memory +pids +cpu");
    let home = user.home().display();
    fs::copy(folder().join("rootless/run.sh"), user.home().join("run.sh")).unwrap();
    fs::create_dir(user.home().join("work")).unwrap();
    user.own(user.home());
    let script = format!("export PATH={home}:$PATH WSBOX_STORE={home}/store && cd {home}/work && sh ../run.sh");
    let found = wsbox_integration::engine::captured(&mut user.command(&["sh", "-c", &script]));
    assert_eq!(found.stdout, fs::read_to_string(folder().join("rootless/expected")).unwrap(), "{}", found.stderr);
    assert_eq!(found.code, 0, "{found:?}");
}

/// None is left out above.
#[test]
fn all_of_them() {
    let mut names: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["ci-job", "minimal", "python-agent", "rootless", "web"]);
}
