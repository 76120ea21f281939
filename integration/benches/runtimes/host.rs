// SPDX-License-Identifier: Apache-2.0
//! A private view of the machine, and a guard that leaves nothing of it behind, whatever ends the bench.
//!
//! The guard is the outer process: it makes a mount namespace with a plain cgroup2 (crun refuses hybrid hosts) and a tmpfs for all
//! state, runs the bench itself inside, and is the subreaper of the containers, as a shim would be.

use crate::Outcome;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const CGROUP: &str = "/sys/fs/cgroup";
const MEMORY: &str = "/sys/fs/cgroup/memory";
const PREFIX: &str = "wsbox-bench-";

/// Where everything of one bench lies.
pub struct Site {
    /// The tmpfs: state directories, bundles, programs.
    pub dir: PathBuf,
    /// The cgroup under which every container gets its own.
    pub cgroup: PathBuf,
    /// The same as `linux.cgroupsPath` wants it.
    pub cgroup_name: String,
    /// A v1 memory cgroup of the bench, if this host has that hierarchy.
    pub memory: Option<PathBuf>,
}

impl Site {
    /// The site of which this is the directory.
    pub fn at(dir: &Path) -> Self {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let memory = dir.join("memory").join(&name);
        Self {
            dir: dir.into(),
            cgroup: Path::new(CGROUP).join(&name),
            cgroup_name: format!("/{name}"),
            memory: memory.is_dir().then_some(memory),
        }
    }

    fn set_up(&self) -> Outcome<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        attach(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        fs::create_dir(&self.dir)?;
        attach(Some("tmpfs"), self.dir.to_str().unwrap_or_default(), Some("tmpfs"), MsFlags::empty())?;
        self.cover_null()?;
        self.keep_memory_hierarchy()?;
        attach(Some("cgroup2"), CGROUP, Some("cgroup2"), MsFlags::empty())?;
        Ok(fs::create_dir(&self.cgroup)?)
    }

    /// A /dev/null of the bench's own: crun gives its standard streams to the user of a mapped container, the host's node too.
    fn cover_null(&self) -> Outcome<()> {
        let null = self.dir.join("null");
        mknod(&null, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3))?;
        fs::set_permissions(&null, fs::Permissions::from_mode(0o666))?;
        attach(null.to_str(), "/dev/null", None, MsFlags::MS_BIND)
    }

    /// The plain cgroup2 will cover the v1 hierarchies; memory is still needed for its limits.
    fn keep_memory_hierarchy(&self) -> Outcome<()> {
        let kept = self.dir.join("memory");
        if Path::new(MEMORY).join("memory.limit_in_bytes").exists() {
            fs::create_dir(&kept)?;
            attach(Some(MEMORY), kept.to_str().unwrap_or_default(), None, MsFlags::MS_BIND)?;
            fs::create_dir(kept.join(self.dir.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }

    fn clean_up(&self) {
        kill_cgroup(&self.cgroup);
        kill_children();
        remove_cgroups(&self.cgroup);
        if let Some(memory) = &Self::at(&self.dir).memory {
            remove_cgroups(memory);
        }
        // The tmpfs goes with its mount, all state in it too.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.dir);
    }
}

fn attach(source: Option<&str>, target: &str, kind: Option<&str>, flags: MsFlags) -> Outcome<()> {
    mount(source, target, kind, flags, Some("mode=755").filter(|_| kind == Some("tmpfs")))
        .map_err(|errno| format!("mount {target}: {errno} (the bench needs root)").into())
}

/// Runs this program again inside a site, waits for it, and cleans up.
pub fn guard() -> Outcome<ExitCode> {
    let site = Site::at(&std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id())));
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let result = site.set_up().and_then(|()| {
        remove_stale(&site);
        supervise(&site, &signals)
    });
    site.clean_up();
    result
}

fn supervise(site: &Site, signals: &SigSet) -> Outcome<ExitCode> {
    let child =
        Command::new(std::env::current_exe()?).args(std::env::args().skip(1)).arg("--site").arg(&site.dir).spawn()?;
    let pid = Pid::from_raw(child.id().try_into()?);
    loop {
        if signals.wait()? != Signal::SIGCHLD {
            kill(pid, Signal::SIGKILL)?;
        }
        if let Some(code) = reap(pid) {
            return Ok(code);
        }
    }
}

/// Collects every dead child; the bench's own exit code if it is among them.
fn reap(bench: Pid) -> Option<ExitCode> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == bench => ended = Some(u8::try_from(code).unwrap_or(1).into()),
            Ok(WaitStatus::Signaled(pid, ..)) if pid == bench => ended = Some(ExitCode::FAILURE),
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Kills all that is left under the guard: commands of a bench that was interrupted.
fn kill_children() {
    let until = Instant::now() + Duration::from_secs(5);
    let list = format!("/proc/self/task/{}/children", std::process::id());
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok() && Instant::now() < until {
        for pid in fs::read_to_string(&list).unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills every process of a cgroup2 directory and below.
pub fn kill_cgroup(dir: &Path) {
    let _ = fs::write(dir.join("cgroup.kill"), "1");
}

/// Removes a cgroup and all below; a dying process may hold one for a moment.
pub fn remove_cgroups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    let until = Instant::now() + Duration::from_secs(2);
    while dir.exists() && fs::remove_dir(dir).is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a bench whose guard was killed left behind.
fn remove_stale(site: &Site) {
    for dir in stale_in(Path::new(CGROUP)) {
        kill_cgroup(&dir);
        remove_cgroups(&dir);
    }
    stale_in(&site.dir.join("memory")).iter().for_each(|dir| remove_cgroups(dir));
    for dir in stale_in(&std::env::temp_dir()) {
        let _ = fs::remove_dir(dir);
    }
}

fn stale_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| is_stale(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn is_stale(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
