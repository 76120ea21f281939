// SPDX-License-Identifier: Apache-2.0
//! Doors into the kernel: helper paths, nested user namespaces, keyrings.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use wsbox_integration::{Bundle, Door, Engine, TempDir};

use crate::common::{assert_all_refused, assert_says, behind, on_host, probe_path, run, run_words, shell, unfiltered};

/// Opens what makes the kernel run a program or act on the host; writes nothing.
const HELPERS: &str = "helpers() { for path in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
    /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent \
    /tmp/cg/release_agent; do probe open-write $path; done; }\n";

/// Row 33: uid 0 without capabilities.
#[test]
fn helper_paths_are_out_of_reach() {
    assert!(on_host("open-write /proc/sys/kernel/core_pattern").contains(": ok"), "root of the host can");
    let script = "unshare -UrC true && echo ESCAPED; mkdir /tmp/cg; mount -t cgroup none /tmp/cg && echo ESCAPED; helpers; echo END";
    for door in Door::ALL {
        assert_all_refused(&run(Bundle::hardened().script(&format!("{HELPERS}{script}")), door));
    }
}

/// Row 33: CAP_SYS_ADMIN in a user namespace, without seccomp, can undo read-only mounts of its own, and no more.
#[test]
fn helper_paths_are_out_of_reach_of_a_namespace_admin() {
    let script = "grep CapEff /proc/self/status; unshare -UrC true && echo ESCAPED; mkdir /tmp/cg
        for type in memory cpu pids devices rdma none,name=systemd; do mount -t cgroup -o $type none /tmp/cg && break; done
        helpers; mount -o remount,bind,rw /proc/sys; mount -o remount,bind,rw /proc/sysrq-trigger; mount -o remount,rw /sys
        mkdir /tmp/proc; mount -t proc proc /tmp/proc && probe open-write /tmp/proc/sys/kernel/core_pattern
        helpers; echo END";
    let caps = json!(["CAP_SYS_ADMIN"]);
    for door in [Door::Userns, Door::Library] {
        let bundle = unfiltered(Bundle::hardened()).script(&format!("{HELPERS}{script}"));
        let bundle = ["bounding", "effective", "permitted"]
            .iter()
            .fold(bundle, |bundle, set| bundle.set(&format!("/process/capabilities/{set}"), caps.clone()));
        let outcome = run(bundle, door);
        assert!(outcome.stdout.contains("CapEff:\t0000000000200000"), "the attacker has CAP_SYS_ADMIN: {outcome:?}");
        assert_all_refused(&outcome);
    }
}

const NESTING: &str = "probe clone-newuser; probe syscall 272 0x10000000; unshare -U true && echo ESCAPED
    exec 5</proc/1/ns/user; probe syscall 308 5 0x10000000; probe clone3; echo END";

/// Row 34: no user namespace inside.
#[test]
fn no_nested_user_namespace() {
    assert!(on_host("clone-newuser").contains(": ok"), "root of the host can");
    for door in Door::ALL {
        let outcome = run(Bundle::hardened().script(NESTING), door);
        assert_all_refused(&outcome);
        assert_says(&outcome.stdout, "clone-newuser", &["EPERM"]);
        assert_says(&outcome.stdout, "clone3", &["ENOSYS"]);
    }
}

/// Row 34: nor with seccomp off, where there is a namespace to set the limit of.
#[test]
fn no_nested_user_namespace_without_seccomp() {
    for door in [Door::Userns, Door::Library] {
        let outcome = run(unfiltered(Bundle::hardened()).script(NESTING), door);
        assert_all_refused(&outcome);
        assert_says(&outcome.stdout, "clone-newuser", &["ENOSPC", "EPERM"]);
    }
}

/// Row 42: keys of the caller; the caller's session and its key are written to a folder that is bound.
fn keys(bundle: Bundle, door: Door) -> (String, String, String) {
    let (engine, out) = (Engine::new(), TempDir::new("keys"));
    fs::set_permissions(out.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
    fs::create_dir(bundle.root().join("out")).expect("a mount point");
    let bundle = behind(door, bundle)
        .mount(json!({"destination": "/out", "type": "bind", "source": out.path(), "options": ["bind", "ro"]}))
        .script("echo; probe keyring; echo; probe keyring-read $(cat /out/key)");
    let (probe, out) = (probe_path().display().to_string(), out.path().display().to_string());
    let words = run_words(&engine, &bundle, door, "");
    let line = format!(
        "keyctl add user wsbt secret @s >{out}/key; {probe} keyring >{out}/session; {probe} keyring-read $(cat {out}/key); exec {words}"
    );
    let outcome = shell(&format!("keyctl session - sh -c '{line}'")).ok();
    let read = |name: &str| fs::read_to_string(format!("{out}/{name}")).expect("a note").trim().to_owned();
    (read("session"), read("key"), outcome.stdout)
}

/// Row 42: the filter has no key calls, and without it the session keyring is another.
#[test]
fn keys_of_the_caller_stay_outside() {
    for door in Door::ALL {
        let (session, key, said) = keys(Bundle::hardened(), door);
        let inside = inside_of_control(&said, &key);
        assert_says(inside, "keyring", &["EPERM", "ENOSYS"]);
        assert_says(inside, &format!("keyring-read {key}"), &["EPERM", "ENOSYS"]);
        assert!(session.starts_with("keyring: ok"), "{session}");

        let (session, key, said) = keys(unfiltered(Bundle::hardened()), door);
        let inside = inside_of_control(&said, &key);
        assert!(inside.contains("keyring: "), "{said}");
        assert!(!inside.contains(&session), "{door:?}: the caller's session keyring is shared: {said}");
        assert_says(inside, &format!("keyring-read {key}"), &["EACCES", "ENOKEY", "EPERM", "ENOSYS"]);
    }
}

/// What comes after the caller's own read, which succeeds.
fn inside_of_control<'a>(said: &'a str, key: &str) -> &'a str {
    said.split_once(&format!("keyring-read {key}: ok 6\n"))
        .unwrap_or_else(|| panic!("the caller can not read it: {said}"))
        .1
}
