// SPDX-License-Identifier: Apache-2.0
//! Payloads that would hide from the page, or write into it, and neighbours of the exporter that would keep it busy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsbox_integration::engine::{finish, until};
use wsbox_integration::{Bundle, Engine};

use crate::common::{detach, exporter, get, page, value};

/// The sum of a metric of a container over all its other labels.
fn sum(page: &str, name: &str, id: &str) -> f64 {
    let start = format!("{name}{{container=\"{id}\"");
    page.lines()
        .filter(|line| line.starts_with(&start))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What a shell and `probe` can not do without; and mseal, for what is above the highest of a profile is ENOSYS, and no violation.
const NEEDED: &str = "read write open openat close stat fstat newfstatat mmap mprotect munmap brk rt_sigaction rt_sigprocmask \
    rt_sigreturn fork vfork clone execve wait4 exit exit_group arch_prctl prctl set_tid_address nanosleep clock_nanosleep poll dup2 mseal";

/// Whoever fills the table of denied calls with names and numbers hides no call behind it.
#[test]
fn every_denied_call_is_told_however_many_names_make_them() {
    let engine = Engine::new();
    let names: Vec<&str> = NEEDED.split_whitespace().collect();
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let script =
        "probe deny-as-many 300; n=0; while [ $n -lt 450 ]; do probe syscall $n; n=$((n+1)); done; sleep 1000; true";
    let bundle = Bundle::hardened()
        .set("/linux/seccomp", filter)
        .set("/annotations", json!({"dev.wsbox.violations": "true"}))
        .args(&["sh", "-c", script]);
    let id = detach(&engine, &bundle);
    let slept = format!("container_process_count{{container=\"{id}\",process=\"sleep\"}}");
    until("all calls", || value(&page(&engine), &slept).is_some());
    let others = format!("workspace_seccomp_violations_total{{container=\"{id}\",syscall=\"(others)\"}}");
    assert!(value(&page(&engine), &others).is_some(), "{}", page(&engine));
    let total = || {
        let said = engine.wsbox(&["inspect", "--format", "json", &id]).ok().stdout;
        serde_json::from_str::<Value>(&said).unwrap()["violations"]["total"].as_f64().unwrap()
    };
    until("the same sum", || sum(&page(&engine), "workspace_seccomp_violations_total", &id) == total());
}

#[test]
fn deaths_by_the_filter_are_told() {
    let engine = Engine::new();
    let annotated = Bundle::hardened().set("/annotations", json!({"dev.wsbox.violations": "true"}));
    let (_bundle, id) = engine.sleeping(annotated);
    let series = format!("workspace_seccomp_kills_total{{container=\"{id}\"}}");
    assert_eq!(value(&page(&engine), &series), Some(0.0));
    engine.wsbox(&["exec", &id, "probe", "kill-myself"]);
    assert_eq!(value(&page(&engine), &series), Some(1.0));
}

/// What containers call themselves comes out as one label value that no terminal obeys, whatever is in it.
#[test]
fn names_of_processes_are_escaped() {
    let engine = Engine::new();
    for (name, told) in
        [(r#"a"b\\\nc=1} 9"#, r#"a\\\"b\\\\\\nc=1} 9"#), (r#"\033]0;x\007"} 1\n"#, r#"\\u{1b}]0;x\\u{7}\\\"} 1\\n"#)]
    {
        let script = format!("mkfifo /tmp/fifo; printf '{name}' > /proc/self/comm; read x < /tmp/fifo");
        let bundle = Bundle::hardened().args(&["sh", "-c", &script]);
        let id = detach(&engine, &bundle);
        let wanted = format!("container_process_count{{container=\"{id}\",process=\"{told}\"}} 1.0\n");
        until("the name", || page(&engine).contains(&wanted));
    }
    let page = page(&engine);
    assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
    let mut checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian's prometheus)");
    checker.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = finish(checker);
    assert!(!checked.stderr.contains("error while linting") && !checked.stderr.contains("parsing"), "{checked:?}");
}

/// Neighbours that connect and say nothing, again and again, keep no scraper waiting; neither do those that ask all the time.
#[test]
fn silent_connections_keep_nobody_waiting() {
    let engine = Engine::new();
    let (_running, address) = exporter(&engine);
    let ends = AtomicBool::new(false);
    let silent = || {
        while !ends.load(Ordering::Relaxed) {
            // Until it is closed.
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let _ = stream.read(&mut [0]);
        }
    };
    let _held: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let waited: Vec<Duration> = std::thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(silent)));
        let ask = |_| {
            std::thread::sleep(Duration::from_millis(200));
            let begun = Instant::now();
            assert_eq!(get(&address, "/metrics", "text/plain").1, "HTTP/1.1 200 OK");
            begun.elapsed()
        };
        let waited = (0..5).map(ask).collect();
        ends.store(true, Ordering::Relaxed);
        waited
    });
    assert!(waited.iter().all(|waited| *waited < Duration::from_secs(2)), "{waited:?}");
    let scrapes: std::collections::BTreeSet<String> = (0..20)
        .map(|_| {
            let page = get(&address, "/metrics", "text/plain").0;
            page.lines().find(|line| line.starts_with("wsbox_scrape_seconds ")).unwrap().to_owned()
        })
        .collect();
    assert!(scrapes.len() <= 3, "{scrapes:?}");
}
