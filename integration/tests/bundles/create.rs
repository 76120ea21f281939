// SPDX-License-Identifier: Apache-2.0
//! What people have becomes a bundle that runs in all eight layers.

use std::fs;

use serde_json::json;
use wsbox_integration::docker::Daemon;

use crate::world::{World, assert_same};

/// Says what of the eight layers the kernel has in force.
const LAYERS: &str = "id; grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff):' /proc/self/status; touch /x; ls /sys/class/net; cat /proc/self/uid_map | grep -c ' 0 *0 '";

fn in_force(world: &World, name: &str, user: &str) {
    let outcome = world.run(name);
    let lines = ["Seccomp:\t2", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"];
    assert!(outcome.stdout.starts_with(user), "{outcome:?}");
    for line in lines {
        assert!(outcome.stdout.contains(line), "{line}: {outcome:?}");
    }
    assert!(outcome.stdout.ends_with("lo\n0\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    let config = world.config(name);
    for pointer in ["/linux/resources/pids/limit", "/linux/resources/memory/limit", "/linux/resources/cpu/quota"] {
        assert!(config.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn a_folder() {
    let world = World::new();
    world.root();
    for (name, flags) in [("shared", &[][..]), ("copied", &["--copy"])] {
        world.create("{}/root", name, &[flags, &["--user", "user", "--", "sh", "-c", LAYERS]].concat()).ok();
    }
    assert_same(&world.path("root"), &world.path("copied/rootfs"));
    for name in ["shared", "copied"] {
        in_force(&world, name, "uid=1000(user) gid=1000(user) groups=9(log)");
    }
}

#[test]
fn as_umoci_unpacks() {
    let world = World::new();
    world.layout();
    world.tool("umoci raw unpack --image layout:app unpacked");
    world.create("oci:{}/layout:app", "copied", &["--copy"]).ok();
    assert_same(&world.path("unpacked"), &world.path("copied/rootfs"));
    world.create("oci:{}/layout", "shared", &["--volume", "/tmp:/tmp:ro", "--", "sh", "-c", LOOK]).ok();
    let seen = world.run("shared").ok().stdout;
    for path in ["/srv/more/deep/new", "/opt/deep/new", "/srv/kept/file"] {
        assert!(seen.lines().any(|line| line == path), "{path}: {seen}");
    }
    assert!(!seen.contains("/srv/old") && !seen.contains("/opt/all"), "{seen}");
    assert!(seen.ends_with("1000:9 640\n"), "{seen}");
}

const LOOK: &str = "find /srv /opt; stat -c '%u:%g %a' /data/file";

/// The same image in every form that skopeo makes of it is the same tree, and for each blob the same layer.
#[test]
fn as_skopeo_saves() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "first", &["--copy"]).ok();
    let wanted = world.path("first/rootfs");
    for (form, place) in [("oci", "other"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        world.tool(&format!("skopeo --insecure-policy copy oci:layout:app {form}:{place}:app:latest"));
        let source = format!("{form}:{{}}/{place}");
        world.create(&source, &format!("{form}-copied"), &["--copy"]).ok();
        assert_same(&wanted, &world.path(&format!("{form}-copied/rootfs")));
        world.create(&source, &format!("{form}-shared"), &["--", "sh", "-c", LAYERS]).ok();
        in_force(&world, &format!("{form}-shared"), "uid=1000(user)");
        // Without a word of what it is, too.
        world.create(&format!("{{}}/{place}"), &format!("{form}-plain"), &[]).ok();
    }
    for (tool, ending) in [("gzip", "gz"), ("zstd", "zst")] {
        world.tool(&format!("{tool} -kq docker.tar"));
        world.create(&format!("{{}}/docker.tar.{ending}"), ending, &["--copy"]).ok();
        assert_same(&wanted, &world.path(&format!("{ending}/rootfs")));
    }
    let left = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("wsbox-archive-");
    assert!(!fs::read_dir("/tmp").unwrap().flatten().any(left), "what they are unpacked to is gone");
}

/// zstd, as skopeo and buildkit make it.
#[test]
fn layers_of_zstd() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "first", &["--copy"]).ok();
    world.tool("skopeo --insecure-policy copy --dest-compress-format zstd oci:layout:app oci:zstd:app");
    assert!(fs::read_to_string(world.path("zstd/index.json")).is_ok());
    world.create("oci:{}/zstd", "second", &["--copy"]).ok();
    assert_same(&world.path("first/rootfs"), &world.path("second/rootfs"));
}

/// In each form that GNU tar has.
#[test]
fn sparse_files() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let world = World::new();
    world.root();
    let file = fs::File::create(world.path("root/a-file-with-holes")).unwrap();
    file.set_len(64 << 20).unwrap();
    for (at, byte) in [(0, 1), (5_000_000, 2), (60 << 20, 3)] {
        file.write_all_at(&[byte; 10_000], at).unwrap();
    }
    let content = fs::read(world.path("root/a-file-with-holes")).unwrap();
    for form in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let posix = if form.starts_with("--format") { "" } else { " --format=posix" };
        world.tool(&format!("tar --sparse{posix} {form} -C root -cf sparse.tar ."));
        let name = form.replace(['-', '.', '='], "");
        world.create("{}/sparse.tar", &name, &["--copy"]).ok();
        let made = world.path(&format!("{name}/rootfs/a-file-with-holes"));
        assert!(fs::read(&made).unwrap() == content, "{form}");
        assert!(fs::metadata(&made).unwrap().blocks() * 512 < 1 << 20, "{form}: its holes are holes");
    }
}

#[test]
fn as_docker_saves_and_exports() {
    let world = World::new();
    let docker = Daemon::plain();
    fs::write(world.path("Dockerfile"), DOCKERFILE).unwrap();
    let folder = world.text("");
    docker.docker(&["build", "-q", "-t", "wsbox-bundles:1", &folder]).ok();
    docker.docker(&["save", "-o", &world.text("saved.tar"), "wsbox-bundles:1"]).ok();
    docker.docker(&["create", "--name", "wsbox-bundles", "wsbox-bundles:1"]).ok();
    docker.docker(&["export", "-o", &world.text("exported.tar"), "wsbox-bundles"]).ok();
    docker.docker(&["rm", "wsbox-bundles"]).ok();
    world.create("{}/saved.tar", "saved", &["--entrypoint", "sh", "--", "-c", LAYERS]).ok();
    in_force(&world, "saved", "uid=1000(user)");
    let config = world.config("saved");
    assert_eq!(config["annotations"]["dev.wsbox.image.name"], "wsbox-bundles:1");
    world
        .create(
            "docker-archive:{}/saved.tar:wsbox-bundles:1",
            "looked",
            &["--entrypoint", "sh", "--", "-c", "cat /app/a; ls /app /gone"],
        )
        .ok();
    let seen = world.run("looked");
    assert_eq!(seen.stdout, "two\n/app:\na\n", "{seen:?}");
    world.create("{}/exported.tar", "exported", &["--user", "7", "--", "sh", "-c", LAYERS]).ok();
    in_force(&world, "exported", "uid=7 gid=0");
}

const DOCKERFILE: &str = r#"FROM box
RUN mkdir /app /gone && echo one >/app/a && echo b >/app/b
RUN echo two >/app/a && rm -r /gone /app/b
USER user
ENTRYPOINT ["id"]
"#;

#[test]
fn the_config_is_the_images() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "app", &["--env", "B=1"]).ok();
    let config = world.config("app");
    assert_eq!(config["process"]["args"], json!(["id"]));
    assert_eq!(config["process"]["cwd"], "/srv");
    assert_eq!(config["process"]["user"], json!({"uid": 1000, "gid": 1000, "additionalGids": [9]}));
    let env = config["process"]["env"].as_array().unwrap();
    assert!(["A=of-image", "B=1", "HOME=/home/user"].iter().all(|variable| env.contains(&json!(variable))), "{env:?}");
    assert_eq!(config["annotations"]["who"], "me");
    assert_eq!(config["annotations"]["org.opencontainers.image.stopSignal"], "SIGINT");
    let volume = config["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/data").unwrap();
    assert_eq!(volume["type"], "tmpfs");
    world
        .create("oci:{}/layout:app", "seeded", &["--", "sh", "-c", "cat /data/file; echo x >/data/x && echo written"])
        .ok();
    assert_eq!(world.run("seeded").ok().stdout, "data\nwritten\n");
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--copy"]).ok();
    world.create("oci:{}/layout:app", "two", &["--copy"]).ok();
    assert_same(&world.path("one/rootfs"), &world.path("two/rootfs"));
    assert_eq!(fs::read(world.path("one/config.json")).unwrap(), fs::read(world.path("two/config.json")).unwrap());
}

#[test]
fn what_weakens_is_said() {
    let world = World::new();
    world.root();
    let flags = [
        "--copy",
        "--read-only=false",
        "--network",
        "host",
        "--cap-add",
        "chown",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let outcome = world.create("{}/root", "weak", &flags).ok();
    for word in ["the user is root", "L1 is off", "L2 is off", "L3 is off", "L4 is weaker"] {
        assert_eq!(outcome.stderr.lines().filter(|line| line.contains(word)).count(), 1, "{word}: {}", outcome.stderr);
    }
    world.create("{}/root", "shared", &["--read-only=false"]).fails(1, &["--read-only=false", "--copy"]);
    world.assert_clean("shared");
}

#[test]
fn pinned_and_for_this_platform() {
    let world = World::new();
    world.layout();
    let wrong = format!("sha256:{}", "0".repeat(64));
    world.create("oci:{}/layout:app", "app", &["--digest", &wrong]).fails(1, &["--digest", &wrong]);
    world.assert_clean("app");
    world.create("oci:{}/layout:app", "app", &[]).ok();
    let right = world.config("app")["annotations"]["dev.wsbox.image.digest"].as_str().unwrap().to_owned();
    world.create("oci:{}/layout:app", "pinned", &["--digest", &right]).ok();
    world.create("oci:{}/layout:app", "arm", &["--platform", "linux/arm64"]).fails(1, &["linux/arm64", "--platform"]);
    world.create("oci:{}/layout:other", "other", &[]).fails(1, &["has no image \"other\"", "it has: app"]);
    world.create("{}/root", "root", &["--digest", &right]).fails(1, &["is no image"]);
}

/// Until the user asks for a network, there are no sockets for one; then they work.
#[test]
fn a_network_of_the_hosts() {
    let world = World::new();
    world.root();
    let listen = ["--", "sh", "-c", "nc -l -p 8099 -w 1; echo \"ended with $?\""];
    for (name, flags, words) in [("none", &[][..], "Operation not permitted"), ("host", &["--network", "host"], "")] {
        world.create("{}/root", name, &[&["--user", "user"], flags, &listen].concat()).ok();
        let outcome = world.run(name);
        assert_eq!(outcome.stderr.contains("Operation not permitted"), !words.is_empty(), "{name}: {outcome:?}");
    }
}
