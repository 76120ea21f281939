// SPDX-License-Identifier: Apache-2.0
//! `restore`: a new container from images. Folder, record and cgroup are made as for any other; in place of the init criu brings
//! the processes back, and asks twice: for the hooks, and before anything runs.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::describe::Description;
use super::images::Images;
use super::stage::{Stage, handed};
use super::talk::{Moment, Talk};
use super::verify::Wanted;
use super::{Folders, Settings, descriptors, dump, read_only, refuse};
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

/// Restores a container as `id`, with what `bundle` says of its cgroup, mounts and network. `signals` can be read once the caller has
/// had enough.
///
/// # Errors
/// What failed, on which field; nothing is left of it.
pub fn restore(root: &Root, id: &str, bundle: &Bundle, wanted: &Restore, signals: BorrowedFd<'_>) -> Result<Process> {
    validate::container_id(id)?;
    let raised = profile::raise(bundle, wanted.profile)?;
    let bundle = &*raised.bundle;
    validate::validate(&bundle.spec)?;
    bundle.refuse_foreign_annotations()?;
    launch::lsm::check(&bundle.spec)?;
    refuse::check(&bundle.spec)?;
    wanted.settings.check("restore", Some(signals))?;
    let host = cgroup::Host::detect()?;
    refuse::check_host(host)?;
    wanted.check()?;
    wanted.check_labels(&bundle.spec)?;
    let images = Images::open("--image-path", &wanted.settings.images).map_err(|error| match error.errno() {
        Some(Errno::ENOENT) => error.hint("it is where `wsbox checkpoint` wrote images and wsbox.json"),
        _ => error,
    })?;
    let description = Description::read(&images)?;
    let options = plan::Options {
        seccomp_floor: raised.seccomp,
        systemd: wanted.systemd_cgroup.then(|| cgroup::Instance::detect(host)).transpose()?,
        ..plan::Options::default()
    };
    let plan = plan::container(&bundle.spec, id, &launch::plan_host(host, None)?, &options)?;
    let filter = plan.filter.as_ref().map(exec::save_filter);
    images.check(description.listing()?)?;
    description.must_match(&bundle.spec, filter.as_deref())?;
    let folders = Folders::new(images, &wanted.settings.work, "restore")?;
    let folder = root.create(id)?;
    let (record, cgroup, holder) = match make(bundle, &plan, host, id, &folder) {
        Ok(made) => made,
        Err(error) => {
            let _ = folder.remove(None);
            return Err(error);
        }
    };
    let warnings = raised.warnings.into_iter().chain(plan.warnings.clone()).collect();
    let (first, verified) = (None, false);
    let mut restoring = Restoring {
        wanted,
        signals,
        bundle,
        plan: &plan,
        folders,
        description,
        folder,
        record,
        cgroup,
        holder,
        first,
        verified,
        warnings,
    };
    match restoring.steps(filter.as_deref()) {
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

    /// Flags that would have criu put the container under another label than its config's.
    fn check_labels(&self, spec: &Spec) -> Result<()> {
        let process = spec.process().as_ref();
        let text = |value: Option<&Option<String>>| value.and_then(Clone::clone).unwrap_or_default();
        let (profile, context) = &self.lsm;
        let odd = || Error::invalid("--lsm-profile", "is neither apparmor:NAME nor selinux:LABEL");
        if let Some((kind, name)) = profile.as_ref().map(|flag| flag.split_once(':').ok_or_else(odd)).transpose()? {
            let (field, is) = match kind {
                "apparmor" => ("process.apparmorProfile", text(process.map(|process| process.apparmor_profile()))),
                "selinux" => ("process.selinuxLabel", text(process.map(|process| process.selinux_label()))),
                _ => return Err(odd()),
            };
            same_label(field, &is, "--lsm-profile", name)?;
        }
        let is = text(spec.linux().as_ref().map(|linux| linux.mount_label()));
        context.as_ref().map_or(Ok(()), |context| same_label("linux.mountLabel", &is, "--lsm-mount-context", context))
    }
}

fn same_label(field: &str, is: &str, flag: &str, wanted: &str) -> Result<()> {
    if is == wanted {
        return Ok(());
    }
    let error = Error::invalid(field, format!("is {is:?}, and {flag} asks for {wanted:?}"));
    Err(error.hint("leave the flag out: the config says it"))
}

/// What there is of a new container before anything runs in it: its record, and its cgroup with the process that holds a scope of
/// systemd's, until there is another.
fn make(
    bundle: &Bundle,
    plan: &Plan,
    host: cgroup::Host,
    id: &str,
    folder: &Folder,
) -> Result<(Record, Cgroup, Option<Holder>)> {
    Cgroup::must_be_free(host, &plan.cgroup)?;
    let record = launch::new_record(bundle, plan, host, id)?;
    folder.write(&record)?;
    match &plan.cgroup.scope {
        None => Ok((record, Cgroup::create(host, &plan.cgroup)?, None)),
        Some(scope) => {
            let holder = Holder::new(&memfd::init()?)?;
            let cgroup = Cgroup::create_scope(host, &plan.cgroup, scope, holder.pid())?;
            Ok((record, cgroup, Some(holder)))
        }
    }
}

/// A restore under way.
struct Restoring<'a> {
    wanted: &'a Restore,
    signals: BorrowedFd<'a>,
    bundle: &'a Bundle,
    plan: &'a Plan,
    folders: Folders,
    description: Description,
    folder: Folder,
    record: Record,
    cgroup: Cgroup,
    holder: Option<Holder>,
    first: Option<(Pid, OwnedFd)>,
    /// What came back was looked at, and is as it has to be
    verified: bool,
    warnings: Vec<String>,
}

impl Restoring<'_> {
    fn steps(&mut self, filter: Option<&[u8]>) -> Result<()> {
        // With all its limits at once: nothing of ours is in it.
        self.cgroup.confine(Pid::this())?;
        self.folder.keep(&self.bundle.config, filter)?;
        let talk = Talk::new()?;
        let script = talk.script(&self.cgroup.saved().place().1)?;
        let mut stage = Stage::new(self.folder.path(), script, self.bundle, self.plan, &self.cgroup)?;
        let (mut command, said) = self.wanted.settings.command("restore", &self.folders, self.empties_network())?;
        // What comes from the caller's terminal is ours: criu and its script must not die of it before the payload was looked at.
        command.process_group(0);
        let handed = self.arguments(&mut command, &mut stage)?;
        let process = self.bundle.spec.process().as_ref();
        let no_new_privileges = process.and_then(|process| process.no_new_privileges()).unwrap_or_default();
        let child = stage.start(&mut command, no_new_privileges)?;
        drop((stage, handed));
        self.follow(child, &talk, said)?;
        self.record.status = Status::Running;
        self.folder.write(&self.record)?;
        let hooks = self.bundle.spec.hooks().as_ref();
        hooks::run(Hooks::Started, hooks, &self.record, Some(self.signals))
    }

    fn empties_network(&self) -> bool {
        self.wanted.settings.empty_network || self.description.empty_network
    }

    /// What criu is to do; what comes back must stay open until it runs.
    fn arguments(&self, command: &mut Command, stage: &mut Stage) -> Result<Vec<OwnedFd>> {
        command.args(["--restore-detached", "--restore-sibling", "--manage-cgroups=soft"]);
        command.arg("--root").arg(stage.root()).arg("--action-script").arg(stage.script());
        command.arg("--cgroup-root").arg(self.cgroup.saved().place().0);
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
        let ours = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        for (number, (name, fd)) in self.description.descriptors.iter().zip(ours).enumerate() {
            if let Some(name) = name {
                descriptors::check_given(number, name, fd)?;
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
        let group = Pid::from_raw(child.id() as i32);
        let criu = pidfd::open(group).context(|| "pidfd of criu".into());
        let followed = criu.and_then(|criu| self.answer(&criu, talk));
        if followed.is_err() || !self.verified {
            // A criu that others kill as it asks us lets go of whom it holds, and no option of ptrace(2) of 3.17's has them die with it: they run
            // until here.
            // First what it would let run, then criu itself with its script, which is not waited for yet: it would wait for its dead
            // forever.
            if let Some((_, first)) = &self.first {
                let _ = pidfd::send_signal(first, libc::SIGKILL);
            }
            let _ = self.cgroup.kill_all();
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = child.wait().context(|| "wait for criu".into());
        followed?;
        let status = status?;
        if !status.success() {
            return Err(self.wanted.settings.failed("restore", "restore", status, said, &self.folders.work));
        }
        if self.verified {
            Ok(())
        } else {
            Err(Error::invalid("restore", "criu says that it is done, and did not ask before"))
        }
    }

    fn answer(&mut self, criu: &OwnedFd, talk: &Talk) -> Result<()> {
        while let Some((moment, pid)) = talk.next(criu, self.signals())? {
            match moment {
                Moment::Namespaces => self.run_hooks(pid)?,
                Moment::Ready => self.ready(pid)?,
            }
            talk.go_on()?;
        }
        Ok(())
    }

    /// None once the payload may run: from then on they are for it.
    fn signals(&self) -> Option<BorrowedFd<'_>> {
        (!self.verified).then_some(self.signals)
    }

    fn remember(&mut self, pid: Pid) -> Result<state::Process> {
        let first = pidfd::open(pid).context(|| format!("pidfd of {pid}"))?;
        let process = state::process::remember(pid, &first)?;
        self.first = Some((pid, first));
        Ok(process)
    }

    fn run_hooks(&mut self, pid: Pid) -> Result<()> {
        let process = self.remember(pid)?;
        let hooks = self.bundle.spec.hooks().as_ref();
        if Hooks::Creating.of(hooks).is_empty() {
            return Ok(());
        }
        self.record.process = Some(process);
        hooks::run(Hooks::Creating, hooks, &self.record, Some(self.signals))
    }

    fn ready(&mut self, pid: Pid) -> Result<()> {
        self.record.process = Some(self.remember(pid)?);
        self.folder.write(&self.record)?;
        if self.bundle.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or_default()) {
            read_only::make(pid)?;
        }
        drop(self.holder.take());
        let (spec, cgroup) = (&self.bundle.spec, &self.cgroup);
        Wanted { spec, plan: self.plan, description: &self.description, cgroup }.check(pid)?;
        self.verified = true;
        Ok(())
    }

    fn finish(self) -> Result<Process> {
        let (pid, pidfd) = self.first.ok_or_else(|| Error::system("the restored process", Errno::ESRCH))?;
        Ok(Process { pid, pidfd, console: None, notify: None, warnings: self.warnings })
    }

    /// Takes back what was done, in reverse. What can not be is left for `delete`: the record is still there then.
    fn undo(mut self) {
        if let Some((_, first)) = self.first.take() {
            let _ = pidfd::send_signal(&first, libc::SIGKILL);
            let _ = pidfd::wait(&first);
        }
        drop(self.holder.take());
        let removed = self.cgroup.kill_all().and_then(|()| self.cgroup.discard());
        // A hook that ran may have made what another takes back (runtime.md, "Lifecycle").
        if self.record.process.is_some() {
            hooks::run_all(Hooks::Stopped, self.bundle.spec.hooks().as_ref(), &self.record);
        }
        if removed.is_ok() {
            let _ = self.folder.remove(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(process: serde_json::Value, profile: &str) -> Result<()> {
        let mut whole = serde_json::json!({"cwd": "/", "user": {"uid": 0, "gid": 0}});
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        let spec: Spec = serde_json::from_value(serde_json::json!({"ociVersion": "1.2.0", "process": whole})).unwrap();
        Restore { lsm: (Some(profile.into()), None), ..Restore::default() }.check_labels(&spec)
    }

    #[test]
    fn labels_come_from_the_config() {
        let (profile, label) =
            (serde_json::json!({"apparmorProfile": "box"}), serde_json::json!({"selinuxLabel": "a:b:c:s0"}));
        assert!(checked(profile.clone(), "apparmor:box").is_ok());
        assert!(checked(label.clone(), "selinux:a:b:c:s0").is_ok());
        let error = |process, flag: &str| checked(process, flag).unwrap_err().to_string();
        let words = "process.apparmorProfile: is \"box\", and --lsm-profile asks for \"unconfined\"";
        assert!(error(profile.clone(), "apparmor:unconfined").starts_with(words));
        assert!(error(label, "selinux:a:b:c:s0:c1").starts_with("process.selinuxLabel: is"));
        assert!(error(serde_json::json!({}), "apparmor:box").starts_with("process.apparmorProfile: is \"\""));
        assert!(error(profile, "box").starts_with("--lsm-profile: is neither"));
    }
}
