// SPDX-License-Identifier: Apache-2.0
//! What goes wrong: docker's exit codes, the words that it matches, and that nothing half-made is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use wsbox_integration::docker::{Docker, both, eventually};
use wsbox_integration::unique;

/// The exit code and the words of a run that fails; afterwards there is no trace of the container.
fn fails(docker: Docker, flags: &str, argv: &[&str]) -> (i32, String) {
    let name = unique(docker.runtime);
    let outcome = docker.argv(&format!("--name {name} {flags}"), argv);
    assert_eq!(
        docker.cli(&["ps", "-aq", "--filter", &format!("name={name}")]).ok().stdout,
        "",
        "the container is left"
    );
    (outcome.code, outcome.stderr)
}

#[test]
fn missing_is_127() {
    both(|docker| {
        for command in ["/nope", "nope", "./nope"] {
            let (code, words) = fails(docker, "", &[command]);
            assert_eq!(code, 127, "{command}: {words}");
        }
        let (_, words) = fails(docker, "", &["/nope"]);
        assert!(words.contains("no such file or directory"), "{words}");
        let (_, words) = fails(docker, "", &["nope"]);
        assert!(words.contains("executable file not found in $PATH"), "{words}");
    });
}

#[test]
fn not_executable_is_126() {
    both(|docker| {
        for command in ["/etc/passwd", "/etc", "/"] {
            let (code, words) = fails(docker, "", &[command]);
            assert_eq!(code, 126, "{command}: {words}");
            assert!(words.contains("permission denied"), "{words}");
        }
    });
}

#[test]
fn other_kinds_of_programs() {
    both(|docker| {
        let folder = docker.folder();
        let put = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        put("garbage", "garbage");
        put("orphan", "#!/not/there\n");
        put("script", "#!/bin/sh\nexit 33\n");
        let flags = format!("--volume {}:/x", folder.display());
        assert_eq!(docker.argv(&flags, &["/x/script"]).code, 33);
        // It has started, and ends: in its own log it says why.
        let container = docker.sleeping(&flags);
        for (program, why) in [("/x/garbage", "exec format error"), ("/x/orphan", "no such file or directory")] {
            for outcome in [docker.argv(&flags, &[program]), docker.cli(&["exec", &container.name, program])] {
                assert_eq!((outcome.code, outcome.stderr), (1, format!("exec {program}: {why}\n")));
            }
        }
    });
}

#[test]
fn a_program_without_a_name() {
    both(|docker| {
        let (code, words) = fails(docker, "", &[""]);
        assert!(code == 127 && words.contains("exec: \"\": executable file not found in $PATH"), "{code} {words}");
    });
}

#[test]
fn all_else_is_125() {
    both(|docker| {
        let folder = docker.folder();
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        let over_folder = format!("--volume {}:/etc", file.display());
        let onto_proc = format!("--volume {}:/proc", folder.display());
        let into_proc = format!("--volume {}:/proc/self/attr", folder.display());
        for flags in [
            "--nonsense",
            "--user nobody-here",
            "--workdir /etc/passwd",
            "--cap-add NONSENSE",
            "--oom-score-adj 5000",
            "--cpuset-cpus 999",
            "--memory 1k",
            "--runtime nonsense",
            "--ulimit nofile=99999999999",
            "--security-opt seccomp=/not/there",
            "--pid container:nonsense",
            &onto_proc,
            &into_proc,
        ] {
            let (code, words) = fails(docker, flags, &["true"]);
            assert_eq!(code, 125, "{flags}: {words}");
        }
        // What docker adds where it finds "not a directory".
        let onto_file = format!("--volume {}:/etc/passwd", folder.display());
        for flags in [over_folder, onto_file] {
            let (code, words) = fails(docker, &flags, &["true"]);
            assert!(
                code == 125 && words.contains("Are you trying to mount a directory onto a file"),
                "{flags}: {words}"
            );
        }
    });
}

#[test]
fn a_failed_start_can_be_removed_and_tried_again() {
    both(|docker| {
        let name = unique(docker.runtime);
        let mut command = docker.command("create", &format!("--name {name} --volume /needed"), &["/needed/program"]);
        wsbox_integration::sandbox::outcome(&mut command).ok();
        let first = docker.cli(&["start", &name]);
        assert!(first.code != 0 && first.stderr.contains("no such file or directory"), "{first:?}");
        let path = docker.folder().join("program");
        fs::write(&path, "#!/bin/sh\necho now it is\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        docker.cli(&["cp", &path.display().to_string(), &format!("{name}:/needed/program")]).ok();
        assert_eq!(docker.cli(&["start", "--attach", &name]).ok().stdout, "now it is\n");
        docker.cli(&["rm", "--volumes", &name]).ok();
    });
}

#[test]
fn errors_leave_no_cgroup_and_no_process() {
    both(|docker| {
        let name = unique(docker.runtime);
        let mut command = docker.command("create", &format!("--name {name} --network none"), &["/nope"]);
        let id = wsbox_integration::sandbox::outcome(&mut command).ok().stdout.trim().to_owned();
        assert_eq!(docker.cli(&["start", &name]).code, 1);
        let sandbox = docker.daemon.sandbox();
        let exec_root = docker.daemon.path().join("exec").display().to_string();
        let traces = format!("find /sys/fs/cgroup {exec_root} -name {id}; grep -h {id} /proc/*/mountinfo 2>/dev/null");
        eventually("no trace", || sandbox.sh(&traces).stdout.is_empty());
        docker.cli(&["rm", &name]).ok();
    });
}

#[test]
fn twice() {
    both(|docker| {
        let container = docker.sleeping("--network none");
        container.cli("start", "").ok();
        assert_eq!(container.inspect(".State.Status"), "running");
        let again = docker.run(&format!("--name {}", container.name), "true");
        assert_eq!(again.code, 125, "{again:?}");
        let outcome = container.cli("rm", "");
        assert!(outcome.code == 1 && outcome.stderr.contains("running container"), "{outcome:?}");
        container.cli("pause", "").ok();
        assert!(container.cli("pause", "").stderr.contains("already paused"));
        container.cli("unpause", "").ok();
        assert!(container.cli("unpause", "").stderr.contains("not paused"));
        container.cli("kill", "").ok();
        container.wait();
        container.cli("stop", "").ok();
        container.cli("start", "").ok();
        assert_eq!(container.inspect(".State.Status"), "running");
    });
}

#[test]
fn updates_with_nonsense() {
    both(|docker| {
        let container = docker.sleeping("--network none --memory 64m");
        container.exec("", "head -c 20000000 /dev/zero >/dev/shm/file").ok();
        for flags in ["--memory 1k", "--cpuset-cpus 999", "--memory 128m --memory-swap 64m"] {
            assert_ne!(container.cli("update", flags).code, 0, "{flags}");
        }
        assert_eq!(container.says("", "echo still here"), "still here");
        assert_eq!(container.inspect(".HostConfig.Memory"), "67108864");
    });
}
