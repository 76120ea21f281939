// SPDX-License-Identifier: Apache-2.0
//! The mount option tmpcopyup: a tmpfs that begins with what the image has there, whatever the image is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine};

fn tmpfs(destination: &str, more: &[&str]) -> Value {
    let options = [&["tmpcopyup", "nosuid", "nodev"], more].concat();
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// /data with a file, a folder, a link out of the image, and a pipe.
fn with_data(bundle: Bundle) -> Bundle {
    let data = bundle.root().join("data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("deep/er/file"), "of the image\n").unwrap();
    fs::set_permissions(data.join("deep/er/file"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(data.join("deep/er/file"), Some(5), Some(6)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1770)).unwrap();
    symlink("/etc/shadow", data.join("link")).unwrap();
    nix::unistd::mkfifo(&data.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    bundle
}

const LOOK: &str = "cd /data; cat deep/er/file; stat -c '%a %u:%g' . deep/er/file; readlink link; ls -A; echo new >new && echo written";

#[test]
fn what_the_image_has_is_there_and_writable() {
    for door in [Door::Root, Door::Userns] {
        let bundle = with_data(Bundle::hardened().user_namespace(door == Door::Userns));
        let bundle = bundle.mount(tmpfs("/data", &["size=1m"])).script(LOOK);
        let wanted = "of the image\n1770 0:0\n644 5:6\n/etc/shadow\ndeep\nlink\nwritten\n";
        assert_eq!(Engine::new().run(&bundle, door).ok().stdout, wanted, "{door:?}");
        assert!(!bundle.root().join("data/new").exists(), "the image is as it was");
    }
}

#[test]
fn options_of_the_tmpfs_stand() {
    let bundle = with_data(Bundle::hardened());
    let options = ["mode=755", "uid=7", "gid=8", "size=64k", "ro", "rprivate"];
    let script = "stat -c '%a %u:%g' /data; cat /data/deep/er/file; touch /data/x; grep -c ' /data tmpfs ro' /proc/mounts; mount | grep -c size=64k";
    let outcome = Engine::new().run(&bundle.mount(tmpfs("/data", &options)).script(script), Door::Userns);
    assert!(outcome.stdout.starts_with("755 7:8\nof the image\n1\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn where_the_image_has_nothing_it_is_empty() {
    let bundle = Bundle::hardened().mount(tmpfs("/tmp/none", &[])).script("ls -A /tmp/none; echo ok");
    assert_eq!(Engine::new().run(&bundle, Door::Userns).ok().stdout, "ok\n");
}

/// A link in the image's path leads to where it leads inside, and nowhere else.
#[test]
fn links_do_not_lead_out_of_the_image() {
    let bundle = Bundle::hardened();
    symlink("/../../../../../etc", bundle.root().join("data")).unwrap();
    let bundle = bundle.mount(tmpfs("/data", &[])).script("ls -A /etc; exit 42");
    let outcome = Engine::new().run(&bundle, Door::Userns);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (42, "passwd\n"), "{outcome:?}");
}

#[test]
fn what_does_not_fit_or_is_no_tmpfs_is_an_error() {
    let large = with_data(Bundle::hardened());
    fs::write(large.root().join("data/large"), vec![0u8; 200_000]).unwrap();
    let deep = Bundle::hardened();
    fs::create_dir_all(deep.root().join("data").join(vec!["d"; 150].join("/"))).unwrap();
    let bind = json!({"destination": "/data", "type": "bind", "source": "/tmp", "options": ["bind", "tmpcopyup"]});
    for (bundle, words) in [
        (large.mount(tmpfs("/data", &["size=64k"])), ["mounts[8]", "no space left"]),
        (deep.mount(tmpfs("/data", &[])), ["mounts[8]", "deep"]),
        (Bundle::hardened().mount(bind), ["mounts[8].options", "tmpcopyup"]),
        (Bundle::hardened().mount(tmpfs("/data", &["uid=x"])), ["mounts[8].options[3]", "uid"]),
    ] {
        Engine::new().run(&bundle.script("true"), Door::Userns).fails(1, &words);
    }
}
