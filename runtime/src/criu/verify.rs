// SPDX-License-Identifier: Apache-2.0
//! Whether what criu brought back is confined as the config has it: looked at in the kernel, before any of it runs.

use std::fs::read_link;

use nix::sys::stat::stat;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::describe::{self, Description};
use super::rights::{self, Rights};
use super::{dump, mountinfo};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::caps::{Sets, sets};
use crate::plan::{self, Plan};

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
        self.rights(&members)
    }

    fn namespaces(&self, pid: Pid) -> Result<()> {
        let linux = self.spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
        for (kind, file) in NAMESPACES {
            let inode =
                |whose: &str| read_link(format!("/proc/{whose}/ns/{file}")).context(|| format!("namespace {file}"));
            let ours = inode("self")? == inode(&pid.to_string())?;
            if ours && plan::is_new(linux, kind) {
                return Err(not_restored("linux.namespaces", format!("the {file} namespace is the host's")));
            }
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
    fn rights(&self, members: &[Pid]) -> Result<()> {
        let (had, has) = (&self.description.rights, rights::of(members)?);
        if let Some(number) = had.keys().find(|number| !has.contains_key(*number)) {
            return Err(not_restored("process", format!("thread {number} of the container is not there")));
        }
        for (number, rights) in &has {
            let before = had.get(number).ok_or_else(|| not_restored("process", format!("thread {number} is new")))?;
            if let Some((name, value)) = before.iter().find(|(name, value)| rights.get(*name) != Some(*value)) {
                let now = rights.get(name).map_or("not told", String::as_str);
                return Err(not_restored("process", format!("{name} of thread {number} was {value}, and is {now}")));
            }
            self.thread(rights)?;
        }
        Ok(())
    }

    fn thread(&self, rights: &Rights) -> Result<()> {
        let process = self.spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
        let is = |name: &str| rights.get(name).map_or("not told", String::as_str);
        if process.no_new_privileges().unwrap_or_default() && is("NoNewPrivs") != "1" {
            return Err(not_restored("process.noNewPrivileges", format!("NoNewPrivs is {}", is("NoNewPrivs"))));
        }
        if self.plan.filter.is_some() && is("Seccomp") != "2" {
            return Err(not_restored("linux.seccomp", format!("Seccomp is {}", is("Seccomp"))));
        }
        let allowed = sets(process.capabilities().as_ref())?;
        capabilities(&allowed, &is)
    }
}

/// The payload may have given some up, and got none. A program gets what it inherits or is permitted of the bounding set.
fn capabilities<'a>(allowed: &Sets, is: &dyn Fn(&str) -> &'a str) -> Result<()> {
    let all = allowed.bounding | allowed.permitted;
    for (name, field, most) in [
        ("CapBnd", "bounding", allowed.bounding),
        ("CapPrm", "permitted", all),
        ("CapEff", "effective", all),
        ("CapInh", "inheritable", all),
        ("CapAmb", "ambient", all),
    ] {
        let set = u64::from_str_radix(is(name), 16).ok().filter(|set| set & !most == 0);
        if set.is_none() {
            return Err(not_restored(&format!("process.capabilities.{field}"), format!("{name} is {}", is(name))));
        }
    }
    Ok(())
}

const NAMESPACES: [(LinuxNamespaceType, &str); 8] = [
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Mount, "mnt"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::Network, "net"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::Time, "time"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_capabilities_than_asked_are_an_error() {
        let allowed = Sets { bounding: 0b11, permitted: 0b1, effective: 0b1, ..Sets::default() };
        let with = |effective: &'static str| {
            capabilities(&allowed, &|name| if name == "CapEff" { effective } else { "0000000000000000" })
        };
        assert!(with("0000000000000001").is_ok());
        let error = with("0000000000000005").unwrap_err().to_string();
        assert!(error.starts_with("process.capabilities.effective: criu did not restore it: CapEff is"), "{error}");
        assert!(with("not told").is_err());
    }
}
