// SPDX-License-Identifier: Apache-2.0
//! `restore`: a new container from images. Folder, record and cgroup are made as for any other; in place of the init criu brings
//! the processes back, and asks twice: for the hooks, and before anything runs.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::describe::Description;
use super::stage::{Stage, handed};
use super::talk::{Moment, Talk};
use super::verify::Wanted;
use super::{Settings, dump, images, make_folder, read_only, refuse};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Moment as Hooks};
use crate::launch::holder::Holder;
use crate::launch::{self, Process, exec, memfd};
use crate::plan::{self, Plan};
use crate::profile::{self, Profile};
use crate::state::{self, Folder, Record, Root, Status};
use crate::sys::pidfd;
use crate::validate;

/// How a container is restored.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// Shared with `checkpoint`
    pub settings: Settings,
    /// Let systemd make the cgroup
    pub systemd_cgroup: bool,
    /// A profile that the bundle is raised to
    pub profile: Option<Profile>,
    /// TYPE:NAME of another LSM profile, and another context for mounts
    pub lsm: (Option<String>, Option<String>),
}

/// Restores a container as `id`, with what `bundle` says of its cgroup, mounts and network.
///
/// # Errors
/// What failed, on which field; nothing is left of it.
pub fn restore(root: &Root, id: &str, bundle: &Bundle, wanted: &Restore) -> Result<Process> {
    validate::container_id(id)?;
    let raised = profile::raise(bundle, wanted.profile)?;
    let bundle = &*raised.bundle;
    validate::validate(&bundle.spec)?;
    bundle.refuse_foreign_annotations()?;
    launch::lsm::check(&bundle.spec)?;
    refuse::check(&bundle.spec)?;
    wanted.settings.check("restore")?;
    let host = cgroup::Host::detect()?;
    refuse::check_host(host)?;
    wanted.check()?;
    let description = Description::read(&wanted.settings.images)?;
    let options = plan::Options {
        seccomp_floor: raised.seccomp,
        systemd: wanted.systemd_cgroup.then(|| cgroup::Instance::detect(host)).transpose()?,
        ..plan::Options::default()
    };
    let plan = plan::container(&bundle.spec, id, &launch::plan_host(host, None)?, &options)?;
    let filter = plan.filter.as_ref().map(exec::save_filter);
    images::check(&wanted.settings.images, &description.lengths)?;
    description.must_match(&bundle.spec, filter.as_deref())?;
    make_folder("--work-path", &wanted.settings.work)?;
    let folder = root.create(id)?;
    let warnings = raised.warnings.into_iter().chain(plan.warnings.clone()).collect();
    let (record, cgroup, holder, first) = (None, None, None, None);
    let mut restoring =
        Restoring { wanted, bundle, plan: &plan, host, description, folder, record, cgroup, holder, first, warnings };
    match restoring.steps(id, filter.as_deref()) {
        Ok(()) => restoring.finish(),
        Err(error) => {
            restoring.undo();
            Err(error)
        }
    }
}

impl Restore {
    fn check(&self) -> Result<()> {
        if self.settings.cgroups != "soft" {
            let why = "the restored container has the limits of its config: only soft leaves them alone";
            return Err(Error::invalid("--manage-cgroups-mode", why));
        }
        Ok(())
    }
}

/// A restore under way.
struct Restoring<'a> {
    wanted: &'a Restore,
    bundle: &'a Bundle,
    plan: &'a Plan,
    host: cgroup::Host,
    description: Description,
    folder: Folder,
    record: Option<Record>,
    cgroup: Option<Cgroup>,
    /// The first process of a scope of systemd's, until there is another
    holder: Option<Holder>,
    first: Option<(Pid, OwnedFd)>,
    warnings: Vec<String>,
}

impl Restoring<'_> {
    fn steps(&mut self, id: &str, filter: Option<&[u8]>) -> Result<()> {
        Cgroup::must_be_free(self.host, &self.plan.cgroup)?;
        let record = launch::new_record(self.bundle, self.plan, self.host, id)?;
        self.folder.write(&record)?;
        self.record = Some(record);
        self.make_cgroup()?;
        self.folder.keep(&self.bundle.config, filter)?;
        let talk = Talk::new()?;
        let stage = Stage::new(self.folder.path(), self.bundle, self.plan, self.cgroup()?)?;
        let (mut command, said) = self.wanted.settings.command("restore", self.empties_network())?;
        let handed = self.arguments(&mut command, &stage, &talk)?;
        let process = self.bundle.spec.process().as_ref();
        let no_new_privileges = process.and_then(|process| process.no_new_privileges()).unwrap_or_default();
        let child = stage.start(&mut command, no_new_privileges)?;
        drop((stage, handed));
        self.follow(child, &talk, said)?;
        self.set_status(Status::Running)?;
        let record = self.record()?;
        let failed = hooks::run_all(Hooks::Started, self.bundle.spec.hooks().as_ref(), record);
        self.warnings.extend(failed);
        Ok(())
    }

    /// With all its limits at once: nothing of ours is in it.
    fn make_cgroup(&mut self) -> Result<()> {
        let plan = &self.plan.cgroup;
        let cgroup = match &plan.scope {
            None => Cgroup::create(self.host, plan),
            Some(scope) => {
                let holder = self.holder.insert(Holder::new(&memfd::init()?)?);
                Cgroup::create_scope(self.host, plan, scope, holder.pid())
            }
        }?;
        self.cgroup.insert(cgroup).confine(Pid::this())
    }

    fn empties_network(&self) -> bool {
        self.wanted.settings.empty_network || self.description.empty_network
    }

    /// What criu is to do; what comes back must stay open until it runs.
    fn arguments(&self, command: &mut Command, stage: &Stage, talk: &Talk) -> Result<Vec<OwnedFd>> {
        command.args(["--restore-detached", "--restore-sibling", "--manage-cgroups=soft"]);
        command.arg("--root").arg(stage.root()).arg("--action-script").arg(talk.script());
        command.arg("--cgroup-root").arg(self.cgroup()?.saved().place().0);
        let (profile, context) = &self.wanted.lsm;
        for (flag, value) in [("--lsm-profile", profile), ("--lsm-mount-context", context)] {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        stage.external(command, &self.description.external)?;
        self.descriptors(command)
    }

    /// The caller's stdio where the payload had its own, and the network namespace of the config.
    fn descriptors(&self, command: &mut Command) -> Result<Vec<OwnedFd>> {
        let mut given = Vec::new();
        let mut give = |fd: OwnedFd, name: &str| {
            command.arg("--inherit-fd").arg(format!("fd[{}]:{name}", fd.as_raw_fd()));
            given.push(fd);
        };
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for (name, fd) in self.description.descriptors.iter().zip([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]) {
            if let Some(name) = name {
                give(handed(fd)?, name);
            }
        }
        if let Some((field, path)) = self.bundle.spec.linux().as_ref().and_then(dump::network) {
            let namespace = openat(AT_FDCWD, path, OFlag::O_RDONLY, Mode::empty());
            give(namespace.context(|| format!("{field}: {}", path.display()))?, dump::NETWORK);
        }
        Ok(given)
    }

    /// Answers criu until it ends. After an error of ours nothing of what it made is left to run.
    fn follow(&mut self, mut child: Child, talk: &Talk, said: File) -> Result<()> {
        let criu = pidfd::open(Pid::from_raw(child.id() as i32)).context(|| "pidfd of criu".into())?;
        let followed = self.answer(&criu, talk);
        if followed.is_err() {
            // First what it would let run, then criu itself: it would wait for its dead forever.
            let _ = self.cgroup()?.kill_all();
            let _ = pidfd::send_signal(&criu, libc::SIGKILL);
        }
        let status = child.wait().context(|| "wait for criu".into());
        followed?;
        let status = status?;
        if !status.success() {
            return Err(self.wanted.settings.failed("restore", "restore", status, said));
        }
        let ready = self.record()?.process.is_some();
        if ready { Ok(()) } else { Err(Error::invalid("restore", "criu says that it is done, and did not ask before")) }
    }

    fn answer(&mut self, criu: &OwnedFd, talk: &Talk) -> Result<()> {
        while let Some((moment, pid)) = talk.next(criu)? {
            match moment {
                Moment::Namespaces => self.run_hooks(pid)?,
                Moment::Ready => self.ready(pid)?,
            }
            talk.answer(true)?;
        }
        Ok(())
    }

    fn run_hooks(&mut self, pid: Pid) -> Result<()> {
        let first = pidfd::open(pid).context(|| format!("pidfd of {pid}"))?;
        let process = state::process::remember(pid, &first)?;
        self.first = Some((pid, first));
        let hooks = self.bundle.spec.hooks().as_ref();
        if Hooks::Creating.of(hooks).is_empty() {
            return Ok(());
        }
        if let Some(record) = &mut self.record {
            record.process = Some(process);
        }
        hooks::run(Hooks::Creating, hooks, self.record()?)
    }

    fn ready(&mut self, pid: Pid) -> Result<()> {
        let first = pidfd::open(pid).context(|| format!("pidfd of {pid}"))?;
        let process = state::process::remember(pid, &first)?;
        self.first = Some((pid, first));
        if let Some(record) = &mut self.record {
            record.process = Some(process);
            self.folder.write(record)?;
        }
        if self.bundle.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or_default()) {
            read_only::make(pid)?;
        }
        drop(self.holder.take());
        let cgroup = self.cgroup()?;
        Wanted { spec: &self.bundle.spec, plan: self.plan, description: &self.description, cgroup }.check(pid)
    }

    fn set_status(&mut self, status: Status) -> Result<()> {
        match &mut self.record {
            Some(record) => {
                record.status = status;
                self.folder.write(record)
            }
            None => Ok(()),
        }
    }

    fn record(&self) -> Result<&Record> {
        self.record.as_ref().ok_or_else(|| Error::system("the record", nix::errno::Errno::ENOENT))
    }

    fn cgroup(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(|| Error::system("the cgroup", nix::errno::Errno::ENOENT))
    }

    fn finish(self) -> Result<Process> {
        let (pid, pidfd) = self.first.ok_or_else(|| Error::system("the restored process", nix::errno::Errno::ESRCH))?;
        Ok(Process { pid, pidfd, console: None, notify: None, warnings: self.warnings })
    }

    /// Takes back what was done, in reverse. What can not be is left for `delete`: the record is still there then.
    fn undo(mut self) {
        if let Some((_, first)) = self.first.take() {
            let _ = pidfd::send_signal(&first, libc::SIGKILL);
            let _ = pidfd::wait(&first);
        }
        let removed = self.cgroup.take().map_or(Ok(()), |cgroup| cgroup.kill_all().and_then(|()| cgroup.discard()));
        // A hook that ran may have made what another takes back (runtime.md, "Lifecycle").
        if let Some(record) = self.record.as_ref().filter(|record| record.process.is_some()) {
            hooks::run_all(Hooks::Stopped, self.bundle.spec.hooks().as_ref(), record);
        }
        if removed.is_ok() {
            let _ = self.folder.remove(None);
        }
    }
}
