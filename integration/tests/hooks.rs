// SPDX-License-Identifier: Apache-2.0
//! Hooks: when they run, what they are given, and what becomes of a container whose hooks fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsbox_integration::{Bundle, Door, Engine, TempDir, leftover, unique};

/// A hook that runs `script` with its state in $state, and adds `name` and the state to `log`.
fn hook(name: &str, log: &Path, script: &str) -> Value {
    let script = format!("state=$(cat); echo {name} \"$state\" >> {}; {script}", log.display());
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(TempDir::new("hooks"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// (hook, state) in the order in which they ran.
    fn entries(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let entry = |line: &str| {
            let (name, state) = line.split_once(' ').expect("a name and a state");
            (name.to_owned(), serde_json::from_str(state).expect("JSON"))
        };
        text.lines().map(entry).collect()
    }

    fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|(name, _)| name).collect()
    }

    fn hooks(&self, scripts: &[(&str, &str)]) -> Value {
        let of = |(kind, script): &(&str, &str)| ((*kind).to_owned(), json!([hook(kind, &self.path(), script)]));
        Value::Object(scripts.iter().map(of).collect())
    }
}

const ALL: [(&str, &str); 4] = [("poststop", ""), ("poststart", ""), ("createRuntime", ""), ("prestart", "")];

/// In the foreground wsbox holds back what is for the payload: a hook, and what it leaves, can be ended by all signals.
#[test]
fn they_begin_with_no_signal_blocked() {
    let (log, engine) = (Log::new(), Engine::new());
    let masks = log.0.path().join("masks");
    let script = format!("grep SigBlk /proc/self/status >>{}", masks.display());
    let hooks = ALL.map(|(kind, _)| (kind, script.as_str()));
    let bundle = Bundle::hardened().set("/hooks", log.hooks(&hooks)).args(&["true"]);
    bundle.write();
    engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &unique("masks")]).ok();
    assert_eq!(fs::read_to_string(masks).unwrap(), "SigBlk:\t0000000000000000\n".repeat(4));
}

#[test]
fn they_run_in_order_with_the_state() {
    for door in Door::ALL {
        let (log, engine) = (Log::new(), Engine::new());
        let bundle = Bundle::hardened()
            .user_namespace(door != Door::Root)
            .set("/hooks", log.hooks(&ALL))
            .set("/annotations", json!({"a": "b"}))
            .script("exit 3");
        assert_eq!(engine.run(&bundle, door).code, 3);
        let entries = log.entries();
        let told: Vec<(&str, &Value)> = entries.iter().map(|(name, state)| (name.as_str(), &state["status"])).collect();
        let (creating, running, stopped) = (json!("creating"), json!("running"), json!("stopped"));
        let wanted =
            [("prestart", &creating), ("createRuntime", &creating), ("poststart", &running), ("poststop", &stopped)];
        assert_eq!(told, wanted, "{door:?}");
        for (name, state) in &entries {
            assert_eq!((&state["annotations"], &state["ociVersion"]), (&json!({"a": "b"}), &json!("1.2.0")), "{name}");
            assert_eq!(state["bundle"], json!(bundle.path()), "{name}");
            assert_eq!(state["pid"].as_i64() > Some(0), name != "poststop", "{name}: {state}");
        }
    }
}

#[test]
fn create_start_and_delete_run_their_own() {
    let (log, engine, id) = (Log::new(), Engine::new(), unique("hooks"));
    let bundle = Bundle::hardened().set("/hooks", log.hooks(&ALL)).args(&["sleep", "1000"]);
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert_eq!(log.names(), ["prestart", "createRuntime"]);
    engine.wsbox(&["start", &id]).ok();
    assert_eq!(log.names(), ["prestart", "createRuntime", "poststart"]);
    let pid = engine.state(&id)["pid"].clone();
    assert!(log.entries().iter().all(|(_, state)| state["pid"] == pid && state["id"] == json!(id)));
    engine.wsbox(&["delete", "--force", &id]).ok();
    assert_eq!(log.names().last().map(String::as_str), Some("poststop"));
    leftover::assert_nothing_left(engine.root(), &id);
}

/// As Docker's libnetwork-setkey needs it: the network is there, and nothing of the container has run.
#[test]
fn the_network_is_there_before_the_payload() {
    let log = Log::new();
    let script =
        "pid=${state##*\\\"pid\\\":}; pid=${pid%%,*}; nsenter --net=/proc/$pid/ns/net ip link add hooked type veth";
    let bundle = Bundle::hardened()
        .set("/hooks", log.hooks(&[("prestart", script)]))
        .set("/linux/sysctl", json!({"net.ipv4.conf.hooked.forwarding": "1"}))
        .script("cat /proc/sys/net/ipv4/conf/hooked/forwarding");
    assert_eq!(Engine::new().run(&bundle, Door::Userns).ok().stdout, "1\n");
}

#[test]
fn arguments_and_environment_are_theirs_alone() {
    let log = TempDir::new("hooks");
    let out = log.path().join("out").display().to_string();
    let script = format!("echo $0 $* > {out}; cat /proc/self/environ >> {out}");
    let hook = json!({"path": "/bin/sh", "args": ["name", "-c", script, "zero", "one"], "env": ["A=1", "B=x=y"]});
    let bundle = Bundle::hardened().set("/hooks", json!({"createRuntime": [hook]})).script("true");
    Engine::new().run(&bundle, Door::Root).ok();
    let said = fs::read_to_string(&out).unwrap();
    // The shell adds PWD by itself.
    assert_eq!(said.split("PWD=").next(), Some("zero one\nA=1\0B=x=y\0"), "{said}");
}

/// Those of the host: with none of their own they are found in a PATH like ours, as with runc.
#[test]
fn without_an_environment_they_have_the_callers() {
    let log = TempDir::new("hooks");
    let out = log.path().join("out").display().to_string();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("cat /proc/$$/environ > {out}")]});
    let bundle = Bundle::hardened().set("/hooks", json!({"createRuntime": [hook]})).script("true");
    Engine::new().run(&bundle, Door::Root).ok();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert!(fs::read_to_string(&out).unwrap().split('\0').any(|variable| variable == path));
}

/// Those of the image: the payload's. One of the host's in the container's namespaces has none: by an image's LD_PRELOAD it would be code
/// with our rights (CVE-2025-23266).
#[test]
fn without_an_environment_only_those_of_the_image_have_the_payloads() {
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo mark=$MARK"]}]);
    let env = json!(["PATH=/bin:/usr/bin", "MARK=payload", "LD_PRELOAD=./evil.so"]);
    let hooks = json!({"createContainer": hook, "startContainer": hook});
    let bundle = Bundle::hardened().set("/hooks", hooks).set("/process/env", env).args(&["true"]);
    assert_eq!(Engine::new().run(&bundle, Door::Root).ok().stderr, "mark=\nmark=payload\n");
}

#[test]
fn one_that_fails_ends_the_container_before_it_runs() {
    for kind in ["prestart", "createRuntime"] {
        let (log, engine, id) = (Log::new(), Engine::new(), unique("hooks"));
        let hooks = log.hooks(&[(kind, "echo no network >&2; exit 7"), ("poststart", ""), ("poststop", "")]);
        let marker = log.0.path().join("ran");
        let mount = json!({"destination": "/out", "type": "bind", "source": log.0.path(), "options": ["rbind", "rw"]});
        let bundle = Bundle::hardened().set("/hooks", hooks).mount(mount).script("touch /out/ran");
        bundle.write();
        let run = ["run", "--bundle", &bundle.path().display().to_string(), &id];
        engine.wsbox(&run).fails(1, &[&format!("hooks.{kind}[0]"), "exit status: 7", "no network"]);
        assert!(!marker.exists(), "{kind}");
        assert_eq!(log.names(), [kind, "poststop"]);
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

#[test]
fn one_that_hangs_is_killed_when_its_time_is_over() {
    let (log, engine, id) = (Log::new(), Engine::new(), unique("hooks"));
    let mut hook = hook("prestart", &log.path(), "exec sleep 1066");
    hook["timeout"] = json!(1);
    let bundle = Bundle::hardened().set("/hooks", json!({"prestart": [hook]})).script("true");
    bundle.write();
    let begun = Instant::now();
    let run = ["run", "--bundle", &bundle.path().display().to_string(), &id];
    engine.wsbox(&run).fails(1, &["hooks.prestart[0]", "1 s"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(leftover::processes("sleep 1066"), Vec::<i32>::new());
    leftover::assert_nothing_left(engine.root(), &id);
}

/// runtime.md, "Lifecycle", 9: the payload is ended, and the container goes as it would later.
#[test]
fn poststart_that_fails_ends_the_payload() {
    let (log, engine, id) = (Log::new(), Engine::new(), unique("hooks"));
    let failing = [("poststart", "echo why >&2; exit 6"), ("poststop", "exit 2")];
    let bundle = Bundle::hardened().set("/hooks", log.hooks(&failing)).args(&["sleep", "1055"]);
    bundle.write();
    let path = bundle.path().display().to_string();
    let words = ["hooks.poststart[0]", "exit status: 6", "why"];
    engine.wsbox(&["run", "--bundle", &path, &id]).fails(1, &words);
    assert_eq!(log.names(), ["poststart", "poststop"]);
    leftover::assert_nothing_left(engine.root(), &id);
    engine.wsbox(&["create", "--bundle", &path, &id]).ok();
    engine.wsbox(&["start", &id]).fails(1, &words);
    assert_eq!(leftover::processes("sleep 1055"), Vec::<i32>::new());
    assert!(engine.wsbox(&["state", &id]).ok().stdout.contains("\"stopped\""));
    assert_eq!(log.names(), ["poststart", "poststop", "poststart"]);
    engine.wsbox(&["delete", &id]).ok();
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn poststop_that_fails_is_told_and_changes_nothing() {
    let log = Log::new();
    let hooks = log.hooks(&[("poststart", ""), ("poststop", "exit 2")]);
    let outcome = Engine::new().run(&Bundle::hardened().set("/hooks", hooks).script("sleep 0.2; exit 5"), Door::Root);
    assert_eq!(outcome.code, 5);
    assert!(outcome.stderr.contains("warning: hooks.poststop[0]"), "{outcome:?}");
    assert_eq!(log.names(), ["poststart", "poststop"]);
}

/// createContainer: a program of the host, in the namespaces of the container, before its root is all that it sees.
#[test]
fn create_container_is_the_hosts_program_in_the_containers_namespaces() {
    for door in Door::ALL {
        let log = Log::new();
        let script = format!("readlink /proc/self/ns/mnt /proc/self/ns/net > {}", log.0.path().join("ns").display());
        let hook = hook("createContainer", &log.path(), &script);
        let bundle = Bundle::hardened().user_namespace(door == Door::Userns);
        let bundle = bundle.set("/hooks", json!({"createContainer": [hook]})).script("exit 3");
        // Root of a user namespace may write where the host lets everybody.
        fs::set_permissions(log.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let outcome = Engine::new().run(&bundle, door);
        assert_eq!(outcome.code, 3, "{door:?}: {outcome:?}");
        let (name, state) = &log.entries()[0];
        assert_eq!((name.as_str(), &state["status"]), ("createContainer", &json!("creating")));
        assert!(state["pid"].as_i64() > Some(0), "{state}");
        let namespaces = fs::read_to_string(log.0.path().join("ns")).unwrap();
        for kind in ["mnt", "net"] {
            let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
            assert!(namespaces.contains(kind) && !namespaces.contains(&own), "{namespaces} {own}");
        }
    }
}

/// startContainer: a program of the image, with the rights of the payload and under its filter, right before it.
#[test]
fn start_container_is_the_images_program_with_the_payloads_rights() {
    let script = "cat > /tmp/state; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 > /tmp/rights; id -u >> /tmp/rights; \
        mount -t tmpfs x /mnt 2>/dev/null || echo denied >> /tmp/rights; ls /proc/self/fd | wc -l >> /tmp/rights; echo said";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]});
    let look = "cat /tmp/rights; cat /tmp/state";
    let bundle = Bundle::hardened()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .set("/hooks", json!({"startContainer": [hook]}))
        .script(look);
    let (engine, id) = (Engine::new(), unique("hooks"));
    let outcome = engine.run(&bundle, Door::Userns).ok();
    let (rights, state) = outcome.stdout.split_at(outcome.stdout.find('{').unwrap());
    assert_eq!(rights, "0000000000000000\n1\n2\n1000\ndenied\n4\n", "three of stdio, and the folder");
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!(state["status"], "created");
    assert!(outcome.stderr.contains("said"), "{outcome:?}");
    // With create it waits for start.
    let bundle = bundle.args(&["sleep", "1000"]);
    bundle.write();
    engine.wsbox(&["create", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert!(!engine.wsbox(&["exec", &id, "ls", "/tmp/rights"]).stderr.is_empty());
    engine.wsbox(&["start", &id]).ok();
    engine.wsbox(&["exec", &id, "ls", "/tmp/rights"]).ok();
}

#[test]
fn those_inside_that_fail_or_hang_end_the_container() {
    let fails = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let hangs = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1077"], "timeout": 1}]);
    let missing = json!([{"path": "/no/such/hook"}]);
    for kind in ["createContainer", "startContainer"] {
        for (list, words) in [
            (fails("echo why >&2; exit 3"), "exit status: 3"),
            (fails("kill -9 $$"), "exit status: 137"),
            (missing.clone(), "exit status: 127"),
            (hangs.clone(), "1 s"),
        ] {
            let (log, engine, id) = (Log::new(), Engine::new(), unique("hooks"));
            let out =
                json!({"destination": "/out", "type": "bind", "source": log.0.path(), "options": ["rbind", "rw"]});
            let bundle = Bundle::hardened().set("/hooks", json!({kind: list})).mount(out).script("touch /out/ran");
            bundle.write();
            let run = engine.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &id]);
            assert!(
                run.code == 1 && run.stderr.contains(&format!("hooks.{kind}[0]")) && run.stderr.contains(words),
                "{run:?}"
            );
            assert!(!log.0.path().join("ran").exists());
            assert_eq!(leftover::processes("sleep 1077"), Vec::<i32>::new());
            leftover::assert_nothing_left(engine.root(), &id);
        }
    }
}

/// The init has CAP_SYS_ADMIN for the filter then; its hook has what the payload has.
#[test]
fn start_container_has_no_more_rights_without_no_new_privs() {
    let script = "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2";
    let hook =
        json!({"path": "/bin/sh", "args": ["sh", "-c", format!("{script} > /tmp/rights")], "env": ["PATH=/bin"]});
    for uid in [0, 1000] {
        let bundle = Bundle::hardened()
            .set("/process/user", json!({"uid": uid, "gid": uid}))
            .set("/process/noNewPrivileges", json!(false))
            .set("/hooks", json!({"startContainer": [hook]}))
            .script(&format!("cat /tmp/rights; echo; {script}"));
        let said = Engine::new().run(&bundle, Door::Userns).ok().stdout;
        let (hooks, payloads) = said.split_once("\n\n").expect("two parts");
        assert_eq!(hooks, payloads.trim_end(), "as user {uid}");
        assert!(hooks.ends_with("0000000000000000\n0\n2"), "{hooks}");
    }
}

#[test]
fn start_container_can_not_be_under_a_listener() {
    let hooks = json!({"startContainer": [{"path": "/bin/true"}]});
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let bundle = Bundle::hardened().set("/hooks", hooks).set("/linux/seccomp", notify).script("true");
    Engine::new().run(&bundle, Door::Userns).fails(1, &["hooks.startContainer", "SCMP_ACT_NOTIFY"]);
}

/// 256 KiB of annotations are more than a pipe takes from a hook that does not read.
#[test]
fn one_that_reads_nothing_blocks_nobody() {
    let hook = json!([{"path": "/bin/true"}]);
    let bundle = Bundle::hardened()
        .set("/annotations", json!({"long": "x".repeat(256 << 10)}))
        .set("/hooks", json!({"prestart": hook, "createContainer": hook, "startContainer": hook, "poststop": hook}))
        .script("exit 42");
    assert_eq!(Engine::new().run(&bundle, Door::Userns).code, 42);
}
