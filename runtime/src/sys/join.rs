// SPDX-License-Identifier: Apache-2.0
//! A child in user and PID namespaces that exist: a go-between, a copy of this process with one thread (setns(2) demands it for
//! a user namespace), joins them and makes the child there, as its sibling, so that it is ours to wait for.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::bare::{CloneArgs, Entry, clone3, raw};
use super::clone::Failed;
use super::pidfd;

const STACK: usize = 16 * 1024;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// A namespace to join, and its CLONE_NEW* flag.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// An open file of nsfs
    pub namespace: BorrowedFd<'a>,
    /// What it has to be
    pub kind: i32,
}

/// What the go-between does, in its copy of our memory.
struct Order<'a> {
    joins: &'a [Join<'a>],
    args: CloneArgs,
    entry: Entry,
    argument: *const c_void,
    told: *const Told,
}

/// What it tells, in memory that is shared.
struct Told {
    pid: AtomicI32,
    pidfd: AtomicI32,
    errno: AtomicI32,
    /// How many namespaces it joined
    joined: AtomicI32,
}

/// clone3(2) once `joins` are joined, in their order: the child's pid and pidfd.
///
/// # Safety
/// As for [`clone3`].
pub unsafe fn clone3_into(
    joins: &[Join<'_>],
    args: &CloneArgs,
    entry: Entry,
    argument: *const c_void,
) -> Result<(i32, i32), Failed> {
    let size = NonZeroUsize::new(size_of::<Told>()).ok_or(Failed::Clone(Errno::EINVAL))?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new anonymous mapping, wherever the kernel puts it.
    let memory = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_SHARED) }.map_err(Failed::Clone)?;
    // SAFETY: it is a page of zeros, which is a valid Told, and is unmapped only below.
    let told = unsafe { memory.cast::<Told>().as_ref() };
    let pidfd = (&raw const told.pidfd) as u64;
    let args = CloneArgs { flags: args.flags | libc::CLONE_PARENT as u64, pidfd, ..*args };
    // SAFETY: the caller's.
    let result = unsafe { go_between(&Order { joins, args, entry, argument, told }) };
    let result =
        result.and_then(|()| match (told.errno.load(Ordering::Acquire), told.joined.load(Ordering::Acquire)) {
            (0, _) => Ok((told.pid.load(Ordering::Acquire), told.pidfd.load(Ordering::Acquire))),
            (errno, joined) if (joined as usize) < joins.len() => {
                Err(Failed::Join(joined as usize, Errno::from_raw(errno)))
            }
            (errno, _) => Err(Failed::Clone(Errno::from_raw(errno))),
        });
    // SAFETY: the go-between has ended, and the child does not know of it.
    let _ = unsafe { munmap(memory, size.get()) };
    result
}

/// Runs the go-between to its end. It shares our descriptors, so that the child's pidfd is ours.
///
/// # Safety
/// As for [`clone3`].
unsafe fn go_between(order: &Order<'_>) -> Result<(), Failed> {
    let mut stack = vec![0u8; STACK];
    let mut own = -1i32;
    let args = CloneArgs {
        flags: CLONE_CLEAR_SIGHAND | (libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut own) as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    // SAFETY: args has a stack; run() makes raw system calls only, and ends.
    let result = unsafe { clone3(&args, run, std::ptr::from_ref(order).cast()) };
    if result < 0 {
        return Err(Failed::Clone(Errno::from_raw(-result as i32)));
    }
    // SAFETY: the kernel stored the new descriptor there.
    let own = unsafe { OwnedFd::from_raw_fd(own) };
    match pidfd::wait(&own) {
        Ok(pidfd::Exit::Code(0)) => Ok(()),
        Ok(_) => Err(Failed::Clone(Errno::ESRCH)),
        Err(errno) => Err(Failed::Clone(errno)),
    }
}

/// # Safety
/// Only clone3 may call it, with an order.
unsafe extern "C" fn run(order: *const c_void) -> ! {
    // SAFETY: our copy of it.
    let order = unsafe { &*order.cast::<Order<'_>>() };
    // SAFETY: mapped until we have ended.
    let told = unsafe { &*order.told };
    let mut result = 0;
    for join in order.joins {
        let namespace = join.namespace.as_raw_fd() as usize;
        // SAFETY: numbers only.
        result = unsafe { raw(libc::SYS_setns, namespace, join.kind as usize, 0, 0, 0) };
        if result < 0 {
            break;
        }
        told.joined.fetch_add(1, Ordering::Release);
    }
    if result == 0 {
        // SAFETY: the caller's.
        result = unsafe { clone3(&order.args, order.entry, order.argument) };
    }
    if result < 0 {
        told.errno.store(-result as i32, Ordering::Release);
    }
    told.pid.store(result as i32, Ordering::Release);
    loop {
        // SAFETY: a number only.
        unsafe { raw(libc::SYS_exit_group, 0, 0, 0, 0, 0) };
    }
}
