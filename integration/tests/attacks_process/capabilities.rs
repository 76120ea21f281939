// SPDX-License-Identifier: Apache-2.0
//! Row 9: capabilities that come back by inheritance or by a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use wsbox_integration::{Bundle, Door, Engine};

use crate::common::{as_user, behind, run, shell};

fn set_of(status: &str, set: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{set}:")))
        .unwrap_or_else(|| panic!("no {set} in {status}"));
    u64::from_str_radix(line.trim(), 16).expect("a mask")
}

const NET_RAW: u64 = 1 << 13;

/// A capability for one process is not inherited, not even by a file that asks for it.
#[test]
fn exec_inherits_no_capability() {
    for door in [Door::Root, Door::Userns] {
        let engine = Engine::new();
        let bundle = behind(door, Bundle::plain()).set("/process/noNewPrivileges", json!(false));
        let file = bundle.root().join("bin/busybox-inheriting");
        fs::copy("/bin/busybox", &file).expect("a copy");
        shell(&format!("setcap cap_net_raw=i {}", file.display())).ok();
        let (_bundle, id) = engine.sleeping(bundle);
        let exec = |args: &[&str]| engine.wsbox(&[&["exec", "--cap", "CAP_NET_RAW"], args].concat()).ok().stdout;

        let root = exec(&[&id, "cat", "/proc/self/status"]);
        assert_eq!((set_of(&root, "CapInh"), set_of(&root, "CapAmb")), (0, 0), "{door:?}");
        assert_ne!(set_of(&root, "CapEff") & NET_RAW, 0, "root was given it: {root}");

        let user = exec(&["--user", "1000:1000", &id, "/bin/busybox-inheriting", "cat", "/proc/self/status"]);
        for set in ["CapInh", "CapAmb", "CapEff", "CapPrm"] {
            assert_eq!(set_of(&user, set), 0, "{door:?} {set}: {user}");
        }
    }
}

/// All five sets are empty, and stay so after a program that is setuid root or has capabilities of its own.
#[test]
fn hardened_regains_nothing() {
    for door in Door::ALL {
        for no_new_privileges in [true, false] {
            for (uid, program) in [
                (0, "cat"),
                (1000, "cat"),
                (1000, "/bin/busybox-setuid"),
                (0, "/bin/busybox-setuid"),
                (1000, "/bin/busybox-withcap"),
            ] {
                let bundle = Bundle::hardened().set("/process/noNewPrivileges", json!(no_new_privileges));
                for name in ["busybox-setuid", "busybox-withcap"] {
                    fs::copy("/bin/busybox", bundle.root().join("bin").join(name)).expect("a copy");
                }
                fs::set_permissions(bundle.root().join("bin/busybox-setuid"), fs::Permissions::from_mode(0o4755))
                    .expect("its mode");
                shell(&format!("setcap cap_net_raw=i+p {}", bundle.root().join("bin/busybox-withcap").display())).ok();
                let args = if program == "cat" {
                    vec!["cat", "/proc/self/status"]
                } else {
                    vec![program, "cat", "/proc/self/status"]
                };
                let outcome = run(as_user(bundle.args(&args), uid), door).ok();
                for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                    assert_eq!(set_of(&outcome.stdout, set), 0, "{door:?} {uid} {program} {set}");
                }
            }
        }
    }
}
