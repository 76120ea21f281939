// SPDX-License-Identifier: Apache-2.0
//! `checkpoint`: a dump of a container that runs, or before it one or more of its memory only.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::stat;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::confined::{Confined, Difference, host_namespace};
use super::describe::Description;
use super::images::Images;
use super::room::Room;
use super::{Folders, Settings, descriptors, lazy, make_folder, refuse};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::hooks::Moment;
use crate::plan;
use crate::state::{Folder, Process, Record, Root, Status, lifecycle, process};

/// criu's name for a network namespace that is joined.
pub const NETWORK: &str = "wsbox-network";

/// What is to be dumped, and what becomes of the container.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Shared with `restore`
    pub settings: Settings,
    /// Images of an earlier pre-dump, seen from those that are made
    pub parent: Option<PathBuf>,
    /// The payload goes on
    pub leave_running: bool,
    /// Only memory, and the payload goes on
    pub pre_dump: bool,
    /// A descriptor to tell when lazy pages can be asked for
    pub status_fd: Option<i32>,
    /// Where a page server listens: address and port
    pub page_server: Option<(String, String)>,
}

/// Dumps container `id`; unless the payload goes on, it is deleted then, as runc does. What the user should know of its hooks is
/// returned, one sentence each.
///
/// # Errors
/// A field that could not be restored; or why criu could not.
pub fn checkpoint(root: &Root, id: &str, wanted: &Dump) -> Result<Vec<String>> {
    let folder = root.open(id)?;
    let record = folder.record()?.ok_or_else(|| not_running(id, Status::Creating))?;
    let status = lifecycle::status(&record)?;
    // Of one that waits for its start, paused or not, there is no payload to dump.
    if record.status != Status::Running || status == Status::Stopped {
        return Err(not_running(id, if status == Status::Stopped { status } else { record.status }));
    }
    let (config, filter) = root.config(id)?;
    let bundle = Bundle::from_config(record.bundle.clone(), config)?;
    refuse::check(&bundle.spec)?;
    refuse_monitored(&record)?;
    wanted.check()?;
    wanted.settings.check("checkpoint", None)?;
    refuse::check_host(cgroup::Host::detect()?)?;
    let held = hold()?;
    let dumped = wanted.dump_frozen(&record, &bundle.spec, filter.as_deref());
    // An error is still to be told.
    let warnings = dumped.and_then(|()| wanted.end(root, folder, &record))?;
    held.thread_set_mask().context(|| "signals".into()).map(|()| warnings)
}

fn ends() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT])
}

/// Waits for a criu that serves pages, for as long as somebody may want them: that can be ended.
fn wait_for(mut criu: Child) -> Result<ExitStatus> {
    ends().thread_unblock().context(|| "signals".into())?;
    let ended = criu.wait().context(|| "wait for criu".into());
    ends().thread_block().context(|| "signals".into()).and(ended)
}

/// Holds back what ends us, until the images are whole, nothing is frozen, and a container that criu has ended is deleted: a criu that is
/// ended half-way leaves its parasite in the payload. Returns the mask that was.
fn hold() -> Result<SigSet> {
    ends().thread_swap_mask(SigmaskHow::SIG_BLOCK).context(|| "signals".into())
}

fn not_running(id: &str, status: Status) -> Error {
    let why = format!("cannot checkpoint container {id} in the {} state", lifecycle::word(status));
    Error::new(Kind::State, "", why)
}

fn refuse_monitored(record: &Record) -> Result<()> {
    if record.monitor.is_none() {
        return Ok(());
    }
    let why = "the filter has a listener that counts violations: criu could not restore it";
    Err(Error::invalid("linux.seccomp", why)
        .hint("run it without --count-violations and without the profile production"))
}

impl Dump {
    /// With lazy pages criu waits for who restores them, if anybody does: that can be ended.
    fn serves(&self) -> bool {
        !self.pre_dump && self.settings.flags.contains(&"--lazy-pages")
    }

    /// Deletes what criu has ended.
    fn end(&self, root: &Root, folder: Folder, record: &Record) -> Result<Vec<String>> {
        if self.leave_running || self.pre_dump {
            return Ok(Vec::new());
        }
        if lifecycle::process(record)?.is_some() {
            let why = "criu says that it is done, but the container still runs";
            return Err(Error::new(Kind::System, "checkpoint", why));
        }
        // Still under its lock: by its name alone another could be meant by now.
        lifecycle::delete_locked(root, folder, &record.id, true)
    }

    fn check(&self) -> Result<()> {
        if self.parent.as_ref().is_some_and(|parent| parent.is_absolute()) {
            return Err(Error::invalid("--parent-path", "has to be relative to --image-path: criu keeps it as a link"));
        }
        if self.settings.cgroups == "ignore" {
            let why = "ignore leaves the container's cgroup namespace out of the images";
            return Err(Error::invalid("--manage-cgroups-mode", why).hint("use soft"));
        }
        Ok(())
    }

    /// Nothing changes between what we note and what criu dumps.
    fn dump_frozen(&self, record: &Record, spec: &Spec, filter: Option<&[u8]>) -> Result<()> {
        let cgroup = Cgroup::open(&record.cgroup)?;
        if self.pre_dump || cgroup.frozen()? {
            return self.dump(record, spec, filter, &cgroup);
        }
        cgroup.freeze()?;
        let dumped = self.dump(record, spec, filter, &cgroup);
        // Its processes may be gone, and it with them.
        let thawed = if dumped.is_ok() && !self.leave_running { Ok(()) } else { cgroup.thaw() };
        dumped.and(thawed)
    }

    /// Which memory goes where.
    fn memory(&self, command: &mut Command) {
        if let Some(parent) = &self.parent {
            command.arg("--prev-images-dir").arg(parent);
        }
        if self.pre_dump || self.parent.is_some() {
            command.arg("--track-mem");
        }
        if let Some((address, port)) = &self.page_server {
            // With lazy pages criu serves them there itself.
            let server = (!self.serves()).then_some("--page-server");
            command.args(server).args(["--address", address, "--port", port]);
        }
    }

    fn all(
        &self,
        command: &mut Command,
        record: &Record,
        spec: &Spec,
        pid: Pid,
        description: &Description,
    ) -> Result<()> {
        command.arg("--root").arg(&record.rootfs);
        command.arg(format!("--manage-cgroups={}", self.settings.cgroups));
        command.arg("--freeze-cgroup").arg(record.cgroup.place().1);
        if self.leave_running {
            command.arg("--leave-running");
        }
        for (place, name) in &description.external {
            command.arg("--external").arg(format!("mnt[{place}]:{name}"));
        }
        for name in description.descriptors.iter().flatten().filter(|name| descriptors::is_external(name)) {
            command.arg("--external").arg(name);
        }
        match spec.linux().as_ref().and_then(network) {
            Some(_) => external_network(command, pid),
            None => Ok(()),
        }
    }

    fn dump(&self, record: &Record, spec: &Spec, filter: Option<&[u8]>, cgroup: &Cgroup) -> Result<()> {
        make_folder("--image-path", &self.settings.images)?;
        let images = Images::open("--image-path", &self.settings.images)?;
        self.parent.as_ref().map_or(Ok(()), |parent| images.check_parent(parent))?;
        let verb = if self.pre_dump { "pre-dump" } else { "dump" };
        let folders = Folders::new(images, &self.settings.work, verb)?;
        let (mut command, said) = self.settings.command(verb, &folders, self.empties_network(spec))?;
        let pid = first_of(record.process.as_ref(), &cgroup.procs()?)?;
        command.arg("--tree").arg(pid.to_string());
        self.memory(&mut command);
        if self.pre_dump {
            folders.images.forget()?;
            return self.run(&mut command, verb, said, &folders.work);
        }
        let mut description = Description::of(spec, filter, pid, cgroup)?;
        description.empty_network = self.empties_network(spec);
        refuse_found(&description, spec, filter.is_some(), pid)?;
        refuse_strangers(pid, cgroup)?;
        descriptors::check(&description.descriptors, &self.settings.flags, pid)?;
        self.all(&mut command, record, spec, pid, &description)?;
        let status = self.status_fd.filter(|_| self.serves()).map(lazy::Status::new).transpose()?;
        // Before criu ends the container: without it the images are of no use.
        let room = description.begin(&folders.images)?;
        self.write(command, said, folders, (status, cgroup), description, room)
    }

    /// Has criu write the images, and describes them.
    fn write(
        &self,
        mut command: Command,
        said: File,
        folders: Folders,
        (status, cgroup): (Option<lazy::Status>, &Cgroup),
        mut description: Description,
        room: Room,
    ) -> Result<()> {
        let Folders { images, work, .. } = folders;
        let finish = || {
            description.images = Some(images.again()?.listing(self.memory_is_here())?);
            description.finish(room)
        };
        let finish = || finish().map_err(|error| self.unfinished(&error));
        if self.serves() {
            // The payload would go on without its memory being whole anywhere.
            let give_up = || drop(if self.leave_running { Ok(()) } else { cgroup.kill_all() });
            let ended = lazy::serve(&mut command, status, finish, give_up).and_then(wait_for)?;
            return self.ended("dump", ended, said, &work);
        }
        self.run(&mut command, "dump", said, &work)?;
        finish()
    }

    /// A page server writes memory elsewhere; with lazy pages what is not served is here.
    fn memory_is_here(&self) -> bool {
        self.page_server.is_none() || self.serves()
    }

    fn run(&self, command: &mut Command, verb: &str, said: File, work: &Images) -> Result<()> {
        // What comes from the caller's terminal is ours.
        command.process_group(0);
        let status = command.status().context(|| self.settings.criu.display().to_string())?;
        self.ended(verb, status, said, work)
    }

    /// After criu's work.
    fn unfinished(&self, error: &Error) -> Error {
        let (why, _) = error.parts();
        let why = format!("{why}; without wsbox.json the images can not be restored");
        Error::new(error.kind(), "checkpoint", why).hint(if self.leave_running {
            "the container goes on: make the checkpoint again, in an empty folder"
        } else {
            "criu has ended the container: remove the images, and delete it"
        })
    }

    fn ended(&self, verb: &str, status: ExitStatus, said: File, work: &Images) -> Result<()> {
        if status.success() { Ok(()) } else { Err(self.settings.failed("checkpoint", verb, status, said, work)) }
    }

    /// What an engine's hooks have put into a new network namespace they put there again, as with runc.
    fn empties_network(&self, spec: &Spec) -> bool {
        let new = spec.linux().as_ref().is_some_and(|linux| plan::is_new(linux, LinuxNamespaceType::Network));
        self.settings.empty_network || (new && !Moment::Creating.of(spec.hooks().as_ref()).is_empty())
    }
}

/// What only the processes tell: the restore would refuse it when the container is no more.
fn refuse_found(description: &Description, spec: &Spec, filter: bool, first: Pid) -> Result<()> {
    if let Some(number) = description.gave_up_by_itself(spec) {
        let why = format!("process {number} of the container has set no_new_privs itself: criu could not restore it");
        return Err(Error::invalid("process.noNewPrivileges", why).hint("set it to true"));
    }
    let refused = |field: String, why: String| {
        let why = format!("{why}, which is not what the config gives: it would not be restored");
        Err(Error::invalid(field, why).hint("end what `exec` started with other rights, and what it left"))
    };
    if let Some(kind) = spec.linux().as_ref().map_or(Ok(None), |linux| host_namespace(linux, first))? {
        return refused("linux.namespaces".into(), format!("the {kind} namespace is the host's"));
    }
    let confined = Confined::new(spec, filter)?.check(&description.rights);
    confined.or_else(|Difference { field, why }| refused(field, why))
}

/// Processes that are none of the first one's tree.
fn refuse_strangers(first: Pid, cgroup: &Cgroup) -> Result<()> {
    match cgroup.procs()?.into_iter().find(|pid| !descends(*pid, first)) {
        Some(pid) => {
            let why = format!("process {pid} of the container is none of its first process's: criu would lose it");
            Err(Error::new(Kind::State, "checkpoint", why).hint("end what `exec` started"))
        }
        None => Ok(()),
    }
}

/// The pid of the first process, if it still is the recorded one and of the container: now, as criu is about to look for it.
fn first_of(recorded: Option<&Process>, members: &[Pid]) -> Result<Pid> {
    let gone = |why: &str| Error::new(Kind::State, "checkpoint", format!("the container's first process {why}"));
    let recorded = recorded.ok_or_else(|| gone("is not known"))?;
    let pid = Pid::from_raw(recorded.pid);
    process::find(recorded)?.ok_or_else(|| gone("has ended"))?;
    if members.contains(&pid) { Ok(pid) } else { Err(gone(&format!("({pid}) has left the container's cgroup"))) }
}

/// Whether `pid` is `first` or of its tree.
fn descends(mut pid: Pid, first: Pid) -> bool {
    while pid != first {
        match parent(pid) {
            Some(above) if above.as_raw() > 1 => pid = above,
            _ => return false,
        }
    }
    true
}

/// Field 4, after the name in parentheses (proc_pid_stat(5)).
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

/// The network namespace that is joined: its field and its path.
pub fn network(linux: &Linux) -> Option<(String, &Path)> {
    let (at, path) = plan::joined(linux, LinuxNamespaceType::Network)?;
    Some((format!("linux.namespaces[{at}].path"), path))
}

fn external_network(command: &mut Command, pid: Pid) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let inode = stat(path.as_str()).context(|| path)?.st_ino;
    command.arg("--external").arg(format!("net[{inode}]:{NETWORK}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd;

    #[test]
    fn only_a_dump_serves_its_pages_itself() {
        let server = |pre_dump, flags| {
            let settings = Settings { flags, ..Settings::default() };
            let dump = Dump { settings, pre_dump, page_server: Some(("::1".into(), "7".into())), ..Dump::default() };
            let mut command = Command::new("criu");
            dump.memory(&mut command);
            command.get_args().any(|argument| argument == "--page-server")
        };
        assert!(server(false, vec![]) && server(true, vec!["--lazy-pages"]));
        assert!(!server(false, vec!["--lazy-pages"]));
    }

    #[test]
    fn the_first_process_is_the_recorded_one() {
        let own = Pid::this();
        let recorded = process::remember(own, pidfd::open(own).unwrap()).unwrap();
        assert_eq!(first_of(Some(&recorded), &[own]), Ok(own));
        let error = |recorded, members: &[Pid]| first_of(recorded, members).unwrap_err().to_string();
        assert!(error(Some(&recorded), &[Pid::parent()]).contains("has left the container's cgroup"));
        let other = Process { pidfd_inode: 1, start_time: recorded.start_time.map(|time| time + 1), ..recorded };
        assert!(error(Some(&other), &[own]).contains("has ended"));
        assert!(error(None, &[own]).contains("is not known"));
    }
}
