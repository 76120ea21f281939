// SPDX-License-Identifier: Apache-2.0
//! From `linux.seccomp` of a config to rules by call; every fault is named by its JSON path.
//!
//! What the specification leaves open is as in runc: a name that no kernel has is skipped with a warning, a rule that
//! says what the default says is dropped, two conditions on one argument mean "or" for all conditions of that rule.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as OciOperator, LinuxSyscall,
};
use seccompiler::SeccompCmpOp as Operator;

use super::abi::{Abi, Arch};
use super::condition::Condition;
use super::verdict::Verdict;
use super::{multiplex, table};
use crate::{Error, Result};

/// The largest index of an argument (a call has six).
const LAST_ARGUMENT: usize = 5;

/// By these the init hands the listener over (init/program.rs): it would wait for ever, also if only for some arguments.
const HAND_OVER: [&str; 2] = ["read", "write"];

/// If all of `when` hold, then `then`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub when: Vec<Condition>,
    pub then: Verdict,
    /// Its place in `linux.seccomp.syscalls`.
    at: usize,
}

/// What a profile says of one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// Whether the profile names the call at all.
    pub named: bool,
    /// Whether it has rules with conditions.
    conditional: bool,
    /// The first rule without conditions, with its place in `linux.seccomp.syscalls`.
    always: Option<(Verdict, usize)>,
}

/// A rule with conditions and its call.
#[derive(Debug)]
struct Conditional {
    row: usize,
    /// Only 32-bit x86 has it (multiplex.rs).
    carried: bool,
    rule: Rule,
}

/// A profile, checked.
#[derive(Debug)]
pub(crate) struct Policy {
    /// For calls without a rule.
    pub default: Verdict,
    /// The ABIs that are served, the native one first; all others are killed.
    pub abis: Vec<Abi>,
    /// By row of the table.
    pub entries: Vec<Entry>,
    /// Few, so that looking through all of them costs nothing.
    conditionals: Vec<Conditional>,
    /// What was skipped, each with its JSON path.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Reads `profile` for a machine `host`.
    pub fn new(profile: &LinuxSeccomp, host: Arch) -> Result<Self> {
        let path = "linux.seccomp.default";
        let default = verdict(profile.default_action(), (profile.default_errno_ret(), &format!("{path}ErrnoRet")))?;
        let entries = vec![Entry::default(); table::calls().len()];
        let (conditionals, warnings) = (Vec::new(), Vec::new());
        let mut policy = Self { default, abis: abis(profile, host), entries, conditionals, warnings };
        for (at, syscall) in profile.syscalls().iter().flatten().enumerate() {
            policy.add(at, syscall)?;
        }
        policy.warn_of_dead_rules();
        Ok(policy)
    }

    /// One item of `linux.seccomp.syscalls`.
    fn add(&mut self, at: usize, syscall: &LinuxSyscall) -> Result<()> {
        let path = format!("linux.seccomp.syscalls[{at}]");
        let then = verdict(syscall.action(), (syscall.errno_ret(), &format!("{path}.errnoRet")))?;
        let rules: Vec<Rule> =
            alternatives(syscall.args(), &path)?.into_iter().map(|when| Rule { when, then, at }).collect();
        if syscall.names().is_empty() {
            self.warnings.push(format!("{path}.names: no name, so the rule says nothing"));
        }
        for (index, name) in syscall.names().iter().enumerate() {
            if then == Verdict::NOTIFY && HAND_OVER.contains(&name.as_str()) {
                let why = format!("SCMP_ACT_NOTIFY can not be for {name:?}: by it the listener reaches the agent");
                return Err(Error::invalid(format!("{path}.names[{index}]"), why));
            }
            match table::row(name) {
                Some(row) => self.add_to(row, &rules),
                None if table::is_foreign(name) => {}
                None => self.warnings.push(format!("{path}.names[{index}]: no kernel has a call {name:?}, skipped")),
            }
        }
        Ok(())
    }

    fn add_to(&mut self, row: usize, rules: &[Rule]) {
        self.entries[row].named = true;
        let default = self.default;
        for rule in rules.iter().filter(|rule| rule.then != default) {
            if rule.when.is_empty() {
                let (verdict, winner) = *self.entries[row].always.get_or_insert((rule.then, rule.at));
                if verdict != rule.then {
                    self.warnings.push(without_effect(rule.at, row, winner, "comes first"));
                }
            } else {
                self.push(row, false, rule.clone());
            }
            self.add_to_carrier(table::calls()[row].name, rule);
        }
    }

    fn push(&mut self, row: usize, carried: bool, rule: Rule) {
        self.entries[row].conditional = true;
        self.conditionals.push(Conditional { row, carried, rule });
    }

    fn add_to_carrier(&mut self, name: &str, rule: &Rule) {
        let tightens = rule.then.strictness() >= self.default.strictness();
        if !self.abis.contains(&Abi::X86) || !tightens && !rule.when.is_empty() {
            return;
        }
        let carrier = multiplex::carrier(name).and_then(|(call, when)| Some((table::row(call)?, when)));
        if let Some((row, when)) = carrier {
            self.push(row, true, Rule { when: vec![when], ..rule.clone() });
        }
    }

    /// The verdict of the call in `row` whatever its arguments, if the profile has one.
    pub fn always(&self, row: usize) -> Option<Verdict> {
        self.entries[row].always.map(|(verdict, _)| verdict)
    }

    /// The rules with conditions of the call in `row` on `abi`: its own in the profile's order, then those it carries.
    pub fn rules(&self, row: usize, abi: Abi) -> impl Iterator<Item = &Rule> {
        let all = if self.entries[row].conditional { self.conditionals.as_slice() } else { &[] };
        let of = move |carried| all.iter().filter(move |one| one.row == row && one.carried == carried);
        of(false).chain(of(true).filter(move |_| abi == Abi::X86)).map(|one| &one.rule)
    }

    /// A rule without conditions wins, so that others for the same call say nothing: that is easily overlooked.
    fn warn_of_dead_rules(&mut self) {
        for Conditional { row, rule, .. } in self.conditionals.iter().filter(|one| !one.carried) {
            let Some((_, winner)) = self.entries[*row].always.filter(|(verdict, _)| *verdict != rule.then) else {
                continue;
            };
            self.warnings.push(without_effect(rule.at, *row, winner, "has no args and wins"));
        }
    }
}

fn without_effect(dead: usize, row: usize, winner: usize, why: &str) -> String {
    let name = table::calls()[row].name;
    format!("linux.seccomp.syscalls[{dead}]: without effect on {name:?}: syscalls[{winner}] {why}")
}

/// The listed ABIs that `host` can run and the native one, in the host's order.
fn abis(profile: &LinuxSeccomp, host: Arch) -> Vec<Abi> {
    let listed: Vec<Abi> =
        profile.architectures().iter().flatten().filter_map(|&arch| Abi::of_host(arch, host)).collect();
    host.abis().iter().copied().filter(|abi| *abi == host.abi() || listed.contains(abi)).collect()
}

/// The verdict for an action and its error number, each given with its JSON path.
fn verdict(action: Action, (data, data_path): (Option<u32>, &str)) -> Result<Verdict> {
    if data.is_some() && !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) {
        return Err(Error::invalid(data_path, format!("{action} takes no error number"))
            .hint("only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do"));
    }
    // The filter has 16 bits for it: more would spill into the action.
    let data = u16::try_from(data.unwrap_or(libc::EPERM as u32))
        .map_err(|_| Error::invalid(data_path, format!("{} is larger than 65535", data.unwrap_or_default())))?;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => Verdict::KILL_THREAD,
        Action::ScmpActKillProcess => Verdict::KILL_PROCESS,
        Action::ScmpActTrap => Verdict::TRAP,
        Action::ScmpActErrno => Verdict::errno(data),
        Action::ScmpActTrace => Verdict::trace(data),
        Action::ScmpActLog => Verdict::LOG,
        Action::ScmpActAllow => Verdict::ALLOW,
        Action::ScmpActNotify => Verdict::NOTIFY,
    })
}

/// The lists of conditions under any of which a rule holds.
fn alternatives(args: &Option<Vec<LinuxSeccompArg>>, path: &str) -> Result<Vec<Vec<Condition>>> {
    let args = args.as_deref().unwrap_or_default();
    let conditions: Vec<Condition> = args
        .iter()
        .enumerate()
        .map(|(at, arg)| condition(arg, &format!("{path}.args[{at}]")))
        .collect::<Result<_>>()?;
    let repeats = (1..args.len()).any(|at| args[..at].iter().any(|arg| arg.index() == args[at].index()));
    Ok(if repeats { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

fn condition(arg: &LinuxSeccompArg, path: &str) -> Result<Condition> {
    if arg.index() > LAST_ARGUMENT {
        return Err(Error::invalid(format!("{path}.index"), format!("{}: arguments are counted 0 to 5", arg.index())));
    }
    let (operator, value) = match arg.op() {
        OciOperator::ScmpCmpNe => (Operator::Ne, arg.value()),
        OciOperator::ScmpCmpLt => (Operator::Lt, arg.value()),
        OciOperator::ScmpCmpLe => (Operator::Le, arg.value()),
        OciOperator::ScmpCmpEq => (Operator::Eq, arg.value()),
        OciOperator::ScmpCmpGe => (Operator::Ge, arg.value()),
        OciOperator::ScmpCmpGt => (Operator::Gt, arg.value()),
        // Here `value` is the mask and `valueTwo` what is compared.
        OciOperator::ScmpCmpMaskedEq => (Operator::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
    };
    Ok(Condition { index: arg.index() as u8, operator, value })
}
