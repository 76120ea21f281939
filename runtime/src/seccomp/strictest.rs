// SPDX-License-Identifier: Apache-2.0
//! Several profiles as one filter: for each call the strictest verdict, as if each had a filter of its own in the kernel
//! (seccomp(2)), but at the price of one. Where two deny alike, the first one's error number stands.

use super::leaf::{Leaf, Test};
use super::ranges::Range;

/// The ranges of each architecture that both serve; the others are killed by one of them.
pub(crate) fn of_arches(first: Vec<(u32, Vec<Range>)>, second: &[(u32, Vec<Range>)]) -> Vec<(u32, Vec<Range>)> {
    let both = |(arch, ranges): (u32, Vec<Range>)| {
        let other = second.iter().find(|(other, _)| *other == arch)?;
        Some((arch, of_ranges(&ranges, &other.1)))
    };
    first.into_iter().filter_map(both).collect()
}

/// Both number lines at once: a range begins wherever one of them has one.
fn of_ranges(first: &[Range], second: &[Range]) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::with_capacity(first.len() + second.len());
    let (mut a, mut b) = (0, 0);
    while let (Some(one), Some(other)) = (first.get(a), second.get(b)) {
        let leaf = of_leaves(&one.leaf, &other.leaf);
        if merged.last().is_none_or(|last| last.leaf != leaf) {
            merged.push(Range { first: one.first.max(other.first), leaf });
        }
        // The line whose next range begins earlier goes on; both where they begin together.
        let next = |ranges: &[Range], at: usize| ranges.get(at + 1).map_or(u64::MAX, |range| range.first.into());
        let (next_a, next_b) = (next(first, a), next(second, b));
        a += usize::from(next_a <= next_b);
        b += usize::from(next_b <= next_a);
    }
    merged
}

/// Each outcome of the one with each of the other, in the order that the first pair which holds is the first outcome of both.
fn of_leaves(one: &Leaf, other: &Leaf) -> Leaf {
    if one == other {
        return one.clone();
    }
    let (firsts, seconds) = (outcomes(one), outcomes(other));
    let mut tests = Vec::with_capacity(firsts.len() * seconds.len());
    for first in firsts {
        // Whatever the other one says: without its conditions.
        if seconds.iter().all(|second| first.then.or_stricter(second.then) == first.then) {
            tests.push(first);
            continue;
        }
        for second in &seconds {
            let more = second.when.iter().filter(|test| !first.when.contains(test));
            let when = first.when.iter().chain(more).cloned().collect();
            tests.push(Test { when, then: first.then.or_stricter(second.then) });
        }
    }
    // The last test holds always, so this verdict is never reached.
    Leaf::new(tests, super::Verdict::KILL_PROCESS)
}

/// The tests, and the verdict if none holds as a test that always does.
fn outcomes(leaf: &Leaf) -> Vec<Test> {
    leaf.tests.iter().cloned().chain([Test { when: Vec::new(), then: leaf.otherwise }]).collect()
}
