// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp compile`

use std::io::{IsTerminal, Write};

use super::explain::words;
use super::source::Source;
use crate::cli::{log, output};
use crate::error::{Context, Error, Result};
use crate::seccomp::{self, Insn, Options};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file, a bundle, or one of: workspace, docker-default
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// asm: a line an instruction; bpf: struct sock_filter, 8 bytes each, as seccomp(2) takes them
    #[arg(short, long, value_name = "FORMAT", default_value = "asm", value_parser = ["asm", "bpf"])]
    format: String,
}

pub fn run(arguments: Arguments) -> Result<u8> {
    let filter = seccomp::compile(&Source::read(&arguments.profile)?.profile()?, &Options::default())?;
    filter.warnings.iter().for_each(|warning| log::warning(warning));
    if arguments.format == "asm" {
        let lines = filter.program.iter().enumerate().map(|(at, insn)| format!("{at:4}: {}\n", line(at, insn)));
        return output::text(&lines.collect::<String>());
    }
    if std::io::stdout().is_terminal() {
        return Err(Error::invalid("--format bpf", "is nothing for a terminal").hint("redirect it into a file"));
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&seccomp::to_bytes(&filter.program)).and_then(|()| stdout.flush()).context(|| "stdout".into())?;
    Ok(0)
}

/// linux/bpf_common.h and linux/filter.h: the few operations that wsbox writes.
fn line(at: usize, insn: &Insn) -> String {
    let to = |skipped: u8| at + 1 + usize::from(skipped);
    let jump = |sign: &str| format!("if A {sign} {:#x} go to {} else {}", insn.k, to(insn.jt), to(insn.jf));
    match insn.code {
        0x06 => format!("return {:#010x}: {}", insn.k, words(insn.k)),
        0x20 => format!("A = {}", word(insn.k)),
        0x54 => format!("A &= {:#x}", insn.k),
        0x05 => format!("go to {}", at + 1 + insn.k as usize),
        0x15 => jump("=="),
        0x25 => jump(">"),
        0x35 => jump(">="),
        code => format!("{code:#x} {:#x}", insn.k),
    }
}

/// struct seccomp_data
fn word(offset: u32) -> String {
    match offset {
        0 => "number of the call".into(),
        4 => "architecture".into(),
        8 | 12 => "instruction pointer".into(),
        _ => format!("argument {}, {} half", (offset - 16) / 8, if offset.is_multiple_of(8) { "low" } else { "high" }),
    }
}
