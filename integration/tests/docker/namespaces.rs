// SPDX-License-Identifier: Apache-2.0
//! Namespaces: the container's own, the host's, another container's.

use std::fs;

use wsbox_integration::docker::{Docker, both};

const ALL: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// The daemon's namespace, as the kernel names it.
fn host(docker: Docker, namespace: &str) -> String {
    docker.daemon.sandbox().sh(&format!("readlink /proc/self/ns/{namespace}")).ok().stdout.trim().to_owned()
}

fn inside(docker: Docker, flags: &str, namespace: &str) -> String {
    docker.says(flags, &format!("readlink /proc/self/ns/{namespace}"))
}

#[test]
fn its_own() {
    both(|docker| {
        let said = docker.says("", "ls -l /proc/self/ns");
        for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
            assert!(!said.contains(&host(docker, namespace)), "{namespace} is the host's");
        }
        assert!(said.contains(&host(docker, "user")));
    });
}

#[test]
fn the_hosts() {
    both(|docker| {
        assert_eq!(inside(docker, "--pid host", "pid"), host(docker, "pid"));
        assert_eq!(docker.says("--pid host", "cat /proc/1/comm"), "tini");
        assert_eq!(inside(docker, "--ipc host", "ipc"), host(docker, "ipc"));
        assert_eq!(inside(docker, "--uts host", "uts"), host(docker, "uts"));
        assert_eq!(inside(docker, "--network host", "net"), host(docker, "net"));
        assert_eq!(inside(docker, "--cgroupns host", "cgroup"), host(docker, "cgroup"));
        assert_eq!(inside(docker, "--userns host", "user"), host(docker, "user"));
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(docker.says("--uts host", "hostname"), hostname.trim());
    });
}

#[test]
fn all_of_the_hosts_at_once() {
    both(|docker| {
        let said =
            docker.says("--pid host --ipc host --uts host --network host --cgroupns host", "ls -l /proc/self/ns");
        for namespace in ["pid", "net", "ipc", "uts", "cgroup", "user"] {
            assert!(said.contains(&host(docker, namespace)), "{namespace}");
        }
        assert!(!said.contains(&host(docker, "mnt")));
    });
}

#[test]
fn a_private_cgroup_namespace() {
    both(|docker| {
        assert_ne!(inside(docker, "--cgroupns private", "cgroup"), host(docker, "cgroup"));
        let said =
            docker.says("--cgroupns private --network none", "cat /proc/self/cgroup; ls /sys/fs/cgroup | grep -c .");
        assert!(said.lines().filter(|line| line.contains(':')).all(|line| line.ends_with(":/")), "{said}");
    });
}

#[test]
fn another_containers() {
    both(|docker| {
        let first = docker.sleeping("--ipc shareable");
        let name = &first.name;
        let link = |namespace: &str| first.says("", &format!("readlink /proc/self/ns/{namespace}"));
        assert_eq!(inside(docker, &format!("--pid container:{name}"), "pid"), link("pid"));
        assert!(docker.says(&format!("--pid container:{name}"), "ps").contains("sleep 1000"));
        assert_eq!(inside(docker, &format!("--ipc container:{name}"), "ipc"), link("ipc"));
        assert_eq!(inside(docker, &format!("--network container:{name}"), "net"), link("net"));
        first.exec("", "echo shared >/dev/shm/file").ok();
        assert_eq!(docker.says(&format!("--ipc container:{name}"), "cat /dev/shm/file"), "shared");
        for namespace in ALL {
            assert!(!link(namespace).is_empty());
        }
    });
}

#[test]
fn both_runtimes_share_with_each_other() {
    both(|docker| {
        let other = Docker { runtime: if docker.runtime == "runc" { "wsbox" } else { "runc" }, ..docker };
        let first = other.sleeping("--ipc shareable");
        let flags = format!("--pid container:{0} --ipc container:{0} --network container:{0}", first.name);
        let said = docker.says(&flags, "ps; ls /proc/1/ns >/dev/null; ip -o link | grep -c eth0");
        assert!(said.contains("sleep 1000") && said.ends_with('1'), "{said}");
    });
}

#[test]
fn ipc_modes() {
    both(|docker| {
        let private = docker.sleeping("--network none --ipc private");
        let outcome = docker.run(&format!("--ipc container:{}", private.name), "true");
        assert_eq!(outcome.code, 125, "{outcome:?}");
        assert_eq!(
            docker.says(
                "--network none --ipc none",
                "grep -c ' /dev/shm ' /proc/mounts; ls -d /dev/shm 2>/dev/null; true"
            ),
            "0"
        );
    });
}

#[test]
fn the_end_of_pid_1_ends_those_who_joined() {
    both(|docker| {
        let first = docker.sleeping("--network none");
        let second = docker.sleeping(&format!("--network none --pid container:{}", first.name));
        first.cli("kill", "").ok();
        assert_eq!(second.wait(), 137);
    });
}

#[test]
fn pid_host_ends_whole() {
    both(|docker| {
        let container = docker.start("--pid host --network none", "sleep 7654 & echo up; exec sleep 7655");
        container.until_logs("up");
        container.cli("kill", "").ok();
        container.wait();
        let count = || {
            docker
                .daemon
                .sandbox()
                .sh(&format!("cat /sys/fs/cgroup/pids/*/{}/pids.current", container.inspect(".Id")))
                .stdout
        };
        wsbox_integration::docker::eventually("no process", || !count().contains('1') && !count().contains('2'));
    });
}
