// SPDX-License-Identifier: Apache-2.0
//! Whether what criu brought back is confined as the config has it: looked at in the kernel, before any of it runs.

use std::fs::read_link;

use nix::sys::stat::stat;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::describe::{self, Description};
use super::rights::{self, NAMES, Rights};
use super::{dump, mountinfo};
use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::launch::lsm;
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
        self.rights(&members, first)?;
        labels(self.process()?, &members)
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
    fn rights(&self, members: &[Pid], first: Pid) -> Result<()> {
        let (had, has) = (&self.description.rights, rights::of(members, first)?);
        if let Some(number) = had.keys().find(|number| !has.contains_key(*number)) {
            return Err(not_restored("process", format!("thread {number} of the container is not there")));
        }
        for (number, rights) in &has {
            let before = had.get(number).ok_or_else(|| not_restored("process", format!("thread {number} is new")))?;
            same(number, before, rights)?;
            self.thread(rights)?;
        }
        Ok(())
    }

    fn thread(&self, rights: &Rights) -> Result<()> {
        let process = self.process()?;
        let is = |name: &str| rights.get(name).map_or("not told", String::as_str);
        let gains = !process.no_new_privileges().unwrap_or_default();
        if !gains && is("NoNewPrivs") != "1" {
            return Err(not_restored("process.noNewPrivileges", format!("NoNewPrivs is {}", is("NoNewPrivs"))));
        }
        if self.plan.filter.is_some() && is("Seccomp") != "2" {
            return Err(not_restored("linux.seccomp", format!("Seccomp is {}", is("Seccomp"))));
        }
        let allowed = sets(process.capabilities().as_ref())?;
        capabilities(&allowed, gains, &is)
    }

    fn process(&self) -> Result<&Process> {
        self.spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))
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

/// The profile and the label of each thread, where the config has one.
fn labels(process: &Process, members: &[Pid]) -> Result<()> {
    let wanted = [
        ("process.apparmorProfile", "attr/apparmor/current", process.apparmor_profile()),
        ("process.selinuxLabel", "attr/current", process.selinux_label()),
    ];
    for (field, file, wanted) in wanted {
        // Where there is no AppArmor everything is unconfined.
        let known = |text: &&str| !text.is_empty() && (*text != "unconfined" || lsm::apparmor());
        let Some(wanted) = wanted.as_deref().filter(known) else { continue };
        for task in rights::tasks(members)? {
            let found = std::fs::read_to_string(format!("{task}/{file}")).unwrap_or_else(|_| "not told".into());
            let found = found.trim_matches(['\0', '\n']);
            if !is_label(wanted, found) {
                return Err(not_restored(field, format!("{task} is under {found:?}")));
            }
        }
    }
    Ok(())
}

/// AppArmor says a profile's mode after it, and a change to a child profile or a stack of them by `//` (apparmor(7)).
fn is_label(wanted: &str, found: &str) -> bool {
    let name = found.rsplit_once(" (").map_or(found, |(name, _)| name);
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with("//"))
}

/// The payload may have given some up, and got none. A program gets what it inherits or is permitted of the bounding set; where none
/// `gains` any, just what is permitted.
fn capabilities<'a>(allowed: &Sets, gains: bool, is: &dyn Fn(&str) -> &'a str) -> Result<()> {
    let all = allowed.bounding | allowed.permitted;
    let most = if gains { all } else { allowed.permitted };
    for (name, field, most) in [
        ("CapBnd", "bounding", allowed.bounding),
        ("CapPrm", "permitted", most),
        ("CapEff", "effective", most),
        ("CapInh", "inheritable", all),
        ("CapAmb", "ambient", most),
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
            capabilities(&allowed, true, &|name| if name == "CapEff" { effective } else { "0000000000000000" })
        };
        assert!(with("0000000000000001").is_ok());
        let error = with("0000000000000005").unwrap_err().to_string();
        assert!(error.starts_with("process.capabilities.effective: criu did not restore it: CapEff is"), "{error}");
        assert!(with("not told").is_err());
    }

    #[test]
    fn without_gaining_only_what_is_permitted() {
        let allowed = Sets { bounding: 0b11, permitted: 0b1, ..Sets::default() };
        for name in ["CapPrm", "CapEff", "CapAmb"] {
            let is = |wanted: &str| if wanted == name { "0000000000000002" } else { "0000000000000000" };
            assert!(capabilities(&allowed, true, &is).is_ok(), "{name}");
            assert!(capabilities(&allowed, false, &is).unwrap_err().to_string().contains(name));
        }
    }

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

    #[test]
    fn labels_are_the_configs() {
        assert!(
            is_label("box", "box (enforce)")
                && is_label("box", "box//child (enforce)")
                && is_label("a:b:c:s0", "a:b:c:s0")
        );
        for found in ["unconfined", "not told", "boxes (enforce)", "", "a:b:c:s0:c1"] {
            assert!(!is_label("box", found) && !is_label("a:b:c:s0", found), "{found}");
        }
        let mut process = Process::default();
        process.set_apparmor_profile(Some("wsbox-no-such".into()));
        let error = labels(&process, &[Pid::this()]).unwrap_err().to_string();
        assert!(error.starts_with("process.apparmorProfile: criu did not restore it"), "{error}");
    }
}
