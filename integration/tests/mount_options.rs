// SPDX-License-Identifier: Apache-2.0
//! What overrules what; binds of symbolic links, and over them: src-nofollow and dest-nofollow.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use wsbox_integration::{Bundle, Door, Engine, TempDir};

/// A link on the host to a file there, and in the image a link to another.
fn links(options: &[&str]) -> (TempDir, Bundle) {
    let folder = TempDir::new("links");
    fs::write(folder.path().join("file"), "host\n").unwrap();
    symlink("/etc/target", folder.path().join("link")).unwrap();
    symlink(folder.path().join("file"), folder.path().join("way")).unwrap();
    let bundle = Bundle::hardened();
    fs::write(bundle.root().join("etc/target"), "image\n").unwrap();
    symlink("target", bundle.root().join("etc/link")).unwrap();
    let source = folder.path().join(if options.contains(&"src-nofollow") { "link" } else { "way" });
    let mount = json!({"destination": "/etc/link", "type": "bind", "source": source, "options": options});
    (folder, bundle.mount(mount).script("cat /etc/target; cat /etc/link; readlink /etc/link || true"))
}

fn said(options: &[&str], door: Door) -> String {
    let (_folder, bundle) = links(options);
    let bundle = bundle.user_namespace(door == Door::Userns);
    Engine::new().run(&bundle, door).ok().stdout
}

#[test]
fn links_are_followed_unless_told_otherwise() {
    for door in [Door::Root, Door::Userns] {
        // What /etc/link leads to is covered, with what the host's link leads to.
        assert_eq!(said(&["bind", "ro"], door), "host\nhost\ntarget\n", "{door:?}");
        // The link itself is.
        assert_eq!(said(&["bind", "ro", "dest-nofollow"], door), "image\nhost\n", "{door:?}");
        // By the host's link itself, which leads to the image's file.
        assert_eq!(
            said(&["bind", "ro", "src-nofollow", "dest-nofollow"], door),
            "image\nimage\n/etc/target\n",
            "{door:?}"
        );
    }
}

#[test]
fn they_are_for_binds() {
    let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["dest-nofollow"]});
    Engine::new().run(&Bundle::hardened().mount(mount), Door::Userns).fails(1, &["mounts[8].options", "for a bind"]);
}

/// In whatever order: who asks for all to be read-only does not mean all but the top.
#[test]
fn recursive_options_overrule_the_others() {
    let folder = TempDir::new("options");
    for (door, options) in [
        (Door::Root, ["rbind", "rw", "rro"]),
        (Door::Root, ["rbind", "rro", "rw"]),
        (Door::Userns, ["bind", "rw", "rro"]),
    ] {
        let mount = json!({"destination": "/x", "type": "bind", "source": folder.path(), "options": options});
        let bundle = Bundle::hardened().user_namespace(door == Door::Userns).mount(mount);
        let outcome = Engine::new().run(&bundle.script("touch /x/file 2>&1; true"), door).ok();
        assert!(outcome.stdout.contains("Read-only file system"), "{options:?}: {outcome:?}");
    }
    let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["rw", "rro"]});
    let outcome = Engine::new().run(&Bundle::hardened().mount(mount).script("touch /x/file 2>&1; true"), Door::Userns);
    assert!(outcome.ok().stdout.contains("Read-only file system"));
}

/// Its own cgroup, where it sees the host's namespace of them, as with runc: who manages cgroups asks for that.
#[test]
fn cgroups_are_written_to_where_the_config_says_so() {
    for (option, code) in [("ro", 1), ("rw", 0)] {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", option]});
        // On v1 the hierarchies are below it.
        let script = "cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; mkdir x && rmdir x";
        let mut bundle = Bundle::plain().set("/linux/resources/memory", json!({"limit": 64 << 20})).script(script);
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
        let outcome = Engine::new().run(&bundle.mount(mount), Door::Root);
        assert_eq!(outcome.code, code, "{option}: {outcome:?}");
    }
}
