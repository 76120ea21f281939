// SPDX-License-Identifier: Apache-2.0
//! L3: a root that is read-only after pivot_root, and a tmpfs that is as large as it may be; the proc of a PID namespace.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::probe::Probe;
use super::{Check, host};
use crate::error::{Context, Error, Result};
use crate::plan::Step;
use crate::plan::program::ROOT;
use crate::state::ids::Range;
use crate::state::layers::{self, Proc};
use crate::sys::mount::{MountAttr, attr, fsconfig, fsmount, fsopen, mount_setattr, open_tree};
use crate::sys::pidfd;

/// A tmpfs that is mounted nowhere.
pub(super) fn tmpfs() -> Result<OwnedFd> {
    let context = fsopen(c"tmpfs").context(|| "fsopen tmpfs".into())?;
    fsconfig(&context, c"size", Some(c"4k")).context(|| "fsconfig size=4k".into())?;
    fsmount(&context, 0).context(|| "fsmount".into())
}

/// An id-mapped mount that is mounted nowhere: of a tmpfs, or before Linux 6.3, which can not map one, of the host's root folder alone.
pub(super) fn id_mapped(range: &Range) -> Result<OwnedFd> {
    let mount = tmpfs()?;
    match id_map(&mount, range) {
        Err(error) if error.errno() == Some(Errno::EINVAL) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let folder = openat(AT_FDCWD, "/", flags, Mode::empty()).context(|| "open /".into())?;
            let tree = open_tree(folder, false).context(|| "open_tree /".into())?;
            id_map(&tree, range).map(|()| tree)
        }
        result => result.map(|()| mount),
    }
}

/// As a container's: id-mapped where there is a user namespace, made "/" of a new mount namespace, the old root detached.
pub(super) fn read_only(range: Option<&Range>) -> Check {
    let tried = || {
        let root = range.map_or_else(tmpfs, id_mapped)?;
        let propagate = Step::Propagate { flags: libc::MS_REC | libc::MS_SLAVE };
        let read_only = Step::SetAttr { slot: ROOT, set: attr::RDONLY, propagation: 0, recursive: false };
        let steps = if range.is_some() { vec![] } else { vec![propagate] };
        let steps = steps.into_iter().chain([Step::AttachRoot, read_only, Step::Pivot]).collect();
        let probe = Probe { namespaces: libc::CLONE_NEWNS, range, fds: vec![root], steps, ..Probe::default() };
        probe.run(|pid, _| Proc { pid: pid.as_raw() }.read("mountinfo").map(|text| layers::root(&text)))
    };
    Check::of_layer("read-only root after pivot_root", tried(), |error| host::namespace_fix(error, "mnt"))
}

/// Writes more than it may hold.
pub(super) fn size() -> Check {
    let tried = || {
        let mount = tmpfs()?;
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file =
            openat(&mount, "file", flags, Mode::from_bits_truncate(0o600)).context(|| "a file on a tmpfs".into())?;
        let page = [1u8; 4096];
        nix::unistd::write(&file, &page).context(|| "write a page".into())?;
        match nix::unistd::write(&file, &page) {
            Err(Errno::ENOSPC) => Ok("size=4k holds 4 KiB, then \"no space left on device\"".to_owned()),
            Err(errno) => Err(Error::system("write past the size", errno)),
            Ok(_) => Err(Error::invalid("tmpfs", "holds more than its size")),
        }
    };
    Check::new("tmpfs with a size", tried(), |error| host::namespace_fix(error, "mnt"))
}

/// A proc for a new PID namespace in a user namespace: the kernel refuses it where our own is partly covered.
pub(super) fn proc(range: Option<&Range>) -> Check {
    let steps = vec![Step::FsOpen { slot: 1, kind: "proc".into() }, Step::FsMount { slot: 1, attributes: 0 }];
    let probe = Probe { namespaces: libc::CLONE_NEWNS | libc::CLONE_NEWPID, range, steps, ..Probe::default() };
    let tried = probe.run(|_, _| Ok("a proc could be made in a PID namespace".to_owned()));
    let fix = |error: &Error| {
        match error.errno() {
        Some(Errno::EPERM) if host::is_root() => {
            "parts of this /proc are covered: run wsbox on the host itself, or docker run --security-opt systempaths=unconfined".into()
        }
        _ => host::namespace_fix(error, "pid"),
    }
    };
    Check::new("/proc", tried, fix)
}

/// Maps the ids of a mount with those of a user namespace that ends at once.
fn id_map(mount: &OwnedFd, range: &Range) -> Result<()> {
    Probe { range: Some(range), ..Probe::default() }.run(|pid, pidfd| {
        let namespace = crate::launch::userns::open(pid, pidfd)?;
        let userns_fd = std::os::fd::AsRawFd::as_raw_fd(&namespace) as u64;
        // Of a shared mount a clone is shared, too, and pivot_root(2) takes none.
        let attr = MountAttr { set: attr::IDMAP, propagation: libc::MS_PRIVATE, userns_fd, ..MountAttr::default() };
        mount_setattr(mount, &attr, false).context(|| "mount_setattr MOUNT_ATTR_IDMAP".into())
    })
}

/// Where a user namespace of a process is asked for by its pidfd.
pub(super) fn pidfd_namespaces() -> Result<()> {
    let own = pidfd::open(nix::unistd::Pid::this()).context(|| "pidfd_open".into())?;
    pidfd::user_namespace(own.as_fd()).map(drop).context(|| "PIDFD_GET_USER_NAMESPACE".into())
}
