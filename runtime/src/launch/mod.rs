// SPDX-License-Identifier: Apache-2.0
//! Step 4, launch: the parent's checklist. What must be undone if a later step fails is noted as it is done.
#![deny(clippy::disallowed_methods)]

mod agent;
mod birth;
mod channel;
mod child;
pub mod console;
mod copy_up;
mod dev;
pub(crate) mod exec;
pub(crate) mod holder;
mod host;
mod idmap;
pub(crate) mod lsm;
pub(crate) mod memfd;
mod node;
pub(crate) mod overlay;
pub mod pause;
mod process;
mod record;
mod secrets;
pub(crate) mod sources;
mod start;
mod undo;
pub(crate) mod userns;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

pub use channel::failure;
pub(crate) use channel::{Answer, Channel};
pub use console::Console;
pub(crate) use dev::NODES;
pub use exec::{Exec, exec};
pub use process::Process;
pub(crate) use record::new_record;
pub use start::{Started, start};

use agent::Agent;
use child::{Child, died, executed, started};
use host::{attributes, own_pipes, raise_limits, refuse_escapes, set_oom_score};
pub(crate) use host::{home, last_cap, plan_host};

use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Error, Result};
use crate::extras;
use crate::hooks::{self, Moment};
use crate::metrics::counters;
use crate::monitor::{self, Monitor};
use crate::notify;
use crate::plan::{self, IdMaps, Plan, UserNamespace};
use crate::profile::{self, Profile};
use crate::seccomp::Counted;
use crate::state::{self, Folder, Record, Root, Status, ids};
use crate::validate;

/// How a container is created.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the master of its terminal is sent (a Unix socket); else the caller gets it
    pub console_socket: Option<PathBuf>,
    /// How many of the caller's descriptors from 3 on the payload gets
    pub preserve_fds: u32,
    /// Variables beyond process.env, NAME=value each: of one name, these stand
    pub env: Vec<String>,
    /// Keep the caller's session keyring
    pub no_new_keyring: bool,
    /// The service manager's socket (NOTIFY_SOCKET): the payload gets one of its own, of which little is passed on
    pub notify_socket: Option<OsString>,
    /// Let systemd make the cgroup; root's is the host's, another user's is the user's own
    pub systemd_cgroup: bool,
    /// A profile that the bundle is raised to; /etc/wsbox/wsbox.env and $WSBOX_PROFILE count in any case
    pub profile: Option<Profile>,
    /// Count violations of the filter; a profile or an annotation may ask for it as well
    pub count_violations: bool,
}

/// Creates container `id` from `bundle`; its payload waits for [`start`].
///
/// # Errors
/// What failed, on which field; nothing is left of it.
pub fn create(root: &Root, id: &str, bundle: &Bundle, options: &Options) -> Result<Process> {
    counters::timed("create", || launch(root, id, bundle, options, true)).map(|(process, _)| process)
}

/// Creates container `id` from `bundle` and starts its payload.
///
/// # Errors
/// As [`create`]; [`Error::exit_code`] tells a missing program (127) from one that can not be executed (126).
pub fn run(root: &Root, id: &str, bundle: &Bundle, options: &Options) -> Result<Process> {
    counters::timed("run", || launch(root, id, bundle, options, false)).map(|(process, _)| process)
}

fn launch(
    root: &Root,
    id: &str,
    bundle: &Bundle,
    options: &Options,
    wait_for_start: bool,
) -> Result<(Process, Record)> {
    validate::container_id(id)?;
    let raised = profile::raise(bundle, options.profile)?;
    let notified = options.notify_socket.as_ref().map(|_| raised.bundle.notified(&root.path().join(id))).transpose()?;
    let bundle = notified.as_ref().unwrap_or(&*raised.bundle);
    validate::validate(&bundle.spec)?;
    bundle.refuse_foreign_annotations()?;
    lsm::check(&bundle.spec)?;
    refuse_escapes(options.preserve_fds)?;
    let host = cgroup::Host::detect()?;
    let rootfs = bundle.open_root()?;
    let plan_options = plan::Options {
        wait_for_start,
        detached: false,
        preserve_fds: options.preserve_fds,
        env: options.env.clone(),
        no_new_keyring: options.no_new_keyring,
        home: home(&bundle.spec, &rootfs),
        seccomp_floor: raised.seccomp,
        compiled: None,
        systemd: options.systemd_cgroup.then(|| cgroup::Instance::detect(host)).transpose()?,
        counting: monitor::wanted(&bundle.spec, options.count_violations, raised.profile)?,
        fresh_network: raised.in_force && (wait_for_start || bundle.spec.hooks().is_some()),
        delegated: cgroup::delegation::users()?,
    };
    let mut plan = plan::container(&bundle.spec, id, &plan_host(host, None)?, &plan_options)?;
    plan.warnings.extend(raised.warnings);
    let console = Console::connect(options.console_socket.as_deref(), plan.terminal)?;
    pause::before("state");
    let folder = root.create(id)?;
    let mut launch = Launch {
        bundle,
        plan: &plan,
        host,
        folder,
        record: None,
        cgroup: None,
        child: None,
        rootfs,
        console,
        preserve_fds: options.preserve_fds,
        notify: None,
        lent: None,
        warnings: plan.warnings.clone(),
    };
    let launched =
        launch.notify(options.notify_socket.as_deref(), wait_for_start).and_then(|()| launch.steps(id, wait_for_start));
    match launched {
        Ok(process) => launch.finish(process),
        Err(error) => {
            launch.undo();
            Err(error)
        }
    }
}

/// A launch under way.
struct Launch<'a> {
    bundle: &'a Bundle,
    plan: &'a Plan,
    host: cgroup::Host,
    folder: Folder,
    record: Option<Record>,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    rootfs: OwnedFd,
    console: Console,
    preserve_fds: u32,
    notify: Option<notify::Proxy>,
    lent: Option<extras::Lent>,
    warnings: Vec<String>,
}

impl Launch<'_> {
    /// The checklist: each line is a step, in the only order that works.
    fn steps(&mut self, id: &str, wait_for_start: bool) -> Result<Process> {
        // Before the record names it: a `delete` kills what is in it.
        Cgroup::must_be_free(self.host, &self.plan.cgroup)?;
        pause::before("ids");
        let ids = self.allocate_ids()?;
        let maps = self.maps(ids.as_ref());
        pause::before("record");
        self.record_creating(id, ids)?;
        let init = memfd::init()?;
        pause::before("cgroup");
        let holder = self.make_cgroup(&init)?;
        pause::before("program");
        let start_socket = if wait_for_start { Some(start::listen(&self.folder)?) } else { None };
        pause::before("clone");
        self.clone_init(&init)?;
        drop(holder);
        let maps = self.joined_maps()?.or(maps);
        self.child()?.channel.send_program(&memfd::program(&self.plan.program.encode())?)?;
        pause::before("maps");
        self.enter_host_side(maps.as_ref())?;
        self.carry_out_extras(id)?;
        pause::before("sources");
        let held = self.hold_layers()?;
        let fds = self.open_sources(&init, maps.as_ref(), start_socket)?;
        drop(held);
        pause::before("confine");
        self.confine_init()?;
        pause::before("send");
        self.child()?.channel.send(&fds)?;
        drop(fds);
        self.remember()?;
        pause::before("monitor");
        self.start_monitor(&init)?;
        pause::before("hooks");
        self.run_hooks()?;
        pause::before("ready");
        let console = self.until_ready()?;
        pause::before("created");
        if wait_for_start {
            self.set_status(Status::Created)?;
        } else {
            self.until_executed()?;
            pause::before("running");
            self.set_status(Status::Running)?;
            self.run_started_hooks()?;
        }
        self.process(console)
    }

    /// The payload's socket for its service manager: of a container that waits, `start` opens it.
    fn notify(&mut self, manager: Option<&OsStr>, wait_for_start: bool) -> Result<()> {
        let Some(manager) = manager else { return Ok(()) };
        notify::make_folder(self.folder.path())?;
        if !wait_for_start {
            self.notify = notify::Proxy::open(self.folder.path(), manager)?;
        }
        Ok(())
    }

    fn allocate_ids(&self) -> Result<Option<ids::Range>> {
        match self.plan.user {
            UserNamespace::Allocate => ids::allocate(self.folder.path()).map(Some),
            _ => Ok(None),
        }
    }

    fn maps(&self, ids: Option<&ids::Range>) -> Option<IdMaps> {
        match &self.plan.user {
            UserNamespace::Host | UserNamespace::Joined(_) => None,
            UserNamespace::Allocate => ids.map(ids::Range::maps),
            UserNamespace::Mapped(maps) => Some(maps.clone()),
        }
    }

    /// The maps that a joined user namespace has, if one is.
    fn joined_maps(&self) -> Result<Option<IdMaps>> {
        let UserNamespace::Joined(wanted) = &self.plan.user else { return Ok(None) };
        let maps = userns::joined_maps(self.child()?.spawned.pid, wanted)?;
        // Without root, the user is root in wsbox' own.
        if self.plan.device_rules.is_none() {
            profile::joined_maps(&self.bundle.spec, &maps)?;
        }
        Ok(Some(maps))
    }

    /// What only the host side may do to the child: maps, limits above its own.
    fn enter_host_side(&self, maps: Option<&IdMaps>) -> Result<()> {
        let pid = self.child()?.spawned.pid;
        if let Some(maps) = maps.filter(|_| !matches!(self.plan.user, UserNamespace::Joined(_))) {
            userns::write_maps(pid, maps)?;
        }
        if let Some(score) = self.plan.oom_score_adj {
            set_oom_score(pid, score)?;
        }
        if !self.plan.terminal {
            let ids = self.record.as_ref().and_then(|record| record.ids.as_ref());
            own_pipes(ids, self.bundle.spec.process().as_ref());
        }
        raise_limits(pid, &self.plan.hard_limits)
    }

    /// What few configs ask of the host's side.
    fn carry_out_extras(&mut self, id: &str) -> Result<()> {
        let (made, lent) = extras::carry_out(&self.bundle.spec, id, self.child()?.spawned.pid)?;
        self.lent = lent;
        match &mut self.record {
            Some(record) if !made.is_empty() => {
                record.extras = made;
                self.folder.write(record)
            }
            _ => Ok(()),
        }
    }

    /// The limits of memory, and the cgroups on v1, once nobody shares the init's memory.
    fn confine_init(&self) -> Result<()> {
        let child = self.child()?;
        started(&child.channel, &child.spawned)?;
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.confine(child.spawned.pid))?;
        // A cgroup that it joined later would reset it, or not take it.
        attributes(child.spawned.pid, &self.plan.attributes)
    }

    fn hold_layers(&self) -> Result<Option<state::held::Held>> {
        let hold = |record: &Record| state::held::hold(&record.annotations, self.folder.path());
        self.record.as_ref().map(hold).transpose()
    }

    fn open_sources(
        &self,
        init: &OwnedFd,
        maps: Option<&IdMaps>,
        start_socket: Option<OwnedFd>,
    ) -> Result<Vec<OwnedFd>> {
        let child = self.child()?;
        let user = maps
            .map(|maps| Ok::<_, Error>((userns::open(child.spawned.pid, child.spawned.pidfd.as_fd())?, maps)))
            .transpose()?;
        let mut opener = sources::Opener {
            bundle: &self.bundle.path,
            root: self.rootfs.as_fd(),
            user,
            init,
            pid: child.spawned.pid,
            start_socket,
            hooked: self.record.as_ref().map(|record| (record, child.spawned.pid)),
            cgroup: self.cgroup.as_ref(),
            device_rules: self.plan.device_rules.as_deref(),
        };
        opener.open(&self.plan.sources)
    }

    /// While the init is at work, too: its listener comes last of all.
    fn start_monitor(&mut self, init: &OwnedFd) -> Result<()> {
        let (Counted::Yes, Some(filter)) = (&self.plan.counted, &self.plan.filter) else { return Ok(()) };
        let cgroup = self.plan.cgroup.saved(self.host);
        let first = self.child()?.spawned.pidfd.as_fd();
        let monitor = Monitor::start(&self.folder, first, filter, init.as_fd(), &cgroup)?;
        if let Some(record) = &mut self.record {
            record.monitor = Some(monitor);
        }
        Ok(())
    }

    /// The hooks that see the namespaces of a container that has not run yet; the init waits for their end.
    fn run_hooks(&self) -> Result<()> {
        let hooks = self.bundle.spec.hooks().as_ref();
        let (false, Some(record)) = (Moment::Creating.of(hooks).is_empty(), &self.record) else { return Ok(()) };
        self.until_ready()?;
        hooks::run(Moment::Creating, hooks, record, None)?;
        self.child()?.channel.go_on()
    }

    /// Those that tell others of a payload that runs. One that fails ends it (runtime.md, "Lifecycle", 9).
    fn run_started_hooks(&self) -> Result<()> {
        let run = |record| hooks::run(Moment::Started, self.bundle.spec.hooks().as_ref(), record, None);
        self.record.as_ref().map_or(Ok(()), run)
    }

    fn until_ready(&self) -> Result<Option<OwnedFd>> {
        let child = self.child()?;
        let mut console = None;
        loop {
            match child.channel.receive()? {
                Answer::Ready => return Ok(console),
                Answer::Console(master) => console = self.console.deliver(master)?,
                Answer::Failed(why) => return Err(failure(&self.plan.program, why)),
                _ => return Err(died(&child.spawned)),
            }
        }
    }

    fn until_executed(&self) -> Result<()> {
        let child = self.child()?;
        let agent =
            |record| Agent { spec: &self.bundle.spec, record, pid: child.spawned.pid, pidfd: &child.spawned.pidfd };
        executed(&child.channel, &self.plan.program, self.record.as_ref().map(agent))
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().ok_or_else(|| Error::system("the init", Errno::ESRCH))
    }

    fn process(&mut self, console: Option<OwnedFd>) -> Result<Process> {
        let child = self.child.take().ok_or_else(|| Error::system("the init", Errno::ESRCH))?;
        let (pid, pidfd) = child.spawned.executed();
        Ok(Process { pid, pidfd, console, notify: self.notify.take(), warnings: std::mem::take(&mut self.warnings) })
    }

    fn finish(self, process: Process) -> Result<(Process, Record)> {
        self.record.map(|record| (process, record)).ok_or_else(|| Error::system("the record", Errno::ENOENT))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at the host")]
mod tests;
