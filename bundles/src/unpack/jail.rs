// SPDX-License-Identifier: Apache-2.0
//! What the child shuts itself in before it reads the first byte: the folder as its root, five capabilities, little memory, and a
//! filter that knows no network, no other process and no program to run.

use std::collections::BTreeMap;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::{Context, Error, Result};

/// Bytes of memory: a zstd window has 128 MiB at most, and names of a million entries fit.
const MEMORY: u64 = 1 << 30;
/// Descriptors: a stream, the report, a file, and what walking a tree takes.
const FILES: u64 = 256;

/// What files of an image take: their owner, mode and capabilities, whoever may write where.
const KEPT: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETFCAP,
];

/// Files and memory of one's own.
const ALLOWED: [libc::c_long; 59] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_lgetxattr,
    libc::SYS_llistxattr,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The older names of the same, which musl uses where there are some.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
];

/// Makes the working directory all that there is. It can not be undone.
///
/// # Errors
/// If one of the walls can not be put up: then nothing may be unpacked.
pub fn enter() -> Result<()> {
    let context = |what: &'static str| move || format!("jail of the unpacker: {what}");
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context(context("memory limit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).context(context("limit of descriptors"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context(context("limit of core files"))?;
    close_others().context(context("descriptors"))?;
    if !nix::unistd::geteuid().is_root() {
        own_user_namespace().context(context("user namespace"))?;
    }
    nix::unistd::chroot(".").context(context("chroot"))?;
    nix::unistd::chdir("/").context(context("chdir"))?;
    // Modes are the image's to say.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    capabilities().context(context("capabilities"))?;
    filter().map_err(|why| Error::new("jail of the unpacker: seccomp", why))
}

/// Root's rights over a user's own files, and nothing else (user_namespaces(7)).
fn own_user_namespace() -> std::io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn capabilities() -> Result<(), caps::errors::CapsError> {
    for capability in caps::all().into_iter().filter(|known| !KEPT.contains(known)) {
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or_default() {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = held.into_iter().filter(|known| KEPT.contains(known)).collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// If the argument is `value`.
fn rule(argument: u8, value: u64) -> Result<SeccompRule, String> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(|error| error.to_string())
}

/// What the caller's caller left open: a folder of the host's would lead out.
fn close_others() -> std::io::Result<()> {
    let open =
        std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for fd in open.collect::<Vec<_>>().into_iter().filter(|fd| *fd > 2) {
        // One was the folder that was read, which is closed by now.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

fn filter() -> Result<(), String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    // abort(3) signals itself, and nobody else; no descriptor gets an owner to signal (fcntl(2), F_SETOWN).
    let own = nix::unistd::gettid().as_raw().unsigned_abs().into();
    rules.insert(libc::SYS_tkill, vec![rule(0, own)?]);
    let harmless = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC];
    let harmless = harmless.into_iter().map(|command| rule(1, command.unsigned_abs().into()));
    rules.insert(libc::SYS_fcntl, harmless.collect::<Result<_, _>>()?);
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| error.to_string())?;
    // It sets no_new_privs first.
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}
