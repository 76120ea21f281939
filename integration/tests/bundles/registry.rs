// SPDX-License-Identifier: Apache-2.0
//! Images of Debian's docker-registry on loopback, plain and with a login.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use wsbox_integration::{Outcome, engine};

use crate::world::{World, assert_same};

/// bcrypt of "of-the-test", as htpasswd(1) makes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuZQDFqlfhxikusxVp2uYfh7fKmiQU08a\n";
/// base64 of user:of-the-test.
const LOGIN: &str = "dXNlcjpvZi10aGUtdGVzdA==";

pub struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    pub fn start(world: &World, auth: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(world.path("htpasswd"), HTPASSWD).unwrap();
        let auth = if auth {
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", world.text("htpasswd"))
        } else {
            String::new()
        };
        let storage = format!("storage: {{filesystem: {{rootdirectory: {}}}}}\n", world.text("registry"));
        let config =
            format!("version: 0.1\nlog: {{level: error}}\n{storage}http: {{addr: '127.0.0.1:{port}'}}\n{auth}");
        fs::write(world.path("registry.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(world.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().expect("docker-registry is installed"), port };
        engine::until("the registry listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }

    pub fn name(&self, rest: &str) -> String {
        format!("docker://127.0.0.1:{}/{rest}", self.port)
    }

    fn push(&self, world: &World, more: &str) {
        let line = format!(
            "skopeo --insecure-policy copy --dest-tls-verify=false {more} oci:layout:app {}",
            self.name("team/app:1")
        );
        world.tool(&line);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn plain() {
    let world = World::new();
    world.layout();
    let registry = Registry::start(&world, false);
    registry.push(&world, "");
    world.create("oci:{}/layout:app", "wanted", &["--copy"]).ok();
    world.create(&registry.name("team/app:1"), "copied", &["--copy"]).ok();
    assert_same(&world.path("wanted/rootfs"), &world.path("copied/rootfs"));
    world.create(&registry.name("team/app:1"), "shared", &["--", "id"]).ok();
    assert!(world.run("shared").ok().stdout.starts_with("uid=1000(user)"));
    let digest = world.config("shared")["annotations"]["dev.wsbox.image.digest"].as_str().unwrap().to_owned();
    world.create(&registry.name(&format!("team/app@{digest}")), "pinned", &["--digest", &digest]).ok();
    let wrong = format!("sha256:{}", "0".repeat(64));
    world.create(&registry.name(&format!("team/app@{wrong}")), "wrong", &[]).fails(1, &["is not there"]);
    world.create(&registry.name("team/app:2"), "none", &[]).fails(1, &["team/app:2", "is not there"]);
    world
        .create("docker://127.0.0.1:1/app:1", "none", &[])
        .fails(1, &["docker://127.0.0.1:1/app:1", "onnection refused"]);
    world.create("docker://not a name", "none", &[]).fails(1, &["docker://not a name"]);
    world.assert_clean("none");
}

/// Changes the blob of a layer in the registry's own files.
#[test]
fn a_registry_that_lies() {
    let world = World::new();
    world.layout();
    let registry = Registry::start(&world, false);
    registry.push(&world, "");
    let blobs = world.tool("find registry/docker/registry/v2/blobs -name data -size +100k").stdout;
    let path = world.path(blobs.lines().next().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    for flags in [&[][..], &["--copy"]] {
        let outcome = world.create(&registry.name("team/app:1"), "out", flags);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("layer sha256:"), "{outcome:?}");
        world.assert_clean("out");
    }
}

/// A registry that answers every question but the first with blanks without end; that one with `first`.
fn talkative(first: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let answer = move |mut stream: std::net::TcpStream| -> std::io::Result<()> {
        let mut request = [0; 4096];
        let count = stream.read(&mut request)?;
        if request[..count].starts_with(b"GET /v2/ ") {
            return stream
                .write_all(format!("HTTP/1.1 {first}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 1 << 16])?;
        }
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream))));
    host
}

#[test]
fn hostile_registries() {
    let world = World::new();
    let create = |host: &str| {
        let config = format!(r#"{{"auths": {{"{host}": {{"auth": "{LOGIN}"}}}}}}"#);
        fs::create_dir_all(world.path("docker")).unwrap();
        fs::write(world.path("docker/config.json"), config).unwrap();
        let (out, store, name) = (world.text("out"), world.text("store"), format!("docker://{host}/app:1"));
        let mut command = world.engine.command(&["bundle", "create", &name, &out, "--store", &store]);
        command.env("DOCKER_CONFIG", world.path("docker"));
        wsbox_integration::sandbox::outcome(&mut command)
    };
    create(&talkative("200 OK")).fails(1, &["the registry gives more than 4194304 bytes; it is refused"]);
    let clear = "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://auth.example.org/t\"";
    let words = ["wants the login to be sent where others may listen", "http://auth.example.org/t"];
    create(&talkative(clear)).fails(1, &words);
    world.assert_clean("out");
}

#[test]
fn with_a_login() {
    let world = World::new();
    world.layout();
    let registry = Registry::start(&world, true);
    registry.push(&world, "--dest-creds user:of-the-test");
    let create = |config: &str, out: &str| -> Outcome {
        fs::create_dir_all(world.path("docker")).unwrap();
        fs::write(world.path("docker/config.json"), config).unwrap();
        let (out, store) = (world.text(out), world.text("store"));
        let mut command =
            world.engine.command(&["bundle", "create", &registry.name("team/app:1"), &out, "--store", &store]);
        let path = format!("{}:{}", world.text("bin"), std::env::var("PATH").unwrap());
        command.env("DOCKER_CONFIG", world.path("docker")).env("PATH", path);
        wsbox_integration::sandbox::outcome(&mut command)
    };
    let host = format!("127.0.0.1:{}", registry.port);
    create(&format!(r#"{{"auths": {{"{host}": {{"auth": "{LOGIN}"}}}}}}"#), "known").ok();
    let hint = format!("docker login {host}");
    create("{}", "unknown").fails(1, &["wants a login", &hint]);
    create(&format!(r#"{{"auths": {{"{host}": {{"auth": "dXNlcjp3cm9uZw=="}}}}}}"#), "wrong")
        .fails(1, &["wants a login"]);
    let broken =
        create(&format!(r#"{{"auths": {{"{host}": {{"auth": "c2VjcmV0"}}}}}}"#), "broken").fails(1, &["is none"]);
    assert!(!broken.stderr.contains("secret"), "{broken:?}");
    fs::create_dir(world.path("bin")).unwrap();
    let helper = world.path("bin/docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread host\n[ \"$1 $host\" = \"get {host}\" ] && echo '{{\"Username\": \"user\", \"Secret\": \"of-the-test\"}}'\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    create(r#"{"credsStore": "test"}"#, "helped").ok();
    create(&format!(r#"{{"credHelpers": {{"{host}": "none-such"}}}}"#), "helpless")
        .fails(1, &["docker-credential-none-such"]);
}
