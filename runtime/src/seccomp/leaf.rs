// SPDX-License-Identifier: Apache-2.0
//! What one call number leads to: tests of the arguments in order, each with a verdict, and the verdict if none holds.

use std::cmp::Reverse;

use seccompiler::SeccompCondition;

use super::abi::Abi;
use super::condition::{Condition, Doubt, Lowered};
use super::profile::{Policy, Rule};
use super::verdict::Verdict;
use crate::Result;

/// If all of `when` hold, then `then`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub when: Vec<SeccompCondition>,
    pub then: Verdict,
}

/// The first test that holds decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub tests: Vec<Test>,
    pub otherwise: Verdict,
}

impl Leaf {
    /// One verdict whatever the arguments.
    pub fn always(verdict: Verdict) -> Self {
        Self { tests: Vec::new(), otherwise: verdict }
    }

    /// Without the tests that decide nothing: those after one that always holds, and last ones that say `otherwise`.
    pub fn new(mut tests: Vec<Test>, mut otherwise: Verdict) -> Self {
        if let Some(last) = tests.iter().position(|test| test.when.is_empty()) {
            otherwise = tests[last].then;
            tests.truncate(last);
        }
        while tests.last().is_some_and(|test| test.then == otherwise) {
            tests.pop();
        }
        Self { tests, otherwise }
    }

    /// What the profile says of the call in `row` on `abi`, with `default` where no rule holds. A rule without conditions wins over those with; among these the
    /// strictest that holds wins, and the first in the profile where they are alike.
    pub fn of(policy: &Policy, row: usize, default: Verdict, abi: Abi) -> Result<Self> {
        if let Some(verdict) = policy.always(row) {
            return Ok(Self::always(verdict));
        }
        let mut rules: Vec<&Rule> = policy.rules(row, abi).collect();
        rules.sort_by_key(|rule| Reverse(rule.then.strictness()));
        let laxest = rules.last().map_or(0, |rule| rule.then.strictness());
        let mut tests = Vec::new();
        for rule in rules {
            add(&mut tests, rule, abi, default, laxest)?;
        }
        Ok(Self::new(tests, default))
    }
}

/// One rule: one that tightens holds in doubt, one that loosens does not (see condition.rs).
fn add(tests: &mut Vec<Test>, rule: &Rule, abi: Abi, default: Verdict, laxest: i32) -> Result<()> {
    let strictness = rule.then.strictness();
    if strictness >= default.strictness() {
        tests.extend(lower(&rule.when, abi, Doubt::Matches, rule.then)?);
        return Ok(());
    }
    tests.extend(lower(&rule.when, abi, Doubt::Misses, rule.then)?);
    // It stands between the default and a laxer rule: in doubt that one must not get its turn.
    if strictness > laxest {
        let doubtful = lower(&rule.when, abi, Doubt::Matches, default)?;
        let certain = tests.last().map(|test| &test.when);
        tests.extend(doubtful.filter(|test| certain != Some(&test.when)));
    }
    Ok(())
}

/// The test of all `conditions`, none if they cannot hold together.
fn lower(conditions: &[Condition], abi: Abi, doubt: Doubt, then: Verdict) -> Result<Option<Test>> {
    let mut when = Vec::with_capacity(conditions.len());
    for condition in conditions {
        match condition.lower(abi, doubt)? {
            Lowered::Always => {}
            Lowered::Never => return Ok(None),
            Lowered::Test(test) => when.push(test),
        }
    }
    Ok(Some(Test { when, then }))
}
