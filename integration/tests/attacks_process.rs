// SPDX-License-Identifier: Apache-2.0
//! Attacks by a process: on the runtime's binary, by descriptors, capabilities, the terminal, system calls, namespaces, stdio
//! and keyrings. Numbers are rows of the attack table that wsbox was built against.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Bundle, Canary, Door, Engine, Outcome, TempDir, unique};

/// Through each door; what the payload prints comes back by a bound folder, for the library writes to our own stdout.
fn through(door: Door, bundle: Bundle, script: &str) -> (Outcome, String) {
    let out = TempDir::new("out");
    fs::set_permissions(out.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mount = json!({"destination": "/out", "type": "bind", "source": out.path(), "options": ["bind", "rw"]});
    let bundle = bundle.user_namespace(door != Door::Root).mount(mount).script(&format!("({script}) >/out/text 2>&1"));
    let outcome = Engine::new().run(&bundle, door);
    let text = fs::read_to_string(out.path().join("text")).unwrap_or_default();
    (outcome, text)
}

fn everywhere(bundle: impl Fn() -> Bundle, script: &str, check: impl Fn(&str)) {
    for door in Door::ALL {
        let (outcome, text) = through(door, bundle(), script);
        assert!(!text.is_empty(), "{door:?}: {outcome:?}");
        check(&text);
    }
}

/// Row 3 (CVE-2019-5736): the runtime's binary is never reached through /proc/PID/exe.
#[test]
fn the_binary_is_not_overwritten() {
    let before = (fs::read(wsbox_path()).unwrap(), fs::metadata(wsbox_path()).unwrap().mtime_nsec());
    let ourselves = std::env::current_exe().unwrap();
    let host = fs::metadata(&ourselves).unwrap().mtime_nsec();
    for (door, times) in [(Door::Userns, 500), (Door::Root, 50)] {
        let engine = Engine::new();
        let bundle = Bundle::plain()
            .user_namespace(door != Door::Root)
            .args(&["probe", "exe-writers"])
            .set("/process/capabilities", all_caps());
        fs::write(bundle.root().join("bin/self"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(bundle.root().join("bin/self"), fs::Permissions::from_mode(0o755)).unwrap();
        bundle.write();
        let (id, path) = (unique("exe"), bundle.path().display().to_string());
        let child = engine
            .command(&["run", "--bundle", &path, &id])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for at in 0..times {
            let program = ["/proc/self/exe", "/bin/self", "true"][at % 3];
            if engine.wsbox(&["exec", &id, program]).stderr.contains("does not exist") {
                break;
            }
        }
        engine.wsbox(&["kill", &id, "KILL"]);
        finish(child);
    }
    let library = Bundle::hardened().args(&["/proc/self/exe"]);
    Engine::new().run(&library, Door::Library);
    assert!(
        before == (fs::read(wsbox_path()).unwrap(), fs::metadata(wsbox_path()).unwrap().mtime_nsec()),
        "the binary changed"
    );
    assert_eq!(host, fs::metadata(&ourselves).unwrap().mtime_nsec());
}

fn all_caps() -> serde_json::Value {
    let some = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    json!({"bounding": some, "effective": some, "permitted": some, "inheritable": [], "ambient": []})
}

/// Row 9 (CVE-2022-29162): no inheritable capability, so none through a file's.
#[test]
fn capabilities_are_not_raised_by_files() {
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let caps =
            json!({"bounding": ["CAP_NET_RAW"], "effective": [], "permitted": [], "inheritable": [], "ambient": []});
        let bundle = Bundle::plain().user_namespace(door != Door::Root).set("/process/capabilities", caps);
        let set = Command::new("setcap")
            .arg("cap_net_raw=i")
            .arg(another_busybox(&bundle, 0o755))
            .status()
            .expect("libcap2-bin is installed");
        assert!(set.success());
        let (_bundle, id) = engine.sleeping(bundle);
        let with = engine.wsbox(&["exec", "--cap", "CAP_NET_RAW", &id, "grep", "Cap", "/proc/self/status"]).ok().stdout;
        assert!(with.contains("CapInh:\t0000000000000000") && with.contains("CapAmb:\t0000000000000000"), "{with}");
        assert!(with.contains("CapEff:\t0000000000002000"), "{with}");
        let raised = engine.wsbox(&[
            "exec",
            "--user",
            "1000",
            "--cap",
            "CAP_NET_RAW",
            &id,
            "/special/busybox",
            "grep",
            "CapEff",
            "/proc/self/status",
        ]);
        assert_eq!(raised.ok().stdout, "CapEff:\t0000000000000000\n");
    }
}

/// A busybox of its own, with this mode, at /special/busybox.
fn another_busybox(bundle: &Bundle, mode: u32) -> std::path::PathBuf {
    let program = bundle.root().join("special/busybox");
    fs::create_dir(bundle.root().join("special")).unwrap();
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    program
}

#[test]
fn a_set_id_program_gets_nothing() {
    let bundle = || {
        let bundle = Bundle::hardened().set("/process/user", json!({"uid": 1000, "gid": 1000}));
        another_busybox(&bundle, 0o6755);
        bundle
    };
    everywhere(bundle, "/special/busybox id -u; /special/busybox grep Cap /proc/self/status", |text| {
        assert!(text.starts_with("1000\n"), "{text}");
        assert_eq!(text.matches("0000000000000000").count(), 5, "{text}");
    });
}

/// Rows 11 and 36 (CVE-2024-21626): descriptors that the caller leaks are gone, and no path leads through them.
#[test]
fn leaked_descriptors_are_closed() {
    for door in [Door::Root, Door::Userns] {
        let canary = Canary::new();
        let engine = Engine::new();
        let bundle = Bundle::hardened().user_namespace(door != Door::Root).args(&["probe", "fds"]);
        bundle.write();
        let leak = |flags: &str| {
            let script = format!(
                "exec 9</ 10<{} 11<>/dev/kmsg 12</etc/passwd; exec {} --root {} run {flags} --bundle {} {}",
                canary.path().display(),
                wsbox_path(),
                engine.root().display(),
                bundle.path().display(),
                unique("leak"),
            );
            let child = Command::new("bash")
                .args(["-c", &script])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            finish(child).ok().stdout
        };
        let seen = leak("");
        let fds: Vec<&str> =
            seen.trim().trim_start_matches("fds: ok ").split(' ').map(|fd| fd.split('=').next().unwrap()).collect();
        assert_eq!(fds, ["0", "1", "2"], "{seen}");
        assert!(leak("--preserve-fds 7").contains("9=/"), "the control: a granted one is there");
        canary.assert_untouched();
    }
}

#[test]
fn no_directory_is_reached_through_a_descriptor() {
    let canary = Canary::new();
    for number in 3..64 {
        let paths = [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")];
        for cwd in paths {
            let bundle = Bundle::hardened().set("/process/cwd", json!(cwd)).args(&["pwd"]);
            let outcome = Engine::new().run(&bundle, Door::Userns);
            assert_ne!(outcome.code, 0, "{cwd}: {outcome:?}");
        }
    }
    let bundle = Bundle::hardened();
    symlink("/proc/self/fd/9", bundle.root().join("wd")).unwrap();
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(bundle);
    for cwd in ["/wd", "/proc/self/fd/3", "/proc/self/fd/4/../../.."] {
        assert_ne!(engine.wsbox(&["exec", "--cwd", cwd, &id, "pwd"]).code, 0, "{cwd}");
    }
    for number in 3..32 {
        let program = format!("/proc/self/fd/{number}{}/sub/bin/tool", canary.path().display());
        assert!([126, 127].contains(&engine.wsbox(&["exec", &id, &program]).code), "{program}");
    }
    canary.assert_untouched();
}

/// Row 23 (CVE-2017-5226): nothing is pushed into the caller's terminal.
#[test]
fn the_callers_terminal_is_not_written() {
    for (name, probe) in [("tiocsti", "tiocsti"), ("dirty", "tiocsti-dirty"), ("tioclinux", "tioclinux")] {
        for door in [Door::Root, Door::Userns] {
            let bundle = Bundle::hardened().user_namespace(door != Door::Root).args(&["probe", probe]);
            bundle.write();
            let engine = Engine::new();
            let run = format!(
                "{} --root {} run --bundle {} {}",
                wsbox_path(),
                engine.root().display(),
                bundle.path().display(),
                unique(name)
            );
            let child = Command::new("script")
                .args(["-qec", &run, "/dev/null"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let seen = finish(child).stdout;
            assert!(seen.contains("EPERM"), "{probe}: {seen}");
        }
    }
    // Without the filter it is the session of its own that the kernel refuses by.
    let bundle = Bundle::hardened().remove("/linux/seccomp").args(&["probe", "tiocsti"]);
    bundle.write();
    let engine = Engine::new();
    let run = format!(
        "{} --root {} run --bundle {} {}",
        wsbox_path(),
        engine.root().display(),
        bundle.path().display(),
        unique("bare")
    );
    let child = Command::new("script")
        .args(["-qec", &run, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = finish(child).stdout;
    assert!(seen.contains("EPERM") || seen.contains("EIO"), "{seen}");
}

/// Row 33 (CVE-2022-0492): the files that the kernel starts helpers by.
#[test]
fn no_helper_of_the_kernel_is_changed() {
    let files = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/sys/kernel/uevent_helper",
        "/proc/sysrq-trigger",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/fs/cgroup/memory/release_agent",
    ];
    let before: Vec<_> = files.iter().map(|file| fs::read(file).ok()).collect();
    let script = files.map(|file| format!("probe open-write {file}")).join("; ")
        + "; unshare -UrC true; mount -t cgroup -o memory c /tmp && echo MOUNTED";
    let check = |text: &str| {
        assert!(!text.contains(": ok") && !text.contains("MOUNTED"), "{text}");
        assert_eq!(text.matches("open-write").count(), files.len(), "{text}");
    };
    everywhere(Bundle::hardened, &script, check);
    // With all rights of a user namespace, and no filter.
    let admin = || Bundle::hardened().remove("/linux/seccomp").set("/process/capabilities", all_caps());
    for door in [Door::Userns, Door::Library] {
        let opened = files.map(|file| format!("probe open-write {file}")).join("; ");
        check(&through(door, admin(), &opened).1);
    }
    assert_eq!(before, files.iter().map(|file| fs::read(file).ok()).collect::<Vec<_>>());
}

/// Row 34: no further user namespace, by the filter and by the container's own limit.
#[test]
fn no_user_namespace_in_the_container() {
    everywhere(
        Bundle::hardened,
        "probe clone-newuser; probe syscall 272 0x10000000; probe clone3; unshare -U true || echo refused",
        |text| {
            assert_eq!(text.matches("EPERM").count(), 2, "{text}");
            assert!(text.contains("clone3: ENOSYS") && text.contains("refused"), "{text}");
        },
    );
    for door in [Door::Userns, Door::Library] {
        let (_, text) = through(
            door,
            Bundle::hardened().remove("/linux/seccomp"),
            "probe clone-newuser; probe syscall 272 0x10000000",
        );
        assert_eq!(text.matches("ENOSPC").count(), 2, "{text}");
    }
}

/// Row 35 (CVE-2026-88265's effect): files of the host given as stdio keep their owner.
#[test]
fn stdio_keeps_its_owner() {
    for door in [Door::Root, Door::Userns] {
        let folder = TempDir::new("stdio");
        let (input, output) = (folder.path().join("in"), folder.path().join("out"));
        fs::write(&input, "text\n").unwrap();
        fs::set_permissions(&input, fs::Permissions::from_mode(0o600)).unwrap();
        let bundle = Bundle::hardened()
            .user_namespace(door != Door::Root)
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .args(&["cat"]);
        bundle.write();
        let engine = Engine::new();
        let mut command = engine.command(&["run", "--bundle", &bundle.path().display().to_string(), &unique("stdio")]);
        command.stdin(fs::File::open(&input).unwrap()).stdout(fs::File::create(&output).unwrap());
        assert!(command.status().unwrap().success());
        assert_eq!(fs::read_to_string(&output).unwrap(), "text\n");
        let facts = |path: &Path| {
            fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)).unwrap()
        };
        assert_eq!((facts(&input).0, facts(&input).2, facts(&output).0), (0, 0o600, 0));
    }
}

/// Row 38 (CVE-2026-31431): of all address families only AF_UNIX.
#[test]
fn only_unix_sockets() {
    let script = ["38", "40", "16", "17", "31", "2", "10", "0x100000026"]
        .map(|family| format!("probe socket {family}"))
        .join("; ");
    everywhere(Bundle::hardened, &(script + "; probe socket 1; probe syscall 425 8 0"), |text| {
        assert_eq!(text.matches("EPERM").count() + text.matches("ENOSYS").count(), 9, "{text}");
        assert!(text.contains("socket 1: ok"), "{text}");
    });
    // The control: without the filter there are others.
    let (_, text) = through(Door::Root, Bundle::hardened().remove("/linux/seccomp"), "probe socket 2; probe socket 16");
    assert_eq!(text.matches(": ok").count(), 2, "{text}");
}

/// Row 40: foreign ABIs are killed, newer calls do not exist.
#[test]
fn foreign_calls() {
    everywhere(
        Bundle::hardened,
        "probe syscall 9999; probe clone3; probe int80-getpid; echo $?; probe syscall 0x40000027; echo $?",
        |text| {
            assert!(text.contains("9999: ENOSYS") && text.contains("clone3: ENOSYS"), "{text}");
            if cfg!(target_arch = "x86_64") {
                assert_eq!(text.matches("159\n").count(), 2, "killed by SIGSYS: {text}");
            }
        },
    );
    let (_, text) = through(Door::Root, Bundle::hardened().remove("/linux/seccomp"), "probe int80-getpid");
    assert!(text.contains(": ok") || cfg!(not(target_arch = "x86_64")), "the control: {text}");
}

/// Row 42: the caller's session keyring is not the container's.
#[test]
fn the_callers_keys_are_not_read() {
    let bundle = Bundle::hardened()
        .remove("/linux/seccomp")
        .user_namespace(false)
        .script("probe keyring; probe keyring-read $SERIAL");
    bundle.write();
    let engine = Engine::new();
    let script = format!(
        "serial=$(keyctl add user secret value @s); keyctl show @s | head -2 >&2; \
         sed -i \"s/\\\"PATH=/\\\"SERIAL=$serial\\\",\\\"PATH=/\" {bundle}/config.json; \
         keyctl id @s; exec {wsbox} --root {root} run --bundle {bundle} {id}",
        bundle = bundle.path().display(),
        wsbox = wsbox_path(),
        root = engine.root().display(),
        id = unique("key"),
    );
    let child = Command::new("keyctl")
        .args(["session", "-", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("keyutils is installed");
    let seen = finish(child);
    let lines: Vec<&str> = seen.stdout.lines().collect();
    assert!(lines.len() >= 3, "{seen:?}");
    assert!(lines[1].starts_with("keyring: ok ") && !lines[1].ends_with(lines[0]), "{seen:?}");
    assert!(lines[2].contains("EACCES") || lines[2].contains("ENOKEY") || lines[2].contains("EPERM"), "{seen:?}");
    everywhere(Bundle::hardened, "probe keyring", |text| {
        assert!(text.contains("EPERM") || text.contains("ENOSYS"), "{text}")
    });
}
