// SPDX-License-Identifier: Apache-2.0
//! What is next to a container: other containers, processes of the host in its cgroup's place, several wsbox at once, and the
//! program that uses the library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use wsbox_integration::cgroup;
use wsbox_integration::engine::until;
use wsbox_integration::{Bundle, Door, Engine, Outcome, leftover, unique};

fn path(bundle: &Bundle) -> String {
    bundle.path().display().to_string()
}

/// A container that sleeps in this cgroup.
fn sleeping_in(engine: &Engine, cgroup: &str) -> (Bundle, String) {
    engine.sleeping(Bundle::hardened().set("/linux/cgroupsPath", json!(cgroup)))
}

fn status(engine: &Engine, id: &str) -> String {
    engine.state(id)["status"].as_str().expect("a status").to_owned()
}

/// Levels that another made and takes away again are made once more, and limits are in force whoever enabled their controllers.
#[test]
fn beside_those_that_fail() {
    let (engine, top, over) = (Engine::new(), unique("level"), AtomicBool::new(false));
    let run = |args: &[&str], id: &str| {
        let bundle = Bundle::hardened().args(args).set("/linux/cgroupsPath", json!(format!("/{top}/x/y/{id}")));
        bundle.write();
        (engine.wsbox(&["run", "--detach", "--bundle", &path(&bundle), id]), bundle)
    };
    let fail = || {
        while !over.load(Ordering::Relaxed) {
            run(&["/none"], &unique("fails")).0.fails(127, &["/none"]);
        }
    };
    let live = || {
        for _ in 0..40 {
            let id = unique("lives");
            let (outcome, _bundle) = run(&["sleep", "1000"], &id);
            outcome.ok();
            assert_eq!(cgroup::text(&format!("{top}/x/y/{id}"), ["pids.max"; 2]), "256");
            engine.wsbox(&["delete", "--force", &id]).ok();
            remove_levels(&top);
        }
    };
    std::thread::scope(|scope| {
        let failing = [scope.spawn(fail), scope.spawn(fail)];
        let lived = scope.spawn(live).join();
        over.store(true, Ordering::Relaxed);
        failing.into_iter().for_each(|thread| thread.join().unwrap());
        lived.unwrap();
    });
    remove_levels(&top);
    assert!(!cgroup::dir("pids", &top).exists());
}

/// Removes the levels that have nobody, in every hierarchy, as a run that failed does.
fn remove_levels(top: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).chain([root.to_owned()]);
    for hierarchy in hierarchies {
        for level in ["x/y", "x", ""] {
            let _ = fs::remove_dir(hierarchy.join(top).join(level));
        }
    }
}

/// A cgroup that has processes is nobody else's to have: not itself, and not what contains it.
#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    let engine = Engine::new();
    let name = unique("group");
    let (_bundle, victim) = sleeping_in(&engine, &format!("/{name}/own"));
    for taken in [format!("/{name}/own"), format!("/{name}"), format!("/{name}/own/.."), "/".into(), ".".into()] {
        let bundle = Bundle::hardened().args(&["echo", "RAN"]).set("/linux/cgroupsPath", json!(taken));
        bundle.write();
        let id = unique("intruder");
        engine.wsbox(&["run", "--bundle", &path(&bundle), &id]).fails(1, &["linux.cgroupsPath"]);
        engine.wsbox(&["delete", "--force", &id]).ok();
        assert_eq!(status(&engine, &victim), "running", "after an intruder in {taken}");
    }
    engine.wsbox(&["delete", "--force", &victim]).ok();
    remove_groups(&name);
}

/// Killed between its record and its cgroup, a container owns nothing of what lies at its cgroupsPath, or below it.
#[test]
fn deleting_what_never_had_its_cgroup_kills_nobody() {
    let engine = Engine::new();
    let name = unique("group");
    let (_bundle, victim) = sleeping_in(&engine, &format!("/{name}/slice"));
    for taken in [format!("/{name}/slice"), format!("/{name}")] {
        let bundle = Bundle::hardened().set("/linux/cgroupsPath", json!(taken));
        bundle.write();
        let id = unique("intruder");
        kill_at_its_cgroup(engine.command(&["run", "--bundle", &path(&bundle), &id]));
        engine.wsbox(&["delete", "--force", &id]).ok();
        assert_eq!(status(&engine, &victim), "running", "after an intruder in {taken}");
    }
    engine.wsbox(&["delete", "--force", &victim]).ok();
    remove_groups(&name);
}

/// Kills wsbox before it makes the cgroup, if it comes that far: it may refuse it before.
#[expect(clippy::zombie_processes, reason = "waitpid reaps it")]
fn kill_at_its_cgroup(mut wsbox: Command) {
    let child = wsbox.env("WSBOX_PAUSE_AT", "cgroup").stderr(Stdio::null()).spawn().expect("wsbox runs");
    let pid = Pid::from_raw(child.id() as i32);
    if matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("our child"), WaitStatus::Stopped(..)) {
        kill(pid, Signal::SIGKILL).expect("our child");
        waitpid(pid, None).expect("our child");
    }
}

/// The v1 hierarchies that hold limits on this host; none where all is v2.
fn v1_hierarchies() -> Vec<PathBuf> {
    ["pids", "memory", "cpu"]
        .iter()
        .map(|name| Path::new("/sys/fs/cgroup").join(name))
        .filter(|hierarchy| hierarchy.join("tasks").exists())
        .collect()
}

fn remove_groups(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    hierarchies.for_each(|hierarchy| drop(fs::remove_dir(hierarchy.path().join(name))));
}

/// A process of the host in a v1 hierarchy: neither limited, nor killed, nor the reason why a container can't go.
#[test]
fn a_foreign_v1_cgroup_is_refused_and_left_alone() {
    for hierarchy in v1_hierarchies() {
        let (engine, name) = (Engine::new(), unique("foreign"));
        let group = hierarchy.join(&name);
        fs::create_dir(&group).expect("a cgroup");
        let mut host = Command::new("sleep").arg("1000").spawn().expect("sleep runs");
        fs::write(group.join("cgroup.procs"), host.id().to_string()).expect("it joins");
        let limits =
            || ["pids.max", "memory.limit_in_bytes", "cpu.cfs_quota_us"].map(|file| fs::read(group.join(file)).ok());
        let before = limits();
        let bundle = Bundle::hardened().args(&["echo", "RAN"]).set("/linux/cgroupsPath", json!(format!("/{name}")));
        bundle.write();
        let id = unique("intruder");
        let outcome = engine.wsbox(&["run", "--bundle", &path(&bundle), &id]);
        let (alive, after) = (host.try_wait().expect("our child").is_none(), limits());
        host.kill().expect("our child");
        host.wait().expect("our child");
        engine.wsbox(&["delete", "--force", &id]);
        remove_groups(&name);
        assert!(alive, "{hierarchy:?}: the host's process is left alone");
        assert_eq!(before, after, "{hierarchy:?}: its limits are left alone");
        outcome.fails(1, &["linux.cgroupsPath"]);
    }
}

/// Runs `command` eight times at once.
fn at_once(engine: &Engine, command: &[&str]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| engine.wsbox(command))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn successes(outcomes: &[Outcome]) -> usize {
    assert!(outcomes.iter().all(|outcome| [0, 1].contains(&outcome.code)), "{outcomes:?}");
    outcomes.iter().filter(|outcome| outcome.code == 0).count()
}

/// Eight at once: one makes it, one starts it, one deletes it; the others say so, and nothing is left.
#[test]
fn one_of_many_wins_and_nothing_is_left() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    for round in 0..5 {
        let id = unique("many");
        assert_eq!(successes(&at_once(&engine, &["create", "--bundle", &path(&bundle), &id])), 1, "round {round}");
        assert_eq!(status(&engine, &id), "created");
        assert_eq!(successes(&at_once(&engine, &["start", &id])), 1, "round {round}");
        assert_eq!(status(&engine, &id), "running");
        assert_eq!(successes(&at_once(&engine, &["exec", &id, "true"])), 8, "round {round}");
        assert_eq!(successes(&at_once(&engine, &["delete", "--force", &id])), 8, "round {round}");
        leftover::assert_nothing_left(engine.root(), &id);
        assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new(), "round {round}");
    }
}

/// `delete` while `run`, `create` and `exec` are at work: each ends, and once all have, one more delete leaves nothing.
#[test]
fn deleting_while_others_are_at_work() {
    let engine = Engine::new();
    let bundle = Bundle::hardened().args(&["sleep", "1000"]);
    bundle.write();
    for round in 0..10 {
        let id = unique("storm");
        let bundle_path = path(&bundle);
        std::thread::scope(|scope| {
            scope.spawn(|| engine.wsbox(&["create", "--bundle", &bundle_path, &id]));
            scope.spawn(|| engine.wsbox(&["start", &id]));
            scope.spawn(|| (0..3).for_each(|_| drop(engine.wsbox(&["exec", &id, "true"]))));
            scope.spawn(|| (0..5).for_each(|_| drop(engine.wsbox(&["delete", "--force", &id]))));
        });
        engine.wsbox(&["delete", "--force", &id]).ok();
        leftover::assert_nothing_left(engine.root(), &id);
        assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new(), "round {round}");
    }
}

/// What of this process a library could change: descriptors, threads, directory, mask, signals, children, namespaces.
#[derive(Debug, PartialEq)]
struct Ourselves {
    descriptors: BTreeSet<String>,
    directory: PathBuf,
    status: Vec<String>,
    namespaces: Vec<PathBuf>,
    children: String,
}

fn ourselves() -> Ourselves {
    let names = |dir: &str| fs::read_dir(dir).expect("/proc").flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let link = |path: &PathBuf| fs::read_link(path).ok().map(|to| format!("{} {}", path.display(), to.display()));
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let kept =
        ["Umask", "SigBlk", "SigIgn", "SigCgt", "Cap", "NoNewPrivs", "Seccomp:", "Threads", "Uid", "Gid", "Groups"];
    let keep = |line: &&str| kept.iter().any(|word| line.starts_with(word));
    Ourselves {
        descriptors: names("/proc/self/fd").iter().filter_map(link).filter(|fd| !fd.ends_with("/fd")).collect(),
        directory: std::env::current_dir().expect("a directory"),
        status: status.lines().filter(keep).map(str::to_owned).collect(),
        namespaces: names("/proc/self/ns").iter().filter_map(|path| fs::read_link(path).ok()).collect(),
        children: fs::read_to_string("/proc/thread-self/children").unwrap_or_default(),
    }
}

/// Not a test: a program with one thread of its own that uses the library, good and bad.
#[test]
#[ignore = "started by another test"]
fn library_user() {
    let Some(root) = std::env::var_os("WSBT_ROOT") else { return };
    let root = wsbox::Root::new(Some(root.into()));
    let good = Bundle::hardened().args(&["true"]);
    let plain = Bundle::plain().args(&["true"]);
    let missing = Bundle::hardened().args(&["nothing"]);
    let refused = Bundle::hardened().set("/mounts/0/destination", json!("/sys/../proc/self/attr"));
    let unsourced = Bundle::hardened()
        .mount(json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}));
    let bundles = [good, plain, missing, refused, unsourced];
    let turn = || {
        for bundle in &bundles {
            bundle.write();
            let id = unique("lib");
            let ran = wsbox::Bundle::open(bundle.path())
                .and_then(|bundle| wsbox::run(&root, &id, &bundle, &wsbox::Options::default()));
            if let Ok(process) = ran {
                process.wait().expect("our child");
            }
            wsbox::delete(&root, &id, true).expect("it can be deleted");
        }
    };
    turn();
    let before = ourselves();
    (0..10).for_each(|_| turn());
    assert_eq!(before, ourselves());
}

/// A program that runs containers by the library is as it was: on success, and when it is refused at each stage.
#[test]
fn the_program_is_as_it_was() {
    let engine = Engine::new();
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--ignored", "--exact", "--test-threads", "1", "library_user"]).env("WSBT_ROOT", engine.root());
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Many threads of one program, each with containers of its own.
#[test]
fn threads_do_not_meet() {
    let engine = Engine::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (engine, bundle) = (&engine, Bundle::hardened().script("exit $(hostname)"));
            scope.spawn(move || {
                let bundle = bundle.set("/hostname", json!((40 + number).to_string()));
                (0..10).for_each(|_| assert_eq!(engine.run(&bundle, Door::Library).code, 40 + number));
                assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new());
            });
        }
    });
}

/// The control: a process in a container is found by its bundle, and is gone after delete.
#[test]
fn what_is_inside_is_seen() {
    let engine = Engine::new();
    let (bundle, id) = engine.sleeping(Bundle::hardened());
    assert_eq!(leftover::inside(bundle.path()).len(), 1);
    engine.wsbox(&["exec", "--detach", &id, "sleep", "1000"]).ok();
    until("the second", || leftover::inside(bundle.path()).len() == 2);
    engine.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(leftover::inside(bundle.path()), Vec::<i32>::new());
}
