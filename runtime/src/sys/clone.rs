// SPDX-License-Identifier: Apache-2.0
//! One clone3(2) into all namespaces, and the few instructions between it and the execution of the init.
//!
//! As a rule the child shares the caller's memory (CLONE_VM) on a stack of its own: no page table is copied, however large the host
//! program is. So until its exec it may do nothing but raw system calls: no libc (errno is thread-local), no panic, no lock,
//! no return.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;

use super::bare::{CloneArgs, clone3, raw};
use super::join::{self, Join};

/// CLONE_CLEAR_SIGHAND and CLONE_INTO_CGROUP of clone(2); above the 32 bits of libc's constants.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const STACK: usize = 32 * 1024;

/// Why there is no child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// clone3(2) failed
    Clone(Errno),
    /// The namespace with this index can not be joined
    Join(usize, Errno),
}

impl From<Failed> for Errno {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Clone(errno) | Failed::Join(_, errno) => errno,
        }
    }
}

/// What the embedded program is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The init of a container
    Init,
    /// The monitor of one: the caller waits until it is executed
    Monitor,
}

/// What the child is born into, and what it executes.
pub struct Spawn<'a> {
    /// What the program is to be
    pub role: Role,
    /// Namespaces to join before the new ones are made
    pub join: &'a [Join<'a>],
    /// CLONE_NEW* flags
    pub namespaces: u64,
    /// A cgroup v2 directory to be born in
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The init's program file
    pub init: BorrowedFd<'a>,
    /// The init's end of the control socket
    pub control: BorrowedFd<'a>,
    /// Descriptors below this number are inherited, all others closed
    pub keep_below: u32,
    /// Share the caller's memory until the init is executed; else it is copied, which takes longer the larger it is, but the
    /// caller survives if the child is killed for want of memory (mm/oom_kill.c ends all that share it)
    pub share_memory: bool,
    /// Raise ambient capabilities: in a new user namespace without maps nothing else carries them over an exec
    pub ambient: bool,
    /// The highest capability of the kernel
    pub last_cap: u32,
    /// Leave the init's /proc files its owner's until the program says otherwise: for a caller who needs them, and has no rights of the
    /// host's root
    pub dumpable: bool,
}

/// A child that is on its way to the init.
pub struct Spawned {
    /// Its pid in our PID namespace
    pub pid: Pid,
    /// Its pidfd
    pub pidfd: OwnedFd,
    stack: ManuallyDrop<Vec<u8>>,
    setup: ManuallyDrop<Box<Setup>>,
}

impl Spawned {
    /// Frees the stack. To be called only when the child has executed the init or ended, as the caller knows from the control
    /// socket or the pidfd; without it, the stack is leaked rather than pulled from under the child.
    pub fn executed(self) -> (Pid, OwnedFd) {
        drop(ManuallyDrop::into_inner(self.stack));
        drop(ManuallyDrop::into_inner(self.setup));
        (self.pid, self.pidfd)
    }

    /// What failed before the exec, if anything did: a name for the step, and why.
    pub fn early_failure(&self) -> Option<(&'static str, Errno)> {
        match (self.setup.failed_step.load(Ordering::Acquire), self.setup.errno.load(Ordering::Acquire)) {
            (0, _) => None,
            (step, errno) => Some((EARLY_STEPS[step as usize - 1], Errno::from_raw(errno))),
        }
    }
}

const EARLY_STEPS: [&str; 4] = ["capset", "prctl(PR_CAP_AMBIENT_RAISE)", "close_range", "execveat of the init"];

/// What the child reads, and where it leaves word of a failure: memory is shared until the exec.
struct Setup {
    init: i32,
    control: i32,
    keep_below: u32,
    ambient: bool,
    last_cap: u32,
    name: &'static CStr,
    argument: [u8; 13],
    failed_step: AtomicI32,
    errno: AtomicI32,
}

/// Spawns the init. Blocks every signal of this thread meanwhile, so that no handler of the host runs in the child.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, Failed> {
    let mut stack = vec![0u8; STACK];
    let setup = Box::new(Setup {
        init: spawn.init.as_raw_fd(),
        control: spawn.control.as_raw_fd(),
        keep_below: spawn.keep_below,
        ambient: spawn.ambient,
        last_cap: spawn.last_cap,
        name: if spawn.role == Role::Init { c"wsbox-init" } else { c"wsbox-monitor" },
        argument: argument(spawn.role, spawn.dumpable, spawn.control.as_raw_fd()),
        failed_step: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    });
    let mut pidfd = -1i32;
    let mut args = CloneArgs {
        flags: spawn.namespaces | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    if spawn.share_memory {
        args.flags |= libc::CLONE_VM as u64;
    }
    if spawn.role == Role::Monitor {
        args.flags |= libc::CLONE_VFORK as u64;
    }
    if let Some(cgroup) = spawn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask)).map_err(Failed::Clone)?;
    let setup_pointer: *const Setup = &raw const *setup;
    let result = if spawn.join.is_empty() {
        // SAFETY: args is a struct clone_args with a stack of its own, which Spawned keeps, as it does setup; child() never
        // returns and obeys the rules at the top of this file.
        let result = unsafe { clone3(&args, child, setup_pointer.cast()) };
        if result < 0 { Err(Failed::Clone(Errno::from_raw(-result as i32))) } else { Ok((result as i32, pidfd)) }
    } else {
        // SAFETY: as above; the copy of our memory that they see lives as long as they do.
        unsafe { join::clone3_into(spawn.join, &args, child, setup_pointer.cast()) }
    };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(Failed::Clone)?;
    let (pid, pidfd) = result?;
    // SAFETY: the kernel stored the new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid: Pid::from_raw(pid), pidfd, stack: ManuallyDrop::new(stack), setup: ManuallyDrop::new(setup) })
}

/// The child: raise capabilities, mark what is not granted close-on-exec, execute the init.
///
/// # Safety
/// Only clone3 may call it, in the child, with the setup of this spawn.
unsafe extern "C" fn child(setup: *const c_void) -> ! {
    // SAFETY: the parent keeps the setup until our exec.
    let setup = unsafe { &*setup.cast::<Setup>() };
    // SAFETY: raw system calls on the setup's own memory.
    let (step, errno) = unsafe { become_init(setup) };
    setup.errno.store(-errno as i32, Ordering::Release);
    setup.failed_step.store(step, Ordering::Release);
    loop {
        // SAFETY: a number only.
        unsafe { raw(libc::SYS_exit_group, 1, 0, 0, 0, 0) };
    }
}

/// # Safety
/// As `child`.
#[inline(always)]
unsafe fn become_init(setup: &Setup) -> (i32, isize) {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    if setup.ambient {
        // SAFETY: as this function's.
        let failed = unsafe { raise_ambient(setup.last_cap) };
        if failed.1 < 0 {
            return failed;
        }
    }
    // SAFETY: numbers only.
    let result =
        unsafe { raw(libc::SYS_close_range, setup.keep_below as usize, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0) };
    if result < 0 {
        return (3, result);
    }
    let argv = [setup.name.as_ptr() as usize, setup.argument.as_ptr() as usize, 0];
    let envp = [0usize];
    // SAFETY: argv and envp are NULL-terminated arrays of C strings that live through the call.
    unsafe {
        raw(libc::SYS_fcntl, setup.control as usize, libc::F_SETFD as usize, 0, 0, 0);
        let empty = c"".as_ptr() as usize;
        let (argv, envp) = (argv.as_ptr() as usize, envp.as_ptr() as usize);
        (4, raw(libc::SYS_execveat, setup.init as usize, empty, argv, envp, libc::AT_EMPTY_PATH as usize))
    }
}

/// # Safety
/// As `child`.
#[inline(always)]
unsafe fn raise_ambient(last_cap: u32) -> (i32, isize) {
    let all = u64::MAX >> (63 - last_cap);
    let (low, high) = (all as u32, (all >> 32) as u32);
    let header = [0x2008_0522u32, 0];
    let sets = [low, low, low, high, high, high];
    // SAFETY: header and sets are what capset(2) version 3 takes.
    let result = unsafe { raw(libc::SYS_capset, header.as_ptr() as usize, sets.as_ptr() as usize, 0, 0, 0) };
    if result < 0 {
        return (1, result);
    }
    for cap in 0..=last_cap {
        let (option, raise) = (libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize);
        // SAFETY: numbers only.
        let result = unsafe { raw(libc::SYS_prctl, option, raise, cap as usize, 0, 0) };
        if result < 0 {
            return (2, result);
        }
    }
    (0, 0)
}

/// The number of the control socket, after an `m` for a monitor, a `d` for an init that stays dumpable.
fn argument(role: Role, dumpable: bool, control: i32) -> [u8; 13] {
    let mut text = [0; 13];
    let role = match role {
        Role::Monitor => "m",
        Role::Init if dumpable => "d",
        Role::Init => "",
    };
    for (to, byte) in text.iter_mut().zip(format!("{role}{control}").bytes()) {
        *to = byte;
    }
    text
}
