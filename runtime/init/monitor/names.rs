// SPDX-License-Identifier: Apache-2.0
//! Names of the calling processes: comm of the thread group's leader, not of the thread, which the container names as it likes
//! too but by the dozen. The caller waits for us meanwhile, so its pid is its own.

use core::ffi::CStr;

use super::answers::Budget;
use super::table::Name;
use crate::sys::{self, Notification, Result};

/// How many are read at once, and how long it takes until another may be, in nanoseconds: 20 µs each, so 0.5 % of a CPU.
const AT_ONCE: u64 = 256;
const EACH: u64 = 4_000_000;
/// Known names, by thread. When many want to be read, one that is this young, in nanoseconds, is taken as it is; one that may not
/// be read anew, up to the greater age.
const KNOWN: usize = 256;
const YOUNG: u64 = 500_000_000;
const OLD: u64 = 4_000_000_000;
/// Words of a known name: thread, when it was read, the name.
const WORDS: usize = 4;

/// The names that were read.
pub struct Names {
    proc: i32,
    known: &'static mut [u64],
    budget: Budget,
}

impl Names {
    /// `proc` is a proc file system of our own PID namespace.
    pub fn new(proc: i32) -> Result<Self> {
        Ok(Self { proc, known: sys::zeroes(KNOWN * WORDS)?, budget: Budget::new(AT_ONCE, EACH) })
    }

    /// The name of the process that made a call; nothing if it can not be read, or if too many want to be.
    pub fn of(&mut self, listener: i32, call: &Notification, now: u64) -> Name {
        let thread = call.pid;
        let at = thread as usize % KNOWN * WORDS;
        let Some(known) = self.known.get_mut(at..at + WORDS) else { return [0; 2] };
        let (same, age) = (known[0] == u64::from(thread), now.saturating_sub(known[1]));
        let is_enough = same && age < YOUNG && !self.budget.is_plenty(now);
        if !is_enough && self.budget.take(now) {
            let name = read(self.proc, thread).unwrap_or_default();
            // Else another process may have the pid by now.
            let name = if sys::notification_is_valid(listener, call.id) { name } else { [0; 2] };
            known.copy_from_slice(&[u64::from(thread), now, name[0], name[1]]);
            return name;
        }
        if same && age < OLD { [known[2], known[3]] } else { [0; 2] }
    }
}

/// comm of the leader of `thread`'s group (proc_pid_comm(5)).
fn read(proc: i32, thread: u32) -> Option<Name> {
    let mut status = [0u8; 192];
    let status = read_file(proc, thread, b"/status\0", &mut status)?;
    let leader = leader(status)?;
    let mut comm = [0u8; 17];
    let comm = read_file(proc, leader, b"/comm\0", &mut comm)?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(comm);
    let mut name = [0u8; 16];
    name.iter_mut().zip(comm).for_each(|(to, from)| *to = *from);
    let (first, second) = name.split_first_chunk::<8>()?;
    Some([u64::from_ne_bytes(*first), u64::from_ne_bytes(second.try_into().ok()?)])
}

/// The line `Tgid:` of proc_pid_status(5); line breaks in the name before it are escaped.
fn leader(status: &[u8]) -> Option<u32> {
    const KEY: &[u8] = b"\nTgid:\t";
    let at = status.windows(KEY.len()).position(|window| window == KEY)?;
    let digits = status.get(at + KEY.len()..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))))
}

/// The beginning of the file `pid` + `name`.
fn read_file<'a>(proc: i32, pid: u32, name: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = [0u8; 24];
    let mut at = 10;
    let mut rest = pid;
    while at > 0 && (rest > 0 || at == 10) {
        at -= 1;
        path[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    path.get_mut(10..10 + name.len())?.copy_from_slice(name);
    let file = sys::openat2(proc, CStr::from_bytes_until_nul(path.get(at..)?).ok()?, 0, 0, 0).ok()?;
    let len = sys::read(file, buffer);
    sys::close(file);
    buffer.get(..len.ok()?)
}
