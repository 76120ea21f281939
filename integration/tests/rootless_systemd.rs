// SPDX-License-Identifier: Apache-2.0
//! A user's containers where systemd gives the user cgroups (the guest): in a scope that is delegated, in one that wsbox asks the user's own
//! systemd for, and podman's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use wsbox_integration::engine::{captured, wsbox_path};
use wsbox_integration::{Bundle, Outcome, TempDir, bundle, unique};

/// The guest's own user.
const UID: u32 = 1000;
const NAME: &str = "tester";

/// Starts the user's systemd, once: it outlives the session that asks.
fn linger() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        captured(Command::new("loginctl").args(["enable-linger", NAME])).ok();
        let bus = format!("/run/user/{UID}/bus");
        wsbox_integration::docker::eventually("the user's bus", || Path::new(&bus).exists());
    });
}

/// A command as this user, as in a session of its own.
fn user(program: &[&str]) -> Command {
    linger();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NAME, "--regid", NAME, "--init-groups", "--reset-env", "env"]);
    command.arg(format!("XDG_RUNTIME_DIR=/run/user/{UID}"));
    command.arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus"));
    command.args(program).current_dir("/").stdin(Stdio::null());
    command
}

/// In a scope that is the user's.
fn in_scope(program: &[&str]) -> Outcome {
    captured(&mut user(&[&["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes"], program].concat()))
}

fn own(path: &Path) {
    let status = Command::new("chown").args(["-hR", &format!("{NAME}:{NAME}")]).arg(path).status();
    assert!(status.expect("coreutils").success());
}

/// The user's copy of wsbox.
fn wsbox() -> PathBuf {
    let path = PathBuf::from("/opt/wsbox/users-wsbox");
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        fs::copy(wsbox_path(), &path).expect("a copy");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    });
    path
}

fn run(bundle: &Bundle, global: &[&str], id: &str) -> Vec<String> {
    bundle.write();
    own(bundle.path());
    let (wsbox, path) = (wsbox().display().to_string(), bundle.path().display().to_string());
    [&[wsbox.as_str()], global, &["run", "--bundle", &path, id]].concat().into_iter().map(str::to_owned).collect()
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

#[test]
fn a_delegated_scope_has_every_layer() {
    let memory = json!({"limit": 33_554_432, "swap": 33_554_432});
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    let shown = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]});
    let bundle = Bundle::hardened()
        .set("/linux/resources/memory", memory)
        .without_mount("/sys/fs/cgroup")
        .mount(shown)
        .script(script);
    let outcome = in_scope(&words(&run(&bundle, &[], &unique("scope")))).ok();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let pids = bundle.config["linux"]["resources"]["pids"]["limit"].to_string();
    assert_eq!(&lines[..3], ["0::/", "33554432", pids.as_str()], "{outcome:?}");
    assert!(!lines[3].starts_with("max"), "{outcome:?}");
}

#[test]
fn the_users_systemd_makes_the_scope() {
    let id = unique("own");
    let path = format!("wsbt.slice:wsbox:{id}");
    let bundle = Bundle::hardened().set("/linux/cgroupsPath", json!(path)).args(&["sleep", "1000"]);
    let line = run(&bundle, &["--systemd-cgroup"], &id);
    let mut line = words(&line);
    line.insert(3, "--detach");
    captured(&mut user(&line)).ok();
    let unit = format!("wsbox-{id}.scope");
    let show = |name: &str| {
        captured(&mut user(&["systemctl", "--user", "show", &unit, "--value", "--property", name])).ok().stdout
    };
    let limit = bundle.config["linux"]["resources"]["memory"]["limit"].to_string();
    assert_eq!(show("MemoryMax").trim(), limit);
    let cgroup = show("ControlGroup");
    assert!(cgroup.starts_with(&format!("/user.slice/user-{UID}.slice/user@{UID}.service/wsbt.slice/")), "{cgroup}");
    let has =
        |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{}/{file}", cgroup.trim())).unwrap().trim().to_owned();
    assert_eq!(has("memory.max"), limit);
    let program = wsbox().display().to_string();
    let inspected = captured(&mut user(&[&program, "inspect", "--format", "json", &id])).ok().stdout;
    let layers: Value = serde_json::from_str(&inspected).unwrap();
    assert!(layers["layers"].as_array().unwrap().iter().all(|layer| layer["inForce"] == true), "{inspected}");
    captured(&mut user(&[&program, "update", "--memory", "64m", "--memory-swap", "64m", &id])).ok();
    assert_eq!(has("memory.max"), "67108864");
    captured(&mut user(&[&program, "delete", "--force", &id])).ok();
    assert!(!Path::new(&format!("/sys/fs/cgroup{}", cgroup.trim())).exists());
}

/// podman as this user, with storage below `dir`.
fn podman(dir: &Path, runtime: &str, args: &[&str]) -> Outcome {
    let path = if runtime == "wsbox" { wsbox().display().to_string() } else { "/usr/sbin/runc".to_owned() };
    let place = |name: &str| dir.join(name).display().to_string();
    let (root, run, tmp) = (
        format!("--root={}", place("lib")),
        format!("--runroot={}", place("run")),
        format!("--tmpdir={}", place("tmp")),
    );
    let flags = [
        "podman",
        &root,
        &run,
        &tmp,
        "--storage-driver=vfs",
        "--cgroup-manager=systemd",
        "--events-backend=file",
        "--runtime",
        &path,
    ];
    captured(&mut user(&[&flags[..], args].concat()))
}

/// What runc does for a user's podman, wsbox does.
#[test]
fn podman_of_a_user() {
    let home = TempDir::new("podman");
    let image = home.path().join("image");
    bundle::fill(&image);
    let archive = home.path().join("image.tar").display().to_string();
    let status = Command::new("tar").args(["-C", &image.display().to_string(), "-cf", &archive, "."]).status();
    assert!(status.unwrap().success());
    own(home.path());
    podman(home.path(), "runc", &["import", &archive, "box"]).ok();
    for runtime in ["runc", "wsbox"] {
        let flags = [
            "run",
            "--rm",
            "--network=none",
            "--memory=32m",
            "--pids-limit=50",
            "--ulimit",
            "nofile=1000:1000",
            "--ulimit",
            "nproc=1000:1000",
        ];
        let script = "id -u; cat /proc/self/cgroup; echo x >/dev/null; head -c 1 /dev/zero | wc -c; mount | grep -c ' / '; exit 4";
        let outcome = podman(home.path(), runtime, &[&flags[..], &["box", "sh", "-c", script]].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "0\n0::/\n1\n1\n"), "{runtime}: {outcome:?}");
        let name = unique("pod");
        let sleeps = [
            "run",
            "--detach",
            "--name",
            &name,
            "--network=none",
            "--memory=32m",
            "--ulimit",
            "nofile=1000:1000",
            "--ulimit",
            "nproc=1000:1000",
            "box",
            "sleep",
            "1000",
        ];
        podman(home.path(), runtime, &sleeps).ok();
        let says = |args: &[&str]| podman(home.path(), runtime, args).ok().stdout;
        assert_eq!(says(&["exec", &name, "cat", "/proc/1/comm"]), "sleep\n", "{runtime}");
        let pid = says(&["inspect", "--format", "{{.State.Pid}}", &name]);
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
        let dir = format!("/sys/fs/cgroup{}", cgroup.trim().trim_start_matches("0::"));
        let limit = ["", "/.."]
            .iter()
            .filter_map(|up| fs::read_to_string(format!("{dir}{up}/memory.max")).ok())
            .find(|max| max.trim() != "max");
        assert_eq!(limit.as_deref().map(str::trim), Some("33554432"), "{runtime}: {dir}");
        says(&["kill", &name]);
        assert_eq!(says(&["wait", &name]), "137\n", "{runtime}");
        says(&["rm", "--force", &name]);
    }
    podman(home.path(), "runc", &["unshare", "rm", "-rf", &home.path().join("lib").display().to_string()]);
}
