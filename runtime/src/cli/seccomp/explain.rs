// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp explain`

use oci_spec::runtime::{LinuxSeccompArg, LinuxSyscall};
use serde::Serialize;

use super::source::Source;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::seccomp::{self, Abi, Arch, Options, Verdict, interpret, table};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file, a bundle, or one of: workspace, docker-default
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// The system call's name
    #[arg(value_name = "SYSCALL")]
    syscall: String,
    /// Its arguments, numbers (0x for hexadecimal, 0o for octal); those left out are 0
    #[arg(value_name = "ARG", value_parser = number, allow_negative_numbers = true)]
    args: Vec<u64>,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// A negative number is what a 64-bit register holds of it.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hexadecimal), _) => u64::from_str_radix(hexadecimal, 16).ok(),
        (_, Some(octal)) => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|number| number as u64)),
    };
    parsed.ok_or_else(|| format!("{text:?} is no number"))
}

#[derive(Serialize)]
struct Explained {
    syscall: String,
    verdicts: Vec<AbiVerdict>,
    /// What the profile says of the call, in its order; empty: the default decides
    rules: Vec<Named>,
    default: String,
}

#[derive(Serialize)]
struct AbiVerdict {
    abi: String,
    number: u32,
    verdict: String,
}

#[derive(Serialize)]
struct Named {
    rule: String,
    action: String,
    condition: String,
}

pub fn run(arguments: Arguments) -> Result<u8> {
    let profile = Source::read(&arguments.profile)?.profile()?;
    let filter = seccomp::compile(&profile, &Options::default())?;
    if arguments.args.len() > 6 {
        return Err(Error::invalid("ARG", "a system call has six arguments at most"));
    }
    let mut args = [0; 6];
    args.iter_mut().zip(&arguments.args).for_each(|(to, from)| *to = *from);
    let verdicts: Vec<AbiVerdict> = Arch::native()
        .abis()
        .iter()
        .filter_map(|abi| verdict(&filter.program, &arguments.syscall, *abi, args))
        .collect();
    if verdicts.is_empty() {
        let error = Error::invalid(&arguments.syscall, "no kernel for this machine has such a system call");
        return Err(error.hint("names are those of the kernel: newfstatat, not fstatat"));
    }
    let rules = profile.syscalls().iter().flatten().enumerate();
    let explained = Explained {
        verdicts,
        rules: rules.filter(|(_, rule)| rule.names().contains(&arguments.syscall)).map(named).collect(),
        default: profile.default_action().to_string(),
        syscall: arguments.syscall,
    };
    if arguments.format == "json" { output::json(&explained) } else { output::text(&text(&explained)) }
}

fn verdict(program: &[seccomp::Insn], syscall: &str, abi: Abi, args: [u64; 6]) -> Option<AbiVerdict> {
    let number = table::number(syscall, abi)?;
    let call = interpret::Call { nr: number, arch: abi.audit_arch(), instruction_pointer: 0, args };
    let raw = interpret::run(program, &call)?;
    Some(AbiVerdict { abi: format!("{abi:?}").to_lowercase(), number, verdict: words(raw) })
}

/// What a program sees of it.
pub fn words(raw: u32) -> String {
    let data = raw & libc::SECCOMP_RET_DATA;
    match raw & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ALLOW => "allowed".into(),
        libc::SECCOMP_RET_LOG => "allowed, and logged by the kernel".into(),
        libc::SECCOMP_RET_ERRNO => format!("fails with {:?}", nix::errno::Errno::from_raw(data as i32)),
        libc::SECCOMP_RET_TRACE => format!("asks a tracer (message {data}), fails with ENOSYS without one"),
        libc::SECCOMP_RET_TRAP => "SIGSYS to the caller".into(),
        libc::SECCOMP_RET_KILL_THREAD => "ends the calling thread".into(),
        _ if raw == Verdict::NOTIFY.raw() => "asks the agent that listens".into(),
        _ => "ends the process".into(),
    }
}

fn named((at, rule): (usize, &LinuxSyscall)) -> Named {
    let args = rule.args().as_deref().unwrap_or_default();
    let conditions: Vec<String> = args.iter().map(condition).collect();
    let errno = rule.errno_ret().map(|errno| format!(" {errno}")).unwrap_or_default();
    Named {
        rule: format!("syscalls[{at}]"),
        action: format!("{}{errno}", rule.action()),
        condition: if conditions.is_empty() { "always".into() } else { format!("if {}", conditions.join(" and ")) },
    }
}

fn condition(arg: &LinuxSeccompArg) -> String {
    let (index, value) = (arg.index(), arg.value());
    match (arg.op().to_string().as_str(), arg.value_two()) {
        ("SCMP_CMP_MASKED_EQ", Some(wanted)) => format!("argument {index} & {value:#x} == {wanted:#x}"),
        (op, _) => {
            let signs = [("NE", "!="), ("LT", "<"), ("LE", "<="), ("EQ", "=="), ("GE", ">="), ("GT", ">")];
            let sign = signs.iter().find(|(name, _)| op.ends_with(name)).map_or(op, |(_, sign)| sign);
            format!("argument {index} {sign} {value:#x}")
        }
    }
}

fn text(explained: &Explained) -> String {
    let mut text = String::new();
    for AbiVerdict { abi, number, verdict } in &explained.verdicts {
        text += &format!("{} ({abi} {number}): {verdict}\n", explained.syscall);
    }
    for Named { rule, action, condition } in &explained.rules {
        text += &format!("  {rule}: {action} {condition}\n");
    }
    if explained.rules.is_empty() {
        text += &format!("  no rule names it: defaultAction {}\n", explained.default);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            (number("16"), number("0x10"), number("0o20"), number("-1")),
            (Ok(16), Ok(16), Ok(16), Ok(u64::MAX))
        );
        assert!(number("x").is_err());
    }
}
