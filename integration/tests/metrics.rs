// SPDX-License-Identifier: Apache-2.0
//! `wsbox metrics` against the kernel's own numbers, and read by a real Prometheus with the rules that wsbox ships.

#[path = "metrics/common.rs"]
mod common;
#[path = "metrics/hostile.rs"]
mod hostile;
#[path = "metrics/scrapes.rs"]
mod scrapes;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Running, detach, exporter, get, page, repository, value};
use serde_json::{Value, json};
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Engine, TempDir};

#[test]
fn the_page_tells_what_the_kernel_has_in_force() {
    let engine = Engine::new();
    let (_bundle, id) = engine.sleeping(Bundle::hardened());
    let page = page(&engine);
    for layer in 1..=8 {
        let series = format!("wsbox_container_layer_in_force{{container=\"{id}\",layer=\"L{layer}\"}}");
        assert_eq!(value(&page, &series), Some(1.0), "{series}");
    }
    for (name, labels, wanted) in [
        ("container_spec_memory_limit_bytes", "", f64::from(512 << 20)),
        ("container_spec_pids_limit", "", 256.0),
        ("container_pids", "", 1.0),
        ("container_oom_kills_total", "", 0.0),
        ("container_process_count", ",process=\"sleep\"", 1.0),
        ("wsbox_container_status", ",status=\"running\"", 1.0),
    ] {
        assert_eq!(value(&page, &format!("{name}{{container=\"{id}\"{labels}}}")), Some(wanted), "{name}\n{page}");
    }
    let began = value(&page, &format!("container_start_time_seconds{{container=\"{id}\"}}")).expect("a start");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..now + 2.0).contains(&began), "{began} at {now}");
}

#[test]
fn starts_and_errors_are_counted_while_somebody_asks() {
    let engine = Engine::new();
    let (_running, address) = exporter(&engine);
    let read = |series: &str| value(&get(&address, "/metrics", "text/plain").0, series).unwrap_or_default();
    let (starts, errors) = ("wsbox_start_seconds_count{command=\"run\"}", "wsbox_errors_total{kind=\"not-found\"}");
    let before = (read(starts), read(errors));
    engine.run(&Bundle::hardened().args(&["true"]), wsbox_integration::Door::Userns).ok();
    engine.wsbox(&["state", "nobody"]).fails(1, &["does not exist"]);
    // A page is served again for a second.
    until("both", || read(starts) >= before.0 + 1.0 && read(errors) >= before.1 + 1.0);
}

#[test]
fn only_loopback_unless_told_otherwise_and_bad_input_is_named() {
    let engine = Engine::new();
    engine.wsbox(&["metrics", "--listen", "0.0.0.0:0"]).fails(1, &["--listen 0.0.0.0:0", "--allow-remote"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    engine.wsbox(&["metrics", "--listen", &address]).fails(1, &[&address, "in use", "another port"]);
    engine.wsbox(&["metrics", "--textfile", "-", "--watch", "usr"]).fails(1, &["--watch", "no absolute path"]);
    engine.wsbox(&["metrics", "--textfile", "/nowhere/x"]).fails(1, &["/nowhere/x", "no such file"]);
}

#[test]
fn other_requests_are_answered_and_who_says_nothing_keeps_nobody_waiting() {
    let engine = Engine::new();
    let (_running, address) = exporter(&engine);
    let _silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(get(&address, "/", "*/*").1, "HTTP/1.1 404 Not Found");
    let open = "application/openmetrics-text;version=1.0.0";
    let (body, status) = get(&address, "/metrics", open);
    assert_eq!((status.as_str(), body.ends_with("# EOF\n")), ("HTTP/1.1 200 OK", true));
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[test]
fn the_shipped_rules_and_settings_hold() {
    let monitoring = repository().join("deployment/monitoring");
    for arguments in [&["check", "config", "prometheus.yml"][..], &["test", "rules", "prometheus-rules.test.yml"]] {
        let ran = Command::new("promtool").args(arguments).current_dir(&monitoring).output().expect("promtool");
        assert!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    let dashboard = fs::read_to_string(monitoring.join("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    // Every metric that a panel asks for is one that the exporter has.
    let source = fs::read_to_string(repository().join("runtime/src/metrics/families.rs")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in names.filter(|name| ["container_", "wsbox_", "workspace_"].iter().any(|p| name.starts_with(p)))
            {
                let family = name.trim_end_matches("_total").trim_end_matches("_bucket");
                assert!(source.contains(&format!("\"{family}\"")), "{name} in {}", panel["title"]);
            }
        }
    }
    let unit = repository().join("deployment/systemd/wsbox-metrics.service");
    let analysed = Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit).output().unwrap();
    let text = String::from_utf8_lossy(&analysed.stdout).into_owned();
    let level = text.lines().find_map(|line| line.split("wsbox-metrics.service: ").nth(1));
    let level: f64 = level.and_then(|level| level.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    assert!(level < 2.0, "{level}");
}

/// The rules as they are shipped, but that none waits.
fn impatient_rules(folder: &Path) {
    let rules = fs::read_to_string(repository().join("deployment/monitoring/prometheus-rules.yml")).unwrap();
    let rules: String =
        rules.lines().filter(|line| !line.trim().starts_with("for:")).map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("rules.yml"), rules).unwrap();
}

fn prometheus(folder: &Path, exporter: &str) -> (Running, String) {
    impatient_rules(folder);
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs: [{{job_name: wsbox, static_configs: [{{targets: [\"{exporter}\"]}}]}}]\n"
    );
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .expect("prometheus (Debian's package)");
    (Running::new(child), address)
}

#[test]
fn a_real_prometheus_raises_the_alerts() {
    let engine = Engine::new();
    let folder = TempDir::new("prometheus");
    let (_exporter, address) = exporter(&engine);
    let writer = Bundle::hardened().set("/root/readonly", json!(false)).args(&[
        "sh",
        "-c",
        "mkdir -p /usr; while :; do echo x > /usr/f; sleep 1; done",
    ]);
    let limited = |mebibytes: u64, script: &str| {
        Bundle::hardened()
            .set("/linux/resources/memory/limit", json!(mebibytes << 20))
            .set("/linux/resources/memory/swap", json!(mebibytes << 20))
            .args(&["sh", "-c", &format!("{script}; sleep 1000")])
    };
    let full = limited(64, "dd if=/dev/zero of=/tmp/x bs=1M count=60");
    let greedy = limited(16, "dd if=/dev/zero of=/dev/null bs=64M count=1");
    let listener = Bundle::hardened().args(&["sh", "-c", "printf nc > /proc/self/comm; sleep 1000; true"]);
    let denied = Bundle::hardened().set("/annotations", json!({"dev.wsbox.violations": "true"})).args(&[
        "sh",
        "-c",
        "while :; do mount -t tmpfs x /tmp; sleep 1; done",
    ]);
    let [writer_id, full_id, greedy_id, listener_id, denied_id] =
        [&writer, &full, &greedy, &listener, &denied].map(|bundle| detach(&engine, bundle));
    let (_prometheus, address) = prometheus(folder.path(), &address);
    let wanted = [
        ("WorkspaceFileSystemModified", &writer_id),
        ("WorkspaceLayerMissing", &writer_id),
        ("WorkspaceMemoryHigh", &full_id),
        ("WorkspaceOutOfMemory", &greedy_id),
        ("WorkspaceUnauthorizedProcess", &listener_id),
        ("WorkspaceSeccompViolations", &denied_id),
    ];
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let alerts =
            if TcpStream::connect(&address).is_ok() { get(&address, "/api/v1/alerts", "*/*").0 } else { String::new() };
        let json = alerts.find('{').and_then(|at| {
            serde_json::from_str::<Value>(alerts[at..].rsplit_once('}').map(|(body, _)| format!("{body}}}"))?.as_str())
                .ok()
        });
        let firing =
            json.map(|json| json["data"]["alerts"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
        let fires = |(name, id): &(&str, &String)| {
            firing.iter().any(|alert| {
                alert["labels"]["alertname"] == *name
                    && alert["labels"]["container"] == id.as_str()
                    && alert["state"] == "firing"
            })
        };
        if wanted.iter().all(fires) {
            return;
        }
        assert!(Instant::now() < end, "of {wanted:?} there are only {firing:#?}\n{}", page(&engine));
        std::thread::sleep(Duration::from_millis(200));
    }
}
