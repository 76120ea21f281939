// SPDX-License-Identifier: Apache-2.0
//! A payload in the foreground: its signals, its terminal, its end.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use crate::error::{Context, Result};
use crate::launch::Process;
use crate::sys::pidfd::{self, Exit};
use crate::sys::tty;

/// The caller's signals, held back until there is a payload to send them to.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal but those that tell of our own faults, and of children.
    pub fn block() -> Result<Self> {
        let mut set = SigSet::all();
        for own in [
            Signal::SIGCHLD,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGURG,
        ] {
            set.remove(own);
        }
        for stop in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
            set.remove(stop);
        }
        set.thread_block().context(|| "block signals".into())?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context(|| "signalfd".into())
            .map(Self)
    }

    /// Passes on what has come: by number, so real-time signals too. Whether there was one for the payload.
    fn forward(&self, process: &Process, terminal: Option<&Terminal<'_>>) -> bool {
        let mut passed = false;
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = info.ssi_signo as i32;
            match (signal, terminal) {
                (libc::SIGWINCH, Some(terminal)) => terminal.resize(),
                _ => {
                    passed = true;
                    let _ = pidfd::send_signal(&process.pidfd, signal);
                }
            }
        }
        passed
    }
}

/// Waits for the end of a payload, passing on signals and, if it has a terminal, what is typed and printed.
pub fn follow(process: &Process, signals: &Signals) -> Result<Exit> {
    let terminal = process.console.as_ref().map(Terminal::new);
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let master = process.console.as_ref();
    master.map_or(Ok(()), never_wait)?;
    let patient = master.and_then(|_| never_waiting(stdout.as_fd()));
    let screen = patient.as_ref().map_or(stdout.as_fd(), AsFd::as_fd);
    let mut printed = master.map(|master| Copying::new(master.as_fd(), screen));
    let mut typed = master.map(|master| Copying::new(stdin.as_fd(), master.as_fd()));
    let mut ended = false;
    loop {
        // One that is wanted no more would be told as hung up for ever.
        let mut fds = vec![PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
        fds.extend((!ended).then(|| PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN)));
        let (at_printed, at_typed) = (fds.len(), fds.len() + usize::from(wanted(printed.as_ref()).is_some()));
        fds.extend(wanted(printed.as_ref()));
        fds.extend(wanted(typed.as_ref()).filter(|_| !ended));
        let was_over = ended;
        let last = was_over && printed.as_ref().is_none_or(|printed| printed.held.is_empty());
        match poll(&mut fds, if last { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Err(Errno::EINTR) => continue,
            result => result.context(|| "poll".into())?,
        };
        let came = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or_default());
        let (signalled, may_print, may_type) = (came(0), came(at_printed) && at_printed < at_typed, came(at_typed));
        ended |= at_printed == 2 && came(1);
        let passed = signalled && signals.forward(process, terminal.as_ref());
        printed.iter_mut().filter(|_| may_print).for_each(Copying::step);
        typed.iter_mut().filter(|_| may_type).for_each(Copying::step);
        // All is said; or nobody reads its last words, and somebody has had enough.
        if (last || was_over && passed) && !may_print {
            return process.wait();
        }
    }
}

/// The master's open file is nobody else's: a payload that reads nothing must not keep us from its signals.
fn never_wait(master: &OwnedFd) -> Result<()> {
    let context = || "the terminal's master".into();
    let flags = OFlag::from_bits_truncate(fcntl(master, FcntlArg::F_GETFL).context(context)?);
    fcntl(master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop).context(context)
}

/// Our stdout for ourselves, so that we never wait for who reads it: its open file is the caller's too, and stays as it is. A file never
/// makes us wait, and would be written from its beginning.
fn never_waiting(stdout: BorrowedFd<'_>) -> Option<File> {
    let kind = SFlag::from_bits_truncate(fstat(stdout).ok()?.st_mode) & SFlag::S_IFMT;
    let reopen = || {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        File::options().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", stdout.as_raw_fd()))
    };
    (kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR).then(reopen)?.ok()
}

/// Bytes that a pipe with any room takes at once (PIPE_BUF, pipe(7)).
const ROOM: usize = 4096;

/// From one descriptor to another, a piece at a time.
struct Copying<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: [u8; ROOM],
    /// Read, and not written yet
    held: std::ops::Range<usize>,
    open: bool,
}

fn wanted<'a>(copying: Option<&Copying<'a>>) -> Option<PollFd<'a>> {
    copying.and_then(|copying| match copying.held.is_empty() {
        false => Some(PollFd::new(copying.to, PollFlags::POLLOUT)),
        true if copying.open => Some(PollFd::new(copying.from, PollFlags::POLLIN)),
        true => None,
    })
}

impl<'a> Copying<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self { from, to, buffer: [0; ROOM], held: 0..0, open: true }
    }

    /// Reads or writes once. At the end (EIO: the last slave was closed) it is not open any more.
    fn step(&mut self) {
        let result = if self.held.is_empty() {
            read(self.from, &mut self.buffer).map(|count| self.held = 0..count).map(|()| !self.held.is_empty())
        } else {
            write(self.to, &self.buffer[self.held.clone()]).map(|count| self.held.start += count).map(|()| true)
        };
        match result {
            Ok(open) => self.open &= open,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => (self.open, self.held) = (false, 0..0),
        }
    }
}

/// The caller's terminal in raw mode, until it is dropped.
struct Terminal<'a> {
    master: &'a OwnedFd,
    before: Option<Termios>,
}

impl<'a> Terminal<'a> {
    fn new(master: &'a OwnedFd) -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw);
        }
        let terminal = Self { master, before };
        terminal.resize();
        terminal
    }

    fn resize(&self) {
        if self.before.is_some() {
            let _ = tty::copy_window_size(std::io::stdin().as_fd(), self.master.as_fd());
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
