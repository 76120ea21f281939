// SPDX-License-Identifier: Apache-2.0
//! Filters are checked by running them against a reading of the JSON that shares no code with the compiler.

mod faults;
mod meaning;
mod random;
mod set_id;
mod strictest;
mod sweep;
mod workspace;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;
use wsbox::seccomp::interpret::{Call, run};
use wsbox::seccomp::{Abi, Arch, Filter, Options, Verdict, WORKSPACE, compile, table};

const DOCKER_29: &str = include_str!("../data/docker29-seccomp.json");
const DOCKER_20: &str = include_str!("../data/docker20.10-seccomp.json");

const ON_X86: Options = Options { deny_set_id: false, host: Arch::X86_64 };
const ON_ARM: Options = Options { deny_set_id: false, host: Arch::Aarch64 };

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn compiled(json: &str, options: &Options) -> Filter {
    compile(&parse(json), options).unwrap()
}

/// A profile with this default and these rules, for all ABIs of both machines.
fn profile(default: &str, rules: Value) -> String {
    let arches = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
    serde_json::json!({ "defaultAction": default, "architectures": arches, "syscalls": rules }).to_string()
}

/// What `filter` says to the call `name` on `abi`.
fn ask(filter: &Filter, abi: Abi, name: &str, args: &[u64]) -> u32 {
    let nr = table::number(name, abi).unwrap_or_else(|| panic!("{name} on {abi:?}"));
    ask_nr(filter, abi.audit_arch(), nr, args)
}

fn ask_nr(filter: &Filter, arch: u32, nr: u32, args: &[u64]) -> u32 {
    let mut call = Call { nr, arch, ..Call::default() };
    call.args[..args.len()].copy_from_slice(args);
    run(&filter.program, &call).expect("a filter returns")
}

const ALLOW: u32 = Verdict::ALLOW.raw();
const EPERM: u32 = Verdict::EPERM.raw();
const ENOSYS: u32 = Verdict::ENOSYS.raw();
const KILL: u32 = Verdict::KILL_PROCESS.raw();
