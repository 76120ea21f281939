// SPDX-License-Identifier: Apache-2.0
//! 32-bit x86's `socketcall(2)` and `ipc(2)`: one number for many calls, told apart by the first argument.
//!
//! A rule on `socket` would be void there if it did not count for `socketcall(1, …)` as well. The arguments proper lie
//! in memory, where a filter cannot look: so a rule that tightens counts for all of them, and one that loosens under
//! conditions for none (libseccomp does the former, and lets through in place of the latter).

use seccompiler::SeccompCmpOp as Operator;

use super::condition::Condition;

/// Names, sorted, and the value of the carrier's first argument that stands for each (linux/net.h, linux/ipc.h).
const SOCKETCALL: [(&str, u64); 20] = [
    ("accept", 5),
    ("accept4", 18),
    ("bind", 2),
    ("connect", 3),
    ("getpeername", 7),
    ("getsockname", 6),
    ("getsockopt", 15),
    ("listen", 4),
    ("recv", 10),
    ("recvfrom", 12),
    ("recvmmsg", 19),
    ("recvmsg", 17),
    ("send", 9),
    ("sendmmsg", 20),
    ("sendmsg", 16),
    ("sendto", 11),
    ("setsockopt", 14),
    ("shutdown", 13),
    ("socket", 1),
    ("socketpair", 8),
];
const IPC: [(&str, u64); 12] = [
    ("msgctl", 14),
    ("msgget", 13),
    ("msgrcv", 12),
    ("msgsnd", 11),
    ("semctl", 3),
    ("semget", 2),
    ("semop", 1),
    ("semtimedop", 4),
    ("shmat", 21),
    ("shmctl", 24),
    ("shmdt", 22),
    ("shmget", 23),
];

/// The call that carries `name` on 32-bit x86, and the condition under which it does.
pub(crate) fn carrier(name: &str) -> Option<(&'static str, Condition)> {
    let code = |list: &[(&str, u64)]| list.binary_search_by(|(call, _)| (*call).cmp(name)).ok().map(|at| list[at].1);
    if let Some(value) = code(&SOCKETCALL) {
        return Some(("socketcall", Condition { index: 0, operator: Operator::Eq, value }));
    }
    // The upper 16 bits of ipc's first argument are a version.
    code(&IPC).map(|value| ("ipc", Condition { index: 0, operator: Operator::MaskedEq(0xffff), value }))
}
