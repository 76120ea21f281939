// SPDX-License-Identifier: Apache-2.0
//! `wsbox seccomp lint`, and what no workspace should have.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

use super::source::Source;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::seccomp::check::verdicts;
use crate::seccomp::{self, Arch, Options, Verdict, table};

/// Calls by which programs got out of sandboxes, and why (deployment/seccomp/README.md).
const DANGEROUS: [(&str, &[&str]); 9] = [
    (
        "reaches into other processes",
        &["ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"],
    ),
    (
        "changes the sandbox's own walls",
        &[
            "mount",
            "umount2",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "open_tree_attr",
            "pivot_root",
            "chroot",
            "setns",
            "unshare",
        ],
    ),
    ("has flags that no filter sees", &["clone3"]),
    (
        "is a large part of the kernel to attack",
        &["bpf", "perf_event_open", "userfaultfd", "fanotify_init", "fanotify_mark"],
    ),
    ("runs calls that no filter sees", &["io_uring_setup", "io_uring_enter", "io_uring_register"]),
    (
        "is the host's",
        &[
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "kexec_file_load",
            "reboot",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "quotactl_fd",
            "syslog",
            "iopl",
            "ioperm",
            "settimeofday",
            "clock_settime",
            "clock_adjtime",
            "adjtimex",
        ],
    ),
    ("is of keyrings, which are not namespaced", &["keyctl", "add_key", "request_key"]),
    ("opens files past mounts", &["open_by_handle_at", "name_to_handle_at"]),
    ("is old and rarely audited", &["modify_ldt", "vm86", "vm86old", "uselib", "remap_file_pages"]),
];

/// Why a call should not be allowed; None if nothing speaks against it.
pub fn danger(syscall: &str) -> Option<&'static str> {
    DANGEROUS.iter().find(|(_, calls)| calls.contains(&syscall)).map(|(why, _)| *why)
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A JSON file, a bundle, or one of: workspace, docker-default
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Exit code 1 if there is anything to say.
pub fn run(arguments: Arguments) -> Result<u8> {
    let findings = findings(&Source::read(&arguments.profile)?.profile()?)?;
    if arguments.format == "json" {
        output::json(&findings)?;
    } else {
        output::text(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    }
    Ok(u8::from(!findings.is_empty()))
}

fn findings(profile: &LinuxSeccomp) -> Result<Vec<String>> {
    let filter = seccomp::compile(profile, &Options::default())?;
    let (mut findings, said) = (filter.warnings.clone(), Said::of(profile)?);
    if matches!(profile.default_action(), LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog) {
        findings.push("defaultAction: allows what no rule names, also what later kernels bring".into());
    }
    for (why, calls) in DANGEROUS {
        for call in calls.iter().filter(|call| said.allows(call)) {
            findings.push(format!("{call}: is allowed whatever its arguments; it {why}"));
        }
    }
    for call in ["read", "write"].into_iter().filter(|call| !said.allows(call)) {
        findings.push(format!("{call}: is not allowed, so violations can not be counted"));
    }
    Ok(findings)
}

/// What a profile says of each call by name, with all arguments that its rules tell apart.
pub struct Said(Vec<BTreeMap<&'static str, BTreeSet<u32>>>);

impl Said {
    /// Of the machine's own ABI first, then of the others that its programs may be of.
    ///
    /// # Errors
    /// If the profile can not be compiled.
    pub fn of(profile: &LinuxSeccomp) -> Result<Self> {
        let abis = Arch::native().abis().iter();
        abis.map(|abi| verdicts(profile, &Options::default(), *abi)).collect::<Result<_>>().map(Self)
    }

    /// The verdicts on a call: by the first ABI that has it.
    fn on(&self, syscall: &str) -> Option<&BTreeSet<u32>> {
        self.0.iter().find_map(|all| all.get(syscall))
    }

    /// Whether a call is allowed whatever its arguments.
    pub fn allows(&self, syscall: &str) -> bool {
        self.on(syscall).is_some_and(|said| said.iter().all(|said| *said == Verdict::ALLOW.raw()))
    }

    /// Whether its arguments matter: one rule for all of them would overrule what the profile says of some.
    pub fn tells_arguments_apart(&self, syscall: &str) -> bool {
        self.on(syscall).is_some_and(|said| said.len() > 1)
    }
}

/// Whether this machine has such a call.
///
/// # Errors
/// If not.
pub fn must_exist(syscall: &str) -> Result<()> {
    let known = Arch::native().abis().iter().any(|abi| table::number(syscall, *abi).is_some());
    let error = || Error::invalid(syscall, "no kernel for this machine has such a system call");
    known.then_some(()).ok_or_else(|| error().hint("names are those of the kernel: newfstatat, not fstatat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profile_has_nothing_to_say_of_and_an_open_one_has() {
        assert_eq!(findings(&seccomp::workspace()).unwrap(), Vec::<String>::new());
        let open = findings(&seccomp::allow_all()).unwrap();
        assert!(open[0].starts_with("defaultAction: "), "{open:?}");
        assert!(open.iter().any(|finding| finding.starts_with("ptrace: ")), "{open:?}");
    }
}
