// SPDX-License-Identifier: Apache-2.0
//! The start of a monitor: the embedded program once more, with all that it needs in the first message, which waits for it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::socket::{UnixAddr, bind};
use nix::sys::stat::Mode;

use super::counts::{BYTES, MAGIC, SET_UP, SET_UP_BYTES, VERSION};
use super::{COUNTS, Monitor, SOCKET, datagrams, jail, send, short};
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::launch::memfd;
use crate::seccomp::{Filter, to_bytes};
use crate::state::{Folder, process};
use crate::sys::clone::{Failed, Role, Spawn, Spawned, spawn};
use crate::sys::mount::{attr, fsconfig, fsmount, fsopen};
use crate::sys::pidfd;

impl Monitor {
    /// Starts the monitor of a container whose first process is `first`, and whose filter fails calls as `filter` does. It ends
    /// with that process, whatever becomes of us.
    ///
    /// # Errors
    /// What it needs and could not get.
    pub fn start(
        folder: &Folder,
        first: BorrowedFd<'_>,
        filter: &Filter,
        init: BorrowedFd<'_>,
        container: &cgroup::Saved,
    ) -> Result<Self> {
        let context = || "the monitor: its socket".to_owned();
        let socket = datagrams().context(context)?;
        let address = short(folder, SOCKET);
        UnixAddr::new(&address).and_then(|address| bind(socket.as_raw_fd(), &address)).context(context)?;
        set_up(&address, folder.path(), first, filter)?;
        let spawned =
            into_cgroup(init, socket.as_fd(), container).inspect_err(|_| cgroup::remove_monitors(container))?;
        let failed = spawned.early_failure();
        let (pid, pidfd) = spawned.executed();
        match failed {
            Some((step, errno)) => {
                let _ = pidfd::wait(&pidfd);
                cgroup::remove_monitors(container);
                Err(Error::system(format!("start the monitor: {step}"), errno))
            }
            None => Ok(Self { process: process::remember(pid, &pidfd)?, folder: folder.path().to_owned() }),
        }
    }
}

/// Sends the first message.
fn set_up(address: &Path, folder: &Path, first: BorrowedFd<'_>, filter: &Filter) -> Result<()> {
    let (jail, filter) = (to_bytes(&jail::filter()?), to_bytes(&filter.program));
    let lengths = [jail.len() as u32, filter.len() as u32].map(u32::to_ne_bytes).concat();
    let filters = memfd::program(&[jail, filter].concat())?;
    let (proc, all) = proc()?;
    let counts = counts(&folder.join(COUNTS))?;
    let mut message = [0; SET_UP_BYTES];
    (message[0], message[1]) = (SET_UP, u8::from(all));
    message[4..].copy_from_slice(&lengths);
    let fds = [filters.as_raw_fd(), counts.as_raw_fd(), proc.as_raw_fd(), first.as_raw_fd()];
    datagrams()
        .and_then(|socket| send(&socket, address, &message, &fds))
        .context(|| "the monitor: its first message".into())
}

/// The file of counts, with room on the disk for all of it: a page that could not be written would end the monitor.
fn counts(path: &Path) -> Result<File> {
    use std::os::unix::fs::FileExt;
    let context = || path.display().to_string();
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path).context(context)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES as i64) {
        Err(Errno::EOPNOTSUPP) => file.write_all_at(&[0; BYTES], 0).context(context)?,
        result => result.context(context)?,
    }
    let head = [MAGIC, VERSION].map(u64::to_ne_bytes).concat();
    file.write_all_at(&head, 0).context(context)?;
    Ok(file)
}

/// A proc file system for names, and whether the monitor is to have no other root: detached, so that nothing leads out of it, and
/// with processes alone. Who may not make one has no rights for the monitor to give up.
fn proc() -> Result<(OwnedFd, bool)> {
    let detached = || {
        let context = fsopen(c"proc")?;
        fsconfig(&context, c"subset", Some(c"pid"))?;
        fsmount(&context, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
    };
    match detached() {
        Err(Errno::EPERM) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            openat(AT_FDCWD, "/proc", flags, Mode::empty()).context(|| "/proc".into()).map(|proc| (proc, false))
        }
        result => result.context(|| "the monitor: its proc".into()).map(|proc| (proc, true)),
    }
}

fn into_cgroup(init: BorrowedFd<'_>, socket: BorrowedFd<'_>, container: &cgroup::Saved) -> Result<Spawned> {
    let spawn = |cgroup: Option<OwnedFd>| {
        spawn(&Spawn {
            role: Role::Monitor,
            join: &[],
            namespaces: 0,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            init,
            control: socket,
            keep_below: 0,
            share_memory: true,
            ambient: false,
            last_cap: 0,
            dumpable: false,
        })
    };
    let once = || cgroup::monitors(container).map(|cgroup| spawn(Some(cgroup)));
    match once()? {
        // The last monitor that was in it has just been removed, and it with that.
        Err(Failed::Clone(Errno::ENODEV | Errno::ENOENT)) => once()?,
        // A user in a session may not be born elsewhere: it stays there, and ends with it.
        Err(Failed::Clone(Errno::EACCES)) => spawn(None),
        result => result,
    }
    .map_err(|failed| Error::system("the monitor: clone3", Errno::from(failed)))
}
