// SPDX-License-Identifier: Apache-2.0
//! From ranges of numbers to a program: a binary search, whose leaves are returns or tests of arguments.
//!
//! ```text
//!     load arch; for each arch: equal? -> its search       (none: kill)
//!     load nr
//!     nr >= middle?  -> right half : left half             (and so on)
//!     argument tests, each: fails? -> the next; return
//! ```
//! Jumps only go forward and conditional ones reach 255 instructions, so the code is laid down from its end: then
//! each target is known, equal leaves are shared, and where one is out of reach a copy or a plain jump is put closer.

use seccompiler::{BpfProgram, SeccompRule};

use super::Insn;
use super::leaf::{Leaf, Test};
use super::ranges::Range;
use super::verdict::Verdict;
use crate::{Error, Result};

/// `BPF_MAXINSNS` (linux/bpf_common.h).
pub(crate) const LONGEST: usize = 4096;
/// How far a conditional jump may have to reach before its other side is in place, which takes one instruction at most.
const REACH: usize = u8::MAX as usize - 1;
/// Where `seccomp_data` holds the call's number and the architecture.
const NR: u32 = 0;
const ARCH: u32 = 4;

// Instruction codes (linux/bpf_common.h).
pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(crate) const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The program for the ranges of each architecture; what is none of them is killed.
pub(crate) fn program(arches: &[(u32, Vec<Range>)]) -> Result<Vec<Insn>> {
    let mut code = Code { backwards: Vec::with_capacity(512), ..Code::default() };
    let mut entries = Vec::with_capacity(arches.len());
    for (arch, ranges) in arches.iter().rev() {
        let root = code.search(ranges)?;
        code.fall_into(root);
        entries.push((*arch, Target::Code(code.push(LOAD, NR))));
    }
    let foreign = Target::Return(Verdict::KILL_PROCESS);
    let gates = entries.into_iter().fold(foreign, |next, (arch, entry)| code.branch(IF_EQUAL, arch, entry, next));
    code.fall_into(gates);
    code.push(LOAD, ARCH);
    code.finish()
}

/// Where a jump is to go.
#[derive(Clone, Copy)]
enum Target {
    /// To code in place, counted from the program's end.
    Code(usize),
    /// To a return, wherever one is near.
    Return(Verdict),
}

/// The program, last instruction first.
#[derive(Default)]
struct Code {
    backwards: Vec<Insn>,
    /// The latest return of each verdict.
    returns: Vec<(Verdict, usize)>,
    /// The argument tests in place.
    tests: Vec<(Leaf, usize)>,
}

impl Code {
    /// The search through `ranges`, of which there is at least one.
    fn search(&mut self, ranges: &[Range]) -> Result<Target> {
        if let [range] = ranges {
            return self.leaf(&range.leaf);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let middle = right.first().map_or(0, |range| range.first);
        let right = self.search(right)?;
        let left = self.search(left)?;
        Ok(self.branch(IF_AT_LEAST, middle, right, left))
    }

    fn leaf(&mut self, leaf: &Leaf) -> Result<Target> {
        if leaf.tests.is_empty() {
            return Ok(Target::Return(leaf.otherwise));
        }
        if let Some((_, at)) = self.tests.iter().find(|(known, _)| known == leaf) {
            return Ok(Target::Code(*at));
        }
        self.give(leaf.otherwise);
        for test in leaf.tests.iter().rev() {
            self.test(test)?;
        }
        let at = self.backwards.len() - 1;
        self.tests.push((leaf.clone(), at));
        Ok(Target::Code(at))
    }

    /// A test and its return. seccompiler's code falls through if all conditions hold, and else skips one instruction.
    fn test(&mut self, test: &Test) -> Result<()> {
        self.give(test.then);
        let rule = SeccompRule::new(test.when.clone())
            .map_err(|error| Error::invalid("linux.seccomp.syscalls", error.to_string()))?;
        let code = BpfProgram::from(rule);
        // What a leading jump skips can never be reached, as all jumps go forward.
        let start = code.first().filter(|first| first.code == JUMP).map_or(0, |jump| jump.k as usize + 1);
        self.backwards.extend(code.into_iter().skip(start).rev());
        Ok(())
    }

    fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        let yes = self.near(yes);
        let no = self.near(no);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.backwards.push(Insn { code, jt, jf, k });
        Target::Code(self.backwards.len() - 1)
    }

    /// A place within reach that is, or leads to, `target`; adds one instruction at most.
    fn near(&mut self, target: Target) -> usize {
        let known = match target {
            Target::Code(at) => Some(at),
            Target::Return(verdict) => self.returns.iter().find(|(own, _)| *own == verdict).map(|(_, at)| *at),
        };
        match (known.filter(|&at| self.distance(at) <= REACH), target) {
            (Some(at), _) => at,
            (None, Target::Return(verdict)) => self.give(verdict),
            (None, Target::Code(at)) => self.jump(at),
        }
    }

    /// Makes `target` what follows the instruction that is put down next.
    fn fall_into(&mut self, target: Target) {
        match target {
            Target::Return(verdict) => _ = self.give(verdict),
            Target::Code(at) if self.distance(at) > 0 => _ = self.jump(at),
            Target::Code(_) => {}
        }
    }

    /// How many instructions lie between the one put down next and `at`.
    fn distance(&self, at: usize) -> usize {
        self.backwards.len() - at - 1
    }

    fn jump(&mut self, at: usize) -> usize {
        self.push(JUMP, self.distance(at) as u32)
    }

    fn give(&mut self, verdict: Verdict) -> usize {
        let at = self.push(RETURN, verdict.raw());
        self.returns.retain(|(known, _)| *known != verdict);
        self.returns.push((verdict, at));
        at
    }

    fn push(&mut self, code: u16, k: u32) -> usize {
        self.backwards.push(Insn { code, jt: 0, jf: 0, k });
        self.backwards.len() - 1
    }

    fn finish(mut self) -> Result<Vec<Insn>> {
        let length = self.backwards.len();
        if length > LONGEST {
            let why = format!("the filter has {length} instructions, the kernel takes {LONGEST}");
            return Err(Error::invalid("linux.seccomp.syscalls", why).hint("fewer rules with args"));
        }
        self.backwards.reverse();
        Ok(self.backwards)
    }
}
