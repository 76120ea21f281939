// SPDX-License-Identifier: Apache-2.0
//! What is counted, for whom, and how it is told.

use serde_json::json;
use wsbox_integration::engine::receive_file;
use wsbox_integration::{Bundle, Engine, TempDir, unique};

use crate::common::{Counted, rows, summary};

fn of(rows: &[(&str, &str, u64)]) -> std::collections::BTreeMap<(String, String), u64> {
    rows.iter().map(|(call, process, count)| ((call.to_string(), process.to_string()), *count)).collect()
}

/// Threads, processes, and a call that one program makes after another: no call is lost, and none counted twice.
#[test]
fn counts_are_exact() {
    let script = "probe deny 1 8 400; probe deny 8 1 400; probe deny 4 4 50; mount -t tmpfs x /tmp; unshare -U true; unshare -U true; true";
    for userns in [true, false] {
        let bundle = Bundle::hardened().user_namespace(userns).script(script);
        let said = summary(&bundle, &["--count-violations"], 0);
        let violations = &said["violations"];
        assert_eq!(rows(violations), of(&[("mount", "probe", 7200), ("mount", "mount", 1), ("unshare", "unshare", 2)]));
        assert_eq!((&violations["total"], &violations["counting"]), (&json!(7203), &json!("on")), "{said}");
        assert_eq!((&said["exit"], &said["version"]), (&json!({"code": 0}), &json!(1)));
    }
}

/// Callers see the filter's own numbers, and nothing else.
#[test]
fn callers_see_what_they_would_see() {
    let errno = |names: &[&str], errno: i32| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno});
    let mut bundle = Bundle::hardened();
    let rules = bundle.config["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
    for rule in rules.iter_mut() {
        rule["names"]
            .as_array_mut()
            .expect("names")
            .retain(|name| !["syslog", "mount", "getpriority"].contains(&name.as_str().unwrap()));
    }
    rules.extend([errno(&["syslog"], libc::EMLINK), errno(&["mount"], libc::ENOSYS), errno(&["getpriority"], 0)]);
    let probes = "probe syscall 103; probe syscall 165; probe syscall 140 0; probe syscall 101; probe syscall 600";
    let (engine, id) = (Engine::new(), unique("counted"));
    let bundle = bundle.script(probes);
    bundle.write();
    let path = bundle.path().display().to_string();
    let plain = engine.wsbox(&["run", "--bundle", &path, &id]).ok().stdout;
    let counted = engine.wsbox(&["run", "--count-violations", "--bundle", &path, &id]).ok().stdout;
    assert_eq!(plain, counted);
    assert!(plain.contains("103: EMLINK") && plain.contains("165: ENOSYS") && plain.contains("101: EPERM"), "{plain}");
    let violations = summary(&bundle, &["--count-violations"], 0)["violations"].clone();
    let wanted = of(&[("syslog", "probe", 1), ("getpriority", "probe", 1), ("ptrace", "probe", 1)]);
    assert_eq!(rows(&violations), wanted, "ENOSYS is no violation");
}

/// A process calls itself what it likes: it is text everywhere.
#[test]
fn names_are_harmless() {
    let counted = Counted::sleeping();
    let name = "a\"b\n\x1b[2J{}";
    counted.probe(&["deny-as", name]);
    counted.probe(&["deny-as", "sixteen bytes, cut"]);
    let wanted = of(&[("mount", name, 1), ("mount", "sixteen bytes, ", 1)]);
    assert_eq!(rows(&counted.violations()), wanted);
    let table = counted.engine.wsbox(&["inspect", &counted.id]).ok().stdout;
    let line = table.lines().find(|line| line.starts_with("blocked:")).expect("a line");
    assert!(line.contains("(a\\\"b\\n\\u{1b}[2J{})") && !table.contains('\x1b'), "{table}");
    // Of a thread its process's name counts.
    counted.probe(&["deny", "1", "2", "3"]);
    assert_eq!(rows(&counted.violations())[&("mount".to_owned(), "probe".to_owned())], 6);
    counted.delete();
}

/// A container that renames itself without end fills no table: what has no name of its own is counted by call.
#[test]
fn the_table_is_bounded() {
    let counted = Counted::sleeping();
    counted.probe(&["deny-as-many", "400"]);
    let violations = counted.violations();
    let found = rows(&violations);
    assert_eq!((found.len(), found[&("mount".to_owned(), "?".to_owned())]), (257, 144));
    assert_eq!(violations["total"], 400);
    counted.delete();
}

/// By exec too, fifty at once, each with a listener of its own; the monitor keeps none of them.
#[test]
fn a_storm_of_execs_is_counted() {
    let counted = Counted::sleeping();
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", counted.monitor())).expect("it runs").count();
    // The socket, the first process, the proc file system, the listener of the first process.
    let own = 4;
    wsbox_integration::engine::until("it has begun", || fds() == own);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert!(counted.probe(&["deny", "1", "2", "3"]).contains("EPERM 6")));
        }
    });
    assert_eq!(rows(&counted.violations()), of(&[("mount", "probe", 300)]));
    wsbox_integration::engine::until("the listeners are closed", || fds() == own);
    counted.delete();
}

#[test]
fn who_asks_for_it() {
    let state = |bundle: Bundle, flags: &[&str]| summary(&bundle, flags, 0)["violations"]["counting"].clone();
    let bundle = || Bundle::hardened().args(&["true"]);
    let annotated = |value: &str| bundle().set("/annotations", json!({"dev.wsbox.violations": value}));
    assert_eq!(state(bundle(), &[]), "off");
    assert_eq!(state(annotated("true"), &[]), "on");
    assert_eq!(state(annotated("false"), &[]), "off");
    let refused = |bundle: Bundle, flags: &[&str], words: &[&str]| {
        let (engine, id) = (Engine::new(), unique("counted"));
        bundle.write();
        let path = bundle.path().display().to_string();
        let args = [flags, &["--bundle", &path, &id]].concat();
        engine.wsbox(&args).fails(1, words);
        wsbox_integration::leftover::assert_nothing_left(engine.root(), &id);
    };
    refused(annotated("yes"), &["run"], &["annotations[\"dev.wsbox.violations\"]", "neither true nor false"]);
    let unfiltered = || bundle().remove("/linux/seccomp");
    refused(unfiltered(), &["run", "--count-violations"], &["linux.seccomp", "no filter"]);
    refused(unfiltered(), &["create", "--count-violations"], &["linux.seccomp", "no filter"]);
}

/// What has its own listener, or could not hand one over, is not counted: by name an error, else `inspect` says so.
#[test]
fn what_can_not_be_counted() {
    let dir = TempDir::new("agent");
    let socket = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(receive_file(&stream))));
    let mut notifying = Bundle::hardened().args(&["sleep", "1000"]).set("/linux/seccomp/listenerPath", json!(socket));
    let rules = notifying.config["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
    rules.iter_mut().for_each(|rule| rule["names"].as_array_mut().expect("names").retain(|name| name != "mkdir"));
    rules.push(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}));
    let (engine, id) = (Engine::new(), unique("counted"));
    notifying.write();
    let path = notifying.path().display().to_string();
    engine.wsbox(&["run", "--count-violations", "--bundle", &path, &id]).fails(1, &["linux.seccomp", "own listener"]);
    engine.wsbox(&["--profile", "production", "run", "--detach", "--bundle", &path, &id]).ok();
    let said = engine.wsbox(&["inspect", &id]).ok().stdout;
    assert!(said.contains("violations: not counted: the config's own listener"), "{said}");
    engine.wsbox(&["delete", "--force", &id]).ok();
    wsbox_integration::leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn inspect_says_why_nothing_is_counted() {
    let mut mute = Bundle::hardened().args(&["sleep", "1000"]);
    let rules = mute.config["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
    rules.iter_mut().for_each(|rule| rule["names"].as_array_mut().expect("names").retain(|name| name != "write"));
    mute.write();
    let (engine, path) = (Engine::new(), mute.path().display().to_string());
    for (flags, words) in
        [(vec![], "(run --count-violations, "), (vec!["--profile", "production"], "denies read or write")]
    {
        let id = unique("counted");
        engine.wsbox(&[flags, vec!["run", "--detach", "--bundle", &path, &id]].concat()).ok();
        let said = engine.wsbox(&["inspect", &id]).ok().stdout;
        assert!(said.contains("violations: not counted") && said.contains(words), "{said}");
        engine.wsbox(&["delete", "--force", &id]).ok();
    }
}

#[test]
fn the_profile_production_counts() {
    let (engine, id) = (Engine::new(), unique("counted"));
    let bundle = Bundle::hardened().script("unshare -U true; sleep 1000");
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["--profile", "production", "run", "--detach", "--bundle", &path, &id]).ok();
    wsbox_integration::engine::until("it is counted", || {
        engine.wsbox(&["inspect", &id]).ok().stdout.contains("blocked: unshare 1 (unshare)")
    });
    engine.wsbox(&["--profile", "production", "exec", &id, "mount", "-t", "tmpfs", "x", "/tmp"]);
    let said = engine.wsbox(&["inspect", &id]).ok().stdout;
    assert!(said.contains("mount 1 (mount)") && said.contains("violations: 2"), "{said}");
}

/// SIGSYS: what the filter killed is counted from its end, of the payload and of an exec.
#[test]
fn kills_are_counted() {
    let x32_getpid = ["probe", "kill-myself"];
    let said = summary(&Bundle::hardened().args(&x32_getpid), &["--count-violations"], 128 + libc::SIGSYS);
    assert_eq!((&said["violations"]["killed"], &said["exit"]["signal"]), (&json!(1), &json!(libc::SIGSYS)));
    let counted = Counted::sleeping();
    for _ in 0..2 {
        let code = counted.engine.wsbox(&["exec", &counted.id, "probe", "kill-myself"]).code;
        assert_eq!(code, 128 + libc::SIGSYS);
    }
    assert_eq!(counted.violations()["killed"], 2);
    counted.delete();
}

/// On a terminal a line says so; elsewhere nothing does.
#[test]
fn a_terminal_is_told() {
    let bundle = Bundle::hardened().script("unshare -U true 2>/dev/null; true");
    bundle.write();
    let (engine, path) = (Engine::new(), bundle.path().display().to_string());
    let quiet = engine.wsbox(&["run", "--count-violations", &(path.clone() + "/")]).ok();
    assert_eq!(quiet.stderr, "");
    let wsbox = format!(
        "{} --root {} run --count-violations {path}/",
        wsbox_integration::engine::wsbox_path(),
        engine.root().display()
    );
    let output = std::process::Command::new("script").args(["-qec", &wsbox, "/dev/null"]).output().expect("script");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("blocked: unshare 1 (unshare); to allow: wsbox seccomp allow BUNDLE unshare"), "{said}");
}

/// The file is there before anything runs, or nothing does.
#[test]
fn a_summary_that_can_not_be_written_is_an_error() {
    let (engine, id) = (Engine::new(), unique("counted"));
    let bundle = Bundle::hardened().args(&["true"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    engine.wsbox(&["run", "--summary", "/nowhere/s.json", "--bundle", &path, &id]).fails(1, &["--summary", "/nowhere"]);
    let told = engine.root().join("s.json").display().to_string();
    let broken = Bundle::hardened().args(&["/no/such/program"]);
    broken.write();
    let path = broken.path().display().to_string();
    engine.wsbox(&["run", "--summary", &told, "--bundle", &path, &id]).fails(127, &["no such file"]);
    assert!(!std::path::Path::new(&told).exists());
}
