// SPDX-License-Identifier: Apache-2.0
//! Runs a filter as the kernel would: for tests, and to explain what happens to a call.

use super::Insn;
use super::tree::{AND, IF_AT_LEAST, IF_EQUAL, IF_GREATER, JUMP, LOAD, RETURN};

/// What a filter sees of a call (`struct seccomp_data`, linux/seccomp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The number.
    pub nr: u32,
    /// The architecture, `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where the caller is.
    pub instruction_pointer: u64,
    /// The arguments' registers.
    pub args: [u64; 6],
}

impl Call {
    /// The 32-bit word at `offset`, in bytes; little-endian, as all of wsbox's machines are.
    fn word(&self, offset: u32) -> Option<u32> {
        let half = |value: u64| if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 };
        match offset {
            0 => Some(self.nr),
            4 => Some(self.arch),
            8 | 12 => Some(half(self.instruction_pointer)),
            _ if offset.is_multiple_of(4) => self.args.get((offset as usize - 16) / 8).map(|&value| half(value)),
            _ => None,
        }
    }
}

/// What `program` returns for `call`; none if it is no filter that this module knows (such as one without a return).
pub fn run(program: &[Insn], call: &Call) -> Option<u32> {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let insn = program.get(at)?;
        let skipped = match insn.code {
            RETURN => return Some(insn.k),
            LOAD => {
                accumulator = call.word(insn.k)?;
                0
            }
            AND => {
                accumulator &= insn.k;
                0
            }
            JUMP => insn.k as usize,
            code => usize::from(if holds(code, accumulator, insn.k)? { insn.jt } else { insn.jf }),
        };
        at += 1 + skipped;
    }
}

fn holds(code: u16, accumulator: u32, k: u32) -> Option<bool> {
    match code {
        IF_EQUAL => Some(accumulator == k),
        IF_GREATER => Some(accumulator > k),
        IF_AT_LEAST => Some(accumulator >= k),
        _ => None,
    }
}
