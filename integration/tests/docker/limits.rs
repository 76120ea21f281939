// SPDX-License-Identifier: Apache-2.0
//! Limits: what the container's cgroup holds, seen from inside, and that it is in force.

use wsbox_integration::docker::{Docker, both, both_drivers};

/// What a file of the container's own cgroup holds; on v1 in the hierarchy of the controller.
fn cgroup(docker: Docker, flags: &str, v1: &str, v2: &str) -> String {
    docker.says(
        &format!("--network none {flags}"),
        &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"),
    )
}

#[test]
fn memory() {
    both_drivers(|docker| {
        assert_eq!(cgroup(docker, "--memory 64m", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
        let reservation = "--memory 64m --memory-reservation 32m";
        assert_eq!(cgroup(docker, reservation, "memory/memory.soft_limit_in_bytes", "memory.low"), "33554432");
        let swap =
            cgroup(docker, "--memory 64m --memory-swap 80m", "memory/memory.memsw.limit_in_bytes", "memory.swap.max");
        assert!(["83886080", "16777216"].contains(&swap.as_str()), "{swap}");
    });
}

#[test]
fn cpu() {
    both_drivers(|docker| {
        let quota = cgroup(docker, "--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
        let quota = cgroup(docker, "--cpu-period 50000 --cpu-quota 20000", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(["20000", "20000 50000"].contains(&quota.as_str()), "{quota}");
        let shares = cgroup(docker, "--cpu-shares 512", "cpu/cpu.shares", "cpu.weight");
        // Debian's runc has the older curve of cpu.weight.
        assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    });
}

/// The kernel would take 2 in place of 1; on v2 they become a weight, which has ends.
#[test]
fn shares_that_v1_does_not_take() {
    both(|docker| {
        for shares in ["1", "262145"] {
            let outcome = docker.argv(&format!("--network none --cpu-shares {shares}"), &["true"]);
            assert!(outcome.code != 0 && outcome.stderr.contains("OCI runtime create failed"), "{outcome:?}");
        }
    });
}

#[test]
fn cpuset() {
    both_drivers(|docker| {
        assert_eq!(docker.says("--network none --cpuset-cpus 0 --cpuset-mems 0", "nproc"), "1");
        assert_eq!(cgroup(docker, "--cpuset-cpus 1", "cpuset/cpuset.cpus", "cpuset.cpus"), "1");
    });
}

#[test]
fn pids() {
    both_drivers(|docker| {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
        let outcome = docker.run("--network none --pids-limit 5", script);
        assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
        let unlimited = cgroup(docker, "--pids-limit -1", "pids/pids.max", "pids.max");
        // systemd gives a scope that asks nothing its DefaultTasksMax.
        let by_default = std::path::Path::new("/run/systemd/system").is_dir();
        assert!(unlimited == "max" || by_default && unlimited.parse::<u32>().is_ok_and(|max| max > 5), "{unlimited}");
    });
}

#[test]
fn block_io() {
    both_drivers(|docker| {
        // The disk below /tmp has to be a real one.
        let Some(disk) = disk() else { panic!("/tmp lies on no block device") };
        let flags = format!("--device-read-bps {disk}:1mb --device-write-iops {disk}:77");
        let limits = "blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device";
        let text = docker.says(&flags, &format!("cd /sys/fs/cgroup; cat {limits} 2>/dev/null || cat io.max"));
        assert!(text.contains("1048576") && text.contains("77"), "{text}");
    });
}

/// By its number: what a kernel calls its root, such as /dev/root, need not be there.
fn disk() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let number = text.lines().find(|line| line.split(' ').nth(4) == Some("/"))?.split(' ').nth(2)?.to_owned();
    let uevent = std::fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).ok()?;
    uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"))
}

#[test]
fn rlimits() {
    both_drivers(|docker| {
        let flags = "--network none --ulimit nofile=100:200 --ulimit nproc=512 --ulimit core=0 --ulimit fsize=8192";
        let text = docker.says(flags, "cat /proc/self/limits");
        let limit = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect("it is there");
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(limit("Max open files"), "100 200");
        assert_eq!(limit("Max processes"), "512 512");
        assert_eq!(limit("Max core file size"), "0 0");
        assert_eq!(limit("Max file size"), "8192 8192");
        assert_eq!(
            docker.says(flags, "head -c 20000 /dev/zero >/etc/large; echo $?; stat -c %s /etc/large"),
            "153\n8192",
            "SIGXFSZ"
        );
    });
}

#[test]
fn oom_score_and_swappiness() {
    both_drivers(|docker| {
        assert_eq!(docker.says("--network none --oom-score-adj 500", "cat /proc/self/oom_score_adj"), "500");
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.swappiness").exists() {
            assert_eq!(cgroup(docker, "--memory-swappiness 10", "memory/memory.swappiness", ""), "10");
            let control = cgroup(docker, "--memory 64m --oom-kill-disable", "memory/memory.oom_control", "");
            assert!(control.contains("oom_kill_disable 1"), "{control}");
        }
    });
}

#[test]
fn shared_memory_size() {
    both_drivers(|docker| {
        assert_eq!(
            docker.says("--network none --shm-size 8m", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"),
            "8192"
        );
    });
}

#[test]
fn the_cgroup_is_below_the_given_parent() {
    both(|docker| {
        let parent = format!("{}/deeper", docker.daemon.path().file_name().unwrap().to_string_lossy());
        let text = docker.says(&format!("--cgroup-parent /{parent} --cgroupns host"), "cat /proc/self/cgroup");
        assert!(text.lines().all(|line| line.contains(&format!(":/{parent}/"))), "{text}");
    });
}
