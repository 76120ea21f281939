// SPDX-License-Identifier: Apache-2.0
//! Cgroups that systemd makes, on a v2 host where it runs (the guest): what is in force, before and after it reloads, and that nothing
//! is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use wsbox_integration::engine::{until, wsbox_path};
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, Outcome, TempDir, bundle, unique};

const SLICE: &str = "/sys/fs/cgroup/wsbt.slice/wsbt-a.slice";

fn systemctl(args: &[&str]) -> Outcome {
    outcome(Command::new("systemctl").args(args))
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", unit, "--value", "--property", name]).ok().stdout.trim().to_owned()
}

/// A container in a scope of its own.
struct Scope {
    engine: Engine,
    bundle: Bundle,
    id: String,
}

impl Scope {
    fn new(bundle: Bundle) -> Self {
        assert!(Path::new("/run/systemd/system").is_dir(), "systemd does not run here: `make test-guest` has it");
        let id = unique("s");
        let bundle =
            bundle.args(&["sleep", "1000"]).set("/linux/cgroupsPath", json!(format!("wsbt-a.slice:wsbox:{id}")));
        Self { engine: Engine::new(), bundle, id }
    }

    fn unit(&self) -> String {
        format!("wsbox-{}.scope", self.id)
    }

    fn dir(&self) -> PathBuf {
        Path::new(SLICE).join(self.unit())
    }

    fn file(&self, name: &str) -> String {
        let path = self.dir().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    fn files(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.file(name)).collect()
    }

    fn run(&self, flags: &[&str]) -> Outcome {
        self.bundle.write();
        let path = self.bundle.path().display().to_string();
        let args = [flags, &["run", "--detach", "--bundle", &path, &self.id]].concat();
        self.engine.wsbox(&args)
    }

    fn start(self) -> Self {
        self.run(&["--systemd-cgroup"]).ok();
        self
    }

    fn call(&self, args: &[&str]) -> Outcome {
        self.engine.wsbox(args)
    }

    fn gone(&self) {
        assert!(!self.dir().exists(), "{}", self.dir().display());
        assert_eq!(property(&self.unit(), "LoadState"), "not-found");
    }
}

fn resources() -> Value {
    json!({
        "memory": {"limit": 64 << 20, "swap": 80 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 33_333, "period": 100_000, "burst": 2_000},
        "pids": {"limit": 50},
        "unified": {"memory.high": "50331648"},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
    })
}

/// A reload is of all units, also those of other tests.
static RELOADS: Mutex<()> = Mutex::new(());

const FILES: [&str; 8] = [
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "memory.high",
    "cpu.max",
    "cpu.weight",
    "pids.max",
    "cpu.max.burst",
];

#[test]
fn limits_are_in_force_and_outlive_a_reload() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let scope = Scope::new(Bundle::hardened().set("/linux/resources", resources())).start();
    let bytes = |mib: u64| (mib << 20).to_string();
    let wanted = |cpu: &str| {
        [bytes(64), bytes(16), bytes(32), bytes(48), cpu.into(), "59".into(), "50".into(), "2000".into()].to_vec()
    };
    // As asked, or already as systemd writes it whenever it has reason to: in hundredths of a CPU, never more than was asked.
    let quota = scope.file("cpu.max");
    assert!(["33333 100000", "33000 100000"].contains(&quota.as_str()), "{quota}");
    assert_eq!(scope.files(&FILES), wanted(&quota));
    assert_eq!(scope.file("memory.oom.group"), "1");
    let pid = scope.engine.state(&scope.id)["pid"].to_string();
    assert_eq!(scope.file("cgroup.procs"), pid, "nobody but the payload");
    assert_eq!(property(&scope.unit(), "Delegate"), "yes");
    systemctl(&["daemon-reload"]).ok();
    until("the reload", || scope.file("cpu.max") == "33000 100000");
    assert_eq!(scope.files(&FILES), wanted("33000 100000"));
    scope.call(&["delete", "--force", &scope.id]).ok();
    scope.gone();
}

/// systemd has properties for these too, but wsbox writes them by hand.
#[test]
fn limits_of_a_disk_outlive_a_reload() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata("/").unwrap());
    let (major, minor) = (nix::sys::stat::major(disk), nix::sys::stat::minor(disk));
    let throttle = json!({"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}]});
    let scope = Scope::new(Bundle::hardened().set("/linux/resources/blockIO", throttle)).start();
    let wanted = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max");
    for _ in 0..2 {
        assert_eq!(scope.file("io.max"), wanted);
        systemctl(&["daemon-reload"]).ok();
        scope.call(&["update", "--pids-limit", "60", &scope.id]).ok();
    }
    assert_eq!(scope.file("io.max"), wanted);
}

#[test]
fn devices_stay_denied_after_a_reload() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let bundle = Bundle::plain()
        .set("/linux/resources", resources())
        .set("/linux/devices", json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]));
    let scope = Scope::new(bundle).start();
    for _ in 0..2 {
        let denied = scope.call(&["exec", &scope.id, "sh", "-c", "echo x >/dev/null && cat /dev/kmsg"]);
        assert!(denied.code != 0 && denied.stderr.contains("Operation not permitted"), "{denied:?}");
        systemctl(&["daemon-reload"]).ok();
    }
}

#[test]
fn update_goes_through_systemd() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let scope = Scope::new(Bundle::hardened().set("/linux/resources", resources())).start();
    let id = scope.id.as_str();
    scope
        .call(&[
            "update",
            "--memory",
            "100663296",
            "--memory-swap",
            "-1",
            "--pids-limit",
            "70",
            "--cpu-quota",
            "50000",
            id,
        ])
        .ok();
    for _ in 0..2 {
        let found = scope.files(&["memory.max", "memory.swap.max", "pids.max", "cpu.max"]);
        assert_eq!(found, ["100663296", "max", "70", "50000 100000"]);
        assert_eq!(property(&scope.unit(), "MemoryMax"), "100663296");
        assert_eq!(property(&scope.unit(), "TasksMax"), "70");
        systemctl(&["daemon-reload"]).ok();
    }
    // What is refused leaves what there was, in systemd too.
    scope
        .call(&["update", "--pids-limit", "60", "--cpu-burst", "999999999", id])
        .fails(1, &["linux.resources.cpu.burst"]);
    assert_eq!((scope.file("pids.max"), property(&scope.unit(), "TasksMax")), ("70".into(), "70".into()));
    scope.call(&["update", "--cpu-idle", "1", id]).ok();
    systemctl(&["daemon-reload"]).ok();
    assert_eq!(scope.file("cpu.idle"), "1");
    scope.call(&["update", "--cpu-idle", "0", id]).ok();
    systemctl(&["daemon-reload"]).ok();
    assert_eq!(scope.files(&["cpu.idle", "cpu.weight"]), ["0", "59"]);
}

#[test]
fn every_command_finds_the_scope() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let scope = Scope::new(Bundle::hardened()).start();
    let id = scope.id.as_str();
    let pid = scope.call(&["exec", id, "sh", "-c", "cat /proc/self/cgroup"]).ok();
    assert_eq!(pid.stdout.trim(), "0::/", "its own cgroup is the root of its namespace");
    scope.call(&["pause", id]).ok();
    systemctl(&["daemon-reload"]).ok();
    assert_eq!(scope.engine.state(id)["status"], "paused");
    scope.call(&["resume", id]).ok();
    scope.call(&["inspect", id]).ok();
    scope.call(&["kill", id, "KILL"]).ok();
    until("its end", || scope.engine.state(id)["status"] == "stopped");
    scope.call(&["delete", id]).ok();
    scope.gone();
    // The same name at once.
    for _ in 0..3 {
        scope.run(&["--systemd-cgroup"]).ok();
        scope.call(&["delete", "--force", id]).ok();
    }
    scope.gone();
}

#[test]
fn nothing_is_left_of_what_fails() {
    for bundle in [
        Bundle::hardened().set("/process/cwd", json!("/bin/busybox")),
        Bundle::hardened().set("/linux/resources", json!({"unified": {"memory.nonsense": "1"}})),
        Bundle::hardened().set("/linux/resources", json!({"cpu": {"quota": 1000, "period": 1_000_000}})),
        Bundle::hardened().set("/annotations", json!({"org.systemd.property.NoSuchThing": "true"})),
        Bundle::hardened().set("/annotations", json!({"org.systemd.property.MemoryMax": "uint64 1"})),
    ] {
        let scope = Scope::new(bundle);
        let failed = scope.run(&["--systemd-cgroup"]);
        assert_ne!(failed.code, 0, "{failed:?}");
        scope.gone();
        assert!(!scope.engine.root().join(&scope.id).exists());
    }
    // One process is enough for a container, also beside the one that held its scope open.
    let scope = Scope::new(Bundle::hardened().set("/linux/resources", json!({"pids": {"limit": 1}}))).start();
    assert_eq!(scope.file("pids.max"), "1");
    // Whose memory runs out leaves no failed unit.
    let small = json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}});
    let scope = Scope::new(Bundle::hardened().set("/linux/resources", small)).start();
    scope.call(&["exec", &scope.id, "sh", "-c", "x=x; while :; do x=$x$x; done"]);
    scope.call(&["delete", "--force", &scope.id]).ok();
    scope.gone();
}

#[test]
fn names_that_are_none() {
    for (path, flags, words) in [
        ("/docker/abc", &["--systemd-cgroup"][..], &["linux.cgroupsPath", "SLICE:PREFIX:NAME"][..]),
        ("a--b.slice:wsbox:x", &["--systemd-cgroup"], &["linux.cgroupsPath", "a--b.slice"]),
        ("a.slice:wsbox:x+y", &["--systemd-cgroup"], &["linux.cgroupsPath", "x+y"]),
        ("a.slice:wsbox:x", &[], &["linux.cgroupsPath", "--systemd-cgroup"]),
    ] {
        let mut scope = Scope::new(Bundle::hardened());
        scope.bundle = scope.bundle.set("/linux/cgroupsPath", json!(path));
        scope.run(flags).fails(1, words);
    }
    let taken = Scope::new(Bundle::hardened()).start();
    let mut other = Scope::new(Bundle::hardened());
    other.bundle = other.bundle.set("/linux/cgroupsPath", json!(format!("wsbt-a.slice:wsbox:{}", taken.id)));
    other.run(&["--systemd-cgroup"]).fails(1, &["linux.cgroupsPath", "is there already"]);
    assert_eq!(taken.engine.state(&taken.id)["status"], "running");
}

#[test]
fn without_a_path_it_is_in_the_system_slice() {
    let scope = Scope::new(Bundle::hardened());
    let bundle = Bundle::hardened().remove("/linux/cgroupsPath").args(&["sleep", "1000"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    scope.call(&["--systemd-cgroup", "run", "--detach", "--bundle", &path, &scope.id]).ok();
    assert_eq!(property(&scope.unit(), "ControlGroup"), format!("/system.slice/{}", scope.unit()));
}

/// A dockerd with its usual driver on such a host.
struct Dockerd {
    dir: TempDir,
    daemon: Child,
}

impl Dockerd {
    fn start() -> Self {
        let dir = TempDir::new("dockerd");
        let at = dir.path().display().to_string();
        std::fs::create_dir_all("/etc/docker").expect("a folder");
        let config = json!({"runtimes": {"wsbox": {"path": wsbox_path()}}}).to_string();
        std::fs::write(dir.path().join("daemon.json"), config).expect("a file");
        let daemon = Command::new("sh")
            .args(["-c", r#"exec dockerd --config-file "$1/daemon.json" --data-root "$1/lib" --exec-root "$1/exec" --pidfile "$1/pid" \
                -H "unix://$1/socket" --bridge none --iptables=false --exec-opt native.cgroupdriver=systemd >"$1/log" 2>&1"#, "sh", &at])
            .stdin(Stdio::null())
            .spawn()
            .expect("sh");
        let docker = Self { dir, daemon };
        until("dockerd", || docker.call(&["version"]).code == 0);
        let root = docker.dir.path().join("image");
        bundle::fill(&root);
        let archive = format!("{}.tar", root.display());
        outcome(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".")).ok();
        docker.call(&["import", &archive, "box"]).ok();
        docker
    }

    fn call(&self, args: &[&str]) -> Outcome {
        outcome(Command::new("docker").arg("-H").arg(format!("unix://{}/socket", self.dir.path().display())).args(args))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let ids = self.call(&["ps", "-aq"]).stdout;
        for id in ids.lines() {
            self.call(&["rm", "-f", id]);
        }
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.daemon.id() as i32), nix::sys::signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

#[test]
fn docker_with_its_usual_driver() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let docker = Dockerd::start();
    let run = [
        "run",
        "-d",
        "--runtime=wsbox",
        "--network=none",
        "--memory=64m",
        "--cpus=0.5",
        "--pids-limit=40",
        "box",
        "sleep",
        "1000",
    ];
    let id = docker.call(&run).ok().stdout.trim().to_owned();
    let unit = format!("docker-{id}.scope");
    let dir = Path::new("/sys/fs/cgroup/system.slice").join(&unit);
    let limits = || {
        ["memory.max", "cpu.max", "pids.max"]
            .map(|file| std::fs::read_to_string(dir.join(file)).expect(file).trim().to_owned())
    };
    assert_eq!(limits(), ["67108864", "50000 100000", "40"]);
    systemctl(&["daemon-reload"]).ok();
    docker.call(&["update", "--memory=96m", "--memory-swap=96m", &id]).ok();
    systemctl(&["daemon-reload"]).ok();
    assert_eq!(limits(), ["100663296", "50000 100000", "40"]);
    docker.call(&["exec", &id, "true"]).ok();
    docker.call(&["pause", &id]).ok();
    docker.call(&["unpause", &id]).ok();
    docker.call(&["restart", "-t", "0", &id]).ok();
    assert_eq!(limits(), ["100663296", "50000 100000", "40"]);
    docker.call(&["rm", "-f", &id]).ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    let oom = docker.call(&[
        "run",
        "--runtime=wsbox",
        "--network=none",
        "--memory=8m",
        "box",
        "sh",
        "-c",
        "x=x; while :; do x=$x$x; done",
    ]);
    assert_eq!(oom.code, 137, "{oom:?}");
}

#[test]
fn podman_with_its_usual_manager() {
    let _turn = RELOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::new("podman");
    let root = dir.path().join("image");
    bundle::fill(&root);
    let podman = |args: &[&str]| {
        let (lib, run) = (dir.path().join("lib"), dir.path().join("run"));
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(lib)
            .arg("--runroot")
            .arg(run)
            .args(["--events-backend=file", "--network-backend=cni"]);
        command.args(["--cgroup-manager=systemd", "--runtime", &wsbox_path()]);
        outcome(command.args(args))
    };
    let at = root.display().to_string();
    let run = [
        "run",
        "-d",
        "--name=web",
        "--network=none",
        "--memory=64m",
        "--pids-limit=40",
        "--rootfs",
        &at,
        "sleep",
        "1000",
    ];
    let id = podman(&run).ok().stdout.trim().to_owned();
    let dir = PathBuf::from(format!("/sys/fs/cgroup/machine.slice/libpod-{id}.scope"));
    systemctl(&["daemon-reload"]).ok();
    let limits =
        ["memory.max", "pids.max"].map(|file| std::fs::read_to_string(dir.join(file)).expect(file).trim().to_owned());
    assert_eq!(limits, ["67108864", "40"]);
    podman(&["exec", "web", "true"]).ok();
    podman(&["rm", "-f", "-t", "0", "web"]).ok();
    assert_eq!(property(&format!("libpod-{id}.scope"), "LoadState"), "not-found");
}
