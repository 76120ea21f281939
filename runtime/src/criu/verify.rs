// SPDX-License-Identifier: Apache-2.0
//! Whether what criu brought back is confined as the config has it: looked at in the kernel, before any of it runs.

use nix::sys::stat::stat;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::confined::{Confined, host_namespace};
use super::describe::{self, Description};
use super::dump;
use super::rights::{self, NAMES, Rights};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::mountinfo;
use crate::plan::Plan;

/// What must hold.
pub struct Wanted<'a> {
    /// The config
    pub spec: &'a Spec,
    /// Its plan
    pub plan: &'a Plan,
    /// What was noted at the dump
    pub description: &'a Description,
    /// The container's cgroup
    pub cgroup: &'a Cgroup,
}

fn not_restored(field: &str, why: String) -> Error {
    Error::invalid(field, format!("criu did not restore it: {why}")).hint("the container was killed before it ran")
}

impl Wanted<'_> {
    /// Checks the container whose first process is `first`.
    ///
    /// # Errors
    /// What does not hold, by its field.
    pub fn check(&self, first: Pid) -> Result<()> {
        let members = self.cgroup.procs()?;
        if !members.contains(&first) {
            return Err(not_restored("linux.cgroupsPath", format!("process {first} is not in the cgroup")));
        }
        self.namespaces(first)?;
        self.mounts(first)?;
        self.rights(&members, first)
    }

    fn namespaces(&self, pid: Pid) -> Result<()> {
        let linux = self.spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
        if let Some(kind) = host_namespace(linux, pid)? {
            return Err(not_restored("linux.namespaces", format!("the {kind} namespace is the host's")));
        }
        let Some((field, path)) = dump::network(linux) else { return Ok(()) };
        let inode = |path: &std::path::Path| stat(path).map(|stat| stat.st_ino).context(|| field.clone());
        if inode(path)? == inode(format!("/proc/{pid}/ns/net").as_ref())? {
            return Ok(());
        }
        Err(not_restored(&field, "the network namespace is another".into()))
    }

    /// The same places with the same options as at the dump.
    fn mounts(&self, pid: Pid) -> Result<()> {
        let found = describe::options(mountinfo::of(pid)?);
        let (had, has) = (&self.description.mounts, &found);
        let lacking = had.iter().find(|mount| !has.contains(mount));
        let Some((place, options)) = lacking.or_else(|| has.iter().find(|mount| !had.contains(mount))) else {
            return Ok(());
        };
        let now = found.iter().find(|(other, _)| other == place).map_or("not there", |(_, options)| options.as_str());
        Err(not_restored("mounts", format!("{place} was {options}, and is {now}")))
    }

    /// Every thread as it was, and as the config has it.
    fn rights(&self, members: &[Pid], first: Pid) -> Result<()> {
        let (had, has) = (&self.description.rights, rights::of(members, first)?);
        if let Some(number) = had.keys().find(|number| !has.contains_key(*number)) {
            return Err(not_restored("process", format!("thread {number} of the container is not there")));
        }
        for (number, rights) in &has {
            let before = had.get(number).ok_or_else(|| not_restored("process", format!("thread {number} is new")))?;
            same(number, before, rights)?;
        }
        let confined = Confined::new(self.spec, self.plan.filter.is_some())?.check(&has);
        confined.map_err(|differs| not_restored(&differs.field, differs.why))
    }
}

/// Each of what is looked at: what was not noted is no reason to let anything through.
fn same(number: &str, before: &Rights, now: &Rights) -> Result<()> {
    let told = |rights: &Rights, name: &str| rights.get(name).cloned().unwrap_or_else(|| "not told".into());
    match NAMES.into_iter().find(|name| before.get(*name).is_none() || before.get(*name) != now.get(*name)) {
        Some(name) => {
            let why = format!("{name} of thread {number} was {}, and is {}", told(before, name), told(now, name));
            Err(not_restored("process", why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_noted_is_no_match() {
        let now: Rights = NAMES.into_iter().map(|name| (name.to_owned(), "1".to_owned())).collect();
        assert!(same("1", &now, &now).is_ok());
        assert!(
            same("1", &Rights::new(), &now).unwrap_err().to_string().contains("Uid of thread 1 was not told, and is 1")
        );
        let other = now.clone().into_iter().chain([("Umask".to_owned(), "0".to_owned())]).collect();
        assert!(same("1", &other, &now).unwrap_err().to_string().contains("Umask of thread 1 was 0, and is 1"));
    }
}
