// SPDX-License-Identifier: Apache-2.0
//! Whether the threads of a container have no more than their config gives: asked before criu ends it, and of what it brought back.

use std::collections::BTreeMap;
use std::fs::read_link;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};

use super::rights::{APPARMOR, LABEL, Rights};
use crate::error::{Context, Error, Result};
use crate::plan;
use crate::plan::caps::{Sets, sets};

/// What does not hold: the field that asks for it, and what is there instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field
    pub field: String,
    /// What is there
    pub why: String,
}

/// A field, and the name of what is more than it asks for.
type More = (String, &'static str);

/// What a config gives to each thread.
pub struct Confined<'a> {
    process: &'a Process,
    filter: bool,
    allowed: Sets,
}

impl<'a> Confined<'a> {
    /// That of `spec`, and whether a filter goes with it.
    ///
    /// # Errors
    /// A config without a process, or with a capability that nobody knows.
    pub fn new(spec: &'a Spec, filter: bool) -> Result<Self> {
        let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
        Ok(Self { process, filter, allowed: sets(process.capabilities().as_ref())? })
    }

    /// The first thread that has more.
    pub fn check(&self, threads: &BTreeMap<String, Rights>) -> Result<(), Difference> {
        threads.iter().try_for_each(|(number, rights)| {
            let is = |name: &str| rights.get(name).map_or("not told", String::as_str);
            let why = |name: &str| format!("{name} of thread {number} of the container is {:?}", is(name));
            self.thread(&is).map_err(|(field, name)| Difference { field, why: why(name) })
        })
    }

    fn thread<'b>(&self, is: &dyn Fn(&str) -> &'b str) -> Result<(), More> {
        let gains = !self.process.no_new_privileges().unwrap_or_default();
        if !gains && is("NoNewPrivs") != "1" {
            return Err(("process.noNewPrivileges".into(), "NoNewPrivs"));
        }
        if self.filter && is("Seccomp") != "2" {
            return Err(("linux.seccomp".into(), "Seccomp"));
        }
        capabilities(&self.allowed, gains, is)?;
        self.labels(is)
    }

    /// The profile and the label, where the config has one.
    fn labels<'b>(&self, is: &dyn Fn(&str) -> &'b str) -> Result<(), More> {
        let wanted = [
            ("process.apparmorProfile", APPARMOR, self.process.apparmor_profile()),
            ("process.selinuxLabel", LABEL, self.process.selinux_label()),
        ];
        for (field, name, wanted) in wanted {
            let wanted = wanted.as_deref().filter(|text| !text.is_empty());
            if wanted.is_some_and(|wanted| !is_label(wanted, is(name))) {
                return Err((field.into(), name));
            }
        }
        Ok(())
    }
}

/// AppArmor says a profile's mode after it, and a change to a child profile or a stack of them by `//` (apparmor(7)).
fn is_label(wanted: &str, found: &str) -> bool {
    let name = found.rsplit_once(" (").map_or(found, |(name, _)| name);
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with("//"))
}

/// The payload may have given some up, and got none. A program gets what it inherits or is permitted of the bounding set; where none
/// `gains` any, just what is permitted.
fn capabilities<'a>(allowed: &Sets, gains: bool, is: &dyn Fn(&str) -> &'a str) -> Result<(), More> {
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
            return Err((format!("process.capabilities.{field}"), name));
        }
    }
    Ok(())
}

/// The first namespace that is to be new, and is the host's.
///
/// # Errors
/// If the process is gone.
pub fn host_namespace(linux: &Linux, pid: Pid) -> Result<Option<&'static str>> {
    for (kind, file) in NAMESPACES {
        let inode = |whose: &str| read_link(format!("/proc/{whose}/ns/{file}")).context(|| format!("namespace {file}"));
        if plan::is_new(linux, kind) && inode("self")? == inode(&pid.to_string())? {
            return Ok(Some(file));
        }
    }
    Ok(None)
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
        assert_eq!(with("0000000000000005"), Err(("process.capabilities.effective".into(), "CapEff")));
        assert!(with("not told").is_err());
    }

    #[test]
    fn without_gaining_only_what_is_permitted() {
        let allowed = Sets { bounding: 0b11, permitted: 0b1, ..Sets::default() };
        for name in ["CapPrm", "CapEff", "CapAmb"] {
            let is = |wanted: &str| if wanted == name { "0000000000000002" } else { "0000000000000000" };
            assert!(capabilities(&allowed, true, &is).is_ok(), "{name}");
            assert!(capabilities(&allowed, false, &is).unwrap_err().1 == name);
        }
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
        process.set_apparmor_profile(Some("wsbox-no-such".into())).set_no_new_privileges(Some(false));
        let confined = Confined { process: &process, filter: false, allowed: Sets { bounding: !0, ..Sets::default() } };
        let told = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name.to_owned(), "1".to_owned()));
        let rights: Rights = told.into_iter().chain([(APPARMOR.to_owned(), "unconfined".to_owned())]).collect();
        let rights = BTreeMap::from([("1".to_owned(), rights)]);
        let Difference { field, why } = confined.check(&rights).unwrap_err();
        assert_eq!(field, "process.apparmorProfile");
        assert_eq!(why, "AppArmor of thread 1 of the container is \"unconfined\"");
    }
}
