// SPDX-License-Identifier: Apache-2.0
//! What a user sees of long work, and how it is ended before its time.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wsbox_bundles::Progress;

use crate::cli::interrupt::Interrupt;
use crate::error::Result;

/// Milliseconds between two pictures.
const REFRESH: u16 = 100;

/// A line on the terminal, if there is one, and the end of signals that end the work.
pub struct Bar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Signals are for its thread alone from here on.
    pub fn start(progress: &Progress) -> Result<Self> {
        let signals = Interrupt::hold()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (progress, stopped) = (progress.clone(), stop.clone());
        let thread = std::thread::spawn(move || watch(&progress, &signals, &stopped));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(progress: &Progress, signals: &Interrupt, stopped: &AtomicBool) {
    let (start, terminal) = (Instant::now(), std::io::stderr().is_terminal());
    while !stopped.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(REFRESH)).is_ok_and(|count| count > 0) && signals.came() {
            progress.cancel();
        }
        if terminal {
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(progress.state(), start.elapsed().as_secs_f64()));
        }
    }
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// `[#####     ] 12.3 of 45.6 MB, 78.9 MB/s`
fn line((done, total): (u64, u64), seconds: f64) -> String {
    const WIDTH: u64 = 30;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let full = (done.min(total) * WIDTH).checked_div(total).unwrap_or_default() as usize;
    let bar = format!("{:-<width$}", "#".repeat(full), width = WIDTH as usize);
    format!(
        "[{bar}] {:.1} of {:.1} MB, {:.1} MB/s",
        megabytes(done),
        megabytes(total),
        megabytes(done) / seconds.max(0.001)
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_for_every_state() {
        assert_eq!(line((0, 0), 0.0), "[------------------------------] 0.0 of 0.0 MB, 0.0 MB/s");
        assert_eq!(line((5_000_000, 10_000_000), 2.0), "[###############---------------] 5.0 of 10.0 MB, 2.5 MB/s");
    }
}
