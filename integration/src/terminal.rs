// SPDX-License-Identifier: Apache-2.0
//! A command on a terminal of its own, as a person would type at it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::docker::PATIENCE;

/// A running command and the other end of its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command on a terminal of 33 rows and 99 columns.
    pub fn open(command: &mut Command) -> Self {
        let size = nix::pty::Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = nix::pty::openpty(Some(&size), None).expect("a terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let child = command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
        let child = child.spawn().expect("the command is installed");
        // The command's copies of the terminal would keep it open for the reader.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, text) = (master.try_clone().expect("a descriptor"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO once the last one has closed it.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                text.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, master, seen }
    }

    /// Types.
    pub fn types(&mut self, text: &str) -> &mut Self {
        self.master.write_all(text.as_bytes()).expect("a terminal");
        self
    }

    /// Waits until `text` is on the screen.
    pub fn sees(&mut self, text: &str) -> &mut Self {
        let end = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(Instant::now() < end, "waited in vain for {text:?} on a terminal with {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// All that was on the screen.
    pub fn screen(&self) -> String {
        self.seen.lock().expect("no panic").clone()
    }

    /// Waits for the end of the command: its exit code.
    pub fn ends(&mut self) -> i32 {
        self.child.wait().expect("our child").code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
