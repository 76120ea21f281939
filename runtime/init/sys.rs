// SPDX-License-Identifier: Apache-2.0
//! The system calls of the init, and all of its unsafe code but the entry point and memory functions in rt.rs.
//!
//! Every wrapper takes borrowed, bounds-checked data, so that a caller needs no unsafe code; a result is the kernel's value
//! or its error number.

use core::arch::asm;
use core::ffi::CStr;

/// A value, or the kernel's errno.
pub type Result<T> = core::result::Result<T, i32>;

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const E2BIG: i32 = 7;
pub const ENOEXEC: i32 = 8;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOSYS: i32 = 38;
pub const ELOOP: i32 = 40;
pub const EPROTO: i32 = 71;
pub const ETIMEDOUT: i32 = 110;
pub const ECANCELED: i32 = 125;
pub const EBADMSG: i32 = 74;

pub const AT_FDCWD: i32 = -100;
const AT_EMPTY_PATH: u32 = 0x1000;

pub const O_WRONLY: u64 = 1;
pub const O_RDWR: u64 = 2;
pub const O_CREAT: u64 = 0o100;
pub const O_EXCL: u64 = 0o200;
pub const O_NOCTTY: u64 = 0o400;
pub const O_CLOEXEC: u64 = 0o2000000;
pub const O_PATH: u64 = 0o10000000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: u64 = 0o400000;
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: u64 = 0o100000;

pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

macro_rules! numbers {
    ($($name:ident $x86_64:literal $aarch64:literal)*) => {
        mod nr { $(
            #[cfg(target_arch = "x86_64")] pub const $name: usize = $x86_64;
            #[cfg(target_arch = "aarch64")] pub const $name: usize = $aarch64;
        )* }
    };
}
numbers! {
    READ 0 63  WRITE 1 64  CLOSE 3 57  MMAP 9 222  RT_SIGACTION 13 134  RT_SIGPROCMASK 14 135  IOCTL 16 29
    FCNTL 72 25  SOCKET 41 198  SENDMSG 46 211  RECVMSG 47 212  EXECVE 59 221  GETCWD 79 17  CHDIR 80 49  FCHDIR 81 50
    UMASK 95 166  SETSID 112 157  SETGROUPS 116 159  SETRESUID 117 147  SETRESGID 119 149  CAPSET 126 91  FSTATFS 138 44
     PPOLL 271 73  PIDFD_SEND_SIGNAL 424 424  WAITID 247 95  PERSONALITY 135 92  SET_MEMPOLICY 238 237  PIVOT_ROOT 155 41  PRCTL 157 167  MOUNT 165 40  UMOUNT2 166 39  SETHOSTNAME 170 161
    SETDOMAINNAME 171 162  EXIT_GROUP 231 94  KEYCTL 250 219  FCHOWNAT 260 54  FCHMODAT 268 53  MKDIRAT 258 34  READLINKAT 267 78  NEWFSTATAT 262 79
    UNSHARE 272 97  ACCEPT4 288 242  DUP3 292 24  PRLIMIT64 302 261  SETNS 308 268  SECCOMP 317 277  OPEN_TREE 428 428
    MOVE_MOUNT 429 429  FSOPEN 430 430  FSCONFIG 431 431  FSMOUNT 432 432  CLONE3 435 435  CLOSE_RANGE 436 436
    OPENAT2 437 437  FACCESSAT2 439 439  MOUNT_SETATTR 442 442  CHROOT 161 51  CLOCK_GETTIME 228 113
}

/// A pointer or a number, as the kernel takes it.
trait Arg {
    fn arg(self) -> usize;
}
impl Arg for usize {
    fn arg(self) -> usize {
        self
    }
}
impl Arg for u64 {
    fn arg(self) -> usize {
        self as usize
    }
}
impl Arg for u32 {
    fn arg(self) -> usize {
        self as usize
    }
}
impl Arg for i32 {
    fn arg(self) -> usize {
        self as isize as usize
    }
}
impl Arg for &CStr {
    fn arg(self) -> usize {
        self.as_ptr() as usize
    }
}
impl<T> Arg for *const T {
    fn arg(self) -> usize {
        self as usize
    }
}
impl<T> Arg for *mut T {
    fn arg(self) -> usize {
        self as usize
    }
}

/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[cfg(target_arch = "x86_64")]
unsafe fn call(nr: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller's; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[cfg(target_arch = "aarch64")]
unsafe fn call(nr: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller's.
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") a[0] as isize => result, in("x1") a[1], in("x2") a[2], in("x3") a[3],
            in("x4") a[4], in("x5") a[5], options(nostack));
    }
    result
}

/// Calls the kernel: `sys!(NAME, arguments…)`, each a number, a C string or a pointer to a local.
macro_rules! sys {
    ($nr:ident $(, $arg:expr)*) => {{
        let given: &[usize] = &[$( Arg::arg($arg) ),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        // SAFETY: every pointer that the wrappers below pass comes from a live reference of the size that the call uses.
        check(unsafe { call(nr::$nr, args) })
    }};
}

fn check(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
}

pub fn exit(code: i32) -> ! {
    let _ = sys!(EXIT_GROUP, code);
    // A filter denies it. A fault ends also the first process of a PID namespace (kernel/signal.c, force_sig_info_to_task).
    // SAFETY: the instruction is undefined on purpose, and nothing comes after it.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("ud2", options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("udf #0", options(noreturn));
    }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    sys!(READ, fd, buffer.as_mut_ptr(), buffer.len())
}

pub fn write(fd: i32, data: &[u8]) -> Result<usize> {
    sys!(WRITE, fd, data.as_ptr(), data.len())
}

pub fn close(fd: i32) {
    let _ = sys!(CLOSE, fd);
}

pub fn close_range(first: u32, last: u32) -> Result<()> {
    if first > last { Ok(()) } else { sys!(CLOSE_RANGE, first, last, 0u32).map(drop) }
}

/// The number that the next new descriptor gets.
pub fn lowest_free(any: i32) -> Result<i32> {
    const F_DUPFD_CLOEXEC: u32 = 1030;
    let free = sys!(FCNTL, any, F_DUPFD_CLOEXEC, 0u32)? as i32;
    close(free);
    Ok(free)
}

pub fn close_on_exec(fd: i32) -> Result<()> {
    const F_SETFD: u32 = 2;
    const FD_CLOEXEC: u32 = 1;
    sys!(FCNTL, fd, F_SETFD, FD_CLOEXEC).map(drop)
}

/// The whole of a sealed memfd, privately mapped and writable, for as long as the process lives.
pub fn map(fd: i32, len: usize) -> Result<&'static mut [u8]> {
    let at = sys!(MMAP, 0usize, len, 3u32, 2u32, fd, 0usize)?;
    // SAFETY: the kernel mapped len bytes there for us alone; the file is sealed, so it can not shrink below them.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut u8, len) })
}

pub fn setns(fd: i32, flags: u32) -> Result<()> {
    sys!(SETNS, fd, flags).map(drop)
}

pub fn unshare(flags: u32) -> Result<()> {
    sys!(UNSHARE, flags).map(drop)
}

pub fn setresuid(uid: u32) -> Result<()> {
    sys!(SETRESUID, uid, uid, uid).map(drop)
}

pub fn setresgid(gid: u32) -> Result<()> {
    sys!(SETRESGID, gid, gid, gid).map(drop)
}

/// `groups` holds `u32` numbers.
pub fn setgroups(groups: &[u8]) -> Result<()> {
    sys!(SETGROUPS, groups.len() / 4, groups.as_ptr()).map(drop)
}

pub fn personality(domain: u32) -> Result<()> {
    sys!(PERSONALITY, domain).map(drop)
}

/// The kernel reads one bit less than it is told of (mm/mempolicy.c, get_nodes).
pub fn set_mempolicy(mode: u32, mask: &[u8]) -> Result<()> {
    // One more than are read, also where that is none: 0 would be read as more than any (mm/mempolicy.c, get_nodes).
    sys!(SET_MEMPOLICY, mode, mask.as_ptr(), mask.len() * 8 + 1).map(drop)
}

pub fn prctl(option: u32, a: u64, b: u64) -> Result<usize> {
    sys!(PRCTL, option, a, b, 0u32, 0u32)
}

/// Without a name: by name it would be anybody's who had made one of that name before.
pub fn join_new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
    sys!(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0u32).map(drop)
}

pub fn setsid() -> Result<()> {
    sys!(SETSID).map(drop)
}

pub fn sethostname(name: &CStr) -> Result<()> {
    sys!(SETHOSTNAME, name, name.to_bytes().len()).map(drop)
}

pub fn setdomainname(name: &CStr) -> Result<()> {
    sys!(SETDOMAINNAME, name, name.to_bytes().len()).map(drop)
}

pub fn umask(mask: u32) {
    let _ = sys!(UMASK, mask);
}

pub fn fchdir(dir: i32) -> Result<()> {
    sys!(FCHDIR, dir).map(drop)
}

pub fn chdir(path: &CStr) -> Result<()> {
    sys!(CHDIR, path).map(drop)
}

/// The raw call, which says "(unreachable)" where libc would not.
pub fn getcwd(buffer: &mut [u8]) -> Result<usize> {
    sys!(GETCWD, buffer.as_mut_ptr(), buffer.len())
}

pub fn dup_onto(from: i32, to: i32) -> Result<()> {
    sys!(DUP3, from, to, 0u32).map(drop)
}

pub fn ioctl(fd: i32, request: u32, value: usize) -> Result<i32> {
    sys!(IOCTL, fd, request, value).map(|value| value as i32)
}

pub fn ioctl_buffer(fd: i32, request: u32, buffer: &mut [u32]) -> Result<()> {
    sys!(IOCTL, fd, request, buffer.as_mut_ptr()).map(drop)
}

pub fn inet_socket() -> Result<i32> {
    const AF_INET: u32 = 2;
    const SOCK_DGRAM: u32 = 2;
    sys!(SOCKET, AF_INET, SOCK_DGRAM | O_CLOEXEC as u32, 0u32).map(|fd| fd as i32)
}

pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    sys!(PRLIMIT64, 0u32, resource, limit.as_ptr(), 0usize).map(drop)
}

/// capset(2), version 3: the low and the high words in turn.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = [0x2008_0522u32, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    sys!(CAPSET, header.as_ptr(), data.as_ptr()).map(drop)
}

// After the macro that they are written with.
mod files;
mod message;
mod mount;
mod notify;
mod process;
pub use files::*;
pub use message::*;
pub use mount::*;
pub use notify::*;
pub use process::*;
