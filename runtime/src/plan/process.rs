// SPDX-License-Identifier: Apache-2.0
//! The process: identity, rights, limits, filter, and the way to its execve.

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccomp, PosixRlimitType, Process, Spec};

use super::caps::{self, Sets};
use super::{Builder, Options, Source, Step};
use crate::error::Result;
use crate::plan::program::SLOTS;
use crate::seccomp::{self, Counted, Filter};

/// linux/prctl.h
const PR_SET_KEEPCAPS: u32 = 8;
const PR_SET_NO_NEW_PRIVS: u32 = 38;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// linux/capability.h, as masks
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// runc's, where the config has none.
const UMASK: u32 = 0o022;

/// Through which door the process comes.
pub enum Door<'a> {
    /// It is the container's first
    Container(&'a Options, &'a Spec),
    /// It joins a container with this config
    Exec(&'a Linux),
}

impl Door<'_> {
    fn linux(&self) -> Option<&Linux> {
        match self {
            Door::Container(_, spec) => spec.linux().as_ref(),
            Door::Exec(linux) => Some(linux),
        }
    }
}

/// The filter of a config. `deny_set_id` adds what keeps set-id files off the host, whatever the config has.
/// `floor` is what tightens it, and the whole filter where the config has none.
pub fn filter(config: Option<&LinuxSeccomp>, floor: &[LinuxSeccomp], deny_set_id: bool) -> Result<Option<Filter>> {
    let options = seccomp::Options { deny_set_id, ..seccomp::Options::default() };
    let all = config.map(|config| (config, floor)).or_else(|| floor.split_first());
    match all {
        Some((first, floor)) => seccomp::compile_strictest(first, floor, &options).map(Some),
        None if deny_set_id => seccomp::compile(&seccomp::allow_all(), &options).map(Some),
        None => Ok(None),
    }
}

/// Limits whose hard value may lie above what the init inherits.
pub fn hard_limits(process: &Process) -> Vec<(String, u32, u64)> {
    let limits = process.rlimits().iter().flatten().enumerate();
    limits.map(|(at, limit)| (limit_field(at, limit.typ()), resource(limit.typ()), limit.hard())).collect()
}

impl Builder<'_> {
    /// The last part of both programs.
    pub(super) fn process(
        &mut self,
        process: &Process,
        options: &Options,
        filter: Option<&Filter>,
        door: &Door<'_>,
    ) -> Result<()> {
        let sets = self.possible(caps::sets(process.capabilities().as_ref())?, process.user().uid());
        let no_new_privs = process.no_new_privileges().unwrap_or_default();
        let (env, search) = environment(process, options);
        // A filter without no_new_privs takes CAP_SYS_ADMIN (seccomp(2)), a network namespace and its lo both rights.
        let filter_late = if no_new_privs || filter.is_none() { 0 } else { CAP_SYS_ADMIN };
        let network_late = if options.fresh_network { CAP_SYS_ADMIN | CAP_NET_ADMIN } else { 0 };
        self.identity(process, &sets, filter_late | network_late);
        self.push("process.cwd", Step::CheckCwd);
        self.push("process.args[0]", Step::FindExec { candidates: candidates(process, &search) });
        self.enter(process, door);
        if let Door::Container(_, spec) = door {
            self.start_container_hooks(spec, filter)?;
        }
        if options.fresh_network {
            self.push("linux.namespaces", Step::Unshare { flags: libc::CLONE_NEWNET as u32 });
            self.push("linux.namespaces", Step::LoUp);
            self.rights(&sets, filter_late);
        }
        // Late: a low RLIMIT_NOFILE would hit the init. The parent has raised what had to be.
        self.limits(process);
        door.linux().map_or(Ok(()), |linux| self.attributes(linux))?;
        self.push("", Step::CloseFds { first: 3 + options.preserve_fds });
        self.seal(filter, no_new_privs, &sets);
        let argv = process.args().clone().unwrap_or_default();
        self.push("process.args[0]", Step::Exec { argv, envp: env, says: options.wait_for_start || options.detached });
        Ok(())
    }

    /// For the execve that comes: what the init itself does is not under them (apparmor(7), selinux(8)).
    pub(super) fn labels(&mut self, process: &Process) {
        let known = |name: &&String| !name.is_empty() && (*name != "unconfined" || self.host.apparmor);
        let apparmor = process.apparmor_profile().as_ref().filter(known);
        let selinux = process.selinux_label().as_ref().filter(|label| !label.is_empty());
        let writes = [
            ("process.apparmorProfile", "apparmor/exec", apparmor.map(|name| format!("exec {name}"))),
            ("process.selinuxLabel", "exec", selinux.cloned()),
        ];
        if writes.iter().all(|(_, _, value)| value.is_none()) {
            return;
        }
        let dir = self.source(Source::Labels);
        for (field, path, value) in writes {
            if let Some(value) = value {
                self.push(field, Step::Write { dir, path: path.into(), value });
            }
        }
    }

    fn limits(&mut self, process: &Process) {
        for (at, limit) in process.rlimits().iter().flatten().enumerate() {
            let (soft, hard) = (limit.soft(), limit.hard());
            self.push(limit_field(at, limit.typ()), Step::Rlimit { resource: resource(limit.typ()), soft, hard });
        }
    }

    /// Bounding set, directory, groups, ids, capabilities, in the order that each needs the rights the next one takes; those
    /// in `keep` are effective until [`Builder::seal`] or the fresh network.
    fn identity(&mut self, process: &Process, sets: &Sets, keep: u64) {
        let user = process.user();
        self.bounding("process.capabilities", sets);
        self.chdir(process, 1);
        if user.uid() != 0 {
            self.push("", Step::Prctl { option: PR_SET_KEEPCAPS, value: 1 });
        }
        let gids = user.additional_gids().clone().unwrap_or_default();
        if self.host.set_groups || !gids.is_empty() {
            self.push("process.user.additionalGids", Step::Groups { gids });
        }
        self.push("process.user.gid", Step::Gid { gid: user.gid() });
        self.push("process.user.uid", Step::Uid { uid: user.uid() });
        self.chdir(process, 2);
        if user.uid() != 0 {
            self.push("", Step::Prctl { option: PR_SET_KEEPCAPS, value: 0 });
        }
        self.push("process.user.umask", Step::Umask { mask: user.umask().unwrap_or(UMASK) });
        self.rights(sets, keep);
        if process.no_new_privileges().unwrap_or_default() {
            self.push("process.noNewPrivileges", Step::Prctl { option: PR_SET_NO_NEW_PRIVS, value: 1 });
        }
    }

    /// The capabilities, but for those that a later step takes.
    fn rights(&mut self, sets: &Sets, keep: u64) {
        if keep == 0 {
            self.capabilities("process.capabilities", sets);
        } else {
            let permitted = sets.permitted | sets.inheritable | keep;
            let step = Step::Capset { effective: keep, permitted, inheritable: sets.inheritable };
            self.push("process.capabilities", step);
        }
    }

    fn chdir(&mut self, process: &Process, turn: u32) {
        let path = process.cwd().to_string_lossy().into_owned();
        self.push("process.cwd", Step::Chdir { path, turn });
    }

    /// A container waits for its start; an exec'd process is born into the PID namespace only now, with nothing left to take.
    fn enter(&mut self, process: &Process, door: &Door<'_>) {
        match door {
            Door::Container(options, _) if options.wait_for_start => {
                let listener =
                    self.sources.iter().position(|source| *source == Source::StartSocket).unwrap_or_default() as u32;
                self.push("", Step::Ready);
                self.push("", Step::Await { listener });
            }
            Door::Container(..) => self.push("", Step::Ready),
            Door::Exec(linux) => {
                if linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid) {
                    self.push("", Step::Fork);
                    // A deadline, or what is reset by a fork, can not be inherited: the parent gives it to the payload itself.
                    if process.scheduler().is_some() {
                        self.push("process.scheduler", Step::Receive);
                    }
                }
                self.push("", Step::Setsid);
                if process.terminal().unwrap_or_default() {
                    self.console(process, SLOTS as u32, false);
                }
            }
        }
    }

    /// With no_new_privs the filter comes last; without, the capabilities do, and the filter must allow capset.
    fn seal(&mut self, filter: Option<&Filter>, no_new_privs: bool, sets: &Sets) {
        let Some(filter) = filter else { return };
        let counted = (self.counted == Counted::Yes).then(|| seccomp::counted(filter));
        let filter = counted.as_ref().unwrap_or(filter);
        self.push("linux.seccomp", Step::Seccomp { filter: filter.program.clone(), flags: filter.flags });
        if !no_new_privs {
            self.capabilities("process.capabilities", sets);
        }
    }

    pub(super) fn console(&mut self, process: &Process, devpts: u32, bind: bool) {
        let size = process.console_size().map_or((0, 0), |size| (size.height() as u16, size.width() as u16));
        let uid = process.user().uid();
        self.push("process.terminal", Step::Console { devpts, uid, bind, rows: size.0, columns: size.1 });
    }
}

/// The environment (the last of equal names stands), and the PATH that the program is looked up in.
fn environment(process: &Process, options: &Options) -> (Vec<String>, String) {
    let given: Vec<&String> = process.env().iter().flatten().chain(&options.env).collect();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(given.len() + 1);
    for (at, variable) in given.iter().enumerate() {
        if !given[at + 1..].iter().any(|later| name(later) == name(variable)) {
            env.push((*variable).clone());
        }
    }
    env.retain(|variable| variable != "HOME=");
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", options.home.as_deref().unwrap_or("/")));
    }
    let search = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(PATH).to_owned();
    (env, search)
}

/// Every path that args[0] may stand for, as execvp(3) tries them; a relative entry of PATH is skipped, as in Go.
fn candidates(process: &Process, search: &str) -> Vec<String> {
    let program = process.args().as_ref().and_then(|args| args.first()).cloned().unwrap_or_default();
    if program.contains('/') {
        return vec![program];
    }
    search
        .split(':')
        // Of no name there is no program, but every entry of PATH.
        .filter(|dir| dir.starts_with('/') && !program.is_empty())
        .map(|dir| format!("{}/{program}", dir.trim_end_matches('/')))
        .collect()
}

fn limit_field(at: usize, kind: PosixRlimitType) -> String {
    format!("process.rlimits[{at}] ({kind})")
}

/// The kernel's number of a limit (getrlimit(2)).
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU as u32,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE as u32,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA as u32,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK as u32,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE as u32,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS as u32,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC as u32,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE as u32,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK as u32,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS as u32,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS as u32,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING as u32,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE as u32,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE as u32,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO as u32,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME as u32,
    }
}
