// SPDX-License-Identifier: Apache-2.0
//! What services of a host with systemd (the guest) have of wsbox: journald its audit log, and the metrics' own unit its containers, as
//! deployment/ tells people to install it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use wsbox_integration::engine::{captured, until, wsbox_path};
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, Outcome, TempDir, unique};

fn call(program: &str, args: &[&str]) -> Outcome {
    assert!(Path::new("/run/systemd/system").is_dir(), "systemd does not run here: `make test-guest` has it");
    outcome(Command::new(program).args(args))
}

/// Entries that match, as journald has them.
fn journal(matches: &[&str]) -> Vec<Value> {
    call("journalctl", &["--sync"]).ok();
    let said = call("journalctl", &[&["--no-pager", "--output=json", "-t", "wsbox"], matches].concat()).ok().stdout;
    said.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect()
}

fn audited(engine: &Engine, log: &str, args: &[&str]) -> Outcome {
    engine.wsbox(&[&["--audit-log", log], args].concat())
}

#[test]
fn the_journal_has_each_line_of_the_audit_log() {
    let (engine, id) = (Engine::new(), unique("journal"));
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    audited(&engine, "journald", &["run", "--detach", "--bundle", &path, &id]).ok();
    audited(&engine, "journald", &["exec", "-e", "TOKEN=secret", &id, "echo", "line\nPRIORITY=0\nbreak", "ü"]).ok();
    assert_ne!(audited(&engine, "journald", &["start", &id]).code, 0);
    audited(&engine, "journald", &["delete", "--force", &id]).ok();

    let entries = journal(&[&format!("WSBOX_CONTAINER={id}")]);
    let lines: Vec<Value> = entries
        .iter()
        .map(|entry| serde_json::from_str(entry["MESSAGE"].as_str().expect("text")).expect("a line of JSON"))
        .collect();
    let column = |name: &str| lines.iter().map(|line| line[name].as_str().unwrap_or("?")).collect::<Vec<_>>();
    assert_eq!(column("eventType"), ["run", "exec", "start", "delete"]);
    assert_eq!(column("result"), ["success", "success", "failure", "success"]);
    assert_eq!(lines[1]["action"], json!(["exec", "-e", "TOKEN", id, "echo", "line\nPRIORITY=0\nbreak", "ü"]));
    for (entry, line) in entries.iter().zip(&lines) {
        assert_eq!((&line["schema"], &line["container"]), (&json!(1), &json!(id)));
        for (field, value) in
            [("SYSLOG_IDENTIFIER", "wsbox"), ("PRIORITY", "5"), ("_TRANSPORT", "journal"), ("_UID", "0")]
        {
            assert_eq!(entry[field], value, "{field} of {entry}");
        }
    }
}

/// The command of deployment/monitoring/README.md.
fn anchors(log: &Path) -> Vec<String> {
    call("journalctl", &["--sync"]).ok();
    let log = format!("WSBOX_AUDIT_LOG={}", log.display());
    let said = call("journalctl", &["--output=cat", "--output-fields=WSBOX_AUDIT_ANCHOR", "_UID=0", &log]).ok().stdout;
    said.lines().map(str::to_owned).collect()
}

/// A chain that was written anew is whole, but it is not the one that the journal knows.
#[test]
fn the_journal_has_the_anchors_of_a_chain() {
    let (engine, folder) = (Engine::new(), TempDir::new("anchors"));
    let [log, other] = ["audit.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
    for (file, lines) in [(&log, 101), (&other, 2)] {
        for _ in 0..lines {
            audited(&engine, &file.display().to_string(), &["kill", "nobody"]).fails(1, &["does not exist"]);
        }
    }
    let found = anchors(&log);
    assert_eq!(found.iter().filter_map(|anchor| anchor.split(' ').next()).collect::<Vec<_>>(), ["1", "101"]);
    let verify = |log: &Path| {
        let anchors = found.iter().flat_map(|anchor| ["--anchor", anchor]);
        engine.wsbox(&[&["audit", "verify", &log.display().to_string()], &anchors.collect::<Vec<_>>()[..]].concat())
    };
    assert!(verify(&log).ok().stdout.starts_with("101 lines, unbroken"));
    fs::rename(&other, &log).expect("a file");
    engine.wsbox(&["audit", "verify", &log.display().to_string()]).ok();
    verify(&log).fails(1, &["--anchor", "no line of the log"]);
}

const UNITS: [&str; 2] = ["wsbox-metrics.service", "wsbox-metrics.socket"];
const INSTALLED: &str = "/usr/local/bin/wsbox";

/// As deployment/monitoring/README.md installs it, after `make install`; there is one for all tests.
struct Service(#[expect(dead_code, reason = "it is held, not read")] MutexGuard<'static, ()>);

static TURNS: Mutex<()> = Mutex::new(());

impl Service {
    fn install() -> Self {
        let service = Self(TURNS.lock().unwrap_or_else(PoisonError::into_inner));
        fs::copy(wsbox_path(), INSTALLED).expect("wsbox");
        let from = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deployment/systemd"));
        for unit in UNITS {
            fs::copy(from.join(unit), Path::new("/etc/systemd/system").join(unit)).expect("a unit");
        }
        call("systemctl", &["enable", "--now", "wsbox-metrics.socket"]).ok();
        service
    }

    fn page(&self) -> String {
        let mut stream = TcpStream::connect("127.0.0.1:9464").expect("the socket of the unit");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}: {}", self.log()));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{page}: {}", self.log());
        page.to_owned()
    }

    fn log(&self) -> String {
        call("journalctl", &["--no-pager", "-u", UNITS[0]]).stdout
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        call("systemctl", &["disable", "--now", UNITS[1], UNITS[0]]);
        UNITS.iter().for_each(|unit| drop(fs::remove_file(Path::new("/etc/systemd/system").join(unit))));
        let _ = fs::remove_file(INSTALLED);
        let _ = fs::remove_file("/run/wsbox/ids/.counters");
        call("systemctl", &["daemon-reload"]);
    }
}

/// A container of root's own, below /run/wsbox.
struct Usual(#[expect(dead_code, reason = "it is held, not read")] Bundle, String);

impl Usual {
    fn start(script: &str) -> Self {
        let (bundle, id) = (Bundle::hardened().set("/root/readonly", json!(false)).script(script), unique("usual"));
        bundle.write();
        let path = bundle.path().display().to_string();
        captured(Command::new(wsbox_path()).args(["run", "--detach", "--count-violations", "--bundle", &path, &id]))
            .ok();
        Self(bundle, id)
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        outcome(Command::new(wsbox_path()).args(["delete", "--force", &self.1]));
    }
}

/// What is told of a container, without the numbers, and without what is counted from the exporter's own start on.
fn series(page: &str, id: &str) -> Vec<String> {
    let label = format!("container=\"{id}\"");
    let lines = page.lines().filter(|line| line.contains(&label) && !line.starts_with("container_fs_changes"));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

/// Confined as it is, it sees of a container what root does; and also after it was started anew.
#[test]
fn the_service_of_the_metrics_sees_what_root_sees() {
    let service = Service::install();
    let script =
        "mkdir -p /usr; probe deny 1 1 7; until test -e /tmp/go; do sleep 0.1; done; echo x > /usr/f; sleep 1000";
    let container = Usual::start(script);
    let id = &container.1;
    let has = |page: &str, metric: &str, labels: &str, value: &str| {
        page.contains(&format!("{metric}{{container=\"{id}\"{labels}}} {value}\n"))
    };
    until("the denied calls", || {
        has(&service.page(), "workspace_seccomp_violations_total", ",syscall=\"mount\"", "7.0")
    });
    outcome(Command::new(wsbox_path()).args(["exec", id, "touch", "/tmp/go"])).ok();
    until("the write, and what comes after it", || {
        let page = service.page();
        has(&page, "container_fs_changes", ",path=\"/usr\"", "1.0")
            && has(&page, "container_process_count", ",process=\"sleep\"", "1.0")
    });
    for _ in 0..2 {
        let page = service.page();
        for (metric, labels, value) in [
            ("container_spec_memory_limit_bytes", "", "536870912.0"),
            ("container_process_count", ",process=\"sleep\"", "1.0"),
            ("wsbox_container_status", ",status=\"running\"", "1.0"),
            ("wsbox_container_layer_in_force", ",layer=\"L1\"", "1.0"),
            ("wsbox_container_layer_in_force", ",layer=\"L2\"", "1.0"),
            ("wsbox_container_layer_in_force", ",layer=\"L7\"", "1.0"),
        ] {
            assert!(has(&page, metric, labels, value), "{metric} {labels} {value}: {page}");
        }
        let own = outcome(Command::new(wsbox_path()).args(["metrics", "--textfile", "-"])).ok().stdout;
        assert_eq!(series(&page, id), series(&own, id));
        call("systemctl", &["restart", UNITS[0]]).ok();
    }
    assert_eq!(call("systemctl", &["is-active", UNITS[0]]).ok().stdout, "active\n");
}

#[test]
fn the_service_of_the_metrics_is_confined() {
    let _service = Service::install();
    call("systemctl", &["start", UNITS[0]]).ok();
    let text = call("systemd-analyze", &["--no-pager", "security", UNITS[0]]).ok().stdout;
    let level = text.lines().find_map(|line| line.split(&format!("exposure level for {}: ", UNITS[0])).nth(1));
    let level: f64 = level.and_then(|level| level.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    println!("systemd-analyze security: {level}");
    assert!(level < 2.0, "{text}");
}
