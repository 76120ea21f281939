// SPDX-License-Identifier: Apache-2.0
//! The monitor's system calls: seccomp_unotify(2), epoll(7), shared memory.

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

/// struct epoll_event, which only x86_64 packs.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy, Default)]
pub struct Event {
    events: u32,
    data: u64,
}

const EPOLLIN: u32 = 1;

impl Event {
    /// The descriptor that is ready.
    pub fn fd(&self) -> i32 {
        self.data as i32
    }

    /// Whether it can be read; else its other end is gone.
    pub fn is_readable(&self) -> bool {
        self.events & EPOLLIN != 0
    }
}

pub fn epoll_create() -> Result<i32> {
    sys!(EPOLL_CREATE1, O_CLOEXEC).map(|fd| fd as i32)
}

pub fn epoll_add(epoll: i32, fd: i32) -> Result<()> {
    const EPOLL_CTL_ADD: u32 = 1;
    let event = Event { events: EPOLLIN, data: fd as u64 };
    sys!(EPOLL_CTL, epoll, EPOLL_CTL_ADD, fd, &raw const event).map(drop)
}

/// How many of `events` were filled in, after at most `nanos` nanoseconds; none waits for ever.
pub fn epoll_wait(epoll: i32, events: &mut [Event], nanos: Option<u64>) -> Result<usize> {
    let time = nanos.map(|nanos| [nanos / 1_000_000_000, nanos % 1_000_000_000]);
    let time = time.as_ref().map_or(core::ptr::null(), |time| time.as_ptr());
    sys!(EPOLL_PWAIT2, epoll, events.as_mut_ptr(), events.len(), time, 0usize, 0usize)
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn clock() -> u64 {
    const CLOCK_MONOTONIC: u32 = 1;
    let mut time = [0u64; 2];
    let _ = sys!(CLOCK_GETTIME, CLOCK_MONOTONIC, time.as_mut_ptr());
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
