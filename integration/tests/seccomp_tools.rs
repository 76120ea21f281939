// SPDX-License-Identifier: Apache-2.0
//! From a blocked call to a profile that fits: `wsbox seccomp` as a user types it, on real runs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until};
use wsbox_integration::{Bundle, Door, Engine, Outcome, TempDir};

fn needs(script: &str) -> Bundle {
    let bundle = Bundle::hardened().script(script);
    bundle.write();
    bundle
}

/// The profile that deployment/docker/README.md makes for programs that talk over 127.0.0.1: these families and no other.
#[test]
fn a_profile_with_sockets_of_lo() {
    let (repository, dir) = (concat!(env!("CARGO_MANIFEST_DIR"), "/.."), TempDir::new("seccomp"));
    let page = fs::read_to_string(format!("{repository}/deployment/docker/README.md")).unwrap();
    let lines =
        page.lines().skip_while(|line| !line.contains("mkdir -p /etc/wsbox")).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = lines.map(|line| line.trim_start()).collect();
    let script = commands.join("\n").replace("/etc/wsbox", &dir.path().display().to_string());
    finish(Command::new("sh").args(["-ec", &script]).current_dir(repository).spawn().unwrap()).ok();
    assert!(fs::read_to_string(dir.path().join("wsbox.env")).unwrap().ends_with("/seccomp.json\n"));
    let profile: Value = serde_json::from_slice(&fs::read(dir.path().join("seccomp.json")).unwrap()).unwrap();
    let said = |bundle: Bundle| {
        let bundle = bundle
            .script(
                "for family in 1 2 10 16 17 40; do probe syscall 41 $family 1 0; done; probe syscall 41 2 1 132; probe syscall 41 2 1 262
                wget http://127.0.0.1:1/",
            );
        let Outcome { stdout, stderr, .. } = Engine::new().run(&bundle, Door::Userns);
        (stdout.lines().map(|line| !line.ends_with("EPERM")).collect::<Vec<_>>(), stderr)
    };
    let (allowed, wget) = said(Bundle::hardened());
    assert_eq!(allowed, [true, false, false, false, false, false, false, false]);
    assert!(wget.contains("socket: Operation not permitted"), "{wget}");
    let (allowed, wget) = said(Bundle::hardened().set("/linux/seccomp", profile));
    assert_eq!(allowed, [true, true, true, false, false, false, false, false], "neither SCTP nor MPTCP");
    assert!(wget.contains("Connection refused"), "{wget}");
}

/// The commands of deployment/seccomp/EPERM.md, as the page has them.
#[test]
fn three_commands() {
    let engine = Engine::new();
    let bundle = needs("unshare true; hostname other");
    let (path, summary) = (bundle.path().display().to_string(), TempDir::new("seccomp"));
    let file = summary.path().join("ran.json").display().to_string();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deployment/seccomp/EPERM.md")).unwrap();
    let commands: Vec<String> = page
        .lines()
        .filter_map(|line| line.trim().strip_prefix("wsbox "))
        .map(|line| line.replace("./box", &path).replace("ran.json", &file))
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let type_in = |at: usize| engine.wsbox(&commands[at].split(' ').collect::<Vec<_>>());
    type_in(0);
    let ran: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let blocked: Vec<_> = ran["violations"]["blocked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|blocked| blocked["syscall"].as_str().unwrap())
        .collect();
    assert!(blocked.contains(&"unshare") && blocked.contains(&"sethostname"), "{blocked:?}");
    let explained = type_in(1).ok().stdout;
    assert!(explained.contains("fails with EPERM"), "{explained}");
    type_in(2).ok();
    assert!(type_in(1).ok().stdout.contains("allowed"));
}

/// A summary takes the place of a file when there is one; what is no file stays what it is.
#[test]
fn a_summary_harms_no_file() {
    let (engine, folder) = (Engine::new(), TempDir::new("summary"));
    let (_sleeping, id) = engine.sleeping(Bundle::hardened());
    let bundle = needs("true");
    let (bundle, place) = (bundle.path().display().to_string(), |name: &str| folder.path().join(name));
    let run = |name: &str, id: &str| {
        engine.wsbox(&["run", "--summary", &place(name).display().to_string(), "--bundle", &bundle, id])
    };
    fs::write(place("file"), "before").unwrap();
    run("file", &id).fails(1, &["already exists"]);
    assert_eq!(fs::read_to_string(place("file")).unwrap(), "before");
    run("file", "other").ok();
    assert!(fs::read_to_string(place("file")).unwrap().contains("\"id\": \"other\""));
    std::os::unix::fs::symlink("file", place("link")).unwrap();
    run("link", "other").fails(1, &["--summary", "is a link to a file"]);
    nix::sys::stat::mknod(
        &place("null"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::S_IRWXU,
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    run("null", &id).fails(1, &["already exists"]);
    run("null", "other").ok();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&fs::metadata(place("null")).unwrap().file_type()));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

/// What is not allowed with all arguments is so for a reason, and what has no name can not be learned: neither keeps the rest from it.
#[test]
fn what_is_not_learned() {
    let engine = Engine::new();
    let bundle = needs("probe syscall 400; probe clone-newuser; probe socket 38; true");
    let path = bundle.path().display().to_string();
    let told = engine.wsbox(&["seccomp", "record", "--dry-run", "--", "wsbox", "run", &path]).ok().stdout;
    assert!(told.contains("syscall 400: blocked, and not learned: it has no name"), "{told}");
    for call in ["clone", "socket"] {
        assert!(
            told.contains(&format!("{call}: blocked, and not learned: it has arguments that the profile")),
            "{told}"
        );
    }
    let widen = engine.wsbox(&["seccomp", "allow", &path, "socket", "--dry-run"]);
    widen.fails(1, &["socket", "should not be allowed", "arguments that the profile means to deny", "--force"]);
    let told = engine.wsbox(&["seccomp", "allow", &path, "socket", "--dry-run", "--force"]).ok().stdout;
    assert!(told.starts_with("socket with arguments such as"), "{told}");
}

#[test]
fn a_run_is_recorded() {
    let engine = Engine::new();
    let bundle = needs("unshare true 2>/dev/null; hostname other; chroot / true");
    let path = bundle.path().display().to_string();
    let before = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    let dry = engine.wsbox(&["seccomp", "record", "--dry-run", "--", "wsbox", "run", "--bundle", &path, "web"]).ok();
    assert!(dry.stdout.contains("sethostname: fails with EPERM -> allowed\n"), "{dry:?}");
    for dangerous in ["unshare", "chroot"] {
        assert!(
            dry.stdout.contains(&format!("{dangerous}: blocked, and not learned: it changes the sandbox's own walls")),
            "{dry:?}"
        );
    }
    assert_eq!(fs::read_to_string(bundle.path().join("config.json")).unwrap(), before);

    let folder = TempDir::new("seccomp");
    let learned = folder.path().join("learned.json").display().to_string();
    engine.wsbox(&["seccomp", "record", "--output", &learned, "--", "wsbox", "run", &path]).ok();
    assert_eq!(fs::read_to_string(bundle.path().join("config.json")).unwrap(), before);
    let diff = engine.wsbox(&["seccomp", "diff", &path, &learned]);
    assert_eq!((diff.code, diff.stdout.as_str()), (1, "sethostname: fails with EPERM -> allowed\n"));

    engine.wsbox(&["seccomp", "record", "--", "wsbox", "run", &path]).ok();
    let after = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    assert!(after.len() > before.len() && after.len() < before.len() + 100, "one rule more, and the rest as it was");
    engine.wsbox(&["seccomp", "diff", &path, &learned]).ok();
    let again = engine.wsbox(&["seccomp", "record", "--", "wsbox", "run", &path]).ok();
    assert!(again.stdout.contains("nothing was learned"), "{again:?}");
    assert_eq!(fs::read_to_string(bundle.path().join("config.json")).unwrap(), after);

    engine.wsbox(&["seccomp", "record", "--", "ls"]).fails(1, &["what is recorded is `wsbox run`"]);
    engine.wsbox(&["seccomp", "record", "--", "wsbox", "run", "web"]).fails(1, &["none of the arguments is a bundle"]);
}

/// Ctrl-C, and a signal to the command alone: no container, no folder, and the bundle is as it was.
#[test]
fn a_signal_ends_a_recording() {
    for (group, signal) in [(-1, Signal::SIGINT), (1, Signal::SIGTERM)] {
        let (engine, folder) = (Engine::new(), TempDir::new("seccomp"));
        let bundle = needs("hostname other 2>/dev/null; sleep 1000");
        let path = bundle.path().display().to_string();
        let before = fs::read_to_string(bundle.path().join("config.json")).unwrap();
        let mut command = engine.command(&["seccomp", "record", "--", "wsbox", "run", &path]);
        command.env("TMPDIR", folder.path()).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let list = || engine.wsbox(&["list"]).ok().stdout;
        until("it runs", || list().contains("running"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        kill(Pid::from_raw(group * child.id() as i32), signal).unwrap();
        finish(child).fails(1, &["record: interrupted; the bundle is as it was"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(engine.wsbox(&["list", "--quiet"]).ok().stdout, "");
        assert_eq!(fs::read_to_string(bundle.path().join("config.json")).unwrap(), before);
    }
}

#[test]
fn profiles_beside_each_other() {
    let engine = Engine::new();
    engine.wsbox(&["seccomp", "diff", "workspace", "workspace"]).ok();
    let diff = engine.wsbox(&["seccomp", "diff", "workspace", "docker-default"]);
    assert_eq!(diff.code, 1);
    assert!(
        diff.stdout.contains("socket with arguments such as ")
            && diff.stdout.contains("shmget: fails with EPERM -> allowed\n"),
        "{diff:?}"
    );
    let json = engine.wsbox(&["seccomp", "diff", "workspace", "docker-default", "--format", "json"]);
    let changes: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    assert!(
        changes
            .iter()
            .any(|change| change["syscall"] == "ptrace" && change["danger"] == "reaches into other processes"),
        "{json:?}"
    );
    for profile in ["workspace", "docker-default"] {
        assert!(engine.wsbox(&["seccomp", "test", profile]).ok().stdout.contains("does what the profile says"));
    }
    engine.wsbox(&["seccomp", "diff", "workspace", "/nowhere"]).fails(1, &["/nowhere", "no such file"]);
}

/// Docker's own extended file becomes what Docker itself makes of it for a container without added capabilities.
#[test]
fn dockers_format() {
    let engine = Engine::new();
    let folder = TempDir::new("seccomp");
    let (file, oci) =
        (folder.path().join("docker.json").display().to_string(), folder.path().join("oci.json").display().to_string());
    let docker = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [
            {"names": ["read", "write", "exit_group", "execve"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}}
        ]
    });
    fs::write(&file, docker.to_string()).unwrap();
    engine.wsbox(&["seccomp", "convert", &file, "--output", &oci]).ok();
    for (call, words) in [("read", "allowed"), ("mount", "fails with EPERM"), ("ptrace", "fails with EPERM")] {
        let explained = engine.wsbox(&["seccomp", "explain", &oci, call]).ok().stdout;
        assert!(explained.lines().next().unwrap().contains(words), "{call}: {explained}");
    }
    let admin = engine.wsbox(&["seccomp", "convert", &file, "--cap", "sys_admin", "--kernel", "99.1"]).ok().stdout;
    assert!(admin.contains("mount") && admin.contains("ptrace"), "{admin}");
    fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscals": []}"#).unwrap();
    engine.wsbox(&["seccomp", "convert", &file]).fails(1, &["docker.json", "unknown field `syscals`"]);
}
