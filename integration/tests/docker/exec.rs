// SPDX-License-Identifier: Apache-2.0
//! `docker exec`: as whom, where, on a terminal, and that it is inside all that the container is inside.

use wsbox_integration::docker::{both, eventually, with_input};
use wsbox_integration::terminal::Terminal;

#[test]
fn output_and_exit_code() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let outcome = container.exec("", "echo out; echo error >&2; exit 7");
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "error\n"));
        assert_eq!(container.exec("", "sh -c 'kill -9 $$'; exit $?").code, 137);
    });
}

#[test]
fn user_folder_environment() {
    both(|docker| {
        let container = docker.sleeping("--network none --env KEPT=yes --user 1000");
        assert_eq!(container.says("", "id -u; echo $KEPT"), "1000\nyes");
        assert_eq!(container.says("--user 0", "id -u; id -g"), "0\n0");
        assert_eq!(container.says("--user 77:88", "id -u; id -g"), "77\n88");
        assert_eq!(container.says("--workdir /etc --env MORE=1", "pwd; echo $MORE"), "/etc\n1");
    });
}

#[test]
fn missing_and_not_executable() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let exec = |command: &str| docker.cli(&["exec", &container.name, command]);
        let missing = exec("/nope");
        // 126 and not 127, as docker 20.10 looks only for "executable file not found" here.
        assert_eq!(missing.code, 126, "{missing:?}");
        assert!((missing.stdout + &missing.stderr).contains("no such file or directory"));
        assert_eq!(exec("nope").code, 126);
        assert_eq!(exec("/etc/passwd").code, 126);
        assert_eq!(exec("/etc").code, 126);
        let folder = docker.cli(&["exec", "--workdir", "/not/there", &container.name, "true"]);
        assert_eq!(folder.code, 126, "{folder:?}");
        assert_eq!(container.exec("", "true").code, 0, "the container lives on");
    });
}

#[test]
fn detached() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let outcome = container.exec("--detach", "echo was here >/etc/mark; exec sleep 500").ok();
        assert_eq!(outcome.stdout, "");
        eventually("the mark", || container.exec("", "cat /etc/mark").stdout == "was here\n");
        assert!(container.says("", "ps").contains("sleep 500"));
    });
}

#[test]
fn stdin() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let lines = "line\n".repeat(100_000);
        let outcome = with_input(&mut container.exec_command("--interactive", "wc -l"), lines.as_bytes());
        assert_eq!(outcome.ok().stdout.trim(), "100000");
    });
}

#[test]
fn a_terminal() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let mut command = container.exec_command("--interactive --tty", "exec sh");
        let mut terminal = Terminal::open(&mut command);
        terminal
            .types("tty; until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo width $(stty size)\n")
            .sees("/dev/pts/")
            .sees("width 33 99");
        terminal.types("exit 6\n");
        assert_eq!(terminal.ends(), 6);
    });
}

#[test]
fn is_confined_like_the_container() {
    both(|docker| {
        let container = docker.sleeping("--cap-drop ALL --cap-add CHOWN --security-opt no-new-privileges --read-only");
        let status = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";
        let (of_1, of_exec) = (container.says("", &status.replace("self", "1")), container.says("", status));
        assert_eq!(of_1, of_exec);
        assert!(of_exec.contains("CapBnd:0000000000000001") && of_exec.contains("Seccomp:2"), "{of_exec}");
        assert_eq!(container.says("", "cat /proc/1/cgroup"), container.says("", "cat /proc/self/cgroup"));
        for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
            let link = |pid| container.says("", &format!("readlink /proc/{pid}/ns/{namespace}"));
            assert_eq!(link("1"), link("self"));
        }
        assert_ne!(container.exec("", "echo x >/etc/file").code, 0, "the root is read-only");
    });
}

#[test]
fn into_what_does_not_run() {
    both(|docker| {
        let stopped = docker.start("--network none", "exit 0");
        stopped.wait();
        let outcome = stopped.exec("", "true");
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("is not running"), "{outcome:?}");
        let paused = docker.sleeping("--network none");
        paused.cli("pause", "").ok();
        let outcome = paused.exec("", "true");
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("is paused"), "{outcome:?}");
        paused.cli("unpause", "").ok();
        paused.exec("", "true").ok();
    });
}

#[test]
fn many_at_once() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        std::thread::scope(|scope| {
            let execs: Vec<_> = (0..10)
                .map(|number| {
                    let container = &container;
                    (number, scope.spawn(move || container.exec("", &format!("echo {number}; exit {number}"))))
                })
                .collect();
            for (number, exec) in execs {
                let outcome = exec.join().unwrap();
                assert_eq!((outcome.code, outcome.stdout), (number, format!("{number}\n")));
            }
        });
    });
}

#[test]
fn ends_with_the_container() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        let outcome = std::thread::scope(|scope| {
            let exec = scope.spawn(|| container.exec("", "echo up >/etc/up; exec sleep 1000"));
            eventually("the exec", || container.exec("", "cat /etc/up").stdout == "up\n");
            container.cli("kill", "").ok();
            exec.join().unwrap()
        });
        assert_eq!(outcome.code, 137, "{outcome:?}");
    });
}
