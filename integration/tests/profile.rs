// SPDX-License-Identifier: Apache-2.0
//! Profiles on real containers: what a bundle lacks is in force as the kernel has it, what can not be is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, wsbox_path};
use wsbox_integration::{Bundle, Engine, TempDir, unique};

/// No layer: root on the host, every capability that `runc spec` knows, a writable root, and the network of `netns`.
fn bare(netns: &str) -> Bundle {
    let caps = json!(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_KILL"]);
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []});
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
    let network = json!({"type": "network", "path": netns});
    Bundle::plain()
        .set("/process/capabilities", sets)
        .set("/process/noNewPrivileges", json!(false))
        .set("/root/readonly", json!(false))
        .set("/linux/resources", json!({}))
        .set("/linux/namespaces", json!([vec![network], namespaces].concat()))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
}

/// A network namespace that is not the host's, for as long as its process lives.
struct Network(std::process::Child);

impl Network {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare");
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("it is piped"), &mut line).expect("it is there");
        Self(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running container of a bundle, made with these flags before the command.
fn sleeping(engine: &Engine, flags: &[&str], bundle: Bundle) -> (Bundle, String) {
    let (bundle, id) = (bundle.args(&["sleep", "1000"]), unique("p"));
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&[flags, &["run", "--detach", "--bundle", &path, &id]].concat()).ok();
    (bundle, id)
}

/// The layers that `inspect` says are not in force.
fn open_layers(engine: &Engine, id: &str) -> Vec<String> {
    let layers: Value = serde_json::from_str(&engine.wsbox(&["inspect", "--format", "json", id]).ok().stdout).unwrap();
    let layers = layers["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 8);
    layers
        .iter()
        .filter(|layer| layer["inForce"] != true)
        .map(|layer| layer["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn production_puts_all_eight_layers_in_force() {
    let engine = Engine::new();
    // The control: without a profile none is, but for L1, which is not asked.
    let (_bare, id) = sleeping(&engine, &[], bare("/proc/self/ns/net"));
    assert_eq!(open_layers(&engine, &id), ["L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8"]);
    let network = Network::new();
    let (_strict, id) = sleeping(&engine, &["--profile", "production"], bare(&network.path()));
    assert_eq!(open_layers(&engine, &id), [""; 0]);
    assert_eq!(engine.state(&id)["annotations"]["dev.wsbox.profile"], "production");
    let status = engine.wsbox(&["exec", "--cap", "CAP_SYS_ADMIN", &id, "cat", "/proc/self/status"]).ok().stdout;
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
    // The profile's filter, which the container has though exec was given no profile.
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(
        engine.wsbox(&["exec", &id, "probe", "syscall", "165", "0", "0", "0", "0"]).stdout,
        "syscall 165 0 0 0 0: EPERM\n"
    );
}

#[test]
fn staging_and_development() {
    let (engine, network) = (Engine::new(), Network::new());
    let (_staging, id) = sleeping(&engine, &["--profile", "staging"], bare(&network.path()));
    assert_eq!(open_layers(&engine, &id), [""; 0]);
    let (_development, id) = sleeping(&engine, &["--profile=development"], bare(&network.path()));
    assert_eq!(open_layers(&engine, &id), ["L7"]);
    // Docker's filter knows AF_INET, wsbox's own does not.
    let filtered = |profile: &str| {
        let bundle = bare(&network.path()).args(&["probe", "syscall", "41", "2", "1", "0"]);
        bundle.write();
        let path = bundle.path().display().to_string();
        engine.wsbox(&["--profile", profile, "run", "--bundle", &path, &unique("p")]).ok().stdout
    };
    assert!(filtered("production").contains("EPERM"));
    assert!(!filtered("development").contains("EPERM"));
}

#[test]
fn what_an_engine_puts_into_the_network_before_start_stays_behind() {
    let engine = Engine::new();
    let bundle = bare("").args(&["sleep", "1000"]);
    bundle.write();
    let (path, id) = (bundle.path().display().to_string(), unique("p"));
    engine.wsbox(&["--profile", "production", "create", "--bundle", &path, &id]).ok();
    let pid = engine.state(&id)["pid"].to_string();
    // As dockerd does: from outside, into the namespace of the process in the pid file.
    let enter = ["-t", &pid, "--net", "--"];
    let add =
        Command::new("nsenter").args(enter).args(["ip", "link", "add", "eth0", "type", "bridge"]).status().unwrap();
    assert!(add.success());
    let early = engine.wsbox(&["exec", &id, "true"]);
    early.fails(255, &["before it is started"]);
    engine.wsbox(&["start", &id]).ok();
    assert_eq!(open_layers(&engine, &id), [""; 0]);
    let seen = engine.wsbox(&["exec", &id, "sh", "-c", "cat /proc/net/dev; ls /sys/class/net"]).ok().stdout;
    assert!(seen.contains("lo:") && !seen.contains("eth0"), "{seen}");
}

#[test]
fn a_missing_program_is_told_as_without_a_profile() {
    let engine = Engine::new();
    for (program, code, words) in
        [("/bin/nothing", 127, "no such file or directory"), ("/etc/passwd", 126, "permission denied")]
    {
        let bundle = bare("").args(&[program]);
        bundle.write();
        let path = bundle.path().display().to_string();
        for command in ["create", "run"] {
            engine.wsbox(&["--profile", "production", command, "--bundle", &path, &unique("p")]).fails(code, &[words]);
        }
    }
    // What only fails after `start` is named by its own step, not by one that stands elsewhere without a profile.
    let bundle = bare("").args(&["/bin/late"]);
    bundle.write();
    fs::write(bundle.root().join("bin/late"), "no program").unwrap();
    fs::set_permissions(bundle.root().join("bin/late"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (path, id) = (bundle.path().display().to_string(), unique("p"));
    engine.wsbox(&["--profile", "production", "create", "--bundle", &path, &id]).ok();
    let started = engine.wsbox(&["start", &id]).ok();
    assert!(started.stderr.contains("warning: exec: \"/bin/late\": exec format error"), "{started:?}");
}

/// The profile denies a call that the config asks an agent about, so that there is no listener: `start` must not look for one.
#[test]
fn what_fails_at_start_is_told_by_the_filter_that_the_profile_made() {
    let engine = Engine::new();
    let rules = json!([{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]);
    let asks = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/no-agent", "syscalls": rules});
    let hooks = json!({"startContainer": [{"path": "/bin/false"}]});
    let bundle = bare("").set("/linux/seccomp", asks).set("/hooks", hooks).args(&["true"]);
    bundle.write();
    let (path, id) = (bundle.path().display().to_string(), unique("p"));
    engine.wsbox(&["--profile", "production", "create", "--bundle", &path, &id]).ok();
    let said = engine.wsbox(&["start", &id]);
    assert!(!said.stderr.contains("SCMP_ACT_NOTIFY"), "{said:?}");
    said.fails(1, &["hooks.startContainer[0]", "/bin/false"]);
}

#[test]
fn every_way_to_start_keeps_to_it() {
    let engine = Engine::new();
    for (profile, remap, open) in
        [("production", "true", vec![]), ("staging", "false", vec!["L7"]), ("development", "", vec!["L7"])]
    {
        for user in [json!({"uid": 0, "gid": 0}), json!({"uid": 1000, "gid": 1000})] {
            let bundle = bare("").set("/process/user", user.clone()).args(&["sleep", "1000"]);
            bundle.write();
            let (path, id) = (bundle.path().display().to_string(), unique("p"));
            let mut command = engine.command(&["create", "--bundle", &path, &id]);
            // From files: the container keeps them.
            let log = bundle.path().join("log");
            let output = || Stdio::from(fs::File::options().append(true).create(true).open(&log).unwrap());
            command.env("WSBOX_PROFILE", profile).env("USERNS_REMAP_ENABLED", remap).stdout(output()).stderr(output());
            assert!(command.status().unwrap().success(), "{profile} {user}: {}", fs::read_to_string(&log).unwrap());
            engine.wsbox(&["start", &id]).ok();
            assert_eq!(open_layers(&engine, &id), open, "{profile} {user}");
            let status = engine.wsbox(&["exec", &id, "cat", "/proc/1/status"]).ok().stdout;
            let uid = user["uid"].to_string();
            assert!(status.contains(&format!("Uid:\t{uid}\t")), "{status}");
        }
    }
}

/// A config that Docker wrote, on a busybox root and with files of ours for those that Docker binds. What this version does not
/// do, hooks and time namespaces, is taken out.
fn dockers(json: &str) -> Bundle {
    let mut bundle = Bundle::plain();
    bundle.config = serde_json::from_str(json).unwrap();
    bundle.config["root"]["path"] = json!("rootfs");
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/docker/{}", unique("d")));
    let files = bundle.path().join("files");
    fs::create_dir(&files).unwrap();
    for mount in bundle.config["mounts"].as_array_mut().unwrap().iter_mut().filter(|mount| mount["type"] == "bind") {
        let name = mount["destination"].as_str().unwrap().rsplit('/').next().unwrap();
        let source = files.join(name);
        fs::write(&source, format!("{name}\n")).unwrap();
        mount["source"] = json!(source);
    }
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "time");
    bundle.remove("/hooks")
}

#[test]
fn configs_of_docker() {
    const CONFIGS: [&str; 2] =
        [include_str!("../data/docker20.10-default.json"), include_str!("../data/docker29-default.json")];
    let engine = Engine::new();
    for json in CONFIGS {
        let (_plain, id) = sleeping(&engine, &[], dockers(json));
        assert_eq!(open_layers(&engine, &id), ["L3", "L4", "L5", "L6", "L7", "L8"]);
        let (strict, id) = sleeping(&engine, &["--profile", "production"], dockers(json));
        assert_eq!(open_layers(&engine, &id), [""; 0]);
        // What Docker bound is there, and can be written by the container's root as before; the root can not.
        let script = "cat /etc/hostname; echo new > /etc/hosts; cat /etc/hosts; touch /etc/x; touch /tmp/x /run/x /dev/shm/x && echo ok";
        let outcome = engine.wsbox(&["exec", &id, "sh", "-c", script]).ok();
        assert_eq!(outcome.stdout, "hostname\nnew\nok\n");
        assert!(outcome.stderr.contains("/etc/x: Read-only file system"), "{outcome:?}");
        assert_eq!(fs::read_to_string(strict.path().join("files/hosts")).unwrap(), "new\n");
    }
    let bundle = dockers(include_str!("../data/docker20.10-privileged.json"));
    bundle.write();
    let path = bundle.path().display().to_string();
    let outcome = engine.wsbox(&["--profile", "staging", "run", "--bundle", &path, &unique("p")]);
    outcome.fails(1, &["linux.resources.devices[0]", "--privileged", "profile staging refuses it"]);
}

#[test]
fn what_can_not_be_tightened_is_refused_and_nothing_is_left() {
    let engine = Engine::new();
    let run = |bundle: &Bundle, id: &str| {
        bundle.write();
        let path = bundle.path().display().to_string();
        engine.wsbox(&["--profile", "production", "run", "--bundle", &path, id])
    };
    let devices = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
    let host = json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]);
    for (bundle, word) in [
        (bare("").set("/linux/devices", devices), "linux.devices[0]: adds the device /dev/fuse"),
        (bare("").set("/linux/namespaces", host), "--network host"),
        (
            bare("").set("/linux/namespaces/2/path", json!("/proc/1/ns/ipc")),
            "linux.namespaces[2].path: /proc/1/ns/ipc is the host's",
        ),
    ] {
        let id = unique("p");
        run(&bundle, &id).fails(1, &[word, "profile production refuses it"]);
        wsbox_integration::leftover::assert_nothing_left(engine.root(), &id);
    }
}

#[test]
fn an_overlay_as_root_is_made_anew_for_reading() {
    let engine = Engine::new();
    let script = "cat /etc/upper; stat -c %u:%g /etc/upper /bin; touch /etc/x; mkdir /x";
    let bundle = bare("").script(script);
    let merged = bundle.path().join("merged");
    for name in ["upper/etc", "work", "merged"] {
        fs::create_dir_all(bundle.path().join(name)).unwrap();
    }
    fs::write(bundle.path().join("upper/etc/upper"), "of the upper\n").unwrap();
    std::os::unix::fs::chown(bundle.path().join("upper/etc/upper"), Some(5), Some(6)).unwrap();
    let folder = bundle.path().to_owned();
    let at = |name: &str| folder.join(name).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", at("rootfs"), at("upper"), at("work"));
    nix::mount::mount(Some("overlay"), &merged, Some("overlay"), nix::mount::MsFlags::empty(), Some(options.as_str()))
        .expect("an overlay");
    let bundle = bundle.set("/root/path", json!("merged"));
    bundle.write();
    let strict = engine.wsbox(&["--profile", "production", "run", "--bundle", &at(""), &unique("p")]);
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "user"].map(|kind| json!({"type": kind}));
    let bundle = bundle.set("/linux/namespaces", json!(namespaces));
    bundle.write();
    let writable = engine.wsbox(&["run", "--bundle", &at(""), &unique("p")]);
    nix::mount::umount(&merged).unwrap();
    assert_eq!(strict.stdout, "of the upper\n5:6\n0:0\n", "{strict:?}");
    assert_eq!(strict.stderr.matches("Read-only file system").count(), 2, "{strict:?}");
    writable.fails(1, &["root.readonly", "overlay", "userns-remap"]);
}

/// wsbox in a mount namespace of its own, where /etc/wsbox/wsbox.env holds `settings`.
fn with_settings(
    engine: &Engine,
    settings: &str,
    mode: &str,
    environment: &[(&str, &str)],
    args: &[&str],
) -> wsbox_integration::Outcome {
    let etc = TempDir::new("etc");
    fs::write(etc.path().join("settings"), settings).unwrap();
    let script = r#"set -e
        settings=$(cat "$1/settings"; echo x); settings=${settings%x}
        mount -t tmpfs tmpfs "$1"
        mkdir "$1/upper" "$1/work"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
        mkdir -p /etc/wsbox
        printf %s "$settings" > /etc/wsbox/wsbox.env
        chmod "$2" /etc/wsbox/wsbox.env
        shift 2
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(etc.path()).arg(mode);
    command.arg(wsbox_path()).arg("--root").arg(engine.root()).args(args).envs(environment.iter().copied());
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare"))
}

#[test]
fn the_file_of_settings_is_the_floor() {
    let engine = Engine::new();
    let bundle = bare("").script("grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; cat /proc/self/uid_map");
    bundle.write();
    let path = bundle.path().display().to_string();
    let run = |settings: &str, mode: &str, environment: &[(&str, &str)], flags: &[&str]| {
        let id = unique("p");
        with_settings(&engine, settings, mode, environment, &[flags, &["run", "--bundle", &path, &id]].concat())
    };
    let strict = |text: &str| text.contains("CapEff:\t0000000000000000") && text.contains("Seccomp:\t2");
    let own_ids = |text: &str| !text.contains("0          0 4294967295");
    // No setting, no change.
    let text = run("", "644", &[], &[]).ok().stdout;
    assert!(!strict(&text) && !own_ids(&text), "{text}");
    let text = run("WSBOX_PROFILE=production\n", "644", &[], &[]).ok().stdout;
    assert!(strict(&text) && own_ids(&text), "{text}");
    // Nobody lowers it.
    let outcome =
        run("WSBOX_PROFILE=production\n", "644", &[("WSBOX_PROFILE", "development")], &["--profile", "staging"]).ok();
    assert!(strict(&outcome.stdout) && own_ids(&outcome.stdout), "{outcome:?}");
    assert!(outcome.stderr.contains("--profile staging: /etc/wsbox/wsbox.env asks for production"), "{outcome:?}");
    let text = run("WSBOX_PROFILE=staging\nUSERNS_REMAP_ENABLED=false\n", "644", &[], &[]).ok().stdout;
    assert!(strict(&text) && !own_ids(&text), "{text}");
    // The environment raises it.
    let text =
        run("WSBOX_PROFILE=staging\nUSERNS_REMAP_ENABLED=false\n", "644", &[("USERNS_REMAP_ENABLED", "true")], &[])
            .ok()
            .stdout;
    assert!(own_ids(&text), "{text}");
    for (settings, mode, environment, words) in [
        (
            "WSBOX_PROFILE=production\nUSERNS_REMAP_ENABLED=no\n",
            "644",
            &[][..],
            "USERNS_REMAP_ENABLED in /etc/wsbox/wsbox.env",
        ),
        (
            "WSBOX_PROFILE=production\n",
            "644",
            &[("USERNS_REMAP_ENABLED", "false")],
            "USERNS_REMAP_ENABLED in the environment",
        ),
        ("WSBOX_PROFILE=production\n", "666", &[], "can be written by others than root"),
        ("WSBOX_PROFILES=production\n", "644", &[], "/etc/wsbox/wsbox.env:1"),
        ("WSBOX_PROFILE=production\nSECCOMP_PROFILE_PATH=/nowhere.json\n", "644", &[], "/nowhere.json does not exist"),
    ] {
        run(settings, mode, environment, &[]).fails(1, &[words]);
    }
}

#[test]
fn a_seccomp_profile_of_ones_own() {
    let dir = TempDir::new("seccomp");
    let file = |name: &str, json: Value| {
        let path = dir.path().join(name);
        fs::write(&path, json.to_string()).unwrap();
        path.display().to_string()
    };
    let deny = |name: &str| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]})
    };
    let (mkdir, link) = (file("mkdir.json", deny("mkdir")), file("symlink.json", deny("symlink")));
    let engine = Engine::new();
    let bundle = bare("").script("mkdir /tmp/x; ln -s a /tmp/y; probe syscall 165 0 0 0 0; true");
    bundle.write();
    let path = bundle.path().display().to_string();
    // In the file it takes the place of the embedded one, in the environment it comes on top.
    let settings = format!("WSBOX_PROFILE=production\nSECCOMP_PROFILE_PATH={mkdir}\n");
    let id = unique("p");
    let outcome =
        with_settings(&engine, &settings, "644", &[("SECCOMP_PROFILE_PATH", &link)], &["run", "--bundle", &path, &id])
            .ok();
    assert!(outcome.stderr.contains("/tmp/x") && outcome.stderr.contains("Permission denied"), "{outcome:?}");
    assert!(outcome.stderr.contains("/tmp/y"), "{outcome:?}");
    assert!(!outcome.stdout.contains("165 0 0 0 0: EACCES"), "{outcome:?}");
    // One that is broken is an error that names the file.
    let broken = file("broken.json", json!({"defaultAction": "SCMP_ACT_NO"}));
    assert!(Path::new(&broken).exists());
    let bundle = bare("").args(&["true"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    let mut command = engine.command(&["--profile", "staging", "run", "--bundle", &path, &unique("p")]);
    command.env("SECCOMP_PROFILE_PATH", &broken).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap()).fails(1, &["broken.json", "defaultAction"]);
}
