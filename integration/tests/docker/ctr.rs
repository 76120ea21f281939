// SPDX-License-Identifier: Apache-2.0
//! `ctr run --runc-binary` against the containerd of the test's dockerd.

use std::process::Command;

use wsbox_integration::docker::{Daemon, with_each};
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::sandbox::outcome;
use wsbox_integration::terminal::Terminal;
use wsbox_integration::{Outcome, unique};

fn ctr(args: &[&str]) -> Command {
    let daemon = Daemon::plain();
    let mut command = daemon.sandbox().command("ctr");
    command.arg("--address").arg(daemon.path().join("exec/containerd/containerd.sock"));
    // The namespace is where the cgroups are, too.
    command.arg("--namespace").arg(daemon.path().file_name().expect("a name")).args(args);
    command
}

fn run(args: &[&str]) -> Outcome {
    outcome(&mut ctr(args))
}

/// `ctr run FLAGS` of a shell script on the folder that the image was made from.
fn start(runtime: &str, flags: &[&str], id: &str, script: &str) -> Outcome {
    let path = if runtime == "wsbox" { wsbox_path() } else { "/usr/sbin/runc".to_owned() };
    let root = Daemon::plain().path().join("image").display().to_string();
    let mut args = vec!["run", "--runc-binary", &path, "--env", "PATH=/bin", "--rootfs"];
    args.extend(flags);
    args.extend([&root, id, "sh", "-c", script]);
    run(&args)
}

#[test]
fn run_and_exit_code() {
    with_each(|runtime| {
        let outcome = start(runtime, &["--rm"], &unique(runtime), "echo out; sleep 0.3; exit 7");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (7, "out\n"), "{outcome:?}");
        assert_eq!(
            start(runtime, &["--rm", "--env", "ONE=1", "--cwd", "/etc"], &unique(runtime), "pwd; echo $ONE").stdout,
            "/etc\n1\n"
        );
    });
}

#[test]
fn tasks() {
    with_each(|runtime| {
        let id = unique(runtime);
        start(runtime, &["--detach", "--memory-limit", "67108864"], &id, "exec sleep 1000").ok();
        assert!(run(&["tasks", "ls"]).ok().stdout.lines().any(|line| line.contains(&id) && line.contains("RUNNING")));
        let exec = run(&["tasks", "exec", "--exec-id", "e1", &id, "sh", "-c", "echo inside; exit 5"]);
        assert_eq!((exec.code, exec.stdout.as_str()), (5, "inside\n"), "{exec:?}");
        assert!(run(&["tasks", "metrics", &id]).ok().stdout.contains("67108864"));
        assert!(run(&["tasks", "ps", &id]).ok().stdout.lines().count() >= 2);
        run(&["tasks", "pause", &id]).ok();
        assert!(run(&["tasks", "ls"]).ok().stdout.lines().any(|line| line.contains(&id) && line.contains("PAUSED")));
        run(&["tasks", "resume", &id]).ok();
        run(&["tasks", "kill", "--signal", "SIGKILL", &id]).ok();
        wsbox_integration::docker::eventually("its end", || {
            run(&["tasks", "ls"]).stdout.lines().any(|line| line.contains(&id) && line.contains("STOPPED"))
        });
        run(&["tasks", "rm", &id]);
        run(&["containers", "rm", &id]).ok();
    });
}

#[test]
fn a_terminal() {
    with_each(|runtime| {
        let path = if runtime == "wsbox" { wsbox_path() } else { "/usr/sbin/runc".to_owned() };
        let root = Daemon::plain().path().join("image").display().to_string();
        let id = unique(runtime);
        let mut command =
            ctr(&["run", "--rm", "--tty", "--runc-binary", &path, "--env", "PATH=/bin", "--rootfs", &root, &id, "sh"]);
        let mut terminal = Terminal::open(&mut command);
        terminal.sees("# ").types("tty; echo done$((40 + 2))\n").sees("/dev/pts/0").sees("done42").types("exit 5\n");
        assert_eq!(terminal.ends(), 5);
    });
}

#[test]
fn missing_command() {
    with_each(|runtime| {
        let path = if runtime == "wsbox" { wsbox_path() } else { "/usr/sbin/runc".to_owned() };
        let root = Daemon::plain().path().join("image").display().to_string();
        let outcome = run(&["run", "--rm", "--runc-binary", &path, "--rootfs", &root, &unique(runtime), "/nope"]);
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains("no such file or directory"), "{outcome:?}");
    });
}
