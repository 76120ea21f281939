// SPDX-License-Identifier: Apache-2.0
//! The monitor itself: small, cheap, without rights.

use std::fs;
use std::time::{Duration, Instant};

use wsbox_integration::Bundle;

use crate::common::{Counted, cpu_time, status, until_counted};

#[test]
fn it_has_no_rights() {
    let counted = Counted::sleeping();
    let pid = counted.monitor();
    wsbox_integration::engine::until("it has given up its rights", || status(pid, "Seccomp") == "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Uid"), ["4294967280"; 4].join(" "));
    assert_eq!(status(pid, "Groups"), "");
    // Its root: processes, nothing else, and nothing that could be written.
    let root = fs::read_dir(format!("/proc/{pid}/root/")).expect("its root");
    let names = root.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let others: Vec<String> = names.filter(|name| name.parse::<u32>().is_err()).collect();
    assert_eq!(others.iter().filter(|name| !name.contains("self")).count(), 0, "{others:?}");
    let write = fs::write(format!("/proc/{pid}/root/{}/oom_score_adj", std::process::id()), "0");
    assert_eq!(write.map_err(|error| error.raw_os_error()), Err(Some(libc::EROFS)));
    // A session of its own, no stdio of ours, a cgroup beside the container's.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).expect("a session");
    assert_eq!(session, pid.to_string());
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    for link in links.filter_map(|fd| fs::read_link(fd.path()).ok()) {
        let name = link.display().to_string();
        let known = ["anon_inode:[pidfd]", "anon_inode:seccomp notify", "socket:", "/"];
        assert!(known.iter().any(|known| name.starts_with(known)) && !name.contains("dev"), "{name}");
    }
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let v2 = cgroup.lines().find_map(|line| line.strip_prefix("0::")).expect("a v2 cgroup");
    assert_eq!(v2, "/wsbox/wsbox@monitors");
    counted.delete();
}

/// 60 KB, with a few calls counted.
#[test]
fn it_is_small() {
    let counted = Counted::sleeping();
    counted.probe(&["deny", "1", "8", "20"]);
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", counted.monitor())).expect("it runs");
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("PSS");
    let kilobytes: u64 = pss.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(kilobytes <= 60, "{kilobytes} KB");
    counted.delete();
}

/// However many flood it, it takes no more than 5 % of a CPU; what it took is printed.
#[test]
fn a_flood_is_cheap() {
    for [processes, threads] in
        [["1", "1"], ["1", "4"], ["1", "8"], ["8", "1"], ["1", "50"], ["4", "16"], ["1", "200"], ["1", "1500"]]
    {
        let bundle = Bundle::hardened().set("/linux/resources/pids/limit", serde_json::json!(2000));
        let counted = Counted::new(bundle.args(&["probe", "deny", processes, threads, "1000000"]));
        until_counted(&counted, 300);
        let (pid, began) = (counted.monitor(), Instant::now());
        let before = cpu_time(pid);
        std::thread::sleep(Duration::from_secs(2));
        let share = (cpu_time(pid) - before) as f64 / began.elapsed().as_nanos() as f64;
        println!("{processes} processes of {threads} threads: {:.2} % of a CPU", share * 100.0);
        assert!(share <= 0.05, "{processes} processes of {threads} threads: {:.2} %", share * 100.0);
        counted.delete();
    }
}

/// A single denied call is not delayed: neither are a hundred, as a program makes them when it starts.
#[test]
fn few_calls_are_answered_at_once() {
    let counted = Counted::sleeping();
    let began = Instant::now();
    counted.probe(&["deny", "1", "1", "60"]);
    assert!(began.elapsed() < Duration::from_secs(5));
    counted.delete();
}
