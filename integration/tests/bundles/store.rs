// SPDX-License-Identifier: Apache-2.0
//! Layers are unpacked once, shared, and removed when nobody has them; whatever happens in between.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wsbox_integration::user::{UID, User};
use wsbox_integration::{Engine, engine};

use crate::world::World;

fn layers(world: &World) -> usize {
    fs::read_dir(world.path("store/layers")).unwrap().count()
}

#[test]
fn shared_listed_removed() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &[]).ok();
    world.create("oci:{}/layout:app", "two", &[]).ok();
    world.create("{}/root", "three", &["--copy"]).ok();
    assert_eq!(layers(&world), 4);
    let listed = world.bundle("ls", &[]).ok().stdout;
    let (one, three) = (world.text("one"), world.text("three"));
    assert!(listed.lines().any(|line| line.starts_with(&one) && line.contains("  4 ")), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with(&three) && line.contains("its own")), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&world.bundle("ls", &["--format", "json"]).ok().stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);

    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    world.bundle("rm", &[&one]).ok();
    assert!(!world.path("one").exists());
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    assert_eq!(world.run("two").ok().code, 0);
    // As people do it.
    fs::remove_dir_all(world.path("two")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("4 layers removed"));
    assert_eq!(layers(&world), 0);
    let root = world.text("root");
    world.bundle("rm", &[&root]).fails(1, &["is no bundle of this store"]);
    assert!(world.path("root/bin").exists());
}

/// Who runs keeps what it runs on, whatever became of its bundle.
#[test]
fn in_use() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "sleep", "1000"]).ok();
    let one = world.text("one");
    world.engine.wsbox(&["run", "--detach", "--bundle", &one, "user"]).ok();
    world.bundle("rm", &[&one]).fails(1, &["is the bundle of container user", "wsbox delete --force user"]);
    fs::remove_dir_all(world.path("one")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    assert_eq!(world.engine.wsbox(&["exec", "user", "cat", "/srv/more/deep/new"]).ok().stdout, "new\n");
    world.engine.wsbox(&["delete", "--force", "user"]).ok();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("4 layers removed"));
}

/// By whatever name: what is removed is what was asked about.
#[test]
fn in_use_by_another_name() {
    let world = World::new();
    world.root();
    fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), world.path("link")).unwrap();
    world.create("{}/root", "real/one", &["--copy", "--", "sleep", "1000"]).ok();
    for run in ["real/one", "link/one", "real/../link/one"] {
        world.engine.wsbox(&["run", "--detach", "--bundle", &world.text(run), "renamed"]).ok();
        for name in ["real/one", "link/one", "link/../real/one"] {
            world.bundle("rm", &[&world.text(name)]).fails(1, &["is the bundle of container renamed"]);
        }
        world.engine.wsbox(&["delete", "--force", "renamed"]).ok();
    }
    world.bundle("rm", &[&world.text("link/one")]).ok();
}

/// What others could have laid there is no layer.
#[test]
fn a_store_of_somebody_else() {
    let world = World::new();
    world.root();
    fs::create_dir(world.path("store")).unwrap();
    std::os::unix::fs::chown(world.path("store"), Some(UID), None).unwrap();
    world.create("{}/root", "one", &[]).fails(1, &["store: is somebody else's", "--store takes another"]);
    std::os::unix::fs::chown(world.path("store"), Some(0), None).unwrap();
    fs::set_permissions(world.path("store"), fs::Permissions::from_mode(0o777)).unwrap();
    world.create("{}/root", "one", &[]).fails(1, &["can be written by others", "chmod go-w"]);
}

/// Whoever started it, with whatever state root.
#[test]
fn in_use_by_another_root() {
    let (world, other) = (World::new(), Engine::new());
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "sleep", "1000"]).ok();
    let one = world.text("one");
    other.wsbox(&["run", "--detach", "--bundle", &one, "elsewhere"]).ok();
    world.bundle("rm", &[&one]).fails(1, &["is the bundle of container elsewhere"]);
    fs::remove_dir_all(world.path("one")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    assert_eq!(other.wsbox(&["exec", "elsewhere", "cat", "/srv/more/deep/new"]).ok().stdout, "new\n");
    other.wsbox(&["delete", "--force", "elsewhere"]).ok();
    assert_eq!(fs::read_dir(world.path("store/users")).unwrap().count(), 0);
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("4 layers removed"));
    // What a killed one left there holds nothing.
    std::os::unix::fs::symlink("/no/such/folder", world.path("store/users/left")).unwrap();
    world.bundle("gc", &[]).ok();
    assert_eq!(fs::read_dir(world.path("store/users")).unwrap().count(), 0);
}

/// What the caller may not see may be alive: root's container on the layers of a store that is a user's.
#[test]
fn in_use_by_whom_gc_can_not_see() {
    let (world, root, user) = (World::new(), Engine::new(), User::new());
    fs::set_permissions(root.root(), fs::Permissions::from_mode(0o700)).unwrap();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "sleep", "1000"]).ok();
    user.own(&world.path("store"));
    // Another folder in the place of its own is none of the store's.
    let run = || root.wsbox(&["run", "--detach", "--bundle", &world.text("one"), "roots"]);
    fs::rename(world.path("store/users"), world.path("store/theirs")).unwrap();
    fs::create_dir(world.path("store/users")).unwrap();
    run().fails(1, &["store: hold the layers", "not permitted"]);
    fs::remove_dir(world.path("store/users")).unwrap();
    fs::rename(world.path("store/theirs"), world.path("store/users")).unwrap();
    run().ok();
    fs::remove_dir_all(world.path("one")).unwrap();
    let gc = || user.wsbox(&["bundle", "gc", "--store", &world.text("store")]);
    gc().fails(1, &["a container with layers of this store", "or root, can tell"]);
    assert_eq!(root.wsbox(&["exec", "roots", "cat", "/srv/more/deep/new"]).ok().stdout, "new\n");
    root.wsbox(&["delete", "--force", "roots"]).ok();
    assert!(gc().ok().stdout.starts_with("4 layers removed"));
}

/// One whose record can not be read may be alive as well.
#[test]
fn in_use_by_a_broken_record() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "sleep", "1000"]).ok();
    world.engine.wsbox(&["run", "--detach", "--bundle", &world.text("one"), "broken"]).ok();
    fs::remove_dir_all(world.path("one")).unwrap();
    let record = world.engine.root().join("broken/state.json");
    let good = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    world.bundle("gc", &[]).fails(1, &["state.json"]);
    assert_eq!(layers(&world), 4);
    fs::write(&record, good).unwrap();
    world.engine.wsbox(&["delete", "--force", "broken"]).ok();
}

/// A store of somebody else's leads root nowhere.
#[test]
fn a_store_whose_users_is_a_link() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "true"]).ok();
    fs::create_dir(world.path("elsewhere")).unwrap();
    fs::remove_dir(world.path("store/users")).unwrap();
    symlink(world.path("elsewhere"), world.path("store/users")).unwrap();
    world.run("one").fails(1, &["store: hold the layers", "not a directory"]);
    assert_eq!(fs::read_dir(world.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_bundle_that_is_moved_keeps_its_layers() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "true"]).ok();
    fs::rename(world.path("one"), world.path("two")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    world.run("two").ok();
    // Another in its old place is another.
    world.create("oci:{}/layout:app", "one", &["--", "true"]).ok();
    world.bundle("rm", &[&world.text("one")]).ok();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    world.run("two").ok();
    fs::remove_dir_all(world.path("two")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("4 layers removed"));
    assert_eq!(fs::read_dir(world.path("store/bundles")).unwrap().count(), 0);
    // On a disk that is not there now.
    fs::create_dir_all(world.path("disk")).unwrap();
    let disk = world.path("disk");
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=16m")).unwrap();
    fs::create_dir(disk.join("boxes")).unwrap();
    world.create("oci:{}/layout:app", "disk/boxes/one", &["--", "true"]).ok();
    umount2(&disk, MntFlags::MNT_DETACH).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("0 layers removed"));
    fs::create_dir(disk.join("boxes")).unwrap();
    assert!(world.bundle("gc", &[]).ok().stdout.starts_with("4 layers removed"));
}

#[test]
fn a_config_that_is_broken_keeps_its_layers() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &[]).ok();
    fs::write(world.path("one/config.json"), "{").unwrap();
    world.bundle("gc", &[]).fails(1, &["one/config.json", "mend it"]);
    assert_eq!(layers(&world), 4);
}

#[test]
fn many_at_once() {
    let world = World::new();
    world.layout();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let world = &world;
            scope.spawn(move || world.create("oci:{}/layout:app", &format!("b{number}"), &[]).ok());
        }
        for _ in 0..3 {
            scope.spawn(|| world.bundle("gc", &[]).ok());
        }
    });
    for number in 0..6 {
        world.run(&format!("b{number}")).ok();
    }
    assert_eq!(layers(&world), 4);
}

/// A file of 40 GB without content takes long to read, but no room.
fn slow(world: &World) {
    world.root();
    fs::File::create(world.path("root/slow")).unwrap().set_len(40 << 30).unwrap();
}

fn interrupted(flags: &[&str], signal: Signal) -> World {
    let world = World::new();
    slow(&world);
    let (root, slow, store) = (world.text("root"), world.text("slow"), world.text("store"));
    let arguments = [&["bundle", "create", &root, &slow, "--store", &store, "--max-size", "1t"], flags].concat();
    let child = world.engine.command(&arguments).process_group(0).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    engine::until("it is at work", || {
        let begun = |folder: &str| fs::read_dir(world.path(folder)).is_ok_and(|mut all| all.next().is_some());
        begun("store/tmp") || begun(".slow.partial/rootfs")
    });
    std::thread::sleep(Duration::from_millis(100));
    kill(pid, signal).unwrap();
    let outcome = engine::finish(child);
    assert_ne!(outcome.code, 0);
    assert!(!world.path("slow").exists());
    world
}

#[test]
fn interrupted_it_leaves_nothing() {
    for flags in [&[][..], &["--copy"]] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            interrupted(flags, signal).assert_clean("slow");
        }
    }
}

#[test]
fn killed_it_leaves_no_bundle_and_the_next_one_clears_up() {
    for flags in [&[][..], &["--copy"]] {
        let world = interrupted(flags, Signal::SIGKILL);
        fs::remove_file(world.path("root/slow")).unwrap();
        world.create("{}/root", "slow", &[flags, &["--", "true"]].concat()).ok();
        world.run("slow").ok();
        world.bundle("gc", &[]).ok();
        let left: Vec<_> = fs::read_dir(world.path("store/tmp")).unwrap().collect();
        assert!(left.is_empty() && !world.path(".slow.partial").exists(), "{left:?}");
    }
}

#[test]
fn a_full_disk() {
    let world = World::new();
    world.root();
    fs::write(world.path("root/large"), vec![1; 8 << 20]).unwrap();
    fs::create_dir(world.path("small")).unwrap();
    let place = world.path("small");
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
    let outcome = world.create("{}/root", "small/box", &["--copy"]);
    let left = fs::read_dir(&place).unwrap().count();
    umount2(&place, MntFlags::MNT_DETACH).unwrap();
    outcome.fails(1, &["entry \"", "no space left on device"]);
    assert_eq!(left, 0);
}

/// The same store by a link, the same bundle with a slash at its end.
#[test]
fn by_other_names() {
    let world = World::new();
    world.layout();
    world.create("oci:{}/layout:app", "one", &["--", "true"]).ok();
    std::os::unix::fs::symlink(world.path("store"), world.path("link")).unwrap();
    let link = world.text("link");
    assert!(world.engine.wsbox(&["bundle", "gc", "--store", &link]).ok().stdout.starts_with("0 layers removed"));
    world.run("one").ok();
    let slash = world.text("one") + "/";
    world.bundle("rm", &[&slash]).ok();
    assert!(!world.path("one").exists());
    // What lies there later is not what was made.
    world.create("oci:{}/layout:app", "two", &[]).ok();
    fs::rename(world.path("two"), world.path("three")).unwrap();
    std::os::unix::fs::symlink(world.path("three"), world.path("two")).unwrap();
    world.bundle("rm", &[&world.text("two")]).fails(1, &["is not the folder that was made"]);
    assert!(world.path("three/config.json").exists());
}

#[test]
fn nothing_that_is_there_is_touched() {
    let world = World::new();
    world.root();
    fs::create_dir(world.path("there")).unwrap();
    fs::write(world.path("there/mine"), "mine").unwrap();
    world.create("{}/root", "there", &[]).fails(1, &["is there already"]);
    assert_eq!(fs::read(world.path("there/mine")).unwrap(), b"mine");
    // Who made the folder that we would work in could change what we put there.
    fs::create_dir(world.path(".box.partial")).unwrap();
    std::os::unix::fs::chown(world.path(".box.partial"), Some(1000), Some(1000)).unwrap();
    world.create("{}/root", "box", &["--copy"]).fails(1, &[".box.partial", "is somebody else's"]);
    fs::remove_dir(world.path(".box.partial")).unwrap();
    std::os::unix::fs::symlink(world.path("there"), world.path(".box.partial")).unwrap();
    assert_eq!(world.create("{}/root", "box", &["--copy"]).code, 1);
    assert_eq!(fs::read(world.path("there/mine")).unwrap(), b"mine");
}
