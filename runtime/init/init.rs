// SPDX-License-Identifier: Apache-2.0
//! The init: the only code of wsbox that runs inside a container. It receives a sealed program over one socket, carries out
//! its steps in order, reports the first failure as (step, errno), and ends in execve of the payload. Its second role, the
//! monitor (monitor.rs), stays outside and answers denied calls.
//!
//! Read program.rs for what the steps are, steps.rs for the few that are more than a system call, sys.rs for the calls.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod console;
// The other half of it is the parent's.
#[allow(dead_code)]
mod counts;
mod hook;
mod monitor;
mod paths;
// The other half of it is the parent's.
#[allow(dead_code)]
mod program;
mod rt;
mod steps;
mod sys;

use core::ffi::CStr;

use program::{FDS_PER_MESSAGE, HEADER, MAGIC, Op, REPORT, Report, SLOTS, STEP};
use sys::{EBADMSG, EPROTO, Result};

/// One step, decoded.
#[derive(Clone, Copy)]
pub struct Step {
    op: u32,
    a: u32,
    b: u32,
    c: u32,
    s: u32,
    t: u32,
    n: u64,
}

/// What the steps work on.
pub struct Init {
    control: i32,
    program: &'static mut [u8],
    fds: [i32; SLOTS],
    at: u32,
    chosen: u32,
    in_cwd: bool,
    /// What the report of a failure adds to its error number
    detail: u32,
    /// The mount that lies over the root for as long as trees are cloned out of it, or -1
    lent: core::cell::Cell<i32>,
}

/// `argument` is the number of the control socket, after an `m` for the monitor, a `d` for an init whose parent has yet to write its
/// maps, and could not if its /proc files were root's.
fn main(argument: &CStr) -> ! {
    let number = |digits: &[u8]| digits.iter().fold(0i32, |n, digit| n * 10 + i32::from(digit.wrapping_sub(b'0')));
    let (control, dumpable) = match argument.to_bytes() {
        [b'm', socket @ ..] => monitor::main(number(socket)),
        [b'd', socket @ ..] => (number(socket), 1),
        digits => (number(digits), 0),
    };
    // Nobody in the container may trace or inspect us before the payload is executed (CVE-2016-9962).
    let undumpable = sys::prctl(steps::PR_SET_DUMPABLE, dumpable, 0).map(drop);
    // It had to survive our own exec; the end of it tells the parent of the payload's.
    let closes = sys::close_on_exec(control);
    let mut init = Init {
        control,
        program: &mut [],
        fds: [-1; SLOTS],
        at: 0,
        chosen: 0,
        in_cwd: false,
        detail: 0,
        lent: core::cell::Cell::new(-1),
    };
    let started = undumpable.and(closes).and_then(|()| init.report(Report::Started, 0, 0, None));
    let error = match started.and_then(|()| init.receive_program()).and_then(|()| init.run()) {
        Ok(()) => EPROTO,
        Err(errno) => errno,
    };
    let _ = init.report(Report::Failed, error as u32, init.detail, None);
    sys::exit(1)
}

impl Init {
    /// Receives the program.
    fn receive_program(&mut self) -> Result<()> {
        let mut rights = sys::Rights::new();
        self.next_message(&mut rights)?;
        if rights.count() == 1 { self.map(rights.fds[0]) } else { Err(EBADMSG) }
    }

    /// Receives the descriptors of the slots, in order.
    pub fn receive(&mut self) -> Result<()> {
        let mut rights = sys::Rights::new();
        let mut next = 0;
        loop {
            let more = self.next_message(&mut rights)?;
            for &fd in rights.fds.iter().take(rights.count().min(FDS_PER_MESSAGE)) {
                *self.fds.get_mut(next).ok_or(EBADMSG)? = fd;
                next += 1;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Whether another message follows. If the parent is gone, nobody is left to tell.
    fn next_message(&self, rights: &mut sys::Rights) -> Result<bool> {
        let mut more = [0u8];
        if sys::receive(self.control, &mut more, rights)? == 0 {
            sys::exit(1);
        }
        Ok(more[0] != 0)
    }

    fn map(&mut self, memfd: i32) -> Result<()> {
        let mut header = [0u8; HEADER];
        if sys::read(memfd, &mut header)? != HEADER || word(&header, 0) != Some(MAGIC) {
            return Err(EBADMSG);
        }
        self.program = sys::map(memfd, word(&header, 8).ok_or(EBADMSG)? as usize)?;
        sys::close(memfd);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let count = word(self.program, 4).ok_or(EBADMSG)?;
        while self.at < count {
            let step = self.step().ok_or(EBADMSG)?;
            if self.lent.get() >= 0 && ![Op::Mask as u32, Op::CloneTree as u32].contains(&step.op) {
                self.take_back()?;
            }
            self.carry_out(step)?;
            self.at += 1;
        }
        Ok(())
    }

    fn step(&self) -> Option<Step> {
        let raw = self.program.get(HEADER + self.at as usize * STEP..)?.get(..STEP)?;
        let n = u64::from_ne_bytes(raw.get(24..32)?.try_into().ok()?);
        Some(Step {
            op: word(raw, 0)?,
            a: word(raw, 4)?,
            b: word(raw, 8)?,
            c: word(raw, 12)?,
            s: word(raw, 16)?,
            t: word(raw, 20)?,
            n,
        })
    }

    fn report(&self, kind: Report, errno: u32, value: u32, fd: Option<i32>) -> Result<()> {
        let mut message = [0u8; REPORT];
        for (to, number) in message.chunks_exact_mut(4).zip([kind as u32, self.at, errno, value]) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        sys::send(self.control, &message, fd)
    }

    /// The C string at offset `at`.
    fn text(&self, at: u32) -> Result<&CStr> {
        self.program.get(at as usize..).and_then(|data| CStr::from_bytes_until_nul(data).ok()).ok_or(EBADMSG)
    }

    /// `len` bytes at offset `at`.
    fn data(&self, at: u32, len: u32) -> Result<&[u8]> {
        self.program.get(at as usize..).and_then(|data| data.get(..len as usize)).ok_or(EBADMSG)
    }

    /// The descriptor in slot `slot`.
    fn fd(&self, slot: u32) -> Result<i32> {
        self.fds.get(slot as usize).copied().filter(|&fd| fd >= 0).ok_or(EBADMSG)
    }

    /// Puts a descriptor into a slot, closing the one that was there.
    fn keep(&mut self, slot: u32, fd: i32) -> Result<()> {
        let old = core::mem::replace(self.fds.get_mut(slot as usize).ok_or(EBADMSG)?, fd);
        if old >= 0 {
            sys::close(old);
        }
        Ok(())
    }
}

/// The `u32` at byte `at`.
fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn operation(step: &Step) -> Result<Op> {
    Op::from_u32(step.op).ok_or(EBADMSG)
}
