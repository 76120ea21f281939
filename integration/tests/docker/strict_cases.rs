// SPDX-License-Identifier: Apache-2.0
//! What the other files of this folder ask of wsbox, once more of wsbox-strict: it does the same, or says why it does not.

use std::fs;

use wsbox_integration::docker::{Container, eventually, strict, with_input};
use wsbox_integration::terminal::Terminal;
use wsbox_integration::unique;

const SIZED: &str = "tty; until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo sized$((40 + 2))\n";

/// What the shim has of this container's calls.
fn log(container: &Container) -> String {
    let sandbox = strict().daemon.sandbox();
    let tasks = sandbox.path().join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
    sandbox.sh(&format!("cat {}/{}/log.json", tasks.display(), container.inspect(".Id"))).ok().stdout
}

#[test]
fn stdin_and_terminals() {
    let docker = strict();
    let megabyte = vec![b'x'; 1 << 20];
    let counted = with_input(&mut docker.command("run", "--rm --interactive", &["wc", "-c"]), &megabyte).ok();
    assert_eq!(counted.stdout.trim(), "1048576");
    let mut terminal = Terminal::open(&mut docker.command("run", "--rm --interactive --tty", &["sh"]));
    terminal.sees("# ").types(SIZED).sees("/dev/pts/0").sees("sized42").types("exit 5\n");
    assert_eq!(terminal.ends(), 5);
}

#[test]
fn exec_with_stdin_a_terminal_and_detached() {
    let docker = strict();
    let container = docker.sleeping("");
    let counted = with_input(&mut container.exec_command("--interactive", "wc -l"), "line\n".repeat(1000).as_bytes());
    assert_eq!(counted.ok().stdout.trim(), "1000");
    let mut terminal = Terminal::open(&mut container.exec_command("--interactive --tty", "exec sh"));
    terminal.sees("# ").types(SIZED).sees("/dev/pts/").sees("sized42").types("exit 6\n");
    assert_eq!(terminal.ends(), 6);
    container.exec("--detach", "echo was here >/tmp/mark").ok();
    eventually("the mark", || container.exec("", "cat /tmp/mark").stdout == "was here\n");
    for (command, code) in [("nope", 126), ("/nope", 126), ("/etc", 126)] {
        assert_eq!(docker.cli(&["exec", &container.name, command]).code, code, "{command}");
    }
    container.cli("pause", "").ok();
    assert!(container.exec("", "true").stderr.contains("is paused"));
    container.cli("unpause", "").ok();
    container.exec("", "true").ok();
}

#[test]
fn stop_kill_restart_wait_and_logs() {
    let docker = strict();
    let script = "trap 'exit 11' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let container = docker.start("--stop-signal SIGUSR1", script);
    container.until_logs("ready");
    container.cli("kill", "--signal HUP").ok();
    container.until_logs("hup");
    let pid = container.inspect(".State.Pid");
    container.cli("restart", "").ok();
    assert_ne!(container.inspect(".State.Pid"), pid);
    eventually("both starts", || container.logs().matches("ready").count() == 2);
    container.cli("stop", "").ok();
    assert_eq!(container.inspect(".State.ExitCode"), "11");
    let deaf = docker.sleeping("");
    deaf.cli("stop", "--time 1").ok();
    assert_eq!(deaf.inspect(".State.ExitCode"), "137");
    let followed = docker.start("", "for i in 1 2 3; do echo line $i; echo odd $i >&2; done; exit 21");
    let said = followed.cli("logs", "--follow").ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("line 1\nline 2\nline 3\n", "odd 1\nodd 2\nodd 3\n"));
    assert_eq!(followed.wait(), 21);
}

#[test]
fn restart_policies() {
    let docker = strict();
    let failing = docker.start("--restart on-failure:2", "echo try; exit 1");
    let always = docker.start("--restart unless-stopped", "sleep 0.2; exit 0");
    failing.until_is(".RestartCount", "2");
    failing.until_is(".State.Status", "exited");
    assert_eq!(failing.logs(), "try\n".repeat(3));
    eventually("two restarts", || always.inspect(".RestartCount").parse::<u32>().unwrap() >= 2);
    always.cli("stop", "--time 1").ok();
    assert_eq!(always.inspect(".State.Status"), "exited");
}

/// A file of the container's own cgroup, on v1 or v2.
fn limit(container: &Container, v1: &str, v2: &str) -> String {
    container.says("", &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"))
}

#[test]
fn stricter_limits_stand_and_updates_stay_within_the_profile() {
    let container = strict().sleeping("--memory 64m --pids-limit 50 --cpus 0.5 --cpuset-cpus 1");
    let memory = || limit(&container, "memory/memory.limit_in_bytes", "memory.max");
    let pids = || limit(&container, "pids/pids.max", "pids.max");
    let cpu = || limit(&container, "cpu/cpu.cfs_quota_us", "cpu.max");
    assert_eq!((memory().as_str(), pids().as_str()), ("67108864", "50"));
    assert!(["50000", "50000 100000"].contains(&cpu().as_str()), "{}", cpu());
    assert_eq!(limit(&container, "cpuset/cpuset.cpus", "cpuset.cpus"), "1");
    container.cli("update", "--memory 96m --memory-swap 96m --cpus 0.25 --pids-limit 44 --cpuset-cpus 0").ok();
    assert_eq!((memory().as_str(), pids().as_str()), ("100663296", "44"));
    assert!(["25000", "25000 100000"].contains(&cpu().as_str()), "{}", cpu());
    assert_eq!(limit(&container, "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    container.cli("update", "--memory 8g --memory-swap 8g --cpus 2 --pids-limit 5000").ok();
    assert_eq!((memory().as_str(), pids().as_str()), ("536870912", "256"));
    assert!(["100000", "100000 100000"].contains(&cpu().as_str()), "{}", cpu());
    assert!(log(&container).contains("tightened to what the profile allows"), "{}", log(&container));
    assert_ne!(container.cli("update", "--cpuset-cpus 999").code, 0);
    assert_eq!(container.says("", "echo still here"), "still here");
}

#[test]
fn rlimits_scores_and_sizes() {
    let flags = "--ulimit nofile=100:200 --ulimit core=-1 --ulimit fsize=8192 --shm-size 8m --oom-score-adj 500";
    let container = strict().sleeping(flags);
    let line = |name: &str| container.says("", &format!("grep '{name}' /proc/1/limits | tr -s ' '"));
    assert_eq!(line("Max open files"), "Max open files 100 200 files");
    assert_eq!(line("Max file size"), "Max file size 8192 8192 bytes");
    assert_eq!(line("Max core file size"), "Max core file size 0 0 bytes", "of the profile");
    assert_eq!(container.says("", "cat /proc/1/oom_score_adj"), "500");
    assert_eq!(container.says("", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"), "8192");
}

#[test]
fn oom_killed() {
    let flags = "--memory 16m --memory-swap 16m";
    let container = strict().start(flags, "tail /dev/zero; code=$?; sleep 1; exit $code");
    // All of it is killed at once (memory.oom.group) where there is cgroup v2.
    assert_eq!(container.wait(), 137);
    container.until_is(".State.OOMKilled", "true");
}

#[test]
fn names_users_and_folders() {
    let docker = strict();
    let flags = "--hostname somebody --add-host other:10.1.2.3 --dns 9.9.9.9 --env ONE=1";
    let said = docker.says(flags, "hostname; echo $ONE; cat /etc/hostname /etc/hosts /etc/resolv.conf");
    for words in ["somebody\n1\nsomebody\n", "10.1.2.3\tother", "nameserver 9.9.9.9"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    // Docker has it as a sysctl, whose file root of a user namespace may not write.
    assert_eq!(docker.says("--domainname example.org", "cat /proc/sys/kernel/domainname"), "example.org");
    let user = docker.says("--user user --group-add 99 --workdir /made/here", "id -un; id -G; echo $HOME; pwd");
    assert_eq!(user, "user\n1000 99\n/home/user\n/made/here");
    assert_eq!(docker.argv("--entrypoint echo", &["a", "b c"]).ok().stdout, "a b c\n");
    let script = "echo out >/dev/stdout; echo error >/dev/stderr";
    let container = docker.sleeping("");
    for user in ["--user 0", "--user 1000"] {
        for outcome in [docker.run(user, script).ok(), container.exec(user, script).ok()] {
            assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "error\n"), "{user}");
        }
    }
}

#[test]
fn volumes_and_mounts() {
    let docker = strict();
    let (folder, volume) = (docker.folder(), unique("volume"));
    fs::write(folder.join("file"), "host").unwrap();
    let read_only = docker.run(&format!("--volume {}:/mnt:ro", folder.display()), "cat /mnt/file; touch /mnt/x");
    assert!(read_only.stdout == "host" && read_only.stderr.contains("Read-only"), "{read_only:?}");
    let one = format!("--mount type=bind,source={}/file,destination=/etc/passwd,readonly", folder.display());
    assert_eq!(docker.says(&one, "cat /etc/passwd"), "host");
    let flags = format!("--volume {volume}:/etc");
    assert_eq!(docker.says(&flags, "echo kept >/etc/kept; ls /etc/passwd"), "/etc/passwd", "it is copied up");
    let other = docker.sleeping(&format!("--volume {volume}:/there:ro"));
    assert_eq!(docker.says(&format!("--volumes-from {}", other.name), "cat /there/kept"), "kept");
    drop(other);
    docker.cli(&["volume", "rm", &volume]).ok();
    let tmpfs = "--tmpfs /data:size=4m,mode=1770,noexec";
    let script = "stat -c %a /data; grep -c ' /data tmpfs rw,nosuid,nodev,noexec' /proc/mounts; \
        head -c 5000000 /dev/zero >/data/file; stat -c %s /data/file";
    assert_eq!(docker.says(tmpfs, script), "1770\n1\n4194304");
    let volume = "--mount type=tmpfs,destination=/data,tmpfs-size=1m,tmpfs-mode=700";
    assert_eq!(docker.says(volume, "stat -c %a /data"), "700");
}

#[test]
fn propagation() {
    let docker = strict();
    let (host, sandbox) = (docker.folder().display().to_string(), docker.daemon.sandbox());
    let early =
        format!("mkdir {host}/sub {host}/early && mount -t tmpfs early {host}/early && touch {host}/early/file");
    sandbox.sh(&format!("mount -t tmpfs outer {host} && mount --make-rshared {host} && {early}")).ok();
    let slave = docker.sleeping(&format!("--volume {host}:/mnt:rslave"));
    let private = docker.sleeping(&format!("--volume {host}:/mnt"));
    sandbox.sh(&format!("mount -t tmpfs late {host}/sub && touch {host}/sub/late")).ok();
    assert_eq!(slave.says("", "ls /mnt/sub /mnt/early"), "/mnt/early:\nfile\n\n/mnt/sub:\nlate");
    assert_eq!(private.says("", "ls /mnt/sub; ls /mnt/early"), "file", "binds are recursive");
    drop((slave, private));
    sandbox.sh(&format!("umount {host}/sub; umount -R {host}")).ok();
}

#[test]
fn a_filter_of_the_users_own_only_takes_away() {
    let docker = strict();
    let path = docker.folder().join("profile.json");
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&path, rules).unwrap();
    let flags = format!("--security-opt seccomp={}", path.display());
    let outcome = docker.run(&flags, "mkdir /tmp/x; unshare -U true || mount -t tmpfs x /tmp || echo denied");
    assert!(outcome.stderr.contains("not supported"), "{outcome:?}");
    assert_eq!(outcome.stdout, "denied\n", "the profile's own filter holds");
    assert!(docker.run(&flags.replace("profile.json", "none.json"), "true").code != 0);
}

#[test]
fn namespaces_of_the_host_and_of_others() {
    let docker = strict();
    // What is not refused is not the host's all the same.
    let cgroup = docker.daemon.sandbox().sh("readlink /proc/self/ns/cgroup").ok().stdout;
    assert_ne!(docker.says("--cgroupns host", "readlink /proc/self/ns/cgroup"), cgroup.trim());
    assert_ne!(docker.says("--userns host", "awk '{print $2}' /proc/self/uid_map"), "0");
    let first = docker.sleeping("--ipc shareable");
    let lo = docker.says(&format!("--network container:{}", first.name), "ls /proc/sys/net/ipv4/conf | xargs");
    assert_eq!(lo, "all default lo", "of its own");
    for kind in ["pid", "ipc"] {
        let outcome = docker.run(&format!("--{kind} container:{}", first.name), "true");
        assert!(outcome.code == 125 && outcome.stderr.contains("linux.namespaces"), "{kind}: {outcome:?}");
    }
    assert_eq!(first.says("", "echo still here"), "still here");
}

/// docker 20.10 sets net.ipv4.ping_group_range to all groups, of which most are none of the container's.
#[test]
fn sysctls_are_set_or_left_out_with_a_word() {
    let docker = strict();
    let container = docker.sleeping("--sysctl kernel.msgmax=4321 --sysctl net.ipv4.ip_default_ttl=77");
    let read = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/ping_group_range";
    assert_eq!(container.says("", read), "4321\n64\n65534\t65534");
    let log = log(&container);
    for key in ["net.ipv4.ip_default_ttl", "net.ipv4.ping_group_range"] {
        let told = log.lines().any(|line| line.contains(key) && line.contains("left out") && line.contains("warning"));
        assert!(told, "{key}: {log}");
    }
    assert_ne!(docker.run("--sysctl kernel.msgmax=-", "true").code, 0);
}

#[test]
fn failures_leave_nothing() {
    let docker = strict();
    for (argv, flags, code) in [
        ("/nope", "", 127),
        ("nope", "", 127),
        ("/etc/passwd", "", 126),
        ("true", "--user nobody-here", 125),
        ("true", "--pid host", 125),
    ] {
        let name = unique("strict");
        let create = format!("--name {name} {flags}");
        let outcome = docker.argv(&create, &[argv]);
        assert_eq!(outcome.code, code, "{argv} {flags}: {outcome:?}");
        assert_eq!(docker.cli(&["ps", "-aq", "--filter", &format!("name={name}")]).ok().stdout, "");
    }
    let name = unique("strict");
    let mut create = docker.command("create", &format!("--name {name}"), &["/nope"]);
    let id = wsbox_integration::sandbox::outcome(&mut create).ok().stdout.trim().to_owned();
    assert_eq!(docker.cli(&["start", &name]).code, 1);
    let (sandbox, exec_root) = (docker.daemon.sandbox(), docker.daemon.path().join("exec").display().to_string());
    let traces = format!("find /sys/fs/cgroup {exec_root} -name {id}; grep -h {id} /proc/*/mountinfo 2>/dev/null");
    eventually("no trace", || sandbox.sh(&traces).stdout.is_empty());
    docker.cli(&["rm", &name]).ok();
}

#[test]
fn many_at_once() {
    let docker = strict();
    std::thread::scope(|scope| {
        let run = |number: i32| docker.run("", &format!("awk '{{print $2}}' /proc/self/uid_map; exit {number}"));
        let runs: Vec<_> = (0..8).map(|number| (number, scope.spawn(move || run(number)))).collect();
        for (number, run) in runs {
            let outcome = run.join().unwrap();
            assert!(outcome.code == number && outcome.stdout.trim() != "0", "{outcome:?}");
        }
    });
}
