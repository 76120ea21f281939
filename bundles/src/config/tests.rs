// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;

fn base() -> Value {
    json!({
        "process": { "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/", "capabilities": {}, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}] },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [{ "destination": "/tmp", "type": "tmpfs" }],
        "linux": { "namespaces": [{"type": "network"}, {"type": "user"}], "seccomp": {}, "resources": {"pids": {"limit": 256}} }
    })
}

fn with(flags: &Flags) -> Made {
    make(base(), None, flags, &Files::default()).unwrap()
}

#[test]
fn sizes() {
    assert_eq!(bytes("512m").unwrap(), 512 << 20);
    assert_eq!(bytes("1G").unwrap(), 1 << 30);
    assert_eq!(bytes("7").unwrap(), 7);
    for bad in ["", "m", "-1", "1.5g", "9999999999999t", "1x"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
    assert_eq!(cpus("1.5").unwrap(), 150_000);
    assert!(cpus("0").is_err() && cpus("nan").is_err() && cpus("x").is_err());
    assert_eq!(ulimit("nofile=5:10").unwrap(), json!({"type": "RLIMIT_NOFILE", "soft": 5, "hard": 10}));
    assert!(ulimit("nofile=10:5").is_err() && ulimit("files=1").is_err());
}

#[test]
fn every_weakening_is_said() {
    let flags = Flags {
        network: Network::Host,
        seccomp: Seccomp::Unconfined,
        writable: true,
        cap_add: vec!["net_raw".into()],
        pids_limit: Some(-1),
        ..Flags::default()
    };
    let made = with(&flags);
    for layer in ["L1", "L2", "L3", "L4", "L5"] {
        assert_eq!(
            made.warnings.iter().filter(|line| line.starts_with(layer)).count(),
            1,
            "{layer}: {:?}",
            made.warnings
        );
    }
    assert_eq!(made.config["linux"]["namespaces"], json!([{"type": "user"}]));
    assert_eq!(made.config["process"]["capabilities"]["bounding"], json!(["CAP_NET_RAW"]));
    assert_eq!(made.config["root"]["readonly"], false);
    assert!(made.config["linux"]["resources"].get("pids").is_none() && made.config["linux"].get("seccomp").is_none());
}

#[test]
fn a_network_comes_with_its_sockets() {
    let made = with(&Flags { network: Network::Path("/run/netns/a".into()), ..Flags::default() });
    assert_eq!(made.config["linux"]["namespaces"][0], json!({"type": "network", "path": "/run/netns/a"}));
    let rules = made.config["linux"]["seccomp"]["syscalls"].as_array().unwrap();
    let families: Vec<_> = rules.iter().map(|rule| rule["args"][0]["valueTwo"].as_i64().unwrap()).collect();
    assert_eq!(families, [2, 10]);
    assert_eq!(made.warnings.iter().filter(|line| line.starts_with('L')).count(), 2, "{:?}", made.warnings);
}

#[test]
fn nothing_asked_nothing_weakened() {
    let made = with(&Flags { user: Some("7:8".into()), ..Flags::default() });
    assert_eq!(made.warnings, Vec::<String>::new());
    assert_eq!(made.config["process"]["user"], json!({"uid": 7, "gid": 8}));
}

#[test]
fn a_flag_takes_the_place_of_what_was() {
    let flags = Flags {
        env: vec!["PATH=/x".into(), "A=1".into()],
        tmpfs: vec!["/tmp:size=1m".into()],
        ulimits: vec![ulimit("nofile=5:10").unwrap()],
        entrypoint: Some(vec!["/e".into()]),
        arguments: vec!["a".into()],
        user: Some("5".into()),
        ..Flags::default()
    };
    let config = with(&flags).config;
    assert_eq!(config["process"]["env"], json!(["PATH=/x", "A=1"]));
    assert_eq!(config["process"]["args"], json!(["/e", "a"]));
    assert_eq!(config["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 10}]));
    let options = json!(["nosuid", "nodev", "tmpcopyup", "size=1048576", "mode=755", "uid=5"]);
    assert_eq!(
        config["mounts"],
        json!([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}])
    );
}

#[test]
fn a_secret_is_a_reference() {
    let secret: Secret = "id=token,env=TOKEN".parse().unwrap();
    let config = with(&Flags { secrets: vec![secret], ..Flags::default() }).config;
    assert_eq!(config["annotations"]["dev.wsbox.secret.token"], "env:TOKEN");
    for bad in ["id=x", "env=A", "id=../x,env=A", "id=x,src=/nowhere/x", "id=.x,env=A", "id=x,env=A,y=z"] {
        assert!(bad.parse::<Secret>().is_err(), "{bad}");
    }
}

#[test]
fn mounts_of_nonsense() {
    let user = User::default();
    for bad in ["work", "/a/../b", "/", "/a:size=x", "/a:suid", "/a:mpol=bind:0"] {
        assert!(tmpfs(bad, &user).is_err(), "{bad}");
    }
    for bad in ["/a", "data:/a", "/nowhere:/a", "/tmp:a", "/tmp:/a:z", "/tmp:/a:ro:x"] {
        assert!(bind(bad).is_err(), "{bad}");
    }
    for bad in [
        "type=volume,target=/a",
        "type=bind,target=/a",
        "type=tmpfs,target=/a,source=/b",
        "type=bind,source=/tmp,target=/a,x=y",
    ] {
        assert!(mount(bad, &user).is_err(), "{bad}");
    }
    assert_eq!(bind("/tmp:/a:ro").unwrap(), mount("type=bind,source=/tmp,target=/a,readonly", &user).unwrap());
}

#[test]
fn users_of_the_image() {
    let folder = std::env::temp_dir().join(format!("wsbox-users-{}", std::process::id()));
    let (upper, lower) = (folder.join("upper"), folder.join("lower"));
    for layer in [&upper, &lower] {
        std::fs::create_dir_all(layer.join("etc")).unwrap();
    }
    std::fs::write(lower.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv:/bin/sh\n").unwrap();
    std::fs::write(lower.join("etc/group"), "root:x:0:\napp:x:8:\nlog:x:9:app,other\n").unwrap();
    let files = Files::new(vec![upper.clone(), lower]);
    let app = User { uid: 7, gid: 8, additional: vec![9], home: Some("/srv".into()) };
    assert_eq!(files.resolve("app").unwrap(), app);
    assert_eq!(files.resolve("7").unwrap(), app);
    assert_eq!(files.resolve("app:log").unwrap(), User { gid: 9, additional: vec![], ..app });
    assert_eq!(files.resolve("1001").unwrap().uid, 1001);
    // An image that calls root by a number.
    let passwd = "1001:x:0:0::/root:/bin/sh\n";
    let names = Files::new(vec![folder.join("lower")]);
    let before = std::fs::read_to_string(folder.join("lower/etc/passwd")).unwrap();
    std::fs::write(folder.join("lower/etc/passwd"), before.clone() + passwd).unwrap();
    assert_eq!((names.resolve("1001").unwrap().uid, names.resolve("1001:1001").unwrap().uid), (1001, 1001));
    std::fs::write(folder.join("lower/etc/passwd"), before).unwrap();
    assert!(files.resolve("nobody").unwrap_err().to_string().contains("/etc/passwd"));
    assert!(files.resolve("4294967295").is_err());
    std::os::unix::fs::symlink("/etc/passwd", upper.join("etc/passwd")).unwrap();
    assert!(files.resolve("app").unwrap_err().to_string().contains("is a link"));
    std::fs::remove_dir_all(folder).unwrap();
}
