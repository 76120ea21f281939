// SPDX-License-Identifier: Apache-2.0
//! One clone3(2) into all namespaces, and the few instructions between it and the execution of the init.
//!
//! As a rule the child shares the caller's memory (CLONE_VM) on a stack of its own: no page table is copied, however large the host
//! program is. So until its exec it may do nothing but raw system calls: no libc (errno is thread-local), no panic, no lock,
//! no return.
#![allow(unsafe_code)]

use std::arch::asm;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;

/// CLONE_CLEAR_SIGHAND and CLONE_INTO_CGROUP of clone(2); above the 32 bits of libc's constants.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const STACK: usize = 32 * 1024;

/// What the child is born into, and what it executes.
pub struct Spawn<'a> {
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
    argument: [u8; 12],
    failed_step: AtomicI32,
    errno: AtomicI32,
}

/// struct clone_args of clone(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Spawns the init. Blocks every signal of this thread meanwhile, so that no handler of the host runs in the child.
pub fn spawn(spawn: &Spawn<'_>) -> nix::Result<Spawned> {
    let mut stack = vec![0u8; STACK];
    let setup = Box::new(Setup {
        init: spawn.init.as_raw_fd(),
        control: spawn.control.as_raw_fd(),
        keep_below: spawn.keep_below,
        ambient: spawn.ambient,
        last_cap: spawn.last_cap,
        argument: decimal(spawn.control.as_raw_fd()),
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
    if let Some(cgroup) = spawn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    // SAFETY: args is a struct clone_args with a stack of its own, which Spawned keeps, as it does setup; child() never
    // returns and obeys the rules at the top of this file.
    let result = unsafe { clone3(&args, &setup) };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    if result < 0 {
        return Err(Errno::from_raw(-result as i32));
    }
    // SAFETY: the kernel stored the new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned {
        pid: Pid::from_raw(result as i32),
        pidfd,
        stack: ManuallyDrop::new(stack),
        setup: ManuallyDrop::new(setup),
    })
}

/// clone3 itself: the pid in the parent, or a negative errno. The child goes to `child` on its new stack.
///
/// # Safety
/// `args` must give a stack; it and `setup` must live until the child's exec.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, setup: &Setup) -> isize {
    let result: isize;
    // SAFETY: the caller's. In the child nothing but rax and rsp differ; it calls child(setup) and never comes back.
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f",
            "xor ebp, ebp", "and rsp, -16", "mov rdi, r12", "call {child}", "ud2", "2:",
            child = sym child,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(), in("r12") setup,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// clone3 itself: the pid in the parent, or a negative errno. The child goes to `child` on its new stack.
///
/// # Safety
/// `args` must give a stack; it and `setup` must live until the child's exec.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, setup: &Setup) -> isize {
    let result: isize;
    // SAFETY: the caller's. In the child nothing but x0 and sp differ; it calls child(setup) and never comes back.
    unsafe {
        asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, {setup}", "bl {child}", "brk 1", "2:",
            child = sym child,
            setup = in(reg) setup,
            in("x8") libc::SYS_clone3,
            inlateout("x0") args as *const CloneArgs as isize => result, in("x1") size_of::<CloneArgs>(),
        );
    }
    result
}

/// A system call without libc.
///
/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
unsafe fn raw(nr: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller's.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call without libc.
///
/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[inline(always)]
#[cfg(target_arch = "aarch64")]
unsafe fn raw(nr: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller's.
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack));
    }
    result
}

/// The child: raise capabilities, mark what is not granted close-on-exec, execute the init.
///
/// # Safety
/// Only clone3 above may call it, in the child, with the setup of this spawn.
unsafe extern "C" fn child(setup: *const Setup) -> ! {
    // SAFETY: the parent keeps the setup until our exec.
    let setup = unsafe { &*setup };
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
    let argv = [c"wsbox-init".as_ptr() as usize, setup.argument.as_ptr() as usize, 0];
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

fn decimal(number: i32) -> [u8; 12] {
    let mut text = [0; 12];
    for (to, digit) in text.iter_mut().zip(number.to_string().bytes()) {
        *to = digit;
    }
    text
}
