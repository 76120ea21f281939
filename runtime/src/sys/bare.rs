// SPDX-License-Identifier: Apache-2.0
//! System calls by instruction, for children that share memory with the host program or may be copies of one with threads:
//! no libc (errno is thread-local, and another thread may hold its locks), no panic, no return.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::c_void;

/// Where a child begins.
pub type Entry = unsafe extern "C" fn(*const c_void) -> !;

/// struct clone_args of clone(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// clone3(2): the pid in the parent, or a negative errno. The child calls `entry` with `argument` on its new stack.
///
/// # Safety
/// `args` must give a stack; it and `argument` must live until the child's exec or end, and `entry` obey the rules above.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone3(args: &CloneArgs, entry: Entry, argument: *const c_void) -> isize {
    let result: isize;
    // SAFETY: the caller's. In the child nothing but rax and rsp differ; it calls entry(argument) and never comes back.
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f",
            "xor ebp, ebp", "and rsp, -16", "mov rdi, r12", "call r13", "ud2", "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(), in("r12") argument, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// clone3(2): the pid in the parent, or a negative errno. The child calls `entry` with `argument` on its new stack.
///
/// # Safety
/// `args` must give a stack; it and `argument` must live until the child's exec or end, and `entry` obey the rules above.
#[cfg(target_arch = "aarch64")]
pub unsafe fn clone3(args: &CloneArgs, entry: Entry, argument: *const c_void) -> isize {
    let result: isize;
    // SAFETY: the caller's. In the child nothing but x0 and sp differ; it calls entry(argument) and never comes back.
    unsafe {
        asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, {argument}", "blr {entry}", "brk 1", "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
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
pub unsafe fn raw(nr: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
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
pub unsafe fn raw(nr: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller's.
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack));
    }
    result
}
