// SPDX-License-Identifier: Apache-2.0
//! The life of a container: stop, kill, restart, pause, update, stats, top, logs, cp, health, and its end.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use wsbox_integration::docker::{Container, both, eventually};
use wsbox_integration::engine::finish;
use wsbox_integration::leftover;

const TRAP: &str = "trap 'echo stopping; exit 3' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";

fn ready(container: &Container) {
    container.until_logs("ready");
}

#[test]
fn stop_asks_first() {
    both(|docker| {
        let container = docker.start("--network none", TRAP);
        ready(&container);
        container.cli("stop", "").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "3");
        assert!(container.logs().contains("stopping"));
    });
}

#[test]
fn stop_kills_in_the_end() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        container.cli("stop", "--time 1").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "137");
    });
}

#[test]
fn stop_signal() {
    both(|docker| {
        let script = "trap 'exit 11' USR1; echo ready; while :; do sleep 0.05; done";
        let container = docker.start("--network none --stop-signal SIGUSR1", script);
        ready(&container);
        container.cli("stop", "").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "11");
    });
}

#[test]
fn kill_with_and_without_a_signal() {
    both(|docker| {
        let container = docker.start("--network none", TRAP);
        ready(&container);
        container.cli("kill", "--signal HUP").ok();
        container.until_logs("hup");
        assert_eq!(container.inspect(".State.Status"), "running");
        container.cli("kill", "").ok();
        assert_eq!(container.wait(), 137);
        let outcome = container.cli("kill", "");
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("is not running"), "{outcome:?}");
    });
}

#[test]
fn restart() {
    both(|docker| {
        let container = docker.start("--network none", TRAP);
        ready(&container);
        let pid = container.inspect(".State.Pid");
        container.cli("restart", "").ok();
        assert_ne!(container.inspect(".State.Pid"), pid);
        assert_eq!(container.inspect(".State.Status"), "running");
        eventually("both starts", || container.logs().matches("ready").count() == 2);
    });
}

#[test]
fn restart_policies() {
    both(|docker| {
        let failing = docker.start("--network none --restart on-failure:2", "echo try; exit 1");
        let always = docker.start("--network none --restart always", "echo try; sleep 0.2; exit 0");
        let unless = docker.start("--network none --restart unless-stopped", "echo try; sleep 0.2; exit 7");
        let once = docker.start("--network none --restart on-failure:2", "exit 0");
        failing.until_is(".RestartCount", "2");
        failing.until_is(".State.Status", "exited");
        assert_eq!(failing.logs(), "try\n".repeat(3));
        for again in [always, unless] {
            eventually("two restarts", || again.inspect(".RestartCount").parse::<u32>().unwrap() >= 2);
            again.cli("stop", "--time 1").ok();
            assert_eq!(again.inspect(".State.Status"), "exited");
        }
        assert_eq!(once.wait(), 0);
        assert_eq!(once.inspect(".RestartCount"), "0");
    });
}

#[test]
fn pause_and_unpause() {
    both(|docker| {
        let container = docker.start("--network none", "while :; do echo tick; sleep 0.02; done");
        container.until_logs("tick");
        container.cli("pause", "").ok();
        assert_eq!(container.inspect(".State.Status"), "paused");
        let ticks = container.logs().len();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(container.logs().len(), ticks, "it is frozen");
        container.cli("unpause", "").ok();
        assert_eq!(container.inspect(".State.Status"), "running");
        eventually("more ticks", || container.logs().len() > ticks);
        // A paused one can be removed as well.
        container.cli("pause", "").ok();
        container.cli("rm", "--force").ok();
    });
}

#[test]
fn update_of_a_running_one() {
    both(|docker| {
        let container = docker.sleeping("--network none --memory 64m --cpus 0.5 --pids-limit 30");
        let read = |v1: &str, v2: &str| {
            container.says("", &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"))
        };
        let memory = || read("memory/memory.limit_in_bytes", "memory.max");
        assert_eq!(memory(), "67108864");
        container.cli("update", "--memory 96m --memory-swap 96m --cpus 0.25 --pids-limit 44 --cpuset-cpus 0").ok();
        assert_eq!(memory(), "100663296");
        assert_eq!(read("pids/pids.max", "pids.max"), "44");
        assert!(["25000", "25000 100000"].contains(&read("cpu/cpu.cfs_quota_us", "cpu.max").as_str()));
        assert_eq!(container.says("", "nproc"), "1");
        container.cli("update", "--restart always").ok();
        assert_eq!(container.inspect(".HostConfig.RestartPolicy.Name"), "always");
        container.cli("restart", "--time 0").ok();
        assert_eq!(memory(), "100663296", "it stays over a restart");
    });
}

#[test]
fn update_of_one_that_had_no_limits() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        container.cli("update", "--memory 96m --memory-swap 96m --cpus 0.25 --pids-limit 44 --cpu-shares 512").ok();
        let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us 2>/dev/null || \
            cat memory.max pids.max cpu.max";
        let said = container.says("", script);
        assert!(["100663296\n44\n25000", "100663296\n44\n25000 100000"].contains(&said.as_str()), "{said}");
        assert_eq!(container.exec("", "tail /dev/zero").code, 137, "it is in force");
    });
}

#[test]
fn stats() {
    both(|docker| {
        let flags = "--memory 64m --pids-limit 30 --tmpfs /data";
        let container = docker.start(flags, "head -c 20000000 /dev/zero >/data/file; echo ready; while :; do :; done");
        ready(&container);
        let format = "{{.MemUsage}};{{.PIDs}};{{.CPUPerc}};{{.NetIO}}";
        let outcome = docker.cli(&["stats", "--no-stream", "--format", format, &container.name]).ok();
        let fields: Vec<&str> = outcome.stdout.trim().split(';').collect();
        let [memory, pids, cpu, network] = fields[..] else { panic!("{fields:?}") };
        assert!(memory.ends_with("/ 64MiB") && memory[..2].parse::<u32>().is_ok_and(|used| used >= 19), "{memory}");
        assert_eq!(pids, "1");
        assert!(cpu.trim_end_matches('%').parse::<f64>().unwrap() > 5.0, "{cpu}");
        assert!(network.ends_with('B'), "{network}");
    });
}

#[test]
fn stats_without_limits_are_the_containers_own() {
    both(|docker| {
        let container =
            docker.start("--tmpfs /data", "head -c 20000000 /dev/zero >/data/file; echo ready; exec sleep 1000");
        ready(&container);
        let outcome =
            docker.cli(&["stats", "--no-stream", "--format", "{{.MemUsage}};{{.PIDs}}", &container.name]).ok();
        let (memory, pids) = outcome.stdout.trim().split_once(';').expect("two fields");
        assert!(
            memory[..2].parse::<u32>().is_ok_and(|used| (19..30).contains(&used)) && memory.contains("MiB /"),
            "{memory}"
        );
        assert_eq!(pids, "1");
    });
}

#[test]
fn top() {
    both(|docker| {
        let container = docker.start("--network none", "sleep 777 & exec sleep 888");
        eventually("both", || {
            let text = container.cli("top", "").ok().stdout;
            text.contains("sleep 777") && text.contains("sleep 888") && text.lines().count() == 3
        });
    });
}

#[test]
fn logs() {
    both(|docker| {
        let container =
            docker.start("--network none", "for i in 1 2 3; do echo line $i; echo odd $i >&2; sleep 0.1; done");
        // Following ends with the container.
        let followed = container.cli("logs", "--follow").ok();
        assert_eq!(followed.stdout, "line 1\nline 2\nline 3\n");
        assert_eq!(followed.stderr, "odd 1\nodd 2\nodd 3\n");
        let last = container.cli("logs", "--tail 1").ok();
        assert_eq!((last.stdout + &last.stderr).lines().count(), 1);
    });
}

#[test]
fn cp_both_ways() {
    both(|docker| {
        let folder = docker.folder();
        let container = docker.sleeping("--network none");
        fs::create_dir(folder.join("tree")).unwrap();
        fs::write(folder.join("tree/file"), "from the host").unwrap();
        let (host, inside) = (folder.display().to_string(), |path: &str| format!("{}:{path}", container.name));
        docker.cli(&["cp", &format!("{host}/tree"), &inside("/copied")]).ok();
        assert_eq!(container.says("", "cat /copied/file"), "from the host");
        container.exec("", "mkdir /out; echo from inside >/out/file; ln -s file /out/link").ok();
        docker.cli(&["cp", &inside("/out"), &host]).ok();
        assert_eq!(fs::read_to_string(folder.join("out/file")).unwrap(), "from inside\n");
        assert_eq!(fs::read_link(folder.join("out/link")).unwrap().to_str(), Some("file"));
        // Of a container that does not run, too.
        container.cli("kill", "").ok();
        container.wait();
        docker.cli(&["cp", &inside("/out/file"), &format!("{host}/again")]).ok();
        assert_eq!(fs::read_to_string(folder.join("again")).unwrap(), "from inside\n");
    });
}

#[test]
fn health_checks() {
    both(|docker| {
        let every = "--network none --health-interval 200ms --health-retries 2 --health-timeout 5s --health-cmd";
        let container = docker.start(&format!("{every} /etc/check"), "exec sleep 1000");
        container.until_is(".State.Health.Status", "unhealthy");
        container.exec("", "printf '#!/bin/sh\\necho fine\\n' >/etc/check; chmod 755 /etc/check").ok();
        container.until_is(".State.Health.Status", "healthy");
        assert!(container.inspect("json .State.Health").contains("fine"));
    });
}

#[test]
fn oom_killed() {
    both(|docker| {
        let flags = "--network none --memory 16m --memory-swap 16m";
        // Docker takes word of it from a container that runs: the shell outlives what is killed.
        let container = docker.start(flags, "tail /dev/zero; code=$?; sleep 1; exit $code");
        assert_eq!(container.wait(), 137);
        container.until_is(".State.OOMKilled", "true");
        let other = docker.start(flags, "exit 1");
        other.wait();
        assert_eq!(other.inspect(".State.OOMKilled"), "false");
    });
}

#[test]
fn oom_of_a_child() {
    both(|docker| {
        let container =
            docker.start("--memory 16m --memory-swap 16m", "sh -c 'exec tail /dev/zero'; echo child $?; sleep 1000");
        container.until_logs("child 137");
        assert_eq!(container.inspect(".State.Status"), "running");
    });
}

#[test]
fn wait_rename_and_events() {
    both(|docker| {
        let container = docker.start("--network none", "sleep 0.5; exit 21");
        assert_eq!(container.wait(), 21);
        let filter = format!("container={}", container.name);
        let events = ["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"];
        for action in ["create", "start", "die"] {
            eventually(action, || docker.cli(&events).ok().stdout.lines().any(|line| line == action));
        }
    });
}

#[test]
fn attach_with_stdin() {
    both(|docker| {
        let container = docker.start("--network none --interactive", "read line; echo read $line; read more; exit 2");
        let mut attach = docker.daemon.command(&["attach", &container.name]);
        let mut child = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Its end of file would end the output, too.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"words\n").unwrap();
        container.until_logs("read words");
        stdin.write_all(b"\n").unwrap();
        let outcome = finish(child);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, "read words\n"), "{outcome:?}");
    });
}

#[test]
fn commit_diff_export() {
    both(|docker| {
        let container = docker.start("--network none", "echo made >/etc/made; rm /etc/passwd");
        container.wait();
        let diff = container.cli("diff", "").ok().stdout;
        assert!(diff.contains("A /etc/made") && diff.contains("D /etc/passwd"), "{diff}");
        assert!(!diff.contains("/dev/") && !diff.contains("/proc") && !diff.contains("/sys"), "of mounts: {diff}");
    });
}

#[test]
fn nothing_is_left() {
    both(|docker| {
        let container = docker.sleeping("--memory 64m");
        container.exec("--detach", "exec sleep 999").ok();
        let (id, pid) = (container.inspect(".Id"), container.inspect(".State.Pid"));
        let sandbox = docker.daemon.sandbox();
        assert!(
            !leftover::cgroups(&id).is_empty() || sandbox.sh(&format!("cat /proc/{pid}/cgroup")).stdout.contains(&id)
        );
        container.cli("kill", "").ok();
        container.wait();
        let traces = format!(
            "cat /proc/*/mountinfo 2>/dev/null | grep {id} | grep -v '/{id}/mounts/'; \
             find /sys/fs/cgroup {} -path '*runtime-*' -name {id}; find /sys/fs/cgroup -name {id}",
            docker.daemon.path().join("exec").display(),
        );
        eventually("no trace", || sandbox.sh(&traces).stdout.is_empty());
        eventually("no process", || leftover::processes(&id).is_empty());
    });
}
