// SPDX-License-Identifier: Apache-2.0
//! From a config's `linux.seccomp` to a filter that the kernel takes.
//!
//! profile.rs checks and sorts the rules by call → ranges.rs lays them out on each ABI's number line, with leaf.rs and
//! condition.rs for arguments and set_id.rs on top → tree.rs writes a search. interpret.rs runs the result in tests.

pub mod default;
pub mod interpret;
pub mod table;

mod abi;
mod condition;
mod leaf;
mod multiplex;
mod profile;
mod ranges;
mod set_id;
mod tree;
mod verdict;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as OciFlag};
/// One instruction, laid out as the kernel's `struct sock_filter`.
pub use seccompiler::sock_filter as Insn;

pub use abi::{Abi, Arch, X32_BIT};
pub use default::{WORKSPACE, workspace};
pub use verdict::Verdict;

use crate::Result;

/// A filter ready for seccomp(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// At most 4096 instructions.
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// What the profile asks without effect, each with its JSON path.
    pub warnings: Vec<String>,
}

/// What a filter is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Deny set-user-id and set-group-id modes on top of the profile (files made through writable id-mapped binds).
    pub deny_set_id: bool,
    /// The machine that runs it.
    pub host: Arch,
}

impl Default for Options {
    fn default() -> Self {
        Self { deny_set_id: false, host: Arch::native() }
    }
}

/// Compiles `profile`. Errors name a JSON path under `linux.seccomp`.
pub fn compile(profile: &LinuxSeccomp, options: &Options) -> Result<Filter> {
    let policy = profile::Policy::new(profile, options.host)?;
    let program = tree::program(&ranges::by_arch(&policy, options.deny_set_id)?)?;
    let mut warnings = policy.warnings;
    let flags = flags(profile, &mut warnings);
    Ok(Filter { program, flags, warnings })
}

/// `linux.seccomp.flags` as seccomp(2) has them. Nothing is added: SPEC_ALLOW lifts a mitigation of Spectre v4.
fn flags(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> u32 {
    let mut flags = 0;
    for (at, flag) in profile.flags().iter().flatten().enumerate() {
        flags |= match flag {
            OciFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
            OciFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            OciFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            // The kernel refuses it without a listener.
            OciFlag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push(format!("linux.seccomp.flags[{at}]: {flag} says nothing without SCMP_ACT_NOTIFY"));
                0
            }
        };
    }
    flags
}

/// The program as memory holds it: 8 bytes an instruction, in the machine's byte order.
pub fn to_bytes(program: &[Insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for insn in program {
        bytes.extend(insn.code.to_ne_bytes());
        bytes.extend([insn.jt, insn.jf]);
        bytes.extend(insn.k.to_ne_bytes());
    }
    bytes
}
