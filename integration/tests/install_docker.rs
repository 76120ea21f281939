// SPDX-License-Identifier: Apache-2.0
//! `wsbox install-docker` and the files of deployment/docker, with Debian's dockerd and docker-compose.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Engine, Outcome, TempDir};

fn deployment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("deployment/docker")
}

/// A dockerd with a settings file, in a mount namespace where /etc has the users and ids of deployment/docker.
struct Dockerd {
    dir: TempDir,
    child: Child,
}

const START: &str = r#"set -e
    mkdir "$1/etc"
    mount -t tmpfs tmpfs "$1/etc"
    mkdir "$1/etc/upper" "$1/etc/work"
    mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc/upper,workdir=$1/etc/work" /etc
    touch /etc/subuid /etc/subgid
    for file in subuid subgid; do sed -i '/^dockremap:/d; /^wsbox:/d' /etc/$file; cat "$3/$file" >>/etc/$file; done
    sed -i /^dockremap:/d /etc/passwd /etc/group
    echo dockremap:x:64901:64901::/:/usr/sbin/nologin >>/etc/passwd
    echo dockremap:x:64901: >>/etc/group
    exec dockerd --config-file "$2" --data-root "$1/lib" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/socket" \
        --iptables=false --bridge=none </dev/null >"$1/log" 2>&1"#;

impl Dockerd {
    fn start(config: &Path) -> Self {
        let dir = TempDir::new("dockerd");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START, "sh"]).arg(dir.path()).arg(config).arg(deployment());
        let this = Self { child: command.spawn().expect("unshare"), dir };
        let end = Instant::now() + Duration::from_secs(60);
        while this.docker(&["version"]).code != 0 {
            let log = fs::read_to_string(this.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        this
    }

    fn docker(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_HOST", format!("unix://{}/socket", self.dir.path().display())).args(args);
        outcome(command.env("DOCKER_CONFIG", self.dir.path()))
    }

    /// The names of its runtimes, without those of Docker's own.
    fn runtimes(&self) -> Vec<String> {
        let json = self.docker(&["info", "--format", "{{json .Runtimes}}"]).ok().stdout;
        let runtimes: Value = serde_json::from_str(&json).expect("JSON");
        let own = |name: &&String| *name != "runc" && !name.starts_with("io.containerd.");
        runtimes.as_object().expect("an object").keys().filter(own).cloned().collect()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let signal = |signal| {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal);
        };
        signal(nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(30);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn outcome(command: &mut Command) -> Outcome {
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs"))
}

/// `wsbox install-docker` on this file.
fn install(config: &Path, more: &[&str]) -> Outcome {
    let config = config.display().to_string();
    Engine::new().wsbox(&[&["install-docker", "--config", &config], more].concat())
}

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).expect("JSON")
}

#[test]
fn dockerd_knows_the_runtimes_after_a_reload() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    fs::write(&config, "{\n  \"runtimes\": {\n    \"other\": {\"path\": \"/bin/true\"}\n  },\n  \"debug\": false\n}\n")
        .unwrap();
    let daemon = Dockerd::start(&config);
    assert_eq!(daemon.runtimes(), ["other"]);
    let told = install(&config, &[]).ok().stdout;
    assert!(told.contains("added wsbox, wsbox-strict") && told.contains("systemctl reload docker"), "{told}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.child.id() as i32), nix::sys::signal::Signal::SIGHUP)
        .unwrap();
    wsbox_integration::engine::until("the runtimes", || daemon.runtimes() == ["other", "wsbox", "wsbox-strict"]);
    drop(daemon);
    let again = Dockerd::start(&config);
    assert_eq!(again.runtimes(), ["other", "wsbox", "wsbox-strict"]);
    let strict = again.docker(&["info", "--format", "{{json .Runtimes}}"]).ok().stdout;
    assert!(
        strict.contains("--profile") && strict.contains("production") && strict.contains(&wsbox_path()),
        "{strict}"
    );
}

#[test]
fn dockerd_takes_the_shipped_settings() {
    for (name, security) in [("daemon.json", ""), ("daemon-userns-remap.json", "name=userns")] {
        let daemon = Dockerd::start(&deployment().join(name));
        assert_eq!(daemon.runtimes(), ["wsbox", "wsbox-strict"], "{name}");
        let options = daemon.docker(&["info", "--format", "{{json .SecurityOptions}}"]).ok().stdout;
        assert!(options.contains(security), "{name}: {options}");
    }
}

#[test]
fn the_shipped_settings_are_what_install_docker_writes() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    install(&config, &["--binary", &wsbox_path()]).ok();
    let mut shipped = parsed(&deployment().join("daemon.json"));
    for name in ["wsbox", "wsbox-strict"] {
        assert_eq!(shipped["runtimes"][name]["path"], "/usr/local/bin/wsbox");
        shipped["runtimes"][name]["path"] = json!(wsbox_path());
    }
    assert_eq!(parsed(&config), shipped);
}

#[test]
fn what_is_there_stays_and_a_second_time_changes_nothing() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink("daemon.json", &link).unwrap();
    let before = "{\n\t\"zeta\": 1.0,\n\t\"alpha\": {\"x\" : [ ]}\n}\n";
    fs::write(&config, before).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    nix::unistd::chown(&config, Some(1234.into()), Some(1235.into())).unwrap();
    let dry = install(&link, &["--dry-run"]).ok().stdout;
    assert_eq!(fs::read_to_string(&config).unwrap(), before);
    install(&link, &[]).ok();
    let after = fs::read_to_string(&config).unwrap();
    assert_eq!(after, dry);
    assert!(after.starts_with("{\n\t\"zeta\": 1.0,\n\t\"alpha\": {\"x\" : [ ]},\n\t\"runtimes\": {\n"), "{after}");
    let metadata = fs::metadata(&config).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1234, 1235, 0o640));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(install(&link, &[]).ok().stdout.contains("nothing changed"));
    assert_eq!(fs::metadata(&config).unwrap().ino(), metadata.ino(), "not even written again");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    let json = install(&link, &["--format", "json"]).ok().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["changed"], &json["added"]), (&json!(false), &json!([])));
}

#[test]
fn a_file_of_its_own_and_a_missing_folder() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("docker/daemon.json");
    install(&config, &[]).ok();
    assert_eq!(fs::metadata(&config).unwrap().mode() & 0o7777, 0o644);
    fs::write(&config, " \n").unwrap();
    install(&config, &[]).ok();
    assert!(parsed(&config)["runtimes"]["wsbox"]["path"].is_string());
    let here = ["install-docker", "--config", "new.json"];
    outcome(Engine::new().command(&here).current_dir(dir.path())).ok();
    assert_eq!(parsed(&dir.path().join("new.json")), parsed(&config));
}

/// Whoever manages settings links to a file that is there only later.
#[test]
fn a_link_to_a_file_that_is_not_there_stays_a_link() {
    let dir = TempDir::new("daemon");
    let [link, folder] = ["daemon.json", "managed"].map(|name| dir.path().join(name));
    symlink("hop.json", &link).unwrap();
    symlink("managed/docker.json", dir.path().join("hop.json")).unwrap();
    let refused = |more: &[&str]| install(&link, more).fails(1, &["is a link to ", "managed/docker.json", "mkdir -p "]);
    refused(&[]);
    refused(&["--dry-run"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is made");
    fs::create_dir(&folder).unwrap();
    install(&link, &[]).ok();
    assert!(parsed(&folder.join("docker.json"))["runtimes"]["wsbox-strict"].is_object());
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("hop.json"));
    assert!(install(&link, &[]).ok().stdout.contains("nothing changed"));
    fs::remove_file(dir.path().join("hop.json")).unwrap();
    symlink("daemon.json", dir.path().join("hop.json")).unwrap();
    install(&link, &[]).fails(1, &["symbolic link"]);
}

#[test]
fn what_can_not_be_merged_is_refused_and_left_alone() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    for (text, words) in [
        ("{\"debug\": true,}", "is no JSON: trailing comma at line 1 column 16"),
        ("[]", "the file is a list, where dockerd takes an object"),
        ("{\"runtimes\": []}", "runtimes is a list, where dockerd takes an object"),
        ("\u{feff}{}", "byte order mark"),
        ("{\"runtimes\": {\"wsbox\": {\"path\": \"/other\"}}}", "runtimes.wsbox is there with other settings"),
        ("{\"userns-remap\": \"nobody-has-this-name\"}", "useradd"),
    ] {
        fs::write(&config, text).unwrap();
        install(&config, &[]).fails(1, &[words]);
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
    }
    fs::write(&config, "{}").unwrap();
    install(&config, &["--binary", "/etc/passwd"]).fails(1, &["chmod 0755 /etc/passwd"]);
    install(&config, &["--binary", "wsbox"]).fails(1, &["absolute"]);
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/tmp/\xff");
    let mut command = Engine::new().command(&["install-docker", "--dry-run", "--config"]);
    outcome(command.arg(&config).arg("--binary").arg(odd)).fails(1, &["is no UTF-8"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), "{}");
    fs::write(&config, "{\"runtimes\": {\"wsbox\": {\"path\": \"/other\"}}, \"debug\": true}").unwrap();
    let outcome = install(&config, &["--force"]).ok();
    assert!(outcome.stdout.contains("replaced wsbox\n") && outcome.stderr.contains("/other"), "{outcome:?}");
    assert_eq!(parsed(&config)["debug"], true);
    assert_eq!(parsed(&config)["runtimes"]["wsbox"]["path"], wsbox_path());
}

/// Where /etc is a copy of its own, without Docker's user, in which `before` has run.
fn install_after(before: &str, config: &Path, more: &[&str]) -> Outcome {
    let own = "mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
        touch /etc/subuid /etc/subgid
        sed -i /^dockremap:/d /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid";
    let script = format!("{own}\n{before}\nwsbox=$1; shift; exec $wsbox install-docker --config \"$@\"");
    let mut command = Command::new("unshare");
    outcome(command.args(["--mount", "sh", "-ec", &script, "sh", &wsbox_path()]).arg(config).args(more))
}

/// Each error names the command that mends it.
#[test]
fn the_user_of_userns_remap_and_its_ids_are_checked() {
    let dir = TempDir::new("daemon");
    let config = dir.path().join("daemon.json");
    let before = "{\"userns-remap\": \"default\"}";
    fs::write(&config, before).unwrap();
    let (mut fixes, mut done) = (Vec::new(), String::new());
    let told = loop {
        let outcome = install_after(&done, &config, &[]);
        if outcome.code == 0 || fixes.len() > 3 {
            break outcome.ok();
        }
        assert_eq!(fs::read_to_string(&config).unwrap(), before, "nothing is changed");
        let fix = outcome.stderr.rsplit_once('(').and_then(|(_, fix)| fix.rsplit_once(')')).expect("a way out").0;
        done += &format!("{fix}\n");
        fixes.push(fix.to_owned());
    };
    let ids = ["subuid", "subgid"].map(|file| format!("echo dockremap:100000:65536 >> /etc/{file}"));
    assert!(fixes[0].starts_with("useradd --system ") && fixes[1..] == ids, "{fixes:?}");
    assert!(told.stdout.contains("added wsbox, wsbox-strict") && told.stdout.contains("systemctl reload docker"));
    fs::write(&config, before).unwrap();
    let forced = install_after("", &config, &["--force"]).ok();
    assert!(forced.stderr.contains("warning") && forced.stderr.contains("dockremap"), "{forced:?}");
    assert_eq!(parsed(&config)["userns-remap"], "default");
}

/// What `docker-compose config` makes of a file.
fn compose(name: &str) -> Outcome {
    let mut command = Command::new("docker-compose");
    command.env("GATEWAY_IMAGE", "g").env("WORKSPACE_IMAGE", "w").env("GATEWAY_TOKEN_FILE", "/run/token");
    outcome(command.arg("-f").arg(deployment().join(name)).arg("config"))
}

#[test]
fn docker_compose_takes_the_shipped_files() {
    let text = compose("compose.development.yml").ok().stdout;
    for word in ["runtime: wsbox", "127.0.0.1", "no-new-privileges:true", "mem_limit", "pids_limit"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = compose("compose.production.yml").ok().stdout;
    let words = [
        "runtime: wsbox-strict",
        "runtime: wsbox\n",
        "internal: true",
        "read_only: true",
        "network_mode: none",
        "healthcheck:",
        "gateway_token",
    ];
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    // Each service, and no port but on loopback.
    for (word, count) in [
        ("no-new-privileges:true", 2),
        ("- ALL", 2),
        ("user: 10001:10001", 2),
        ("mem_limit", 2),
        ("127.0.0.1:8443:8443", 1),
    ] {
        assert_eq!(text.matches(word).count(), count, "{word}: {text}");
    }
    let unset = outcome(
        Command::new("docker-compose").arg("-f").arg(deployment().join("compose.production.yml")).arg("config"),
    );
    assert_ne!(unset.code, 0, "an image that nobody named: {unset:?}");
}
