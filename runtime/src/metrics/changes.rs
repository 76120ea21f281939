// SPDX-License-Identifier: Apache-2.0
//! Writes to watched places of containers whose root can be written, by fanotify(7) on the mount of the root: whoever writes
//! through it is seen, whatever name the path has. Writes are counted, not created, renamed or removed names, which a mark of a
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
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Changed::new();
        let mut alive = HashMap::new();
        for (sample, pid) in samples.iter().filter_map(|sample| Some((sample, sample.process()?.pid))) {
            let this = (pid, sample.record.created.clone());
            let known = watched.mounts.iter().find(|(_, (owner, _))| *owner == this).map(|(mount, _)| *mount);
            let Some(mount) = known.or_else(|| self.mark(pid).ok().flatten()) else { continue };
            let (_, places) = watched.mounts.remove(&mount).unwrap_or((this.clone(), Places::new()));
            changed.insert(sample.name.clone(), places.clone());
            alive.insert(mount, (this, places));
        }
        watched.mounts = alive;
        if watched.lost > 0 {
            changed.insert(LOST.into(), Places::from([(LOST.into(), watched.lost)]));
        }
        changed
    }

    /// Watches the root mount of a process, and says its number; None if it can not be written.
    fn mark(&self, pid: i32) -> nix::Result<Option<u64>> {
        let root = root_of(pid)?;
        if nix::sys::statvfs::fstatvfs(&root)?.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
            return Ok(None);
        }
        let mask = MaskFlags::FAN_MODIFY;
        self.group.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT, mask, &root, Some("."))?;
        mount_number(root.as_raw_fd()).map(Some).ok_or(Errno::ENOENT)
    }
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
