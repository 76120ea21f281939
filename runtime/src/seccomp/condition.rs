// SPDX-License-Identifier: Apache-2.0
//! One comparison of one argument, and how many of the argument's bits it looks at.
//!
//! A profile compares 64 bits, but the kernel takes an `int` argument (a command, a protocol family, flags) from the low
//! half of the register and ignores the upper one, which the caller may fill as it likes (CVE-2019-10063: `ioctl` with
//! `TIOCSTI | 1 << 32`). A filter cannot know which argument is an `int`. So a value that can be one is compared both
//! ways, and the stricter answer stands: a rule that tightens applies if either width matches, a rule that loosens only
//! if both do. As one width always implies the other, that is one comparison of the right width. A 64-bit argument pays
//! for it only where its low half alone would match: then the verdict is stricter than the profile's, never laxer.

use seccompiler::{SeccompCmpArgLen as Width, SeccompCmpOp as Operator, SeccompCondition};

use super::abi::Abi;
use crate::{Error, Result};

/// Where the sign-extended negative numbers of an `int` begin.
const NEGATIVE_INTS: u64 = 0xffff_ffff_8000_0000;

/// A comparison as the profile has it.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// The argument, 0 to 5.
    pub index: u8,
    /// The comparison; a mask is in it.
    pub operator: Operator,
    /// What the argument is compared with.
    pub value: u64,
}

/// How a doubt about the upper half is settled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The condition holds if either width matches.
    Matches,
    /// The condition holds only if both widths match.
    Misses,
}

/// A condition for one ABI.
pub(crate) enum Lowered {
    /// It holds for every argument that the ABI can pass.
    Always,
    /// It holds for none.
    Never,
    /// It is to be tested.
    Test(SeccompCondition),
}

impl Condition {
    /// `(argument & mask) == 0` on the low half.
    pub fn clear(index: u8, mask: u32) -> Self {
        Self { index, operator: Operator::MaskedEq(mask.into()), value: 0 }
    }

    /// What to test on `abi`.
    pub fn lower(&self, abi: Abi, doubt: Doubt) -> Result<Lowered> {
        if !abi.is_wide() {
            return self.lower_narrow();
        }
        let low = self.mask() <= u32::MAX.into() || self.may_be_int() && self.low_half_decides(doubt);
        self.test(if low { Width::Dword } else { Width::Qword })
    }

    /// On a 32-bit ABI the upper half is no part of the argument, even where a 64-bit caller of `int 0x80` filled it.
    fn lower_narrow(&self) -> Result<Lowered> {
        if self.may_be_int() || self.wanted() <= u32::MAX.into() {
            return self.test(Width::Dword);
        }
        Ok(match self.operator {
            Operator::Ne | Operator::Lt | Operator::Le => Lowered::Always,
            Operator::Eq | Operator::Ge | Operator::Gt | Operator::MaskedEq(_) => Lowered::Never,
        })
    }

    /// Whether the value makes sense for an `int` or `unsigned int` argument. Ranges below zero do not.
    fn may_be_int(&self) -> bool {
        match self.operator {
            // Who asks for upper bits only means a 64-bit argument.
            Operator::MaskedEq(mask) if mask as u32 == 0 => false,
            Operator::Eq | Operator::Ne | Operator::MaskedEq(_) => {
                self.wanted() <= u32::MAX.into() || self.wanted() >= NEGATIVE_INTS
            }
            _ => self.value <= u32::MAX.into(),
        }
    }

    /// Whether the low half alone gives the answer: where 64 bits match, EQ and LT match on 32 bits too; where 32 bits
    /// match, NE and GT match on 64 bits too.
    fn low_half_decides(&self, doubt: Doubt) -> bool {
        let narrow_is_wider =
            matches!(self.operator, Operator::Eq | Operator::MaskedEq(_) | Operator::Lt | Operator::Le);
        narrow_is_wider == (doubt == Doubt::Matches)
    }

    fn mask(&self) -> u64 {
        if let Operator::MaskedEq(mask) = self.operator { mask } else { u64::MAX }
    }

    /// The value, without the bits that the mask hides.
    fn wanted(&self) -> u64 {
        self.value & self.mask()
    }

    fn test(&self, width: Width) -> Result<Lowered> {
        SeccompCondition::new(self.index, width, self.operator.clone(), self.value)
            .map(Lowered::Test)
            .map_err(|error| Error::invalid("linux.seccomp.syscalls", error.to_string()))
    }
}
