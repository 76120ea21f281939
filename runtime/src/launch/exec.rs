// SPDX-License-Identifier: Apache-2.0
//! `exec`: another process in a running container, by the same init with a shorter program. It joins the namespaces by the
//! pidfd of the container's first process and is born into the PID namespace last, with nothing left to be taken from it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::{Process as Wanted, Spec};

use super::agent::Agent;
use super::{
    Answer, Channel, Console, Process, failure, lsm, memfd, own_pipes, plan_host, raise_limits, set_oom_score, sources,
};
use crate::bundle::{Bundle, passwd};
use crate::cgroup::{self, Cgroup, Place};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::{Life, Monitor};
use crate::plan::{self, Program, Source};
use crate::profile::{self, Profile};
use crate::seccomp::{Counting, Filter, Insn};
use crate::state::{self, Record, Root, Seccomp, Status};
use crate::sys::clone::{Role, Spawn, Spawned, spawn};
use crate::sys::{pidfd, sched};
use crate::validate;

/// A process to run in a container.
pub struct Exec {
    /// The process: what the config's is with some fields changed, or read from a file
    pub process: Wanted,
    /// Where the master of its terminal is sent
    pub console_socket: Option<PathBuf>,
    /// Cgroups below the container's to run it in: [CONTROLLER:]PATH
    pub cgroups: Vec<String>,
    /// How many of the caller's descriptors from 3 on it gets
    pub preserve_fds: u32,
    /// Run it in a paused container: it waits for the resume
    pub ignore_paused: bool,
    /// Nobody waits for its execve: that it can not be executed is said on its own stderr, and is how it ends (status 1)
    pub detached: bool,
    /// A profile that the process is raised to; the one that the container was made under counts in any case
    pub profile: Option<Profile>,
}

/// What it may take from the payload's execve to a record that says it.
const SETTLES: Duration = Duration::from_millis(200);

/// Runs a process in container `id`. `exec` makes it from the container's own config.
///
/// # Errors
/// If the container does not run; or what failed, on which field of the process.
pub fn exec(root: &Root, id: &str, exec: impl FnOnce(&Wanted) -> Result<Exec>) -> Result<Process> {
    let record = settled(root, id)?;
    let container = running(&record, id)?;
    let (config, filter) = root.config(id)?;
    if record.seccomp != Seccomp::None && filter.is_none() {
        let gone = Error::new(Kind::State, "", format!("the saved filter of container {id} is gone"));
        return Err(gone.hint("without it a process in the container would be unfiltered: delete the container"));
    }
    let bundle = Bundle::from_config(record.bundle.clone(), config)?;
    let own = bundle.spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
    let mut exec = exec(own)?;
    if profile::made_under_one(&bundle.spec) {
        wait_for_network(root, id)?;
    }
    exec.process = profile::raise_process(exec.process, &bundle.spec, exec.profile)?;
    validate::process(&exec.process, "process")?;
    lsm::check_process(&exec.process)?;
    super::refuse_escapes(exec.preserve_fds)?;
    let cgroup = Cgroup::open(&record.cgroup)?;
    if !exec.ignore_paused && cgroup.frozen()? {
        let paused = Error::new(Kind::State, "", format!("cannot exec in a paused container {id}"));
        return Err(paused.hint("resume it, or use --ignore-paused"));
    }
    let alive = |monitor: &Monitor| monitor.life().is_ok_and(|life| life != Life::Gone);
    // Without one calls would fail with ENOSYS in place of their own number.
    let counting = if record.monitor.as_ref().is_some_and(alive) { Counting::Wanted } else { Counting::Off };
    let options = plan::Options {
        counting,
        preserve_fds: exec.preserve_fds,
        home: home(&exec.process, &record),
        detached: exec.detached,
        ..plan::Options::default()
    };
    let filter = filter.as_deref().map(load_filter).transpose()?;
    let wanted = plan::Exec { process: &exec.process, spec: &bundle.spec, filter: filter.as_ref() };
    let (program, sources) = plan::exec(&wanted, &plan_host(cgroup::Host::detect()?, Some(&record))?, &options)?;
    let console = Console::connect(exec.console_socket.as_deref(), exec.process.terminal().unwrap_or_default())?;
    let place = cgroup.place(&exec.cgroups)?;
    Joining {
        spec: &bundle.spec,
        record: &record,
        root,
        id,
        program: &program,
        process: &exec.process,
        sources: &sources,
        cgroup: &cgroup,
        place: &place,
        console: &console,
        preserve_fds: exec.preserve_fds,
    }
    .enter(container)
}

/// The record, a little later if the payload of a `run` is about to be executed, or has been and the record does not say so yet. Not for
/// long: it may be a hook that asks, which that `run` waits for.
fn settled(root: &Root, id: &str) -> Result<Record> {
    let end = Instant::now() + SETTLES;
    loop {
        let record = root.read(id)?;
        if record.status != Status::Creating || Instant::now() >= end {
            return Ok(record);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Under a profile the init leaves the engine's network when it is started: nobody may join it there before.
fn wait_for_network(root: &Root, id: &str) -> Result<()> {
    // A `start` at work holds the lock until the payload is executed.
    let folder = root.open(id)?;
    if folder.record()?.is_some_and(|record| record.status != Status::Created) {
        return Ok(());
    }
    let why = format!("cannot exec in container {id} before it is started: its network is not the payload's yet");
    Err(Error::new(Kind::State, "", why).hint("it was made under a profile"))
}

/// A pidfd of the container's first process.
fn running(record: &Record, id: &str) -> Result<OwnedFd> {
    let stopped =
        || Error::new(Kind::State, "", format!("cannot exec in a stopped container: container {id} is not running"));
    if record.status == Status::Creating {
        return Err(stopped());
    }
    state::process::find(record.process.as_ref().ok_or_else(stopped)?)?.ok_or_else(stopped)
}

/// The user's home in the container's own /etc/passwd.
fn home(process: &Wanted, record: &Record) -> Option<String> {
    if process.env().iter().flatten().any(|variable| variable.starts_with("HOME=") && variable.len() > 5) {
        return None;
    }
    let path = format!("/proc/{}/root", record.process.as_ref()?.pid);
    let root =
        openat(AT_FDCWD, path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    passwd::home(root, process.user().uid())
}

struct Joining<'a> {
    spec: &'a Spec,
    record: &'a Record,
    root: &'a Root,
    id: &'a str,
    program: &'a Program,
    process: &'a Wanted,
    sources: &'a [Source],
    cgroup: &'a Cgroup,
    place: &'a Place,
    console: &'a Console,
    preserve_fds: u32,
}

impl Joining<'_> {
    fn enter(&self, container: OwnedFd) -> Result<Process> {
        let (channel, control) = Channel::pair()?;
        let init = memfd::init()?;
        let request = |cgroup| Spawn {
            role: Role::Init,
            join: &[],
            namespaces: 0,
            cgroup,
            init: init.as_fd(),
            control: control.as_fd(),
            keep_below: 3 + self.preserve_fds,
            // Else the container could have us killed with the init, by using up its memory.
            share_memory: !self.cgroup.counts_memory(),
            ambient: false,
            last_cap: 0,
            dumpable: false,
        };
        let own = self.place.clone_fd().unwrap_or(self.cgroup.clone_fd());
        let mut moved = false;
        let spawned = match spawn(&request(Some(own))).map_err(Errno::from) {
            // It has cgroups below with controllers, and so takes no process itself (cgroup-v2.rst, "No Internal Process Constraint").
            Err(Errno::EBUSY) if self.place.clone_fd().is_none() => {
                let pid = self.record.process.as_ref().map_or(0, |process| process.pid);
                spawn(&request(Some(self.cgroup.place_of(pid)?.as_fd()))).map_err(Errno::from)
            }
            Err(Errno::EACCES) if self.place.clone_fd().is_none() => {
                moved = true;
                spawn(&request(None)).map_err(Errno::from)
            }
            result => result,
        };
        let spawned = spawned.context(|| "clone3 into the container's cgroup".into())?;
        drop(control);
        let attached = if moved { self.cgroup.attach(spawned.pid) } else { Ok(()) };
        match attached.and_then(|()| self.follow(&spawned, &channel, container)) {
            Ok((Some(payload), console)) => {
                // The joiner has ended; the payload is its sibling, and so our child.
                let _ = pidfd::wait(&spawned.pidfd);
                spawned.executed();
                Ok(Process { pid: payload.0, pidfd: payload.1, console, notify: None, warnings: Vec::new() })
            }
            Ok((None, console)) => {
                let (pid, pidfd) = spawned.executed();
                Ok(Process { pid, pidfd, console, notify: None, warnings: Vec::new() })
            }
            Err(error) => {
                let _ = pidfd::send_signal(&spawned.pidfd, libc::SIGKILL);
                let _ = pidfd::wait(&spawned.pidfd);
                spawned.executed();
                Err(error)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "a payload and a terminal, each if there is one")]
    fn follow(
        &self,
        spawned: &Spawned,
        channel: &Channel,
        container: OwnedFd,
    ) -> Result<(Option<(Pid, OwnedFd)>, Option<OwnedFd>)> {
        channel.send_program(&memfd::program(&self.program.encode())?)?;
        if let Some(score) = self.process.oom_score_adj() {
            set_oom_score(spawned.pid, score)?;
        }
        if !self.process.terminal().unwrap_or_default() {
            own_pipes(self.record.ids.as_ref(), Some(self.process));
        }
        raise_limits(spawned.pid, &plan::hard_limits(self.process))?;
        let mut attributes = plan::Attributes::new(self.process, "process")?;
        let late = if self.forks() { attributes.scheduler.take() } else { None };
        run_on(spawned.pid, attributes.affinity.0.as_deref(), "process.execCPUAffinity.initial")?;
        super::started(channel, spawned)?;
        // Where the container is by now: an `update` may have given it limits of another kind since it was opened.
        let cgroup = Cgroup::open(&self.root.read(self.id)?.cgroup)?;
        cgroup.confine(spawned.pid)?;
        cgroup.enter(self.place, spawned.pid)?;
        run_on(spawned.pid, attributes.affinity.1.as_deref(), "process.execCPUAffinity.final")?;
        super::attributes(spawned.pid, &attributes)?;
        let labels = self.sources.contains(&Source::Labels).then(|| sources::labels(spawned.pid)).transpose()?;
        channel.send(&[container].into_iter().chain(labels).collect::<Vec<_>>())?;
        let (mut payload, mut console) = (None, None);
        let (mut listener, mut installed) = (None, false);
        loop {
            match channel.receive()? {
                Answer::Closed => return self.alive(spawned, payload).map(|payload| (payload, console)),
                Answer::Console(master) => console = self.console.deliver(master)?,
                Answer::Forked(pid, pidfd) => {
                    payload = Some((Pid::from_raw(pid), pidfd));
                    if let Some(scheduler) = &late {
                        let set =
                            sched::set_scheduler(Pid::from_raw(pid), scheduler).map_err(super::host::scheduler_refused);
                        set.and_then(|()| channel.go_on()).inspect_err(|_| reap(payload.take()))?;
                    }
                }
                Answer::Failed(why) if self.program.said(why.step) => return Ok((payload, console)),
                Answer::Failed(why) => {
                    reap(payload);
                    return Err(failure(self.program, why));
                }
                Answer::Listener(number) => listener = Some(number),
                Answer::Installed => installed = true,
                Answer::Started | Answer::Ready => {}
            }
            // The payload may speak before the joiner has told of it.
            if installed && (payload.is_some() || !self.forks()) {
                installed = false;
                let (pid, pidfd) =
                    payload.as_ref().map_or((spawned.pid, &spawned.pidfd), |payload| (payload.0, &payload.1));
                let agent = Agent { spec: self.spec, record: self.record, pid, pidfd };
                let number = listener.unwrap_or(-1);
                agent.fetch(number, channel).inspect_err(|_| reap(payload.take()))?;
            }
        }
    }

    fn forks(&self) -> bool {
        self.program.steps.iter().any(|planned| planned.step == plan::Step::Fork)
    }

    /// The socket closed: the payload was executed, unless the init was killed before it could be born.
    fn alive(&self, spawned: &Spawned, payload: Option<(Pid, OwnedFd)>) -> Result<Option<(Pid, OwnedFd)>> {
        match (payload, self.forks()) {
            (None, true) => Err(spawned.early_failure().map_or_else(
                || Error::new(Kind::System, "exec", "the init was killed on its way into the container"),
                |(step, errno)| Error::system(format!("start the init: {step}"), errno),
            )),
            (payload, _) => Ok(payload),
        }
    }
}

/// sched_setaffinity(2)
fn run_on(pid: Pid, cpus: Option<&[u32]>, field: &str) -> Result<()> {
    let Some(cpus) = cpus else { return Ok(()) };
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu as usize)).context(|| format!("{field}: CPUs {cpus:?}"))?;
    sched_setaffinity(pid, &set).context(|| format!("{field}: run on CPUs {cpus:?}"))
}

fn reap(payload: Option<(Pid, OwnedFd)>) {
    if let Some((_, pidfd)) = payload {
        let _ = pidfd::send_signal(&pidfd, libc::SIGKILL);
        let _ = pidfd::wait(&pidfd);
    }
}

/// The filter as it lies in the state folder: its flags, then the instructions.
pub(crate) fn save_filter(filter: &Filter) -> Vec<u8> {
    let mut bytes = filter.flags.to_ne_bytes().to_vec();
    bytes.extend(crate::seccomp::to_bytes(&filter.program));
    bytes
}

/// What [`save_filter`] saved.
pub(super) fn load_filter(bytes: &[u8]) -> Result<Filter> {
    let broken = || Error::system("the saved filter of the container", Errno::EBADMSG);
    let (flags, program) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
    if program.is_empty() || !program.len().is_multiple_of(size_of::<Insn>()) {
        return Err(broken());
    }
    Ok(Filter { program: crate::seccomp::from_bytes(program), flags: u32::from_ne_bytes(*flags), warnings: Vec::new() })
}
