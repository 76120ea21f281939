// SPDX-License-Identifier: Apache-2.0
//! runc's other commands and flags, each by what it does.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, receive_file, until, wsbox_path};
use wsbox_integration::{Bundle, Engine, TempDir, leftover, unique};

fn exec(engine: &Engine, flags: &[&str], id: &str, command: &[&str]) -> String {
    engine.wsbox(&[&["exec"], flags, &[id], command].concat()).ok().stdout
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn exec_gives_groups_and_capabilities() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::plain());
    assert_eq!(exec(&engine, &["-g", "7", "--additional-gids", "9", "-u", "5:6"], &id, &["id", "-G"]), "6 7 9\n");
    let capabilities = |flags: &[&str]| {
        let status = exec(&engine, flags, &id, &["cat", "/proc/self/status"]);
        let line = |name: &str| {
            status.lines().find(|line| line.starts_with(name)).unwrap().split_once('\t').unwrap().1.to_owned()
        };
        (line("CapEff"), line("CapBnd"), line("CapInh"), line("NoNewPrivs"))
    };
    let (own, more) = (capabilities(&[]), capabilities(&["--cap", "CAP_SYS_TIME", "-c", "net_raw"]));
    let added = u64::from_str_radix(&more.0, 16).unwrap() & !u64::from_str_radix(&own.0, 16).unwrap();
    assert_eq!(added, 1 << 25 | 1 << 13, "CAP_SYS_TIME and CAP_NET_RAW: {own:?} {more:?}");
    assert_eq!((more.0.as_str(), more.2.as_str()), (more.1.as_str(), "0000000000000000"));
    engine.wsbox(&["exec", "--cap", "CAP_NOPE", &id, "true"]).fails(255, &["--cap", "CAP_NOPE"]);
}

/// What a user other than root has by its config stays beside what is added.
#[test]
fn exec_keeps_ambient_capabilities() {
    let engine = Engine::new();
    let bundle = ["bounding", "permitted", "effective", "inheritable", "ambient"]
        .iter()
        .fold(Bundle::plain(), |bundle, set| bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_KILL"])));
    let (_bundle, id) = engine.sleeping(bundle);
    let ambient = ["--cap", "CAP_NET_RAW", "-u", "1000"];
    let said = exec(&engine, &ambient, &id, &["grep", "-E", "^Cap(Inh|Amb|Eff)", "/proc/self/status"]);
    assert_eq!(said.matches("0000000000000020").count(), 3, "{said}");
}

#[test]
fn exec_sets_no_new_privs() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::plain().set("/process/noNewPrivileges", json!(false)));
    let line = |flags: &[&str]| exec(&engine, flags, &id, &["grep", "NoNewPrivs", "/proc/self/status"]);
    assert_eq!((line(&[]), line(&["--no-new-privs"])), ("NoNewPrivs:\t0\n".into(), "NoNewPrivs:\t1\n".into()));
}

/// Neither is in this kernel, or not in this version: both are refused by the field of the process, before it runs.
#[test]
fn exec_refuses_labels_that_nobody_enforces() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    for (flag, field) in [("--apparmor", "process.apparmorProfile"), ("--process-label", "process.selinuxLabel")] {
        let outcome = engine.wsbox(&["exec", flag, "nosuchprofile", &id, "echo", "RAN"]).fails(255, &[field]);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn exec_joins_a_cgroup_below() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let all: Vec<PathBuf> = leftover::cgroups(&id);
    assert!(all.len() > 1, "{all:?}");
    all.iter().for_each(|dir| fs::create_dir(dir.join("sub")).unwrap());
    // As its cgroup namespace shows it: below the container's.
    let seen = exec(&engine, &["--cgroup", "sub"], &id, &["cat", "/proc/self/cgroup"]);
    assert_eq!(seen.lines().filter(|line| line.ends_with(":/sub")).count(), all.len(), "{seen}");
    let pids = exec(&engine, &["--cgroup", "pids:/sub"], &id, &["cat", "/proc/self/cgroup"]);
    assert!(pids.lines().filter(|line| line.ends_with(":/sub")).all(|line| line.contains(":pids:")), "{pids}");
    assert_eq!(pids.lines().filter(|line| line.ends_with(":/sub")).count(), 1, "{pids}");
    assert!(!exec(&engine, &["--cgroup", "/"], &id, &["cat", "/proc/self/cgroup"]).contains("sub"));
    for (cgroup, words) in [
        ("nope", "no such file or directory"),
        ("../x", "leads out"),
        ("sub/../..", "leads out"),
        ("pids:../..", "leads out"),
        ("pids:nope", "no such file or directory"),
        ("nosuch:sub", "nosuch"),
    ] {
        engine.wsbox(&["exec", "--cgroup", cgroup, &id, "true"]).fails(255, &["--cgroup", words]);
    }
    engine.wsbox(&["delete", "--force", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn a_pidfd_goes_over_its_socket() {
    let (engine, id, dir) = (Engine::new(), unique("pidfd"), TempDir::new("pidfd"));
    let (socket, pid_file) = (text(&dir.path().join("socket")), text(&dir.path().join("pid")));
    let listener = UnixListener::bind(&socket).unwrap();
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    let received = || {
        let pidfd = receive_file(&listener.accept().unwrap().0);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:\t")).unwrap().to_owned();
        assert_eq!(pid, fs::read_to_string(&pid_file).unwrap());
    };
    let flags = ["--pidfd-socket", &socket, "--pid-file", &pid_file];
    engine.wsbox(&[&["create", "--bundle", &text(bundle.path())], &flags[..], &[&id]].concat()).ok();
    received();
    engine.wsbox(&["start", &id]).ok();
    engine.wsbox(&[&["exec", "--detach"], &flags[..], &[&id, "sleep", "1000"]].concat()).ok();
    received();
    engine.wsbox(&["exec", "--pidfd-socket", "/no/such", &id, "true"]).fails(255, &["--pidfd-socket /no/such"]);
}

#[test]
fn exec_has_a_terminal() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let root = text(engine.root());
    let line = [wsbox_path().as_str(), "--root", &root, "exec", "-t", &id, "tty"].join(" ");
    let said = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("/dev/pts/"), "{said:?}");
    engine.wsbox(&["exec", "--detach", "--tty", &id, "tty"]).fails(255, &["--console-socket"]);
    engine.wsbox(&["exec", "--console-socket", "/no/such", &id, "tty"]).fails(255, &["process.terminal"]);
    let socket = text(&engine.root().join("console.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    engine.wsbox(&["exec", "--detach", "--tty", "--console-socket", &socket, &id, "sh", "-c", "tty; sleep 1000"]).ok();
    let mut master = receive_file(&listener.accept().unwrap().0);
    let mut bytes = [0u8; 64];
    let count = master.read(&mut bytes).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..count]).starts_with("/dev/pts/"), "{bytes:?}");
}

/// The payload's user has the pipes of its stdio, though its ids are wsbox's own choice; one with a name stays whose it is.
#[test]
fn stdio_can_be_opened_by_its_name() {
    let (engine, dir) = (Engine::new(), TempDir::new("fifo"));
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let named = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    for uid in [0, 1000] {
        let script = "echo out >/dev/stdout; echo error >/dev/stderr";
        let bundle = Bundle::hardened().set("/process/user", json!({"uid": uid, "gid": uid})).script(script);
        bundle.write();
        let mut run = engine.command(&["run", &text(bundle.path())]);
        let said = finish(run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).ok();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "error\n"), "{uid}");
        assert!(run.stdout(named.try_clone().unwrap()).stderr(Stdio::null()).status().is_ok());
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&fifo).unwrap()), 0, "{uid}");
    }
}

/// By its name under /proc a payload with its owner's rights could open it again, for writing. It is read from where the caller was.
#[test]
fn a_file_on_stdin_is_not_written_to() {
    let engine = Engine::new();
    let bundle = Bundle::plain().script("cat; echo pwned >/proc/self/fd/0");
    bundle.write();
    let (_bundle, id) = engine.sleeping(Bundle::plain());
    let file = bundle.path().join("input");
    let run = ["run", "--bundle", &text(bundle.path()), &unique("stdin")].map(str::to_owned).to_vec();
    let exec = ["exec", &id, "sh", "-c", "cat; echo pwned >/proc/self/fd/0"].map(str::to_owned).to_vec();
    for args in [run, exec] {
        fs::write(&file, "one\ntwo\n").unwrap();
        let mut input = fs::File::open(&file).unwrap();
        input.read_exact(&mut [0; 4]).unwrap();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut shared = input.try_clone().unwrap();
        let output = engine.command(&args).stdin(input).output().unwrap();
        assert_eq!(std::io::Seek::stream_position(&mut shared).unwrap(), 8, "what comes after reads on from there");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "two\n", "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"), "{output:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    }
}

#[test]
fn exec_waits_in_a_paused_container_if_told() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine.wsbox(&["pause", &id]).ok();
    let mut child = engine
        .command(&["exec", "--ignore-paused", &id, "echo", "went on"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    engine.wsbox(&["resume", &id]).ok();
    assert_eq!(finish(child).ok().stdout, "went on\n");
}

#[test]
fn kill_takes_real_time_signals() {
    for (signal, code) in [("RTMIN+3", "37"), ("SIGRTMAX-1", "63"), ("40", "40")] {
        let (engine, id) = (Engine::new(), unique("kill"));
        let bundle =
            Bundle::hardened().script(&format!("trap 'exit 9' {code}; touch /tmp/set; while :; do usleep 20000; done"));
        bundle.write();
        engine.wsbox(&["create", "--bundle", &text(bundle.path()), &id]).ok();
        engine.wsbox(&["start", &id]).ok();
        until("the trap", || engine.wsbox(&["exec", &id, "test", "-e", "/tmp/set"]).code == 0);
        engine.wsbox(&["kill", &id, signal]).ok();
        until("the end", || engine.state(&id)["status"] == "stopped");
    }
}

#[test]
fn kill_all_reaches_every_process() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    engine
        .wsbox(&["exec", "--detach", &id, "sh", "-c", "trap '' TERM; (trap - TERM; exec sleep 1022) & exec sleep 1023"])
        .ok();
    let count = || engine.wsbox(&["ps", &id]).ok().stdout.matches("sleep 102").count();
    until("all run", || count() == 2);
    // Flags may stand behind the id.
    engine.wsbox(&["kill", &id, "--all", "TERM"]).ok();
    until("one is left", || count() == 1);
    assert!(engine.wsbox(&["ps", &id]).ok().stdout.contains("sleep 1023"));
    engine.wsbox(&["kill", "--all", &id, "9"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    // As in runc: there is nobody left to complain.
    engine.wsbox(&["kill", "--all", &id, "9"]).ok();
}

#[test]
fn ps_takes_options_of_ps() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let pid = engine.state(&id)["pid"].to_string();
    assert!(engine.wsbox(&["ps", &id]).ok().stdout.starts_with("UID "));
    for (options, head) in
        [(&["aux"][..], "USER"), (&["-o", "pid,comm"], "PID"), (&["-e", "-o", "comm,pid"], "COMMAND")]
    {
        let said = engine.wsbox(&[&["ps", &id], options].concat()).ok().stdout;
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].trim_start().starts_with(head), "{said}");
        // `-o` alone is of the caller's terminal, where the container's processes are not.
        let others = lines[1..].iter().filter(|line| !line.split_whitespace().any(|word| word == pid)).count();
        assert_eq!(others, 0, "{said}");
    }
    assert!(engine.wsbox(&["ps", &id, "aux"]).ok().stdout.contains("sleep 1000"));
    engine.wsbox(&["ps", &id, "-eo", "comm"]).fails(1, &["PID"]);
    let pids: Value = serde_json::from_str(&engine.wsbox(&["ps", "-f", "json", &id]).ok().stdout).unwrap();
    assert_eq!(pids, json!([pid.parse::<i32>().unwrap()]));
}

#[test]
fn list_tells_the_owner() {
    let engine = Engine::new();
    assert_eq!(engine.wsbox(&["list", "-f", "json"]).ok().stdout.trim(), "[]");
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    let list: Value = serde_json::from_str(&engine.wsbox(&["list", "-f", "json"]).ok().stdout).unwrap();
    assert_eq!((&list[0]["owner"], &list[0]["bundle"]), (&json!("root"), &json!(bundle.path())));
    assert_eq!(engine.wsbox(&["list", "-q"]).ok().stdout, format!("{id}\n"));
    let table = engine.wsbox(&["list"]).ok().stdout;
    assert!(table.lines().nth(1).unwrap().ends_with("root"), "{table}");
    assert_eq!(engine.wsbox(&["list", "-f", "yaml"]).code, 1);
}

#[test]
fn spec_rootless_maps_the_callers_own_ids() {
    let dir = TempDir::new("rootless");
    let wsbox = text(&dir.path().join("wsbox"));
    fs::copy(wsbox_path(), &wsbox).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65533)).unwrap();
    let mut user = Command::new("setpriv");
    user.args(["--reuid", "65534", "--regid", "65533", "--clear-groups", &wsbox, "spec", "--rootless", "--bundle"])
        .arg(dir.path());
    assert!(user.status().unwrap().success());
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 65534, "size": 1}]));
    assert_eq!(config["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 65533, "size": 1}]));
    let limits = !wsbox_integration::cgroup::on_v1();
    assert!(config["linux"]["resources"].is_null() != limits && !config.to_string().contains("gid=5"), "{config}");
    // And it runs, by whoever may make a cgroup, in a root that is the caller's.
    let mut bundle = Bundle::hardened();
    bundle.config = config;
    let bundle = bundle.script("id -u; cat /proc/self/uid_map");
    std::os::unix::fs::chown(bundle.root(), Some(65534), Some(65533)).unwrap();
    bundle.write();
    let said = Engine::new().wsbox(&["run", &text(bundle.path())]).ok().stdout;
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "0", "65534", "1"]);
}

#[test]
fn checkpoint_and_restore_say_what_is_missing() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::plain());
    let flags = [
        "--image-path",
        "/tmp/images",
        "--work-path",
        "/tmp/work",
        "--tcp-established",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--manage-cgroups-mode",
        "soft",
        "--empty-ns",
        "network",
        "--auto-dedup",
        "--lazy-pages",
    ];
    let checkpoint = [
        &["checkpoint"],
        &flags[..],
        &["--parent-path", "p", "--leave-running", "--status-fd", "-1", "--page-server", "127.0.0.1:1", "--pre-dump"],
    ]
    .concat();
    let path = text(bundle.path());
    let restore = [
        &["restore"],
        &flags[..],
        &[
            "--bundle",
            &path,
            "--detach",
            "--pid-file",
            "p",
            "-no-subreaper",
            "--no-pivot",
            "--lsm-profile",
            "apparmor:x",
            "--lsm-mount-context",
            "y",
        ],
    ]
    .concat();
    let without = ["--criu", "/no/such/criu"];
    engine
        .wsbox(&[&without[..], &checkpoint, &[&id]].concat())
        .fails(1, &["checkpoint: criu is not installed", "/no/such/criu"]);
    engine.wsbox(&[&without[..], &restore, &["other"]].concat()).fails(1, &["restore: criu is not installed"]);
    // One that fails its own check, in its own words.
    let criu = engine.root().join("criu");
    fs::write(&criu, "#!/bin/sh\necho no such vdso >&2; exit 1\n").unwrap();
    fs::set_permissions(&criu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    engine.wsbox(&["--criu", &text(&criu), "checkpoint", &id]).fails(1, &["does not work on this host: no such vdso"]);
    engine.wsbox(&["checkpoint", "nobody"]).fails(1, &["does not exist"]);
    engine.wsbox(&["restore", "--bundle", "/no/such", "other"]).fails(1, &["/no/such"]);
    assert_eq!(engine.state(&id)["status"], "running");
    engine.wsbox(&["kill", &id, "KILL"]).ok();
    until("the end", || engine.state(&id)["status"] == "stopped");
    engine.wsbox(&["checkpoint", &id]).fails(1, &["stopped state"]);
}

/// Whatever `features` promises holds: every mount option is taken, and the document is one of runtime-spec 1.3.
#[test]
fn features_are_true() {
    let engine = Engine::new();
    let features: Value = serde_json::from_str(&engine.wsbox(&["features"]).ok().stdout).unwrap();
    for pointer in [
        "/ociVersionMin",
        "/ociVersionMax",
        "/hooks/0",
        "/mountOptions/0",
        "/linux/namespaces/0",
        "/linux/capabilities/0",
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
        "/linux/seccomp/enabled",
        "/linux/seccomp/actions/0",
        "/linux/seccomp/operators/0",
        "/linux/seccomp/archs/0",
        "/linux/seccomp/knownFlags/0",
        "/linux/seccomp/supportedFlags/0",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
        "/linux/intelRdt/schemata",
        "/linux/memoryPolicy/modes",
        "/linux/memoryPolicy/flags",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
        "/potentiallyUnsafeConfigAnnotations",
        "/annotations",
    ] {
        assert!(features.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
    }
    let options: Vec<String> = serde_json::from_value(features["mountOptions"].clone()).unwrap();
    let source = TempDir::new("options");
    for option in &options {
        let id_mapped = option.ends_with("idmap");
        let mut mount =
            json!({"destination": "/x", "type": "bind", "source": source.path(), "options": ["rbind", option]});
        if id_mapped {
            mount["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
            mount["gidMappings"] = mount["uidMappings"].clone();
        }
        let own = ["sync", "async", "dirsync", "defaults", "tmpcopyup"].contains(&option.as_str());
        if own {
            mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option, "size=4k"]});
        }
        let bundle = Bundle::plain().mount(mount).args(&["true"]);
        let outcome = engine.run(&bundle, wsbox_integration::Door::Root);
        assert_eq!(outcome.code, 0, "{option}: {outcome:?}");
    }
}
