// SPDX-License-Identifier: Apache-2.0
//! From a config's `linux.seccomp` to a filter that the kernel takes.
//!
//! profile.rs checks and sorts the rules by call → ranges.rs lays them out on each ABI's number line, with leaf.rs and
//! condition.rs for arguments and set_id.rs on top → strictest.rs joins several profiles → tree.rs writes a search.
//! interpret.rs runs the result in tests.

pub mod default;
pub mod interpret;
pub mod table;

mod abi;
pub mod check;
mod condition;
mod count;
mod leaf;
mod multiplex;
mod profile;
mod ranges;
mod set_id;
mod strictest;
mod tree;
mod verdict;

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSeccompFilterFlag as OciFlag,
};
/// One instruction, laid out as the kernel's `struct sock_filter`.
pub use seccompiler::sock_filter as Insn;

pub use abi::{Abi, Arch, X32_BIT};
pub(crate) use count::counted;
pub use count::{Counted, Counting};
pub use default::{DOCKER, WORKSPACE, workspace};
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
    compile_strictest(profile, &[], options)
}

/// Compiles `profile` and `floor` into one filter that gives each call the strictest verdict of all of them. Warnings are of
/// `profile` alone; so are errors if each of `floor` has been compiled before. SPEC_ALLOW stands only if all have it.
pub fn compile_strictest(profile: &LinuxSeccomp, floor: &[LinuxSeccomp], options: &Options) -> Result<Filter> {
    let policy = profile::Policy::new(profile, options.host)?;
    let mut ranges = ranges::by_arch(&policy, options.deny_set_id)?;
    let mut warnings = policy.warnings;
    let mut flags = flags(profile);
    for profile in floor {
        // What the first one denies stays denied, so that one guard against set-id bits is enough.
        ranges = strictest::of_arches(ranges, &ranges::by_arch(&profile::Policy::new(profile, options.host)?, false)?);
        let own = self::flags(profile);
        flags = (flags | own) & !SPEC_ALLOW | flags & own & SPEC_ALLOW;
    }
    let program = tree::program(&ranges)?;
    if has_verdict(&program, Verdict::NOTIFY) {
        // The init has one thread, and the kernel takes TSYNC with a listener in another form only.
        flags = flags & !TSYNC | NEW_LISTENER;
        answers_itself(&program, options.host)?;
    } else if flags & WAIT_KILLABLE != 0 {
        flags &= !WAIT_KILLABLE;
        warnings.push(
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV says nothing without SCMP_ACT_NOTIFY".into(),
        );
    }
    Ok(Filter { program, flags, warnings })
}

/// Whether a filter can return `verdict`.
fn has_verdict(program: &[Insn], verdict: Verdict) -> bool {
    program.iter().any(|insn| insn.code == tree::RETURN && insn.k == verdict.raw())
}

/// Between the filter and the payload the init writes and reads one byte: nobody could answer for it.
fn answers_itself(program: &[Insn], host: Arch) -> Result<()> {
    let abi = host.abi();
    for name in ["read", "write"] {
        if verdict(program, name, abi) != Some(Verdict::ALLOW.raw()) {
            let error = crate::Error::invalid("linux.seccomp", format!("SCMP_ACT_NOTIFY needs {name} to be allowed"));
            return Err(error.hint("the listener is handed over by it"));
        }
    }
    Ok(())
}

/// Of a filter under which a payload is to be started, that the call which does so is not denied.
///
/// # Errors
/// If it is: the payload could not say so itself.
pub fn must_execute(filter: &Filter) -> Result<()> {
    let action =
        verdict(&filter.program, "execve", Arch::native().abi()).unwrap_or_default() & libc::SECCOMP_RET_ACTION_FULL;
    let passes = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_USER_NOTIF].contains(&action);
    if passes {
        return Ok(());
    }
    let error = crate::Error::invalid("linux.seccomp", "denies execve(2), by which the payload itself is started");
    Err(error.hint("allow it, and what else every program needs"))
}

/// What a filter says of a call, whatever its arguments are if it looks at none.
fn verdict(program: &[Insn], name: &str, abi: Abi) -> Option<u32> {
    let nr = table::number(name, abi).unwrap_or_default();
    interpret::run(program, &interpret::Call { nr, arch: abi.audit_arch(), instruction_pointer: 0, args: [0; 6] })
}

const TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
/// linux/seccomp.h
pub(crate) const NEW_LISTENER: u32 = 1 << 3;
const WAIT_KILLABLE: u32 = 1 << 5;
const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// `linux.seccomp.flags` as seccomp(2) has them. Nothing is added: SPEC_ALLOW lifts a mitigation of Spectre v4.
fn flags(profile: &LinuxSeccomp) -> u32 {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            OciFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
            OciFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            OciFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            OciFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE,
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

/// The reverse of [`to_bytes`]; `bytes` is a multiple of 8 long.
pub fn from_bytes(bytes: &[u8]) -> Vec<Insn> {
    let insn = |raw: &[u8]| Insn {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    };
    bytes.chunks_exact(8).map(insn).collect()
}

/// A profile that allows everything in every ABI: what is denied on top of it is denied alone.
pub fn allow_all() -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures([OciArch::ScmpArchX86_64, OciArch::ScmpArchX86, OciArch::ScmpArchX32, OciArch::ScmpArchAarch64])
        .build()
        .unwrap_or_default()
}
