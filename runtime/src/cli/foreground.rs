// SPDX-License-Identifier: Apache-2.0
//! A payload in the foreground: its signals, its terminal, its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
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

    /// Passes on what has come: by number, so real-time signals too.
    fn forward(&self, process: &Process, terminal: Option<&Terminal<'_>>) {
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = info.ssi_signo as i32;
            match (signal, terminal) {
                (libc::SIGWINCH, Some(terminal)) => terminal.resize(),
                _ => drop(pidfd::send_signal(&process.pidfd, signal)),
            }
        }
    }
}

/// Waits for the end of a payload, passing on signals and, if it has a terminal, what is typed and printed.
pub fn follow(process: &Process, signals: &Signals) -> Result<Exit> {
    let terminal = process.console.as_ref().map(Terminal::new);
    let (mut typing, mut printing) = (terminal.is_some(), terminal.is_some());
    loop {
        let stdin = std::io::stdin();
        let master = process.console.as_ref().map_or(process.pidfd.as_fd(), |master| master.as_fd());
        let wanted = |on: bool| if on { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(master, wanted(printing)),
            PollFd::new(stdin.as_fd(), wanted(typing)),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context(|| "poll".into())?,
        };
        let [ended, signalled, printed, typed] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if signalled {
            signals.forward(process, terminal.as_ref());
        }
        if printing && printed {
            printing = copy(master, std::io::stdout().as_fd());
        }
        if typing && typed {
            typing = copy(stdin.as_fd(), master);
        }
        if ended && !(printing && printed) {
            return process.wait();
        }
    }
}

/// Copies what is there; false at the end (EIO: the last slave was closed).
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 8192];
    let count = match read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(errno) => return matches!(errno, Errno::EINTR | Errno::EAGAIN),
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
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
