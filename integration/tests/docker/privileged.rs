// SPDX-License-Identifier: Apache-2.0
//! `--privileged`: where CAP_SYS_RESOURCE is missing, as on some hosts, it fails in every runtime; where it is there, as in the guest, all is granted.

use std::fs;

use wsbox_integration::docker::both;

/// Whether we have what the container is to get.
fn whole() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ours = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(ours, 16).unwrap() & (1 << 24) != 0
}

#[test]
fn run() {
    both(|docker| {
        let script = "grep CapEff /proc/self/status | cut -f2; test -w /proc/sys/kernel/hostname && readlink /dev/ptmx; \
                      grep Seccomp: /proc/self/status | cut -f2; mkdir /m && mount -t tmpfs none /m && echo mounted";
        let outcome = docker.run("--network none --privileged -t", script);
        if !whole() {
            assert_eq!(outcome.code, 125, "{outcome:?}");
            assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
            return;
        }
        let lines: Vec<_> = outcome.ok().stdout.lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines[1..], ["pts/ptmx", "0", "mounted"], "{lines:?}");
        assert_eq!(u64::from_str_radix(&lines[0], 16).unwrap() & (1 << 21 | 1 << 24), 1 << 21 | 1 << 24, "{lines:?}");
    });
}

/// The container has the host's devices, and may use them.
#[test]
fn devices() {
    both(|docker| {
        let outcome = docker.run("--network none --privileged", "head -c 1 /dev/kmsg | wc -c; ls /dev | grep -c .");
        assert_eq!(outcome.code == 0, whole(), "{outcome:?}");
        if whole() {
            let lines: Vec<_> = outcome.stdout.lines().collect();
            assert_eq!(lines[0], "1");
            let all = fs::read_dir("/dev").unwrap().count();
            assert!(lines[1].parse::<usize>().unwrap() > all / 2, "{lines:?} of {all}");
        }
    });
}

#[test]
fn exec() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        assert_eq!(container.exec("--privileged", "true").code == 0, whole());
        assert_eq!(container.exec("", "true").code, 0, "the container lives on");
    });
}
