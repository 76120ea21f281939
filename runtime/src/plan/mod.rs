// SPDX-License-Identifier: Apache-2.0
//! Step 3, plan: a checked config becomes a program for the init and a list of what the parent must open for it. Pure: no
//! system call, nothing read; tested by value.

mod attributes;
mod binds;
pub mod caps;
mod cgroup_mounts;
mod devices;
pub mod harden;
mod hooks;
mod id_maps;
mod inside;
mod layers;
mod mounts;
mod namespaces;
mod options;
mod process;
mod secrets;
pub mod step;

#[path = "../../init/program.rs"]
#[allow(dead_code, reason = "the other half is the init's")]
pub mod program;

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxSeccomp, Process, Spec};

use crate::error::{Error, Result};
use crate::seccomp::{Counted, Counting};
use crate::{cgroup, seccomp};
pub use attributes::Attributes;
pub use binds::{BindAttr, Idmap, id_mapped_mount, is_bind, source_path};
pub use devices::{apart as devices_apart, must_be_allowed as device_must_be_allowed};
pub use id_maps::{IdMaps, host_id, id_mapping};
pub use namespaces::{Early, UserNamespace, has, is_new, joined, user as user_namespace};
pub use process::hard_limits;
pub use secrets::{SecretSource, Secrets, first as first_secret};
pub use step::{HookRun, Planned, Program, Slot, Step};

/// What a plan depends on besides the config.
#[derive(Clone, Debug)]
pub struct Host {
    /// The highest capability that the kernel knows (/proc/sys/kernel/cap_last_cap).
    pub last_cap: u32,
    /// Controllers of the cgroup v1 hierarchies, a list each as mount(8) takes it; empty on a pure v2 host.
    pub v1_hierarchies: Vec<String>,
    /// Whether AppArmor is in force.
    pub apparmor: bool,
    /// Whether wsbox is itself in a user namespace: device nodes and programs for them are the host's root's alone.
    pub in_user_namespace: bool,
    /// Whether setgroups(2) is allowed where the container is.
    pub set_groups: bool,
}

/// How the container is to be started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stop before the payload until `start` connects (create); else go on at once (run).
    pub wait_for_start: bool,
    /// Nobody waits for the execve: the payload itself says on its stderr that it can not be executed.
    pub detached: bool,
    /// How many descriptors from 3 on the payload gets.
    pub preserve_fds: u32,
    /// Variables beyond process.env: of one name, these stand.
    pub env: Vec<String>,
    /// Keep the caller's session keyring (runc's --no-new-keyring).
    pub no_new_keyring: bool,
    /// The home of the user, where the environment names none.
    pub home: Option<String>,
    /// Filters that the config's own is tightened by.
    pub seccomp_floor: Vec<LinuxSeccomp>,
    /// The filter as it was compiled already, in place of the config's and the floor's.
    pub compiled: Option<seccomp::Filter>,
    /// Whether violations are to be counted, and by whose wish.
    pub counting: Counting,
    /// Leave the network namespace for a fresh one last of all: what an engine put into it until then stays behind.
    pub fresh_network: bool,
    /// The systemd that makes the cgroup.
    pub systemd: Option<cgroup::Instance>,
    /// The cgroup that a user's containers are below.
    pub delegated: Option<String>,
}

/// An option of a file system: the field that it comes from, its key, its value.
pub type Option_ = (String, String, Option<String>);

/// What the parent opens or makes for the init, in the order of the slots.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The root file system: the bundle's own, or an overlay of layers, the uppermost first
    Root { attr: BindAttr, layers: Vec<PathBuf> },
    /// A file or directory of the host; `nofollow`: also a symbolic link; `proc`: it has to be a proc file system
    Bind { path: PathBuf, field: String, attr: BindAttr, nofollow: bool, proc: bool },
    /// A tmpfs with the device nodes
    Dev(Dev),
    /// A tmpfs with device nodes that are not in /dev
    Apart(Apart),
    /// A device node of the host
    Node(Node),
    /// A tmpfs with a folder of the image in it
    CopyUp(CopyUp),
    /// A tmpfs with secrets
    Secrets(Secrets),
    /// A read-only tmpfs with an empty file and an empty directory, to cover masked paths with
    Empty,
    /// A namespace to join; `not_ours`: one that is to be changed, so it must not be the host's
    Namespace { path: PathBuf, field: String, not_ours: bool },
    /// The container's own directory in the v1 hierarchy that is mounted by this name, or in the v2 one, as a mount
    Cgroup(Option<String>, BindAttr),
    /// The state that a hook reads, with this status
    HookState(&'static str),
    /// The socket that `start` connects to
    StartSocket,
    /// The directory of the init's own labels (proc_pid_attr(5))
    Labels,
    /// The container's first process, whose namespaces an exec joins
    Container,
}

/// The container's /dev.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dev {
    /// Options of the tmpfs: (field, key, value)
    pub options: Vec<Option_>,
    /// MOUNT_ATTR_* of the mount
    pub attributes: u64,
    /// Mount points that later mounts want: those of them that are usual
    pub directories: Vec<&'static str>,
    /// Names that later mounts cover: there are no links of these
    pub covered: Vec<String>,
    /// Nodes besides the usual six
    pub nodes: Vec<Given>,
    /// Whether there is a terminal, and so a /dev/console
    pub console: bool,
    /// Whether nodes of the host are to be bound: empty files are made in their places
    pub bound: bool,
}

/// A device of the config's: its field, and what is there.
pub type Given = (String, LinuxDevice);

/// Nodes for places that are not in the tmpfs of /dev: each is named by its number in the list, and bound from there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Apart {
    /// Options of the tmpfs: (field, key, value)
    pub options: Vec<Option_>,
    /// The nodes
    pub nodes: Vec<Given>,
}

/// A device node of the host that is to be bound, and has to be this one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Where it is, on the host and in the container
    pub path: PathBuf,
    /// Whether it is a block device
    pub block: bool,
    /// Major and minor number
    pub number: (u64, u64),
    /// Its mode, if the config says it
    pub mode: Option<u32>,
    /// Its user and group as they are seen where wsbox is, if the config says them
    pub owner: (Option<u32>, Option<u32>),
    /// The field that asks for it
    pub field: String,
}

/// A tmpfs that begins with what the image has there.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyUp {
    /// The mount's field
    pub field: String,
    /// Where it will lie
    pub path: String,
    /// Options of the tmpfs: (field, key, value)
    pub options: Vec<Option_>,
    /// MOUNT_ATTR_* of the mount
    pub attributes: u64,
    /// Whether an id on the disk is the container's id of that number
    pub id_mapped: bool,
}

/// Everything decided.
#[derive(Debug)]
pub struct Plan {
    /// The kernel's highest capability
    pub last_cap: u32,
    /// What the parent joins before it makes the others
    pub early: Vec<Early>,
    /// CLONE_NEW* for clone3(2)
    pub namespaces: u64,
    /// Whose ids the container has
    pub user: UserNamespace,
    /// What the parent opens, by slot
    pub sources: Vec<Source>,
    /// What the init does
    pub program: Program,
    /// The cgroup and its limits
    pub cgroup: cgroup::Plan,
    /// The rules that what is bound has to keep; Some where wsbox is in a user namespace, as no program can keep them there (bpf(2))
    pub device_rules: Option<Vec<cgroup::Rule>>,
    /// Written by the parent: lowering it takes the host's CAP_SYS_RESOURCE
    pub oom_score_adj: Option<i32>,
    /// How it is scheduled, set by the parent
    pub attributes: Attributes,
    /// Hard limits that may have to be raised before the init gives up the right: (field, resource, hard)
    pub hard_limits: Vec<(String, u32, u64)>,
    /// The payload gets a terminal
    pub terminal: bool,
    /// The filter, for `exec` to use again; as it is where nobody counts
    pub filter: Option<seccomp::Filter>,
    /// Whether the program's filter asks a monitor
    pub counted: Counted,
    /// One sentence each, for the user
    pub warnings: Vec<String>,
}

/// Slots beyond the sources', for what the init makes.
#[derive(Clone, Copy)]
struct Scratch {
    mount: Slot,
    dest: Slot,
    proc: Slot,
    devpts: Slot,
    next: Slot,
}

/// Collects sources and steps.
struct Builder<'a> {
    host: &'a Host,
    sources: Vec<Source>,
    program: Program,
    scratch: Scratch,
    has_devpts: bool,
    has_dev: bool,
    has_proc: bool,
    /// The host's proc, where it is bound to /proc
    bound_proc: Option<Slot>,
    late: Vec<Planned>,
    warnings: Vec<String>,
    /// Whether the filter asks a monitor
    counted: Counted,
    /// The v1 controllers that the container has a cgroup of
    joined: Vec<String>,
}

impl<'a> Builder<'a> {
    /// The slots of sources come first; `sources` is how many there can be at most.
    fn new(host: &'a Host, sources: usize) -> Result<Self> {
        if sources + 8 > program::SLOTS {
            return Err(Error::invalid("mounts", format!("are more than {}", program::SLOTS - 8)));
        }
        let first = sources as Slot;
        let scratch = Scratch { mount: first, dest: first + 1, proc: first + 2, devpts: first + 3, next: first + 4 };
        let (program, late, warnings) = (Program::default(), Vec::new(), Vec::new());
        Ok(Self {
            host,
            sources: Vec::new(),
            program,
            scratch,
            has_devpts: false,
            has_dev: false,
            has_proc: false,
            bound_proc: None,
            late,
            warnings,
            counted: Counted::No,
            joined: Vec::new(),
        })
    }

    fn source(&mut self, source: Source) -> Slot {
        self.sources.push(source);
        self.sources.len() as Slot - 1
    }

    /// A slot that nothing else uses.
    fn slot(&mut self) -> Result<Slot> {
        let slot = self.scratch.next;
        if slot as usize >= program::SLOTS {
            return Err(Error::invalid("mounts", format!("need more than {} descriptors", program::SLOTS)));
        }
        self.scratch.next += 1;
        Ok(slot)
    }

    fn push(&mut self, field: impl Into<String>, step: Step) {
        self.program.push(field, step);
    }
}

/// The plan of a container.
///
/// # Errors
/// What the config asks and can not be planned, by its JSON path.
pub fn container(spec: &Spec, id: &str, host: &Host, options: &Options) -> Result<Plan> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    let wanted = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
    let user = namespaces::user(linux);
    id_maps::check_ids(wanted.user(), &user)?;
    let filter = match &options.compiled {
        Some(filter) => Some(filter.clone()),
        None => {
            let set_id = mounts::makes_set_id_files(spec, &user);
            process::filter(linux.seccomp().as_ref(), &options.seccomp_floor, set_id)?
        }
    };
    filter.as_ref().map_or(Ok(()), seccomp::must_execute)?;
    let mut builder = Builder::new(host, mounts::most_sources(spec, linux, host))?;
    builder.warnings.extend(filter.iter().flat_map(|filter| filter.warnings.clone()));
    builder.counted = options.counting.of(filter.as_ref())?;
    let (path, resources) = (linux.cgroups_path().as_deref(), linux.resources().as_ref());
    let mut cgroup = match &options.systemd {
        Some(instance) => cgroup::Plan::in_scope(instance, path, id, resources, spec.annotations().as_ref()),
        None => cgroup::Plan::new(path, id, resources, options.delegated.as_deref()),
    }?;
    let device_rules =
        host.in_user_namespace.then(|| devices::keep_by_mounts(&mut cgroup, linux, wanted)).transpose()?;
    if device_rules.is_none() && mounts::may_open_devices(spec, &user) {
        cgroup.deny_devices(linux.devices().as_deref().unwrap_or_default());
    }
    builder.joined = cgroup.v1_controllers();
    builder.source(Source::Root { attr: mounts::root_attr(spec, wanted, &user), layers: layers::layers(spec)? });
    if options.wait_for_start {
        builder.source(Source::StartSocket);
    }
    let flags = builder.namespaces(spec, linux, &user, options)?;
    builder.mounts(spec, linux, &user)?;
    builder.secrets(spec, wanted)?;
    builder.inside(spec, linux, &user)?;
    builder.labels(wanted);
    builder.process(wanted, options, filter.as_ref(), &process::Door::Container(options, spec))?;
    Ok(Plan {
        last_cap: host.last_cap,
        early: namespaces::early(linux),
        namespaces: flags,
        user,
        cgroup,
        device_rules,
        oom_score_adj: wanted.oom_score_adj(),
        attributes: Attributes::new(wanted, "process")?,
        hard_limits: process::hard_limits(wanted),
        terminal: wanted.terminal().unwrap_or_default(),
        warnings: builder.warnings,
        counted: builder.counted,
        filter,
        sources: builder.sources,
        program: builder.program,
    })
}

/// What a program for `exec` is made of.
pub struct Exec<'a> {
    /// The process to run
    pub process: &'a Process,
    /// The container's config
    pub spec: &'a Spec,
    /// Its filter, as `create` compiled it
    pub filter: Option<&'a seccomp::Filter>,
}

/// The program that joins a running container; slot 0 is the pidfd of its first process.
///
/// # Errors
/// What can not be planned.
pub fn exec(exec: &Exec<'_>, host: &Host, options: &Options) -> Result<(Program, Vec<Source>)> {
    let linux = exec.spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    if host.in_user_namespace {
        devices::must_not_remount(linux, exec.process)?;
    }
    id_maps::check_ids(exec.process.user(), &namespaces::user(linux))?;
    let mut builder = Builder::new(host, 2)?;
    builder.source(Source::Container);
    builder.join(linux);
    builder.labels(exec.process);
    builder.counted = options.counting.of(exec.filter)?;
    builder.process(exec.process, options, exec.filter, &process::Door::Exec(linux))?;
    Ok((builder.program, builder.sources))
}

#[cfg(test)]
mod tests;
