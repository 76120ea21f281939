// SPDX-License-Identifier: Apache-2.0
//! What each thread of a container may do, as the kernel has it (proc_pid_status(5)), by its numbers inside.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};

/// What is looked at.
pub const NAMES: [&str; 14] = [
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
    APPARMOR,
    LABEL,
];
/// A thread's profile of AppArmor, with its mode.
pub const APPARMOR: &str = "AppArmor";
/// A thread's label of SELinux, or of what else this kernel has.
pub const LABEL: &str = "Label";
/// Where the kernel tells them.
const LABELS: [(&str, &str); 2] = [(APPARMOR, "attr/apparmor/current"), (LABEL, "attr/current")];

/// Name and value of one thread.
pub type Rights = BTreeMap<String, String>;

/// All threads of `pids`, by their numbers from the container's pid namespace inwards, whose first process is `first`.
///
/// # Errors
/// If one of them is gone, or is not in that namespace.
pub fn of(pids: &[Pid], first: Pid) -> Result<BTreeMap<String, Rights>> {
    let outside = read(&format!("/proc/{first}"))?;
    let outside = numbers(&outside).count().saturating_sub(1);
    let mut all = BTreeMap::new();
    for task in tasks(pids)? {
        if let Some((number, mut rights)) = parse(&read(&task)?, outside) {
            for (name, file) in LABELS {
                rights.insert(name.to_owned(), label(format!("{task}/{file}"))?);
            }
            add(&mut all, number, rights).map_err(|why| Error::invalid(task, why))?;
        }
    }
    Ok(all)
}

/// The folder of each thread of `pids`.
fn tasks(pids: &[Pid]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(&tasks).context(|| tasks.clone())? {
            found.push(task.context(|| tasks.clone())?.path().display().to_string());
        }
    }
    Ok(found)
}

fn read(task: &str) -> Result<String> {
    let file = format!("{task}/status");
    std::fs::read_to_string(&file).context(|| file)
}

/// Where the kernel has nothing of the kind everything is unconfined.
fn label(file: String) -> Result<String> {
    match std::fs::read_to_string(&file).context(|| file) {
        Ok(text) => Ok(text.trim_matches(['\0', '\n']).to_owned()),
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)) => {
            Ok("unconfined".into())
        }
        Err(error) => Err(error),
    }
}

fn add(all: &mut BTreeMap<String, Rights>, number: String, rights: Rights) -> Result<(), String> {
    if number.is_empty() {
        return Err("is not in the container's pid namespace".into());
    }
    match all.insert(number.clone(), rights) {
        Some(_) => Err(format!("is one of two with the number {number} in the container")),
        None => Ok(()),
    }
}

fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn numbers(status: &str) -> impl Iterator<Item = &str> {
    value(status, "NSpid").unwrap_or_default().split_whitespace()
}

/// The numbers inside of the first `outside` namespaces, and what is looked at; none of a zombie, which may do nothing.
fn parse(status: &str, outside: usize) -> Option<(String, Rights)> {
    if value(status, "State")?.starts_with(['Z', 'X']) {
        return None;
    }
    let number = numbers(status).skip(outside).collect::<Vec<_>>().join(" ");
    Some((
        number,
        NAMES.iter().filter_map(|name| Some(((*name).to_owned(), value(status, name)?.to_owned()))).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status() {
        let status = "Name:\tsh\nState:\tS (sleeping)\nNSpid:\t250\t1\nNoNewPrivs:\t1\nThreads:\t1\n";
        let (number, rights) = parse(status, 1).unwrap();
        assert_eq!((number.as_str(), rights["NoNewPrivs"].as_str(), rights.len()), ("1", "1", 1));
        assert_eq!(parse("State:\tZ (zombie)\nNSpid:\t250\t1\n", 1), None);
    }

    #[test]
    fn nested_namespaces_have_a_first_process_each() {
        let mut all = BTreeMap::new();
        let mut add = |numbers: &str| {
            let (number, rights) = parse(&format!("State:\tS\nNSpid:\t{numbers}\n"), 1).unwrap();
            add(&mut all, number, rights)
        };
        assert!(["250\t1", "251\t7\t1", "252\t8\t1"].into_iter().all(|numbers| add(numbers).is_ok()));
        assert!(add("253\t7\t1").unwrap_err().contains("7 1"));
        assert!(add("254").unwrap_err().contains("pid namespace"));
        assert_eq!(all.into_keys().collect::<Vec<_>>(), ["1", "7 1", "8 1"]);
    }

    #[test]
    fn the_threads_of_a_process() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let found = of(&[pid], pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.unwrap().values().next().unwrap().len(), NAMES.len());
        assert!(of(&[Pid::from_raw(i32::MAX)], pid).is_err());
    }
}
