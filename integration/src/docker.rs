// SPDX-License-Identifier: Apache-2.0
//! Debian's dockerd with wsbox beside runc, started once for a test binary, and the docker command that drives it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::engine::{finish, wsbox_path};
use crate::sandbox::{Sandbox, outcome};
use crate::{Outcome, bundle, unique};

/// The reference, and what is compared with it.
pub const RUNTIMES: [&str; 2] = ["runc", "wsbox"];
/// wsbox with a profile, as `wsbox install-docker` registers it.
pub const STRICT: &str = "wsbox-strict";
/// The image that every case runs.
pub const IMAGE: &str = "box";

/// Its network is no part of the case.
const LASTING: &str = "--live-restore --bridge none --iptables=false";

/// The user that `userns-remap: default` takes, and nobody with ids.
const USERS: &str = r"
touch /etc/subuid /etc/subgid
sed -i '/^dockremap:/d; /^wsbox:/d' /etc/passwd /etc/group /etc/subuid /etc/subgid
echo dockremap:x:64900:64900::/:/usr/sbin/nologin >>/etc/passwd
echo dockremap:x:64900: >>/etc/group
";

/// A dockerd.
#[derive(Debug)]
pub struct Daemon {
    sandbox: Sandbox,
}

impl Daemon {
    /// The one with root's own ids.
    pub fn plain() -> &'static Self {
        static DAEMON: OnceLock<Daemon> = OnceLock::new();
        DAEMON.get_or_init(|| Self::start("docker", &settings(), ""))
    }

    /// The one that leaves its cgroups to systemd, as a service of it: Docker's default where all is cgroup v2.
    pub fn systemd() -> &'static Self {
        static DAEMON: OnceLock<Daemon> = OnceLock::new();
        DAEMON.get_or_init(|| {
            let service = r#"unit=${1##*/}.service
trap 'systemctl stop "$unit"' EXIT
systemd-run --quiet --collect --unit "$unit" --property Delegate=yes --property TasksMax=infinity \
    --property StandardOutput=file:"$1/log" --property StandardError=file:"$1/log" "#;
            // The host's own network is in no namespace here.
            let options = "--bridge none --iptables=false --exec-opt native.cgroupdriver=systemd";
            Self::up(Sandbox::on_host("systemd", &format!("{}{service}{}", settings(), dockerd(options))))
        })
    }

    /// The one with `userns-remap: default`, and the user that this takes.
    pub fn remapped() -> &'static Self {
        static DAEMON: OnceLock<Daemon> = OnceLock::new();
        let ids = "for file in subuid subgid; do echo dockremap:100000:65536 >>/etc/$file; done\n";
        DAEMON.get_or_init(|| Self::start("remap", &format!("{USERS}{ids}{}", settings()), "--userns-remap default"))
    }

    /// The one with the shipped settings and ids (deployment/docker), into which `wsbox install-docker` has put this wsbox; it is also
    /// the default runtime.
    pub fn installed() -> &'static Self {
        static DAEMON: OnceLock<Daemon> = OnceLock::new();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deployment/docker");
        let (shipped, wsbox) = (shipped.display(), wsbox_path());
        let install = format!(
            r#"
for file in subuid subgid; do cat {shipped}/$file >>/etc/$file; done
cp {shipped}/daemon-userns-remap.json "$1/daemon.json"
{wsbox} install-docker --force --config "$1/daemon.json" >"$1/installed" 2>&1
"#
        );
        DAEMON.get_or_init(|| Self::start("installed", &format!("{USERS}{install}"), "--default-runtime wsbox"))
    }

    /// One whose containers outlive it, for a test that ends it with [`Daemon::crash`].
    pub fn lasting() -> Self {
        Self::start("lasting", &settings(), LASTING)
    }

    fn start(what: &str, before: &str, options: &str) -> Self {
        Self::up(Sandbox::start(what, &format!("{before}{}", in_background(options))))
    }

    fn up(sandbox: Sandbox) -> Self {
        let daemon = Self { sandbox };
        daemon.until_it_answers();
        daemon.import();
        daemon
    }

    fn until_it_answers(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.docker(&["version"]).code != 0 {
            let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the [`Daemon::lasting`] one and its containerd, does `meanwhile`, and starts it again.
    pub fn crash(&self, meanwhile: impl FnOnce()) {
        let folder = self.path().display();
        let kill =
            r#"pid=$(cat "$1/pid"); kill -KILL "$pid"; while pgrep -x 'dockerd|containerd'; do sleep 0.05; done"#;
        self.sandbox.sh(&format!("set -- {folder}; {kill}")).ok();
        meanwhile();
        self.sandbox.sh(&format!("set -- {folder}; {}", in_background(LASTING))).ok();
        self.until_it_answers();
    }

    /// `docker import` of a busybox root.
    fn import(&self) {
        let root = self.path().join("image");
        bundle::fill(&root);
        let archive = format!("{}.tar", root.display());
        outcome(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".")).ok();
        self.docker(&["import", &archive, IMAGE]).ok();
    }

    /// A folder that the tests and the daemon both see.
    pub fn path(&self) -> &Path {
        self.sandbox.path()
    }

    /// Where the daemon runs.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The command `docker ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        // Debian's, whatever else is in the PATH.
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_HOST", format!("unix://{}/socket", self.path().display()));
        command.env("DOCKER_CONFIG", self.path().join("config")).args(args).stdin(Stdio::null());
        command
    }

    /// `docker ARGS` to its end.
    pub fn docker(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }
}

/// Writes the settings of a daemon.
fn settings() -> String {
    let wsbox = wsbox_path();
    format!(
        r#"
cat >"$1/daemon.json" <<END
{{"runtimes": {{"crun": {{"path": "/usr/bin/crun"}}, "wsbox": {{"path": "{wsbox}"}}, "{STRICT}": {{"path": "{wsbox}", "runtimeArgs": ["--profile", "production"]}}}}}}
END
"#
    )
}

/// The command of a daemon, with all that it keeps below $1.
fn dockerd(options: &str) -> String {
    let places = r#"--init-path /usr/bin/tini-static --config-file "$1/daemon.json" --data-root "$1/lib" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/socket""#;
    format!("dockerd {places} {options}")
}

/// The same as a job of a shell, with cgroups of its own.
fn in_background(options: &str) -> String {
    let cgroups = r#"--cgroup-parent "/${1##*/}" --exec-opt native.cgroupdriver=cgroupfs"#;
    format!("{} </dev/null >>\"$1/log\" 2>&1 &\n", dockerd(&format!("{cgroups} {options}")))
}

/// What `wsbox inspect` says of a container.
pub fn layers(container: &Container) -> serde_json::Value {
    let sandbox = container.docker.daemon.sandbox();
    let root = sandbox.path().join("exec/runtime-runc/moby").display().to_string();
    let id = container.inspect(".Id");
    let said = sandbox.sh(&format!("{} --root {root} inspect --format json {id}", wsbox_path())).ok().stdout;
    serde_json::from_str(&said).expect("JSON")
}

/// The layers of a container that are not in force.
pub fn open_layers(container: &Container) -> Vec<String> {
    let said = layers(container);
    let layers = said["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 8, "{said}");
    layers.iter().filter(|layer| layer["inForce"] != true).map(|layer| layer["id"].to_string()).collect()
}

/// The plain daemon, with wsbox-strict.
pub fn strict() -> Docker {
    Docker { daemon: Daemon::plain(), runtime: STRICT }
}

/// A daemon and the runtime to use there.
#[derive(Clone, Copy, Debug)]
pub struct Docker {
    /// The daemon
    pub daemon: &'static Daemon,
    /// The runtime
    pub runtime: &'static str,
}

/// Runs a case with both runtimes at once; it has to pass with both.
pub fn both(case: impl Fn(Docker) + Sync) {
    on(Daemon::plain(), case);
}

/// [`both`], and where systemd has all controllers on cgroup v2 also on the daemon that leaves cgroups to it.
pub fn both_drivers(case: impl Fn(Docker) + Sync) {
    on(Daemon::plain(), &case);
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if v2 && Path::new("/run/systemd/system").exists() {
        on(Daemon::systemd(), &case);
    }
}

/// [`both`] on the daemon with remapped ids.
pub fn both_remapped(case: impl Fn(Docker) + Sync) {
    on(Daemon::remapped(), case);
}

fn on(daemon: &'static Daemon, case: impl Fn(Docker) + Sync) {
    with_each(|runtime| case(Docker { daemon, runtime }));
}

/// Runs a case with the name of each runtime, at once.
pub fn with_each(case: impl Fn(&'static str) + Sync) {
    let passes = |runtime| catch_unwind(AssertUnwindSafe(|| case(runtime))).is_ok();
    let failed: Vec<_> = std::thread::scope(|scope| {
        let runs = RUNTIMES.map(|runtime| (runtime, scope.spawn(|| passes(runtime))));
        runs.into_iter().filter_map(|(runtime, run)| (!run.join().unwrap_or(false)).then_some(runtime)).collect()
    });
    assert!(failed.is_empty(), "fails with {failed:?}");
}

impl Docker {
    /// `docker ARGS`, whatever the runtime.
    pub fn cli(&self, args: &[&str]) -> Outcome {
        self.daemon.docker(args)
    }

    /// The command `docker VERB --runtime R FLAGS IMAGE ARGV`.
    pub fn command(&self, verb: &str, flags: &str, argv: &[&str]) -> Command {
        let mut command = self.daemon.command(&[verb, "--runtime", self.runtime]);
        command.args(flags.split_whitespace()).arg(IMAGE).args(argv);
        command
    }

    /// `docker run --rm FLAGS` of a shell script.
    pub fn run(&self, flags: &str, script: &str) -> Outcome {
        self.argv(flags, &["sh", "-c", script])
    }

    /// `docker run --rm FLAGS` of a command.
    pub fn argv(&self, flags: &str, argv: &[&str]) -> Outcome {
        outcome(&mut self.command("run", &format!("--rm {flags}"), argv))
    }

    /// What a script writes, without the last line end.
    pub fn says(&self, flags: &str, script: &str) -> String {
        self.run(flags, script).ok().stdout.trim_end().to_owned()
    }

    /// `docker run --detach FLAGS` of a shell script; its name is unique.
    pub fn start(&self, flags: &str, script: &str) -> Container {
        let name = unique(self.runtime);
        let container = Container { docker: *self, name };
        let flags = format!("--detach --name {} {flags}", container.name);
        outcome(&mut self.command("run", &flags, &["sh", "-c", script])).ok();
        container
    }

    /// A container that sleeps.
    pub fn sleeping(&self, flags: &str) -> Container {
        self.start(flags, "exec sleep 1000")
    }

    /// A folder for a case, which the daemon sees as well.
    pub fn folder(&self) -> std::path::PathBuf {
        let path = self.daemon.path().join(unique(self.runtime));
        std::fs::create_dir(&path).expect("a new folder");
        path
    }
}

/// A container, removed when it is dropped.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    /// Its name
    pub name: String,
}

impl Container {
    /// `docker VERB FLAGS NAME`.
    pub fn cli(&self, verb: &str, flags: &str) -> Outcome {
        let mut command = self.docker.daemon.command(&[verb]);
        outcome(command.args(flags.split_whitespace()).arg(&self.name))
    }

    /// The command `docker exec FLAGS NAME sh -c SCRIPT`.
    pub fn exec_command(&self, flags: &str, script: &str) -> Command {
        let mut command = self.docker.daemon.command(&["exec"]);
        command.args(flags.split_whitespace()).args([&self.name, "sh", "-c", script]);
        command
    }

    /// `docker exec` of a shell script.
    pub fn exec(&self, flags: &str, script: &str) -> Outcome {
        outcome(&mut self.exec_command(flags, script))
    }

    /// What a script writes, without the last line end.
    pub fn says(&self, flags: &str, script: &str) -> String {
        self.exec(flags, script).ok().stdout.trim_end().to_owned()
    }

    /// `docker inspect --format '{{FORMAT}}'`.
    pub fn inspect(&self, format: &str) -> String {
        let outcome = self.docker.cli(&["inspect", "--format", &format!("{{{{{format}}}}}"), &self.name]);
        outcome.ok().stdout.trim_end().to_owned()
    }

    /// What it wrote so far.
    pub fn logs(&self) -> String {
        let Outcome { stdout, stderr, .. } = self.cli("logs", "").ok();
        stdout + &stderr
    }

    /// Waits until it has written `words`.
    pub fn until_logs(&self, words: &str) {
        eventually(words, || self.logs().contains(words));
    }

    /// Waits until `inspect` says `value`.
    pub fn until_is(&self, format: &str, value: &str) {
        eventually(&format!("{format} = {value}"), || self.inspect(format) == value);
    }

    /// Waits for its end: the exit code that docker reports.
    pub fn wait(&self) -> i32 {
        self.cli("wait", "").ok().stdout.trim().parse().expect("an exit code")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cli("rm", "--force --volumes");
    }
}

/// How long a test waits for what has to come: engines are slow, the guest's still more, and the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done`.
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command with `input` on its stdin.
pub fn with_input(command: &mut Command, input: &[u8]) -> Outcome {
    use std::io::Write;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("the command is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let outcome = finish(child);
    // A command that does not read all of its stdin is no failure of the test.
    let _ = writer.join().expect("a writer");
    outcome
}
