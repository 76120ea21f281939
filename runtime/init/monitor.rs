// SPDX-License-Identifier: Apache-2.0
//! The monitor: answers the denied calls of one container with the error number that its filter has for them, and counts them.
//! It never lets one through (SECCOMP_USER_NOTIF_FLAG_CONTINUE is not in here), reads nothing of the caller but its name, and
//! has no rights: its root is an empty proc, its filter knows eight calls.
//!
//! It ends by itself when the container's first process and all that is under a listener have ended. If it is killed, the
//! kernel answers with ENOSYS in its place: denied all the same.

mod answers;
mod listeners;
mod names;
mod table;
mod verdict;

use answers::Answers;
use listeners::{FIRST, Listeners, SOCKET};
use names::Names;
use table::Table;

use crate::counts::{BYTES, HEADER, LISTENER, LOST, ROW, ROWS, SET_UP, SET_UP_BYTES};
use crate::steps::PR_SET_DUMPABLE;
use crate::sys::{self, EBADMSG, EINTR, EINVAL, Notification, Result};
use crate::word;

const PR_SET_NAME: u32 = 15;
const PR_SET_NO_NEW_PRIVS: u32 = 38;
/// A user and a group that nobody has: another process of theirs could signal us.
const NOBODY_ELSE: u32 = 0xffff_fff0;

/// What it works on.
struct Monitor {
    listeners: Listeners,
    filter: &'static [u8],
    table: Table,
    names: Names,
    answers: Answers,
}

/// `socket` is where messages come, the first of them already there.
pub fn main(socket: i32) -> ! {
    let error = match set_up(socket).and_then(|mut monitor| monitor.serve()) {
        Ok(()) => 0,
        Err(errno) => errno,
    };
    sys::exit(error)
}

fn set_up(socket: i32) -> Result<Monitor> {
    sys::prctl(PR_SET_DUMPABLE, 0, 0)?;
    sys::prctl(PR_SET_NAME, c"wsbox-monitor".as_ptr() as u64, 0)?;
    sys::setsid()?;
    let mut message = [0u8; SET_UP_BYTES];
    let mut rights = sys::Rights::new();
    if sys::receive(socket, &mut message, &mut rights)? != SET_UP_BYTES || message[0] != SET_UP || rights.count() != 4 {
        return Err(EBADMSG);
    }
    let [filters, counts, proc, first] = [rights.fds[0], rights.fds[1], rights.fds[2], rights.fds[3]];
    let lengths = (word(&message, 4).ok_or(EBADMSG)? as usize, word(&message, 8).ok_or(EBADMSG)? as usize);
    let mapped: &'static [u8] = sys::map(filters, lengths.0 + lengths.1)?;
    let (jail, filter) = mapped.split_at_checked(lengths.0).ok_or(EBADMSG)?;
    let monitor = Monitor {
        listeners: Listeners::new(socket, first)?,
        filter,
        table: Table::new(sys::map_shared(counts, BYTES)?),
        names: Names::new(proc)?,
        answers: Answers::new()?,
    };
    sys::close(filters);
    sys::close(counts);
    sys::raise_open_files()?;
    give_up(proc, message[1] != 0, jail)?;
    Ok(monitor)
}

/// Nothing is left but the descriptors and what `jail` allows. Without `all` the caller has no rights to begin with.
fn give_up(proc: i32, all: bool, jail: &[u8]) -> Result<()> {
    if all {
        sys::fchdir(proc)?;
        sys::chroot_here()?;
        sys::setgroups(&[])?;
        // In a user namespace there may be no such id.
        for result in [sys::setresgid(NOBODY_ELSE), sys::setresuid(NOBODY_ELSE)] {
            result.or_else(|errno| if errno == EINVAL { Ok(()) } else { Err(errno) })?;
        }
    }
    sys::capset(0, 0, 0)?;
    sys::prctl(PR_SET_DUMPABLE, 0, 0)?;
    sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0)?;
    sys::seccomp(jail, 0).map(drop)
}

impl Monitor {
    /// Until the container has ended.
    fn serve(&mut self) -> Result<()> {
        let mut now = sys::clock();
        loop {
            let wait = self.answers.give_due(now);
            let over = self.listeners.is_over();
            // Of a crowd not each wakes us: they are heard together.
            let crowd = self.answers.are_for_a_crowd();
            let ready = match self.listeners.wait(if over || crowd { Some(0) } else { wait }) {
                Err(EINTR) => 0,
                // Who is not heard yet waits too, but for signals.
                Ok(_) if self.answers.are_full() => 0,
                result => result?,
            };
            now = sys::clock();
            match ready {
                0 if over => return Ok(()),
                0 if crowd => {
                    let _ = sys::poll(&mut [], wait);
                    now = sys::clock();
                }
                0 => {}
                _ => self.hear_all(now)?,
            }
        }
    }

    /// From the last one on: what takes the place of a listener that goes has been heard.
    fn hear_all(&mut self, now: u64) -> Result<()> {
        for at in (0..self.listeners.len()).rev() {
            match (at, self.listeners.ready(at)) {
                (_, None) => {}
                (SOCKET, _) => self.take_listener()?,
                (FIRST, _) | (_, Some((_, false))) => self.listeners.remove(at),
                (_, Some((listener, true))) => self.hear(listener, now),
            }
        }
        Ok(())
    }

    fn take_listener(&mut self) -> Result<()> {
        let (mut message, mut rights) = ([0u8], sys::Rights::new());
        sys::receive(self.listeners.socket(), &mut message, &mut rights)?;
        if message[0] == LISTENER && rights.count() == 1 && self.listeners.add(rights.fds[0]) {
            sys::wake_here(rights.fds[0]);
        } else {
            rights.fds.iter().take(rights.count()).for_each(|&fd| sys::close(fd));
            self.table.add_to(LOST);
        }
        Ok(())
    }

    /// One denied call.
    fn hear(&mut self, listener: i32, now: u64) {
        let mut call = Notification::default();
        // ENOENT: the caller was killed meanwhile.
        if sys::notification(listener, &mut call).is_err() {
            return;
        }
        let name = self.names.of(listener, &call, now);
        self.table.count(call.number(), name);
        self.answers.give(listener, call.id, verdict::error_number(self.filter, &call.data), now);
    }
}

const _: () = assert!(BYTES == (HEADER + ROWS * ROW) * 8 && BYTES % 4096 == 0);
