// SPDX-License-Identifier: Apache-2.0
//! The files of deployment/docker, brought up by docker-compose on a real daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use wsbox_integration::docker::{Daemon, eventually, strict};
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Outcome, bundle};

const SERVICE: &str = "service";

/// An image that has what the files expect of one: a command, and a health check.
fn import(daemon: &Daemon) {
    let root = daemon.path().join(SERVICE);
    bundle::fill(&root);
    let check = root.join("bin/healthcheck");
    fs::write(&check, "#!/bin/sh\nexit 0\n").expect("a script");
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).expect("its mode");
    let archive = format!("{}.tar", root.display());
    outcome(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".")).ok();
    daemon.docker(&["import", "--change", r#"CMD ["sleep", "1000"]"#, &archive, SERVICE]).ok();
}

struct Compose {
    daemon: &'static Daemon,
    file: PathBuf,
    token: PathBuf,
}

impl Compose {
    fn new(daemon: &'static Daemon, name: &str) -> Self {
        let token = daemon.path().join("token");
        fs::write(&token, "secret\n").expect("a token");
        let deployment = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("deployment/docker");
        Self { daemon, file: deployment.join(name), token }
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("docker-compose");
        command.env("DOCKER_HOST", format!("unix://{}/socket", self.daemon.path().display()));
        command.env("HOME", self.daemon.path()).env("GATEWAY_TOKEN_FILE", &self.token);
        command.env("GATEWAY_IMAGE", SERVICE).env("WORKSPACE_IMAGE", SERVICE).env("WORKSPACE_DIR", self.daemon.path());
        command.args(["--project-name", "wsbox", "--file"]).arg(&self.file).args(args);
        outcome(&mut command)
    }

    fn exec(&self, service: &str, script: &str) -> Outcome {
        self.run(&["exec", "-T", service, "sh", "-c", script])
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        self.run(&["down", "--volumes", "--timeout", "1"]);
    }
}

/// One after the other: both have the same ports to publish.
#[test]
fn the_shipped_files_run() {
    let daemon = strict().daemon;
    import(daemon);
    let production = Compose::new(daemon, "compose.production.yml");
    production.run(&["up", "--detach"]).ok();
    let rights =
        "id -u; grep -E '^(CapEff|NoNewPrivs):' /proc/self/status | cut -f2; touch /x 2>&1; touch /tmp/x && echo ok";
    let wanted = "10001\n0000000000000000\n1\ntouch: /x: Read-only file system\nok\n";
    assert_eq!(production.exec("gateway", rights).stdout, wanted);
    assert_eq!(production.exec("workspace", rights).stdout, wanted);
    assert_eq!(production.exec("gateway", "cat /run/secrets/token").stdout, "secret\n");
    let maps = "awk '{print $2 != 0}' /proc/self/uid_map; ls /proc/sys/net/ipv4/conf; ls -d /jobs";
    assert_eq!(
        production.exec("workspace", maps).stdout,
        "1\nall\ndefault\nlo\n/jobs\n",
        "ids and a network of its own"
    );
    let gateway = production.run(&["ps", "--quiet", "gateway"]).ok().stdout;
    let health = ["inspect", "--format", "{{.State.Health.Status}}", gateway.trim()];
    eventually("healthy", || daemon.docker(&health).stdout == "healthy\n");
    let port = ["port", gateway.trim()];
    assert_eq!(daemon.docker(&port).ok().stdout, "8443/tcp -> 127.0.0.1:8443\n", "on loopback alone");
    let limits =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || cat memory.max pids.max";
    for service in ["gateway", "workspace"] {
        assert_eq!(production.exec(service, limits).stdout, "536870912\n256\n", "{service}");
    }
    let networks = "ls /sys/class/net | xargs; ip route | grep -c ^default";
    assert_eq!(production.exec("gateway", networks).stdout, "eth0 eth1 lo\n1\n", "one of both leads out");
    drop(production);
    let development = Compose::new(daemon, "compose.development.yml");
    development.run(&["up", "--detach"]).ok();
    assert_eq!(development.exec("workspace", "id -u; pwd; ls token").stdout, "1000\n/workspace\ntoken\n");
    assert_eq!(development.exec("workspace", "cat /proc/1/comm; touch /x /tmp/x; ls /tmp").stdout, "docker-init\nx\n");
}
