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

#[test]
fn late_ones_that_fail_are_told_and_change_nothing() {
    let log = Log::new();
    let hooks = log.hooks(&[("poststart", "exit 1"), ("poststop", "exit 2")]);
    let outcome = Engine::new().run(&Bundle::hardened().set("/hooks", hooks).script("sleep 0.2; exit 5"), Door::Root);
    assert_eq!(outcome.code, 5);
    assert!(outcome.stderr.contains("warning: hooks.poststart[0]"), "{outcome:?}");
    assert!(outcome.stderr.contains("warning: hooks.poststop[0]"), "{outcome:?}");
    assert_eq!(log.names(), ["poststart", "poststop"]);
}
