// SPDX-License-Identifier: Apache-2.0
//! How each step is carried out.

use core::ffi::CStr;

use crate::paths::Paths;
use crate::program::{DEST_IN_PROC, DEST_KEEP_MODE, DEST_LIKE_SLOT, DEST_NO_SYMLINKS, DEST_NOFOLLOW, Op, ROOT, Report};
use crate::sys::{self, *};
use crate::{Init, Step, operation, word};

pub const PR_SET_DUMPABLE: u32 = 4;
const PR_CAPBSET_DROP: u32 = 24;
const PR_CAP_AMBIENT: u32 = 47;
/// linux/sched.h
const CLONE_NEWTIME: u32 = 0x80;
const NEW_LISTENER: u32 = 1 << 3;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Within the root, whatever the links in it say, and through no magic link.
pub const INSIDE: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

impl Init {
    pub fn carry_out(&mut self, step: Step) -> Result<()> {
        let Step { a, b, c, s, t, n, .. } = step;
        match operation(&step)? {
            Op::Receive => self.receive(),
            Op::SetNs => sys::setns(self.fd(a)?, b),
            Op::Unshare => sys::unshare(a),
            Op::BecomeRoot => sys::setresgid(0).and_then(|()| sys::setresuid(0)),
            Op::Prctl => sys::prctl(a, n, 0).map(drop),
            Op::Keyring => keyring(),
            Op::Setsid => sys::setsid(),
            Op::Hostname => sys::sethostname(self.text(s)?),
            Op::Domainname => sys::setdomainname(self.text(s)?),
            Op::Propagate => sys::propagate(n),
            Op::FsOpen => self.keep(a, sys::fsopen(self.text(s)?)?),
            Op::FsConfig => sys::fsconfig(self.fd(a)?, self.text(s)?, if t == 0 { None } else { Some(self.text(t)?) }),
            Op::FsMount => self.keep(a, sys::fsmount(self.fd(a)?, n)?),
            Op::SetAttr => sys::mount_setattr(self.fd(a)?, n, u64::from(c), b == 1),
            Op::AttachRoot => sys::move_mount_to_root(self.fd(ROOT)?),
            Op::Dest => self.dest(&step),
            Op::Attach => sys::move_mount(self.fd(a)?, self.fd(b)?),
            Op::Write => self.write_file(self.fd(a)?, self.text(s)?, self.text(t)?),
            Op::CloneTree => self.keep(a, self.clone_tree(self.fd(b)?, self.text(s)?)?),
            Op::Mask => self.mask(self.fd(a)?, self.text(s)?),
            Op::ReadOnly => self.read_only(self.text(s)?),
            Op::Pivot => self.pivot(),
            Op::LoUp => lo_up(),
            Op::EnterTime => enter_time(self.fd(a)?),
            Op::Console => self.console(a, n as u32, b == 1, c),
            Op::Rlimit => sys::set_rlimit(a, n, u64::from(s) | u64::from(t) << 32),
            Op::Umask => {
                sys::umask(a);
                Ok(())
            }
            Op::Personality => sys::personality(a),
            Op::MemoryPolicy => sys::set_mempolicy(a, self.data(s, b * 8)?),
            Op::Bounding => drop_bounding(n, c),
            Op::Groups => sys::setgroups(self.data(s, a * 4)?),
            Op::Gid => sys::setresgid(a),
            Op::Uid => {
                own_pipes(a);
                sys::setresuid(a)
            }
            Op::Capset => self.capset(s),
            Op::Ambient => set_ambient(n),
            Op::Chdir => self.chdir(s, a),
            Op::CheckCwd => check_cwd(),
            Op::FindExec => self.find_exec(s, a),
            Op::Ready => self.report(Report::Ready, 0, 0, None),
            Op::Await => self.wait_for_start(a),
            Op::Fork => self.fork(),
            Op::Hook => self.hook(&step),
            Op::CloseFds => self.close_fds(a),
            Op::Seccomp if b & NEW_LISTENER != 0 => self.listen(s, a, b),
            Op::Seccomp => sys::seccomp(self.data(s, a * 8)?, b).map(drop),
            Op::Exec => self.exec(&step),
        }
    }

    /// Finds `path` below the root mount, making it where it is missing, and checks that it is what the mount needs.
    fn dest(&mut self, step: &Step) -> Result<()> {
        let root = self.fd(ROOT)?;
        let no_symlinks = step.c & DEST_NO_SYMLINKS != 0;
        let resolve = INSIDE | if no_symlinks { RESOLVE_NO_SYMLINKS } else { 0 };
        let path = self.text(step.s)?;
        let file = step.b == DEST_LIKE_SLOT && !sys::fstat(self.fd(step.n as u32)?)?.is_dir();
        let how = O_PATH | if step.c & DEST_NOFOLLOW != 0 { O_NOFOLLOW } else { 0 };
        let found = sys::openat2(root, path, how, 0, resolve);
        let was_there = found.is_ok();
        let fd = match found {
            Err(ENOENT) => Paths { root, resolve, file, how }.make(path),
            // The image has a link where a directory must be (CVE-2019-19921): runc's word for it.
            Err(ELOOP) if no_symlinks => Err(ENOTDIR),
            result => result,
        }?;
        // However the image leads there: nothing may hide the files that labels and sysctls are written to (CVE-2019-16884).
        if step.c & DEST_IN_PROC == 0 && sys::fs_type(fd)? == PROC_SUPER_MAGIC {
            return Err(EPERM);
        }
        let stat = sys::fstat(fd)?;
        self.keep(step.a, fd)?;
        let is_dir = stat.is_dir();
        if was_there && is_dir && step.c & DEST_KEEP_MODE != 0 {
            sys::chmod_top(self.fd(step.n as u32)?, stat.mode & 0o7777)?;
        }
        match (file, is_dir) {
            (true, true) => Err(EISDIR),
            (false, false) => Err(ENOTDIR),
            _ => Ok(()),
        }
    }

    fn write_file(&self, dir: i32, path: &CStr, value: &CStr) -> Result<()> {
        let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
        let file = sys::openat2(dir, path, O_WRONLY | O_NOFOLLOW, 0, resolve)?;
        let written = sys::write(file, value.to_bytes());
        sys::close(file);
        written.map(drop)
    }

    /// Our own empty file or directory, not the image's /dev/null (CVE-2025-31133).
    fn mask(&self, empty: i32, path: &CStr) -> Result<()> {
        let Some(target) = self.open_present(path)? else { return Ok(()) };
        let cover = if sys::fstat(target)?.is_dir() { c"dir" } else { c"file" };
        attach_and_close(self.clone_tree(empty, cover)?, target)
    }

    fn clone_tree(&self, mount: i32, path: &CStr) -> Result<i32> {
        match sys::open_tree(mount, path, false) {
            // Before Linux 6.15 only of what is mounted.
            Err(EINVAL) if self.lent.get() < 0 => {
                sys::move_mount(mount, self.fd(ROOT)?)?;
                self.lent.set(mount);
                sys::open_tree(mount, path, false)
            }
            result => result,
        }
    }

    /// Takes what is lent off the root, where nobody has seen them: a root that was entered before does not change.
    pub fn take_back(&self) -> Result<()> {
        sys::fchdir(self.lent.replace(-1))?;
        sys::detach_here()?;
        sys::chdir(c"/")
    }

    fn read_only(&self, path: &CStr) -> Result<()> {
        const MOUNT_ATTR_RDONLY: u64 = 1;
        let Some(target) = self.open_present(path)? else { return Ok(()) };
        let tree = sys::open_tree(target, c"", true)?;
        sys::mount_setattr(tree, MOUNT_ATTR_RDONLY, 0, true)?;
        attach_and_close(tree, target)
    }

    /// None where nothing is there to protect; any other failure is one.
    fn open_present(&self, path: &CStr) -> Result<Option<i32>> {
        match sys::openat2(self.fd(ROOT)?, path, O_PATH, 0, INSIDE) {
            Err(ENOENT | ENOTDIR) => Ok(None),
            result => result.map(Some),
        }
    }

    /// The old root is stacked on the new one by pivot_root(".", "."), as pivot_root(2) describes, and detached from there.
    fn pivot(&self) -> Result<()> {
        sys::fchdir(self.fd(ROOT)?)?;
        sys::pivot_root_here()?;
        sys::detach_here()?;
        sys::chdir(c"/")
    }

    /// Effective, permitted and inheritable set, `u64` each.
    fn capset(&self, at: u32) -> Result<()> {
        let sets = self.data(at, 24)?;
        let set = |index: usize| -> Result<u64> {
            let raw = sets.get(index * 8..index * 8 + 8).ok_or(EBADMSG)?;
            Ok(u64::from_ne_bytes(raw.try_into().map_err(|_| EBADMSG)?))
        };
        sys::capset(set(0)?, set(1)?, set(2)?)
    }

    /// Once as root; where root may not (its capabilities do not reach a network file system), once more as the user.
    fn chdir(&mut self, path: u32, turn: u32) -> Result<()> {
        if turn == 2 && self.in_cwd {
            return Ok(());
        }
        match sys::chdir(self.text(path)?) {
            Err(EACCES) if turn == 1 => Ok(()),
            result => {
                self.in_cwd = result.is_ok();
                result
            }
        }
    }

    /// As execvp(3) searches: the first executable regular file; EACCES if there were only others.
    fn find_exec(&mut self, list: u32, count: u32) -> Result<()> {
        let mut error = ENOENT;
        for index in 0..count {
            let at = word(self.data(list + index * 4, 4)?, 0).ok_or(EBADMSG)?;
            match executable(self.text(at)?) {
                Ok(()) => {
                    self.chosen = at;
                    return Ok(());
                }
                Err(EACCES) => error = EACCES,
                Err(errno) if count == 1 => error = errno,
                Err(_) => {}
            }
        }
        Err(error)
    }

    fn wait_for_start(&mut self, listener: u32) -> Result<()> {
        sys::close(self.control);
        self.control = sys::accept(self.fd(listener)?)?;
        Ok(())
    }

    /// See the table in program.rs. Once the filter is in force nothing can be said any more: to end is all that is left.
    fn listen(&self, filter: u32, count: u32, flags: u32) -> Result<()> {
        let free = sys::lowest_free(self.control)?;
        self.report(Report::Listener, 0, free as u32, None)?;
        let listener = sys::seccomp(self.data(filter, count * 8)?, flags)?;
        let mut go = [0u8];
        let told = listener == free && sys::write(self.control, &[1]) == Ok(1);
        if told && sys::read(self.control, &mut go) == Ok(1) {
            return Ok(());
        }
        sys::exit(1)
    }

    /// Only a child is born into a joined PID namespace, and as our sibling it is the caller's to wait for. Nothing of ours
    /// is left in the parent when the container first sees the child.
    fn fork(&mut self) -> Result<()> {
        let (pid, pidfd) = sys::fork_sibling()?;
        if pid == 0 {
            return Ok(());
        }
        let reported = self.report(Report::Forked, 0, pid, Some(pidfd));
        sys::exit(i32::from(reported.is_err()))
    }

    /// For real, not on exec: /proc/self/fd must be empty before the payload's path is looked up (CVE-2024-21626).
    fn close_fds(&mut self, first: u32) -> Result<()> {
        let control = self.control as u32;
        sys::close_range(first, control.wrapping_sub(1).max(first.wrapping_sub(1)))?;
        sys::close_range(control.max(first.wrapping_sub(1)) + 1, u32::MAX)?;
        self.fds.fill(-1);
        Ok(())
    }

    fn exec(&mut self, step: &Step) -> Result<()> {
        let argv = Pointers::relocate(self.program, step.s as usize, step.a as usize).ok_or(EBADMSG)?;
        let envp = Pointers::relocate(self.program, step.t as usize, step.b as usize).ok_or(EBADMSG)?;
        sys::reset_signals();
        let path = self.text(self.chosen)?;
        let Err(errno) = sys::execve(path, &argv, &envp) else { return Ok(()) };
        if step.c == 1 {
            let _ = self.report(Report::Failed, errno as u32, 0, None);
            sys::close(self.control);
            say_not_executed(path, errno);
            sys::exit(1);
        }
        Err(errno)
    }
}

/// The payload's user may open /dev/stdout as well as write to it: its pipes become its own. Where they belong to nobody in our
/// user namespace, that is not ours to give.
fn own_pipes(uid: u32) {
    for fd in 0..3 {
        if sys::fstat(fd).is_ok_and(|stat| stat.is_fifo()) {
            let _ = sys::chown(fd, uid);
        }
    }
}

/// Where an engine's user looks: in the payload's own output. Last of all: it may be a pipe that nobody reads.
fn say_not_executed(path: &CStr, errno: i32) {
    let why = match errno {
        ENOENT => c"no such file or directory",
        ENOEXEC => c"exec format error",
        EPERM => c"operation not permitted",
        EACCES => c"permission denied",
        E2BIG => c"argument list too long",
        _ => c"can not be executed",
    };
    for part in [c"exec ", path, c": ", why, c"\n"] {
        let _ = sys::write(2, part.to_bytes());
    }
}

pub fn attach_and_close(tree: i32, target: i32) -> Result<()> {
    let attached = sys::move_mount(tree, target);
    sys::close(tree);
    sys::close(target);
    attached
}

fn executable(path: &CStr) -> Result<()> {
    let stat = sys::stat(path)?;
    if stat.is_dir() {
        return Err(if path.to_bytes().contains(&b'/') { EISDIR } else { EACCES });
    }
    if !stat.is_file() {
        return Err(EACCES);
    }
    sys::may_execute(path)
}

fn check_cwd() -> Result<()> {
    let mut path = [0u8; 4096];
    sys::getcwd(&mut path)?;
    if path[0] == b'/' { Ok(()) } else { Err(ENOENT) }
}

fn drop_bounding(keep: u64, last: u32) -> Result<()> {
    for cap in (0..=last).filter(|cap| keep & 1 << cap == 0) {
        sys::prctl(PR_CAPBSET_DROP, u64::from(cap), 0)?;
    }
    Ok(())
}

fn set_ambient(mask: u64) -> Result<()> {
    const RAISE: u64 = 2;
    const CLEAR_ALL: u64 = 4;
    sys::prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0)?;
    for cap in (0..64).filter(|cap| mask & 1 << cap != 0) {
        sys::prctl(PR_CAP_AMBIENT, RAISE, cap)?;
    }
    Ok(())
}

/// An execve enters it since Linux 6.3 only (time_namespaces(7)).
fn enter_time(proc: i32) -> Result<()> {
    let namespace = sys::openat2(proc, c"self/ns/time_for_children", 0, 0, 0)?;
    let entered = sys::setns(namespace, CLONE_NEWTIME);
    sys::close(namespace);
    entered
}

/// SIOCSIFFLAGS on "lo" (netdevice(7)): struct ifreq is 40 bytes, the name in the first 16, the flags after it.
fn lo_up() -> Result<()> {
    const SIOCSIFFLAGS: u32 = 0x8914;
    const IFF_UP: u32 = 1;
    let mut request = [0u32; 10];
    request[0] = u32::from_ne_bytes(*b"lo\0\0");
    request[4] = IFF_UP;
    let socket = sys::inet_socket()?;
    let result = sys::ioctl_buffer(socket, SIOCSIFFLAGS, &mut request);
    sys::close(socket);
    result
}

fn keyring() -> Result<()> {
    match sys::join_new_session_keyring() {
        Err(ENOSYS) => Ok(()),
        result => result,
    }
}
