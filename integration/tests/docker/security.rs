// SPDX-License-Identifier: Apache-2.0
//! Capabilities, no-new-privileges, seccomp, sysctls, devices.

use std::fs;

use wsbox_integration::docker::both;

const SETS: &str = "for set in Inh Prm Eff Bnd Amb; do grep Cap$set /proc/self/status | cut -f2; done | xargs";
/// What docker 20.10 grants: 14 capabilities.
const DEFAULT: &str = "00000000a80425fb";

#[test]
fn capabilities() {
    both(|docker| {
        let none = "0000000000000000";
        assert_eq!(docker.says("--network none", SETS), format!("{none} {DEFAULT} {DEFAULT} {DEFAULT} {none}"));
        assert_eq!(docker.says("--network none --user 1000", SETS), format!("{none} {none} {none} {DEFAULT} {none}"));
        assert_eq!(docker.says("--network none --cap-drop ALL", SETS), [none; 5].join(" "));
        let one = "0000000000000400";
        let flags = "--network none --cap-drop ALL --cap-add NET_BIND_SERVICE";
        assert_eq!(docker.says(flags, SETS), format!("{none} {one} {one} {one} {none}"));
        let added = docker.says("--network none --cap-add SYS_TIME --cap-drop MKNOD", SETS);
        assert_eq!(added.split(' ').nth(3), Some("00000000a20425fb"));
    });
}

#[test]
fn what_a_dropped_capability_denies() {
    both(|docker| {
        let script = "chown 5 /etc/passwd; touch /tmpfile; true";
        assert_eq!(docker.run("--network none", script).ok().stderr, "");
        let outcome = docker.run("--network none --cap-drop CHOWN", script);
        assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
        let outcome = docker.run("--network none", "mount -t tmpfs x /bin; hostname other; true");
        assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:?}");
        assert_eq!(docker.says("--network none --cap-add SYS_ADMIN", "hostname other; hostname"), "other");
    });
}

#[test]
fn no_new_privileges() {
    both(|docker| {
        let field = "grep NoNewPrivs /proc/self/status | cut -f2";
        assert_eq!(docker.says("--network none", field), "0");
        assert_eq!(docker.says("--network none --security-opt no-new-privileges", field), "1");
        assert_eq!(docker.says("--network none --security-opt no-new-privileges:true --user 1000", field), "1");
    });
}

#[test]
fn default_and_no_seccomp() {
    both(|docker| {
        let mode = "grep Seccomp: /proc/self/status | cut -f2";
        assert_eq!(docker.says("--network none", mode), "2");
        assert_eq!(docker.says("--network none --security-opt seccomp=unconfined", mode), "0");
        let denied = docker.run("--network none", "unshare -U true");
        assert!(denied.stderr.contains("not permitted"), "{denied:?}");
        docker.run("--network none --security-opt seccomp=unconfined", "unshare -U true").ok();
        // keyctl(2) and add_key(2) are not in docker's profile.
        assert!(docker.says("--network none", "probe keyring").contains("EPERM"));
        // clone3(2) is ENOSYS there, so that C libraries fall back.
        assert!(docker.says("--network none", "probe clone3").contains("ENOSYS"));
    });
}

#[test]
fn custom_seccomp() {
    both(|docker| {
        let path = docker.folder().join("profile.json");
        let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],"syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95},
            {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#;
        fs::write(&path, rules).unwrap();
        let flags = format!("--network none --security-opt seccomp={}", path.display());
        let outcome = docker.run(
            &flags,
            "mkdir /etc/x; trap 'echo usr2' USR2; kill -USR1 $$; kill -USR2 $$; unshare -U true && echo unshared",
        );
        assert!(outcome.stderr.contains("not supported"), "{outcome:?}");
        assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
        assert_eq!(outcome.stdout, "usr2\nunshared\n");
        fs::write(&path, rules.replace("SCMP_ACT_ALLOW", "SCMP_ACT_NONSENSE")).unwrap();
        assert_eq!(docker.run(&flags, "true").code, 125);
    });
}

#[test]
fn sysctls() {
    both(|docker| {
        let read =
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let flags = "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4321";
        assert_eq!(docker.says(flags, read), "1\n4321\n0");
        assert_eq!(docker.says("", "cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647");
        for unknown in ["net.ipv4.nonsense=1", "net.ipv4.ip_forward=nonsense", "kernel.msgmax=-"] {
            let outcome = docker.run(&format!("--sysctl {unknown}"), "true");
            assert_ne!(outcome.code, 0, "{unknown}: {outcome:?}");
        }
    });
}

#[test]
fn devices() {
    both(|docker| {
        let flags = "--network none --device /dev/zero:/dev/made:r";
        let script = "head -c 4 /dev/made | wc -c; stat -c '%t:%T' /dev/made; echo x >/dev/made";
        let outcome = docker.run(flags, script);
        assert!(outcome.stdout.starts_with("4\n1:5\n"), "{outcome:?}");
        // /dev/zero itself is granted to all, so its rule does not narrow what is denied here; /dev/kmsg is granted to nobody.
        let flags = "--network none --cap-add SYSLOG --device /dev/kmsg:/dev/made:r";
        let outcome = docker.run(flags, "head -c 1 /dev/made | wc -c; echo x >/dev/made");
        assert!(outcome.stdout == "1\n" && outcome.stderr.contains("not permitted"), "{outcome:?}");
        assert_eq!(docker.run("--network none --device /dev/net/tun", "ls -l /dev/net/tun").ok().code, 0);
    });
}

/// In what is mounted below /dev, in place of what all have, outside of /dev.
#[test]
fn devices_in_any_place() {
    both(|docker| {
        for place in ["/dev/shm/made", "/dev/null", "/dev/stdin", "/dev/core", "/made/zero"] {
            let flags = format!("--network none --device /dev/zero:{place}");
            assert_eq!(docker.says(&flags, &format!("stat -L -c %t:%T {place}")), "1:5", "{place}");
        }
        let outcome = docker.run("--network none --device /dev/zero:/proc/made", "true");
        assert!(outcome.code != 0 && outcome.stderr.contains("OCI runtime create failed"), "{outcome:?}");
    });
}

/// Images of VPNs make the node of tun themselves.
#[test]
fn a_tun_of_its_own() {
    both(|docker| {
        let outcome = docker.run("--network none --cap-add NET_ADMIN", "mknod /tun c 10 200 && : <>/tun");
        assert_eq!(outcome.code, 0, "{outcome:?}");
    });
}

#[test]
fn device_rules_are_in_force() {
    both(|docker| {
        // 1:4 is /dev/port, 1:11 /dev/kmsg: never granted.
        let make = "mknod /etc/kmsg c 1 11 && head -c 1 /etc/kmsg | wc -c";
        let outcome = docker.run("--network none", make);
        assert!(outcome.stderr.contains("not permitted") && outcome.stdout == "0\n", "{outcome:?}");
        let granted = docker.run("--network none --cap-add SYSLOG --device-cgroup-rule", "true");
        assert_eq!(granted.code, 125, "a rule without a rule: {granted:?}");
        let mut command = docker.daemon.command(&["run", "--rm", "--runtime", docker.runtime, "--cap-add", "SYSLOG"]);
        command.args(["--device-cgroup-rule", "c 1:11 rmw", "box", "sh", "-c", make]);
        assert_eq!(wsbox_integration::sandbox::outcome(&mut command).ok().stdout, "1\n");
    });
}
