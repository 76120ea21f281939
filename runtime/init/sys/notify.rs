// SPDX-License-Identifier: Apache-2.0
//! The monitor's system calls: seccomp_unotify(2), poll(2), shared memory.

use core::sync::atomic::AtomicU64;

use super::*;

/// linux/seccomp.h, struct seccomp_notif; its seccomp_data as 32-bit words, the number and the architecture first.
#[repr(C)]
#[derive(Default)]
pub struct Notification {
    pub id: u64,
    pub pid: u32,
    flags: u32,
    pub data: [u32; 16],
}

impl Notification {
    /// The call's number, and its architecture in the upper half.
    pub fn number(&self) -> u64 {
        u64::from(self.data[0]) | u64::from(self.data[1]) << 32
    }
}

/// linux/seccomp.h, struct seccomp_notif_resp
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: u32 = 0xc050_2100;
const NOTIF_SEND: u32 = 0xc018_2101;
const NOTIF_ID_VALID: u32 = 0x4008_2102;

/// The next call that waits at a listener.
pub fn notification(listener: i32, call: &mut Notification) -> Result<()> {
    sys!(IOCTL, listener, NOTIF_RECV, call as *mut Notification).map(drop)
}

/// Fails call `id` with `errno`; that it was killed meanwhile is no error.
pub fn answer(listener: i32, id: u64, errno: i32) {
    let response = Response { id, value: 0, error: -errno, flags: 0 };
    let _ = sys!(IOCTL, listener, NOTIF_SEND, &raw const response);
}

/// Whether the caller still waits.
pub fn notification_is_valid(listener: i32, id: u64) -> bool {
    sys!(IOCTL, listener, NOTIF_ID_VALID, &raw const id).is_ok()
}

/// Lets the callers of a listener wake us on their own CPU; ENOTTY before Linux 6.6.
pub fn wake_here(listener: i32) {
    const NOTIF_SET_FLAGS: u32 = 0x4008_2104;
    const FD_SYNC_WAKE_UP: u32 = 1;
    let _ = sys!(IOCTL, listener, NOTIF_SET_FLAGS, FD_SYNC_WAKE_UP);
}

/// ppoll(2) of an array of struct pollfd, a word each; none waits for ever.
pub fn poll(fds: &mut [u64], nanos: Option<u64>) -> Result<usize> {
    let time = nanos.map(|nanos| [nanos / 1_000_000_000, nanos % 1_000_000_000]);
    let time = time.as_ref().map_or(core::ptr::null(), |time| time.as_ptr());
    sys!(PPOLL, fds.as_mut_ptr(), fds.len(), time, 0usize, 0usize)
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn clock() -> u64 {
    nanoseconds_of(1)
}

/// Nanoseconds that we have run on a CPU: CLOCK_PROCESS_CPUTIME_ID.
pub fn cpu_time() -> u64 {
    nanoseconds_of(2)
}

fn nanoseconds_of(clock: u32) -> u64 {
    let mut time = [0u64; 2];
    let _ = sys!(CLOCK_GETTIME, clock, time.as_mut_ptr());
    time[0] * 1_000_000_000 + time[1]
}

/// The first `len` bytes of a file, shared with whoever else maps them, for as long as the process lives.
pub fn map_shared(fd: i32, len: usize) -> Result<&'static [AtomicU64]> {
    const READ_WRITE: u32 = 3;
    const MAP_SHARED: u32 = 1;
    let at = sys!(MMAP, 0usize, len, READ_WRITE, MAP_SHARED, fd, 0usize)?;
    // SAFETY: the kernel mapped len bytes there, aligned to a page; others write them too, as atomics allow.
    Ok(unsafe { core::slice::from_raw_parts(at as *const AtomicU64, len / 8) })
}

/// `count` words of 0, which take no memory until they are written.
pub fn zeroes(count: usize) -> Result<&'static mut [u64]> {
    const READ_WRITE: u32 = 3;
    const PRIVATE_ANONYMOUS: u32 = 0x22;
    let at = sys!(MMAP, 0usize, count * 8, READ_WRITE, PRIVATE_ANONYMOUS, -1i32, 0usize)?;
    // SAFETY: the kernel mapped that many bytes of 0 there for us alone, aligned to a page.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut u64, count) })
}

pub fn chroot_here() -> Result<()> {
    sys!(CHROOT, c".").map(drop)
}

/// As many open files as the hard limit has.
pub fn raise_open_files() -> Result<()> {
    const RLIMIT_NOFILE: u32 = 7;
    let mut limit = [0u64; 2];
    sys!(PRLIMIT64, 0u32, RLIMIT_NOFILE, 0usize, limit.as_mut_ptr())?;
    set_rlimit(RLIMIT_NOFILE, limit[1], limit[1])
}
