// SPDX-License-Identifier: Apache-2.0
//! Descriptors that a service manager passes on: sd_listen_fds(3).

use std::process::Command;

use serde_json::json;
use wsbox_integration::engine::wsbox_path;
use wsbox_integration::sandbox::outcome;
use wsbox_integration::{Bundle, Engine, Outcome, leftover, unique};

/// Runs a bundle from a shell that stands for the service manager: `variables`, then wsbox in the shell's own place.
fn activated(engine: &Engine, id: &str, bundle: &Bundle, variables: &str) -> Outcome {
    bundle.write();
    let wsbox = format!("{} --root {}", wsbox_path(), engine.root().display());
    let run = format!("run --bundle {} {id}", bundle.path().display());
    let script = format!("exec 3<<X 4</dev/null 5</\nfrom the manager\nX\nexport {variables}; exec {wsbox} {run}");
    outcome(Command::new("sh").args(["-c", &script]))
}

const TOLD: &str = "env | grep ^LISTEN_ | sort; probe fds | sed 's/=[^ ]*//g'; cat <&3";

#[test]
fn descriptors_and_their_names_are_passed_on() {
    let (engine, id) = (Engine::new(), unique("listen"));
    let mut bundle = Bundle::hardened().script(TOLD);
    bundle.config["process"]["env"].as_array_mut().expect("env").push(json!("LISTEN_FDS=9"));
    let said = activated(&engine, &id, &bundle, "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:null").ok().stdout;
    let told = "LISTEN_FDNAMES=web:null\nLISTEN_FDS=2\nLISTEN_PID=1\nfds: ok 0 1 2 3 4\nfrom the manager\n";
    assert_eq!(said, told);
    leftover::assert_nothing_left(engine.root(), &id);
}

#[test]
fn those_of_another_process_are_not_ours() {
    let (engine, id) = (Engine::new(), unique("listen"));
    let bundle = Bundle::hardened().script("env | grep ^LISTEN_; probe fds | sed 's/=[^ ]*//g'");
    let said = activated(&engine, &id, &bundle, "LISTEN_PID=1 LISTEN_FDS=2").ok().stdout;
    assert_eq!(said, "fds: ok 0 1 2\n");
}

#[test]
fn what_can_not_be_passed_on_is_refused_by_name() {
    let refused = |bundle: Bundle, variables: &str, words: &[&str]| {
        let (engine, id) = (Engine::new(), unique("listen"));
        activated(&engine, &id, &bundle.script("true"), variables).fails(1, words);
        leftover::assert_nothing_left(engine.root(), &id);
    };
    refused(Bundle::hardened(), "LISTEN_PID=$$ LISTEN_FDS=two", &["LISTEN_FDS", "two"]);
    refused(Bundle::hardened(), "LISTEN_PID=$$ LISTEN_FDS=200", &["LISTEN_FDS: /proc/self/fd/6"]);
    let mut bundle = Bundle::hardened();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    refused(bundle, "LISTEN_PID=$$ LISTEN_FDS=1", &["LISTEN_FDS", "pid namespace"]);
}
