// SPDX-License-Identifier: Apache-2.0
//! Writes to watched places of containers whose root can be written, by fanotify(7) on the mount of the root: whoever writes
//! through it is seen, whatever name the path has, but by mmap(2), which fanotify does not tell. Writes are counted, not created, renamed or removed names, which a mark of a
//! mount does not tell; a tmpfs or bind inside of the root is a mount of its own, and not watched.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use super::containers::Sample;
use super::families::Changed;
use crate::error::{Context, Error, Result};
use crate::state::{Process, process};

/// Between two looks at the queue: the kernel merges what is the same until then, and a flood of writes costs no more of our CPU
/// than a look.
const REST: Duration = Duration::from_millis(20);
/// The place of what was lost because the queue was full.
const LOST: &str = "(lost)";

/// Counts of one container: by place.
type Places = BTreeMap<String, u64>;

/// A container's first process, and when the container was created: pids come again.
type Owner = (i32, String);

/// What is watched, by the number of the mount.
#[derive(Debug, Default)]
struct Watched {
    mounts: HashMap<u64, (Owner, Places)>,
    lost: u64,
}

/// The watch.
#[derive(Debug)]
pub struct Changes {
    group: Arc<Fanotify>,
    watched: Arc<Mutex<Watched>>,
}

impl Changes {
    /// Counts writes below each of `places`, absolute paths in a container, from here on.
    ///
    /// # Errors
    /// A place that is no absolute path; or the kernel has no fanotify.
    pub fn watch(places: Vec<String>) -> Result<Self> {
        if let Some(place) = places.iter().find(|place| !place.starts_with('/')) {
            return Err(Error::invalid(format!("--watch {place:?}"), "is no absolute path in a container"));
        }
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC;
        // The kernel opens each file for us: a FIFO without a writer must not hold us.
        let files = EventFFlags::O_RDONLY | EventFFlags::O_NONBLOCK | EventFFlags::O_CLOEXEC;
        let group = Fanotify::init(flags, files).context(|| "fanotify_init".into())?;
        let (group, watched) = (Arc::new(group), Arc::<Mutex<Watched>>::default());
        let (events, counts) = (Arc::clone(&group), Arc::clone(&watched));
        std::thread::spawn(move || count(&events, &counts, &places));
        Ok(Self { group, watched })
    }

    /// What was counted of these containers, all of which are watched from here on if their root can be written.
    pub fn of(&self, samples: &[Sample]) -> Changed {
        let running = samples.iter().filter_map(|sample| Some((sample, sample.process()?)));
        self.of_all(running.map(|(sample, process)| (sample.name.as_str(), sample.record.created.as_str(), process)))
    }

    /// The same, of their names, when they were created, and their first processes.
    fn of_all<'a>(&self, running: impl Iterator<Item = (&'a str, &'a str, &'a Process)>) -> Changed {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Changed::default();
        let mut alive = HashMap::new();
        for (name, created, process) in running {
            let this = (process.pid, created.to_owned());
            let known = watched.mounts.iter().find(|(_, (owner, _))| *owner == this).map(|(mount, _)| *mount);
            let marked = known.map_or_else(|| self.mark(process), |mount| Ok(Some(mount)));
            if !matches!(marked, Ok(None)) {
                changed.watched.insert(name.to_owned(), marked.is_ok());
            }
            let Ok(Some(mount)) = marked else { continue };
            // The number of a mount comes again too.
            let counted = watched.mounts.remove(&mount).filter(|(owner, _)| *owner == this);
            let (_, places) = counted.unwrap_or((this.clone(), Places::new()));
            changed.places.insert(name.to_owned(), places.clone());
            alive.insert(mount, (this, places));
        }
        watched.mounts = alive;
        if watched.lost > 0 {
            changed.places.insert(LOST.into(), Places::from([(LOST.into(), watched.lost)]));
        }
        changed
    }

    /// Watches the root mount of a process, and says its number; None if it can not be written, or the process is gone.
    fn mark(&self, process: &Process) -> Result<Option<u64>> {
        let step = || format!("/proc/{}/root", process.pid);
        let root = match root_of(process.pid) {
            Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
            root => root.context(step)?,
        };
        // Its pid may be another's by now: only if it lives still is what was opened its root.
        if process::find(process)?.is_none() {
            return Ok(None);
        }
        if nix::sys::statvfs::fstatvfs(&root).context(step)?.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
            return Ok(None);
        }
        let mount = mount_number(root.as_raw_fd()).ok_or_else(|| Error::system(step(), Errno::ENOENT))?;
        if hosts_roots().contains(&mount) {
            return Err(Error::invalid(step(), "is the host's own root"));
        }
        let mask = MaskFlags::FAN_MODIFY;
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT;
        self.group.mark(flags, mask, &root, Some(".")).context(|| format!("fanotify_mark {}", step()))?;
        Ok(Some(mount))
    }
}

/// Our own root's mount and that of the host's first process: a mark there would count what the host writes.
fn hosts_roots() -> Vec<u64> {
    let roots = [std::process::id() as i32, 1].into_iter().filter_map(|pid| root_of(pid).ok());
    roots.filter_map(|root| mount_number(root.as_raw_fd())).collect()
}

/// /proc/PID/root leads where the process is (proc_pid_root(5)).
fn root_of(pid: i32) -> nix::Result<OwnedFd> {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}/root/"));
    opened.map(OwnedFd::from).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// proc_pid_fdinfo(5)
fn mount_number(fd: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Until the process ends.
fn count(group: &Fanotify, watched: &Mutex<Watched>, places: &[String]) {
    loop {
        match group.read_events() {
            Ok(events) => events.iter().for_each(|event| count_one(event, watched, places)),
            Err(Errno::EINTR) => {}
            // A file that can not be opened, such as a node without a device: its event is gone, the others are not.
            Err(_) => watched.lock().unwrap_or_else(PoisonError::into_inner).lost += 1,
        }
        std::thread::sleep(REST);
    }
}

fn count_one(event: &FanotifyEvent, watched: &Mutex<Watched>, places: &[String]) {
    let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(fd) = event.fd() else {
        watched.lost += 1;
        return;
    };
    let (Some(mount), Some(place)) = (mount_number(fd.as_raw_fd()), place_of(fd, places)) else { return };
    if let Some((_, counts)) = watched.mounts.get_mut(&mount) {
        *counts.entry(place.to_owned()).or_default() += 1;
    }
}

/// The watched place that a file is in: in a container's mount namespace the kernel shows its path from there.
fn place_of<'a>(fd: BorrowedFd, places: &'a [String]) -> Option<&'a str> {
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    places.iter().find(|place| path.starts_with(Path::new(place))).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;
    use crate::sys::pidfd;

    /// A pid that came again is nobody's root, and the host's root is watched for nobody.
    #[test]
    fn the_host_is_not_watched() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let changes = Changes::watch(vec!["/usr".into()]).unwrap();
        let own = Pid::this();
        let ours = process::remember(own, pidfd::open(own).unwrap()).unwrap();
        assert!(changes.mark(&ours).unwrap_err().to_string().contains("the host's own root"));
        let former =
            Process { pid: ours.pid, pidfd_inode: ours.pidfd_inode + 1, start_time: ours.start_time.map(|at| at + 1) };
        assert_eq!(changes.mark(&former), Ok(None));
        let changed = changes.of_all([("ours", "now", &ours), ("former", "now", &former)].into_iter());
        assert_eq!(changed.watched.into_iter().collect::<Vec<_>>(), [("ours".to_owned(), false)]);
        assert!(changed.places.is_empty());
    }
}
