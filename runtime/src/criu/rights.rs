// SPDX-License-Identifier: Apache-2.0
//! What each thread of a container may do, as the kernel has it (proc_pid_status(5)), by its number inside.

use std::collections::BTreeMap;

use nix::unistd::Pid;

use crate::error::{Context, Result};

/// What is looked at.
const NAMES: [&str; 12] = [
    "Uid",
    "Gid",
    "Groups",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "Umask",
];

/// Name and value of one thread.
pub type Rights = BTreeMap<String, String>;

/// All threads of `pids`.
///
/// # Errors
/// If one of them is gone.
pub fn of(pids: &[Pid]) -> Result<BTreeMap<String, Rights>> {
    let mut all = BTreeMap::new();
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(&tasks).context(|| tasks.clone())?.flatten() {
            let file = task.path().join("status");
            let text = std::fs::read_to_string(&file).context(|| file.display().to_string())?;
            all.extend(parse(&text));
        }
    }
    Ok(all)
}

/// The number inside, and what is looked at; none of a zombie, which may do nothing.
fn parse(status: &str) -> Option<(String, Rights)> {
    let fields: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let value = |name: &str| fields.get(name).map(|value| value.trim().to_owned());
    if value("State")?.starts_with(['Z', 'X']) {
        return None;
    }
    let number = value("NSpid")?.split_whitespace().last()?.to_owned();
    Some((number, NAMES.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_status() {
        let (number, rights) =
            parse("Name:\tsh\nState:\tS (sleeping)\nNSpid:\t250\t1\nNoNewPrivs:\t1\nThreads:\t1\n").unwrap();
        assert_eq!((number.as_str(), rights["NoNewPrivs"].as_str(), rights.len()), ("1", "1", 1));
        assert_eq!(parse("State:\tZ (zombie)\nNSpid:\t250\t1\n"), None);
    }
}
