// SPDX-License-Identifier: Apache-2.0
//! No files with set-user-id or set-group-id bits, or with capabilities.
//!
//! A writable id-mapped bind maps the container's root to the folder's owner. If that is root on the host, a program
//! made there with mode 04755 would be root's on the host, and file capabilities would be the host's. So calls that give modes may not give these two bits, and
//! calls whose modes lie in memory, where a filter cannot look, do not exist. A file that has such bits already is not
//! guarded: a store through mmap(2) keeps them.

use super::abi::Abi;
use super::condition::{Condition, Doubt, Lowered};
use super::leaf::{Leaf, Test};
use super::table;
use super::verdict::Verdict;
use crate::Result;

/// `S_ISUID | S_ISGID`; umode_t is 16 bits, so the rest of the argument does not matter.
const SET_ID: u32 = 0o6000;
/// `O_CREAT` and O_TMPFILE's own bit, the same on every ABI here: without them open(2) ignores its mode.
const CREATES: u32 = 0o100 | 0o20_000_000;

/// How a call can give a file set-id bits.
#[derive(Clone, Copy)]
pub(crate) enum Guard {
    /// By this argument.
    Mode(u8),
    /// By the mode, if the flags say that a file is made.
    Open { flags: u8, mode: u8 },
    /// By something in memory.
    Hidden,
    /// Not by a mode, but by file capabilities, whose name lies in memory: as on a file system without any.
    Attribute,
}

const GUARDS: [(&str, Guard); 19] = [
    ("chmod", Guard::Mode(1)),
    ("fchmod", Guard::Mode(1)),
    ("fchmodat", Guard::Mode(2)),
    ("mknod", Guard::Mode(1)),
    ("mknodat", Guard::Mode(2)),
    ("mkdir", Guard::Mode(1)),
    ("mkdirat", Guard::Mode(2)),
    ("creat", Guard::Mode(1)),
    ("open", Guard::Open { flags: 1, mode: 2 }),
    ("openat", Guard::Open { flags: 2, mode: 3 }),
    ("openat2", Guard::Hidden),
    // Not hidden, but libraries fall back to fchmodat, which is told apart above.
    ("fchmodat2", Guard::Hidden),
    // Opens and makes files as openat does.
    ("io_uring_setup", Guard::Hidden),
    ("io_uring_enter", Guard::Hidden),
    ("io_uring_register", Guard::Hidden),
    ("setxattr", Guard::Attribute),
    ("lsetxattr", Guard::Attribute),
    ("fsetxattr", Guard::Attribute),
    ("setxattrat", Guard::Attribute),
];

/// The guards, by row of the table.
pub(crate) fn guards() -> Vec<Option<Guard>> {
    let mut guards = vec![None; table::calls().len()];
    for (name, guard) in GUARDS {
        table::row(name).into_iter().for_each(|row| guards[row] = Some(guard));
    }
    guards
}

impl Guard {
    /// `leaf`, but denied where it would let set-id bits through; what it denies stays as it is.
    pub fn over(self, leaf: Leaf, abi: Abi) -> Result<Leaf> {
        let mut tests = Vec::new();
        for test in leaf.tests {
            self.guard(&mut tests, test, abi)?;
        }
        self.guard(&mut tests, Test { when: Vec::new(), then: leaf.otherwise }, abi)?;
        // The last test holds always, so this verdict is never reached.
        Ok(Leaf::new(tests, Verdict::KILL_PROCESS))
    }

    /// One outcome: kept if it denies, else kept where any of the harmless conditions holds too, and denied elsewhere.
    fn guard(self, tests: &mut Vec<Test>, test: Test, abi: Abi) -> Result<()> {
        if test.then.denies() {
            tests.push(test);
            return Ok(());
        }
        for harmless in self.harmless() {
            if let Lowered::Test(condition) = harmless.lower(abi, Doubt::Misses)? {
                let when = test.when.iter().cloned().chain([condition]).collect();
                tests.push(Test { when, then: test.then });
            }
        }
        tests.push(Test { when: test.when, then: self.denial() });
        Ok(())
    }

    fn harmless(self) -> Vec<Condition> {
        match self {
            Self::Mode(mode) => vec![Condition::clear(mode, SET_ID)],
            Self::Open { flags, mode } => vec![Condition::clear(mode, SET_ID), Condition::clear(flags, CREATES)],
            Self::Hidden | Self::Attribute => Vec::new(),
        }
    }

    fn denial(self) -> Verdict {
        match self {
            Self::Hidden => Verdict::ENOSYS,
            Self::Attribute => Verdict::ENOTSUP,
            _ => Verdict::EPERM,
        }
    }
}
