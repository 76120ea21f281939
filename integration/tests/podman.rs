// SPDX-License-Identifier: Apache-2.0
//! `podman --runtime PATH` with storage of its own, each case with runc and with wsbox.

use std::process::Command;
use std::sync::OnceLock;

use wsbox_integration::docker::{eventually, with_each, with_input};
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::sandbox::{Sandbox, outcome};
use wsbox_integration::terminal::Terminal;
use wsbox_integration::{Outcome, bundle, unique};

/// Where podman's storage is, and its image, once.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        let sandbox = Sandbox::start("podman", "");
        let image = sandbox.path().join("image");
        bundle::fill(&image);
        sandbox.sh(&format!("tar -C {0} -cf {0}.tar .", image.display())).ok();
        let archive = format!("{}.tar", image.display());
        outcome(podman_in(&sandbox, "runc").args(["import", &archive, "box"])).ok();
        sandbox
    })
}

fn podman_in(sandbox: &Sandbox, runtime: &str) -> Command {
    let path = if runtime == "wsbox" { wsbox_path() } else { "/usr/sbin/runc".to_owned() };
    let dir = sandbox.path().display();
    let mut command = sandbox.command("podman");
    for (flag, value) in [("root", "lib"), ("runroot", "run"), ("tmpdir", "tmp")] {
        command.arg(format!("--{flag}={dir}/{value}"));
    }
    command.args(["--cgroup-manager=cgroupfs", "--events-backend=file", "--network-backend=cni", "--runtime", &path]);
    command
}

/// The command `podman --runtime R ARGS`.
fn podman(runtime: &str, args: &[&str]) -> Command {
    let mut command = podman_in(sandbox(), runtime);
    command.args(args);
    command
}

fn cli(runtime: &str, args: &[&str]) -> Outcome {
    outcome(&mut podman(runtime, args))
}

/// The command `podman run FLAGS box ARGV`; podman's own limits may exceed what this host allows.
fn run_command(runtime: &str, flags: &str, argv: &[&str]) -> Command {
    let parent = sandbox().path().file_name().unwrap().to_string_lossy().into_owned();
    let mut command = podman(runtime, &["run", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]);
    if !flags.contains("--pod ") {
        command.args(["--cgroup-parent", &format!("/{parent}")]);
    }
    command.args(flags.split_whitespace()).arg("box").args(argv);
    command
}

fn run(runtime: &str, flags: &str, script: &str) -> Outcome {
    outcome(&mut run_command(runtime, &format!("--rm {flags}"), &["sh", "-c", script]))
}

/// A detached container, by its name; removed when it is dropped.
struct Container(&'static str, String);

impl Container {
    fn start(runtime: &'static str, flags: &str, script: &str) -> Self {
        let container = Self(runtime, unique(runtime));
        let flags = format!("--detach --name {} {flags}", container.1);
        outcome(&mut run_command(runtime, &flags, &["sh", "-c", script])).ok();
        container
    }

    fn cli(&self, verb: &str, flags: &str) -> Outcome {
        let mut command = podman(self.0, &[verb]);
        outcome(command.args(flags.split_whitespace()).arg(&self.1))
    }

    fn exec(&self, flags: &str, script: &str) -> Outcome {
        let mut command = podman(self.0, &["exec"]);
        outcome(command.args(flags.split_whitespace()).args([&self.1, "sh", "-c", script]))
    }

    fn inspect(&self, format: &str) -> String {
        cli(self.0, &["inspect", "--format", &format!("{{{{{format}}}}}"), &self.1]).ok().stdout.trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cli("rm", "--force --time 0 --volumes");
    }
}

#[test]
fn run_output_and_exit_codes() {
    with_each(|runtime| {
        let outcome = run(runtime, "", "echo out; echo error >&2; exit 7");
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "error\n"));
        let container = Container::start(runtime, "", "echo out; echo error >&2");
        container.cli("wait", "").ok();
        let logs = container.cli("logs", "").ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "error\n"));
        for (command, code) in [("/nope", 127), ("nope", 127), ("/etc/passwd", 126), ("/etc", 126)] {
            let ran = wsbox_integration::sandbox::outcome(&mut run_command(runtime, "--rm", &[command]));
            assert_eq!(ran.code, code, "{command}: {ran:?}");
        }
        assert_eq!(run(runtime, "--nonsense", "true").code, 125);
        assert_eq!(with_input(&mut run_command(runtime, "--rm -i", &["wc", "-c"]), b"12345").ok().stdout.trim(), "5");
    });
}

#[test]
fn a_terminal() {
    with_each(|runtime| {
        let mut terminal = Terminal::open(&mut run_command(runtime, "--rm -it", &["sh"]));
        terminal
            .sees("# ")
            .types("tty; until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo sized$((40 + 2))\n");
        terminal.sees("/dev/pts/0").sees("sized42").types("exit 5\n");
        assert_eq!(terminal.ends(), 5);
    });
}

/// What is the host's, or another's, is joined before the user namespace is made; the settings are written by the proc that is bound then.
#[test]
fn namespaces_of_others_with_ids_of_its_own() {
    with_each(|runtime| {
        let ids = "--uidmap 0:400000:2000 --gidmap 0:400000:2000";
        let host = run(runtime, &format!("--network none --pid host {ids}"), "[ $$ = 1 ] || id -u").ok();
        assert_eq!(host.stdout, "0\n");
        let other = Container::start(runtime, "--network none --hostname other", "exec sleep 1000");
        let joined = run(runtime, &format!("--uts container:{} --network none {ids}", other.1), "hostname; id -u").ok();
        assert_eq!(joined.stdout, "other\n0\n");
    });
}

#[test]
fn exec() {
    with_each(|runtime| {
        let container = Container::start(runtime, "--network none", "exec sleep 1000");
        let outcome = container.exec("--user 1000 --workdir /etc --env ONE=1", "id -u; pwd; echo $ONE; exit 8");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (8, "1000\n/etc\n1\n"), "{outcome:?}");
        assert_eq!(cli(runtime, &["exec", &container.1, "/nope"]).code, 127);
        assert_eq!(cli(runtime, &["exec", &container.1, "/etc/passwd"]).code, 126);
        container.exec("--detach", "touch /etc/mark").ok();
        eventually("the mark", || container.exec("", "ls /etc/mark").code == 0);
        let mut terminal = Terminal::open(&mut podman(runtime, &["exec", "-it", &container.1, "sh"]));
        terminal.sees("# ").types("tty\n").sees("/dev/pts/").types("exit 6\n");
        assert_eq!(terminal.ends(), 6);
    });
}

#[test]
fn life() {
    with_each(|runtime| {
        let script = "trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let container = Container::start(runtime, "--network none --memory 64m --pids-limit 50", script);
        eventually("ready", || container.cli("logs", "").stdout.contains("ready"));
        assert!(container.cli("top", "").ok().stdout.contains("while"));
        let stats = container.cli("stats", "--no-stream --format {{.MemUsage}};{{.PIDS}}").ok().stdout;
        assert!(stats.contains("/ 67.11MB;"), "{stats}");
        container.cli("pause", "").ok();
        assert_eq!(container.inspect(".State.Status"), "paused");
        container.cli("unpause", "").ok();
        container.cli("update", "--memory 96m").ok();
        let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
        assert_eq!(container.exec("", limit).ok().stdout, "100663296\n");
        container.cli("stop", "").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "3");
        container.cli("start", "").ok();
        container.cli("kill", "").ok();
        assert_eq!(container.cli("wait", "").ok().stdout, "137\n");
        assert_ne!(container.exec("", "true").code, 0);
    });
}

#[test]
fn stop_kills_in_the_end() {
    with_each(|runtime| {
        let container = Container::start(runtime, "--network none", "exec sleep 1000");
        container.cli("stop", "--time 1").ok();
        assert_eq!(container.inspect(".State.ExitCode"), "137");
    });
}

#[test]
fn pods() {
    with_each(|runtime| {
        let pod = unique(runtime);
        let parent = format!("/{}", sandbox().path().file_name().unwrap().to_string_lossy());
        let infra = ["--infra-image", "box", "--infra-command", "sleep 1000"];
        let create = [
            "pod",
            "create",
            "--network",
            "none",
            "--share",
            "net,ipc,uts,pid",
            "--cgroup-parent",
            &parent,
            "--name",
            &pod,
        ];
        let made = cli(runtime, &[&create[..], &infra[..]].concat());
        made.ok();
        let flags = format!("--pod {pod}");
        let first = Container::start(runtime, &flags, "echo shared >/dev/shm/file; exec sleep 1000");
        eventually("the file", || first.exec("", "cat /dev/shm/file").stdout == "shared\n");
        let outcome = run(runtime, &flags, "cat /dev/shm/file; ps | grep -c '[s]leep 1000'; hostname");
        assert_eq!(outcome.ok().stdout, format!("shared\n2\n{pod}\n"));
        drop(first);
        cli(runtime, &["pod", "rm", "--force", "--time", "0", &pod]).ok();
    });
}

#[test]
fn user_namespaces() {
    with_each(|runtime| {
        let flags = "--network none --uidmap 0:100000:65536 --gidmap 0:100000:65536";
        let outcome = run(runtime, flags, "tr -s ' ' </proc/self/uid_map; id -u; stat -c %u /etc/passwd");
        assert_eq!(outcome.ok().stdout, " 0 100000 65536\n0\n0\n");
    });
}

#[test]
fn security_and_mounts() {
    with_each(|runtime| {
        let status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | xargs";
        let flags = "--network none --cap-drop ALL --security-opt no-new-privileges";
        assert_eq!(run(runtime, flags, status).ok().stdout, "0000000000000000 1 2\n");
        let folder = sandbox().path().join(unique(runtime));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("file"), "host\n").unwrap();
        let flags = format!("--network none --read-only --tmpfs /data --volume {}:/mnt:ro,nocopy", folder.display());
        let outcome = run(runtime, &flags, "cat /mnt/file; touch /data/x && echo data; touch /etc/x; touch /mnt/x");
        assert_eq!(outcome.stdout, "host\ndata\n", "{outcome:?}");
        assert_eq!(outcome.stderr.matches("Read-only").count(), 2, "{outcome:?}");
        assert_eq!(
            run(runtime, "--network host --sysctl kernel.msgmax=4321", "cat /proc/sys/kernel/msgmax").ok().stdout,
            "4321\n"
        );
        assert_eq!(
            run(runtime, "--network none --device /dev/zero:/dev/made", "head -c 4 /dev/made | wc -c").ok().stdout,
            "4\n"
        );
    });
}

#[test]
fn namespaces_of_the_host_and_of_others() {
    with_each(|runtime| {
        let first = Container::start(runtime, "--network none --ipc shareable", "exec sleep 1000");
        let flags = format!("--network container:{0} --pid container:{0} --ipc container:{0}", first.1);
        assert!(run(runtime, &flags, "ps").ok().stdout.contains("sleep 1000"));
        assert_eq!(run(runtime, "--network none --pid host", "cat /proc/1/comm").ok().stdout, "tini\n");
        let link = sandbox().sh("readlink /proc/self/ns/uts").stdout;
        assert_eq!(run(runtime, "--network host --uts host", "readlink /proc/self/ns/uts").ok().stdout, link);
    });
}

/// podman hands flags on to its runtime: what wsbox-strict is for Docker.
#[test]
fn all_eight_layers_with_a_profile() {
    let strict = |more: &[&str], script: &str| {
        let mut command = podman("wsbox", &["--runtime-flag", "profile=production", "run"]);
        let parent = format!("/{}", sandbox().path().file_name().unwrap().to_string_lossy());
        command.args(["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", "--cgroup-parent", &parent]);
        outcome(command.args(more).args(["box", "sh", "-c", script]))
    };
    let container = Container("wsbox", unique("strict"));
    strict(&["--detach", "--network", "none", "--name", &container.1], "exec sleep 1000").ok();
    let inspect = format!("{} inspect --format json {}", wsbox_path(), container.inspect(".Id"));
    let said: serde_json::Value = serde_json::from_str(&sandbox().sh(&inspect).ok().stdout).expect("JSON");
    let layers = said["layers"].as_array().expect("layers");
    assert!(layers.len() == 8 && layers.iter().all(|layer| layer["inForce"] == true), "{said}");
    assert_eq!(container.exec("", "id -u; touch /etc/x 2>/dev/null || echo read-only").ok().stdout, "0\nread-only\n");
    container.cli("stop", "--time 0").ok();
    let refused = strict(&["--rm", "--network", "none", "--pid", "host"], "true");
    assert!(refused.code == 126 && refused.stderr.contains("profile production refuses it"), "{refused:?}");
}

/// An annotation asks for it.
#[test]
fn violations_are_counted() {
    let container =
        Container::start("wsbox", "--annotation dev.wsbox.violations=true", "probe syscall 168; sleep 1000");
    let inspect = format!("{} inspect {}", wsbox_path(), container.inspect(".Id"));
    wsbox_integration::engine::until("it is counted", || sandbox().sh(&inspect).stdout.contains("swapoff 1 (probe)"));
}

#[test]
fn the_bridge() {
    with_each(|runtime| {
        let outcome = run(runtime, "", "ls /sys/class/net | xargs; ip -o -4 addr show eth0 | grep -c inet");
        assert_eq!(outcome.ok().stdout, "eth0 lo\n1\n");
    });
}

#[test]
fn nothing_is_left() {
    with_each(|runtime| {
        let container = Container::start(runtime, "--network none", "exec sleep 1000");
        let id = container.inspect(".Id");
        drop(container);
        let traces = format!(
            "find /sys/fs/cgroup {0}/run {0}/tmp /run -name '*{id}*'; grep -h {id} /proc/*/mountinfo 2>/dev/null",
            sandbox().path().display()
        );
        eventually("no trace", || sandbox().sh(&traces).stdout.is_empty());
    });
}
