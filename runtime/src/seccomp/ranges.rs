// SPDX-License-Identifier: Apache-2.0
//! The number line of one architecture, cut into ranges with one outcome each.
//!
//! Numbers above the newest call that a profile names are calls that its author could not know: where the default denies
//! they fail with ENOSYS, so that libraries fall back to an older call, as in runc. Numbers between get the default.

use super::abi::{Abi, X32_BIT};
use super::leaf::Leaf;
use super::profile::Policy;
use super::set_id::{self, Guard};
use super::table;
use super::verdict::Verdict;
use crate::Result;

/// The number that a tracer sets to skip a call (ptrace(2)): the kernel does nothing for it.
const SKIPPED: u32 = u32::MAX;

/// From `first` to before the next range.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub first: u32,
    pub leaf: Leaf,
}

/// The ranges for each `seccomp_data.arch` of the policy, the native one first.
pub(crate) fn by_arch(policy: &Policy, deny_set_id: bool) -> Result<Vec<(u32, Vec<Range>)>> {
    let line = |abi| Line::new(policy, abi, deny_set_id);
    let mut arches = Vec::new();
    for &abi in policy.abis.iter().filter(|&&abi| abi != Abi::X32) {
        let mut ranges = line(abi).ranges()?;
        if abi == Abi::X86_64 {
            add_x32(&mut ranges, policy.abis.contains(&Abi::X32).then(|| line(Abi::X32)))?;
            push(&mut ranges, SKIPPED, Leaf::always(line(abi).newer));
        }
        arches.push((abi.audit_arch(), ranges));
    }
    Ok(arches)
}

/// x32 shares x86_64's architecture; unless it is listed, its numbers are another ABI's and killed.
fn add_x32(ranges: &mut Vec<Range>, x32: Option<Line>) -> Result<()> {
    let Some(line) = x32 else {
        push(ranges, X32_BIT, Leaf::always(Verdict::KILL_PROCESS));
        return Ok(());
    };
    for range in line.ranges()? {
        push(ranges, range.first + X32_BIT, range.leaf);
    }
    Ok(())
}

fn push(ranges: &mut Vec<Range>, first: u32, leaf: Leaf) {
    if ranges.last().is_none_or(|last| last.leaf != leaf) {
        ranges.push(Range { first, leaf });
    }
}

/// The numbers of one ABI, in its own count.
struct Line<'a> {
    policy: &'a Policy,
    abi: Abi,
    /// By row of the table; empty without guards.
    guards: Vec<Option<Guard>>,
    /// The newest number known to the profile among the common ones and among the ABI's private ones.
    newest: [Option<u32>; 2],
    newer: Verdict,
}

impl<'a> Line<'a> {
    fn new(policy: &'a Policy, abi: Abi, deny_set_id: bool) -> Self {
        let guards = if deny_set_id { set_id::guards() } else { Vec::new() };
        // With set-id bits denied, a call that wsbox does not know could give them.
        let newer = if policy.default.denies() || deny_set_id { Verdict::ENOSYS } else { policy.default };
        Self { policy, abi, guards, newest: newest(policy, abi), newer }
    }

    fn ranges(&self) -> Result<Vec<Range>> {
        let mut ranges = Vec::with_capacity(table::SLOTS / 2);
        for (slot, row) in self.rows().into_iter().enumerate() {
            let number = table::number_of_slot(self.abi, slot as u32);
            push(&mut ranges, number, self.leaf(number, row)?);
        }
        Ok(ranges)
    }

    /// The row of each call that has rules of its own, by slot.
    fn rows(&self) -> [Option<u16>; table::SLOTS] {
        let mut rows = [None; table::SLOTS];
        for (row, call) in table::calls().iter().enumerate() {
            if self.is_own(row)
                && let Some(number) = call.number(self.abi)
            {
                rows[table::slot(self.abi, number)] = Some(row as u16);
            }
        }
        rows
    }

    fn is_own(&self, row: usize) -> bool {
        let policy = self.policy;
        policy.always(row).is_some() || policy.rules(row, self.abi).next().is_some() || self.guard(row).is_some()
    }

    fn guard(&self, row: usize) -> Option<Guard> {
        self.guards.get(row).copied().flatten()
    }

    fn leaf(&self, number: u32, row: Option<u16>) -> Result<Leaf> {
        let background = self.background(number);
        let Some(row) = row.map(usize::from) else { return Ok(Leaf::always(background)) };
        let leaf = Leaf::of(self.policy, row, background, self.abi)?;
        match self.guard(row) {
            Some(guard) => guard.over(leaf, self.abi),
            None => Ok(leaf),
        }
    }

    /// The outcome for numbers without a rule.
    fn background(&self, number: u32) -> Verdict {
        let [common, private] = self.newest;
        let newest = if number >= self.abi.private_from() { private } else { common };
        if newest.is_some_and(|newest| number <= newest) { self.policy.default } else { self.newer }
    }
}

/// The newest numbers that the profile names, common and private. One that names no common call says nothing of its
/// age, and one whose default lets through needs none: then it is the table's.
fn newest(policy: &Policy, abi: Abi) -> [Option<u32>; 2] {
    let newest = |private: bool, all: bool| {
        let calls = table::calls().iter().zip(&policy.entries).filter(|(_, entry)| all || entry.named);
        let numbers = calls.filter_map(|(call, _)| call.number(abi));
        numbers.filter(|&number| (number >= abi.private_from()) == private).max()
    };
    let all = !policy.default.denies();
    [newest(false, all).or_else(|| newest(false, true)), newest(true, all)]
}
