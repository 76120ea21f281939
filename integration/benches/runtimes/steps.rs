// SPDX-License-Identifier: Apache-2.0
//! The cases: chains of commands, some of them timed, some only there to set up or clear away.

use crate::bundle::Variant::{self, Counted, Plain, Seccomp, Userns};
use crate::engine::Op::{self, Create, Delete, DeleteForce, Exec, Kill, List, Run, Start, State};

/// One command of a chain.
pub struct Step {
    /// The case's name; None is not timed.
    pub name: Option<&'static str>,
    /// What to do.
    pub op: Op,
    /// To which kind of container.
    pub variant: Variant,
    /// The payload.
    pub args: &'static [&'static str],
}

const TRUE: &[&str] = &["/bin/true"];
const TINY: &[&str] = &["/bin/tiny"];
const SLEEP: &[&str] = &["/bin/sleep", "1000"];

const fn timed(name: &'static str, op: Op, variant: Variant, args: &'static [&'static str]) -> Step {
    Step { name: Some(name), op, variant, args }
}

const fn silent(op: Op, variant: Variant, args: &'static [&'static str]) -> Step {
    Step { name: None, op, variant, args }
}

/// Every chain ends with no container left.
pub const CHAINS: &[&[Step]] = &[
    &[timed("run", Run, Plain, TRUE)],
    &[timed("run, tiny program", Run, Plain, TINY)],
    &[timed("run, seccomp", Run, Seccomp, TRUE)],
    &[timed("run, seccomp, counted", Run, Counted, TRUE)],
    &[timed("run, userns", Run, Userns, TRUE)],
    &[
        timed("create", Create, Plain, SLEEP),
        timed("state", State, Plain, &[]),
        timed("start", Start, Plain, &[]),
        timed("exec", Exec, Plain, TRUE),
        timed("kill", Kill, Plain, &[]),
        timed("delete", Delete, Plain, &[]),
    ],
    &[silent(Create, Plain, SLEEP), silent(Start, Plain, &[]), timed("delete -f", DeleteForce, Plain, &[])],
    &[
        timed("create, seccomp", Create, Seccomp, SLEEP),
        silent(Start, Seccomp, &[]),
        timed("exec, seccomp", Exec, Seccomp, TRUE),
        silent(Kill, Seccomp, &[]),
        silent(Delete, Seccomp, &[]),
    ],
    &[
        timed("create, userns", Create, Userns, SLEEP),
        silent(Start, Userns, &[]),
        timed("exec, userns", Exec, Userns, TRUE),
        silent(Kill, Userns, &[]),
        silent(Delete, Userns, &[]),
    ],
];

/// What is timed while many containers are alive.
pub const CROWDED: &[&[Step]] = &[
    &[timed("list", List, Plain, &[])],
    &[timed("create, crowded", Create, Plain, SLEEP), silent(Kill, Plain, &[]), silent(Delete, Plain, &[])],
];

/// The containers of the crowd.
pub const CROWD: Step = silent(Create, Plain, SLEEP);
