// SPDX-License-Identifier: Apache-2.0
//! linux.netDevices: interfaces of a host, which is a network namespace of the test's own, go into the container.

use std::process::Command;

use serde_json::{Value, json};
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, Outcome, leftover, unique};

/// Runs a bundle on a host that has an interface `outer`, up, with addresses of its own, and one `spare` that is down; `after` runs on
/// that host when the container has ended.
fn run(engine: &Engine, id: &str, bundle: &Bundle, flags: &str, after: &str) -> Outcome {
    bundle.write();
    let wsbox = format!("{} --root {} {flags}", wsbox_path(), engine.root().display());
    let script = format!(
        "set -e
ip link set lo up
ip link add outer type veth peer name other
ip link add spare type veth peer name another
ip addr add 10.77.0.2/24 dev outer
ip addr add fd77::2/64 dev outer nodad
ip addr add 10.77.0.9/24 dev outer valid_lft 1000 preferred_lft 1000
ip link set outer up
{wsbox} run --bundle {} {id} && code=0 || code=$?
{after}
exit $code",
        bundle.path().display()
    );
    outcome(Command::new("unshare").args(["--net", "sh", "-c", &script]))
}

const LOOK: &str = "ip -o addr show; ip -o link show";

fn devices(devices: Value) -> Bundle {
    // The profile has no netlink sockets, with which `ip` looks.
    Bundle::hardened().set("/linux/netDevices", devices).remove("/linux/seccomp").script(LOOK)
}

#[test]
fn interfaces_go_in_with_their_permanent_addresses() {
    for user_namespace in [true, false] {
        let (engine, id) = (Engine::new(), unique("net"));
        let bundle = devices(json!({"outer": {"name": "eth0"}, "spare": {}})).user_namespace(user_namespace);
        let said = run(&engine, &id, &bundle, "", "ip -o link show >&2").ok();
        let inside = &said.stdout;
        for wanted in ["eth0    inet 10.77.0.2/24", "eth0    inet6 fd77::2/64", "spare@"] {
            assert!(inside.contains(wanted), "{wanted}: {inside}");
        }
        assert!(!inside.contains("10.77.0.9"), "one that ends: {inside}");
        let line = |name: &str| {
            inside.lines().find(|line| line.contains(&format!(": {name}@")) && line.contains('<')).unwrap_or_default()
        };
        assert!(line("eth0").contains("UP") && !line("spare").contains("UP"), "{inside}");
        assert!(!said.stderr.contains("outer") && said.stderr.contains(": lo:"), "the host has it no more: {said:?}");
        leftover::assert_nothing_left(engine.root(), &id);
    }
}

#[test]
fn what_can_not_be_moved_is_named_and_the_host_keeps_it() {
    let refused = |bundle: Bundle, flags: &str, words: &[&str]| {
        let (engine, id) = (Engine::new(), unique("net"));
        let said = run(&engine, &id, &bundle, flags, "ip -o addr show outer; ip -o link show outer");
        assert_eq!(said.code, 1, "{said:?}");
        for word in words {
            assert!(said.stderr.contains(word), "{word}: {said:?}");
        }
        assert!(said.stdout.contains("10.77.0.2/24") && said.stdout.contains("UP"), "it is as it was: {said:?}");
        leftover::assert_nothing_left(engine.root(), &id);
    };
    refused(devices(json!({"nobody": {}})), "", &["linux.netDevices.nobody", "no interface of that name"]);
    refused(devices(json!({"outer": {"name": "lo"}})), "", &["linux.netDevices.outer", "another interface"]);
    refused(devices(json!({"outer": {"name": "a/b"}})), "", &["linux.netDevices.outer.name"]);
    refused(devices(json!({"outer": {}})), "--profile production", &["linux.netDevices", "profile production"]);
    let mut host = devices(json!({"outer": {}}));
    let namespaces = host.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "network" && namespace["type"] != "user");
    refused(host, "", &["linux.netDevices", "network namespace"]);
}

/// Whatever fails after it went in: the payload is not there, a hook fails, a second interface can not go.
#[test]
fn a_launch_that_fails_gives_back_what_it_was_lent() {
    let back = |bundle: Bundle, words: &str| {
        let (engine, id) = (Engine::new(), unique("net"));
        let said = run(&engine, &id, &bundle, "", "ip -o addr show outer; ip -o link show outer");
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
        for wanted in ["10.77.0.2/24", "fd77::2/64", "UP"] {
            assert!(said.stdout.contains(wanted), "{wanted}: {said:?}");
        }
        leftover::assert_nothing_left(engine.root(), &id);
    };
    let lent = || devices(json!({"outer": {"name": "eth0"}}));
    back(lent().args(&["/none"]), "/none");
    back(lent().set("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]})), "hook");
    back(devices(json!({"outer": {"name": "eth0"}, "spare": {"name": "eth0"}})), "linux.netDevices");
}
