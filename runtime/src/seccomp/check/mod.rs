// SPDX-License-Identifier: Apache-2.0
//! A filter beside its profile, call by call, and two filters beside each other.

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::LinuxSeccomp;

pub use oracle::{Arg, Oracle, Rule, Wanted};

use super::interpret::{Call, run};
use super::{Abi, Arch, Filter, Options, compile, table};
use crate::error::{Error, Result};

/// Architectures that are tried: those of the kernel that filters know (linux/audit.h), RISC-V's, and none.
const ARCHES: [u32; 7] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0, u32::MAX];
/// Differences that are told.
const MOST: usize = 50;

/// A call of which the filter says something else than the profile.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The call
    pub call: Call,
    /// Its name, if it has one
    pub name: Option<&'static str>,
    /// What the filter says, SECCOMP_RET_*
    pub got: u32,
    /// What the profile says
    pub wanted: String,
}

/// Compiles `profile` and asks the program about every number on every architecture, with arguments on and around each value that a rule
/// names. Says how many calls that were, and what differs.
///
/// # Errors
/// If the profile can not be compiled.
pub fn check(profile: &LinuxSeccomp, options: &Options) -> Result<(usize, Vec<Difference>)> {
    let filter = compile(profile, options)?;
    let oracle = oracle(profile, options.host)?;
    let (mut count, mut differences) = (0, Vec::new());
    for arch in ARCHES {
        for nr in numbers() {
            let plain = Call { nr, arch, ..Call::default() };
            let name = oracle.abi(&plain).and_then(|abi| Some((abi, oracle.name(abi, nr)?)));
            let rules = name.map(|(abi, name)| oracle.rules(abi, name)).unwrap_or_default();
            for args in arguments(&rules) {
                count += 1;
                let call = Call { args, ..plain };
                let (got, wanted) = (run(&filter.program, &call).unwrap_or_default(), oracle.wanted(&call));
                if !wanted.admits(got) && differences.len() < MOST {
                    let wanted = format!("{wanted:x?}");
                    differences.push(Difference { call, name: name.map(|(_, name)| name), got, wanted });
                }
            }
        }
    }
    Ok((count, differences))
}

fn oracle(profile: &LinuxSeccomp, host: Arch) -> Result<Oracle> {
    let json = serde_json::to_value(profile).map_err(|error| Error::invalid("linux.seccomp", error.to_string()))?;
    Ok(Oracle::new(&json, host))
}

fn numbers() -> impl Iterator<Item = u32> {
    let x32 = (0..1024).map(|nr| nr | 0x4000_0000);
    let extremes = [
        0x3fff_ffff,
        0x4000_0400,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xbfff_ffff,
        0xc000_0000,
        u32::MAX - 1,
        u32::MAX,
    ];
    (0..1024).chain(x32).chain(0x000e_fff0..0x000f_0010).chain(extremes)
}

/// Argument lists worth trying: each value and its neighbours, with and without an upper half; all values of a rule together.
fn arguments(rules: &[Rule]) -> BTreeSet<[u64; 6]> {
    let mut lists = BTreeSet::from([[0; 6], [u64::MAX; 6]]);
    for rule in rules {
        let mut all = [0; 6];
        rule.args.iter().for_each(|arg| all[arg.index.min(5)] = if arg.two == 0 { arg.value } else { arg.two });
        lists.insert(all);
        for arg in &rule.args {
            for near in [arg.value, arg.two].into_iter().flat_map(around) {
                for base in [[0; 6], all] {
                    let mut args = base;
                    args[arg.index.min(5)] = near;
                    lists.insert(args);
                }
            }
        }
    }
    lists
}

fn around(value: u64) -> [u64; 9] {
    let (below, above) = (value.wrapping_sub(1), value.wrapping_add(1));
    let low = value & 0xffff_ffff;
    [below, value, above, low, low | 1 << 32, (low + 1) | 1 << 32, below | 1 << 63, low | 0xffff_ffff << 32, !value]
}

/// What a filter can say of each call of an ABI, by name.
///
/// # Errors
/// If the profile can not be compiled.
pub fn verdicts(profile: &LinuxSeccomp, options: &Options, abi: Abi) -> Result<BTreeMap<&'static str, BTreeSet<u32>>> {
    let (filter, oracle) = (compile(profile, options)?, oracle(profile, options.host)?);
    let of = |name| {
        let nr = table::number(name, abi)?;
        let ask = |args| run(&filter.program, &Call { nr, arch: abi.audit_arch(), instruction_pointer: 0, args });
        Some((name, arguments(&oracle.rules(abi, name)).into_iter().filter_map(ask).collect()))
    };
    Ok(names(abi).into_iter().filter_map(of).collect())
}

/// The calls of an ABI, sorted.
pub fn names(abi: Abi) -> Vec<&'static str> {
    let mut names: Vec<_> =
        table::calls().iter().filter(|call| call.number(abi).is_some()).map(|call| call.name).collect();
    names.sort_unstable();
    names
}

/// What two profiles say of a call of this machine, where that differs: name, and for the first arguments that show it, both verdicts.
#[derive(Clone, Debug)]
pub struct Change {
    /// The call
    pub name: &'static str,
    /// The arguments; none if it differs whatever they are
    pub args: Option<[u64; 6]>,
    /// SECCOMP_RET_* of both
    pub verdicts: (u32, u32),
}

/// Every call of this machine's own ABI of which the two say something else, by name.
///
/// # Errors
/// If one can not be compiled.
pub fn changes(old: &LinuxSeccomp, new: &LinuxSeccomp) -> Result<Vec<Change>> {
    let options = Options::default();
    let (abi, filters) = (options.host.abi(), (compile(old, &options)?, compile(new, &options)?));
    let oracles = (oracle(old, options.host)?, oracle(new, options.host)?);
    let mut names: Vec<_> =
        table::calls().iter().filter(|call| call.number(abi).is_some()).map(|call| call.name).collect();
    names.sort_unstable();
    Ok(names.into_iter().filter_map(|name| change(name, abi, &filters, &oracles)).collect())
}

fn change(name: &'static str, abi: Abi, filters: &(Filter, Filter), oracles: &(Oracle, Oracle)) -> Option<Change> {
    let nr = table::number(name, abi)?;
    let rules = [oracles.0.rules(abi, name), oracles.1.rules(abi, name)].concat();
    let ask = |args| {
        let call = Call { nr, arch: abi.audit_arch(), instruction_pointer: 0, args };
        Some((run(&filters.0.program, &call)?, run(&filters.1.program, &call)?))
    };
    let lists = arguments(&rules);
    let verdicts: Vec<_> = lists.into_iter().filter_map(|args| Some((args, ask(args)?))).collect();
    let (args, verdicts_of) = *verdicts.iter().find(|(_, (old, new))| old != new)?;
    let always = verdicts.iter().all(|(_, verdicts)| *verdicts == verdicts_of);
    Some(Change { name, args: (!always).then_some(args), verdicts: verdicts_of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{allow_all, workspace};

    #[test]
    fn the_shipped_profile_is_what_it_says() {
        let (count, differences) = check(&workspace(), &Options::default()).unwrap();
        assert!(count > 14_000 && differences.is_empty(), "{count} {differences:?}");
    }

    #[test]
    fn what_two_profiles_say() {
        assert!(changes(&workspace(), &workspace()).unwrap().is_empty());
        let all = changes(&workspace(), &allow_all()).unwrap();
        let of = |name| all.iter().find(|change| change.name == name);
        assert!(of("ptrace").is_some_and(|change| change.args.is_none()));
        assert!(of("socket").is_some_and(|change| change.args.is_some()), "only for some families");
        assert!(of("read").is_none());
    }
}
