// SPDX-License-Identifier: Apache-2.0
//! Where the master of a terminal goes: over a console socket, as conmon and containerd-shim give it, or to the caller.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use super::Process;
use crate::error::{Context, Error, Result};

/// Who gets the master.
#[derive(Debug)]
pub enum Console {
    /// There is no terminal
    None,
    /// The caller
    Caller,
    /// Whoever listens there
    Socket(OwnedFd),
}

impl Console {
    /// Connects to `socket` before anything is made.
    ///
    /// # Errors
    /// If a socket is given without a terminal, as in runc; or nobody listens.
    pub fn connect(path: Option<&Path>, terminal: bool) -> Result<Self> {
        match (path, terminal) {
            (None, false) => Ok(Console::None),
            (None, true) => Ok(Console::Caller),
            (Some(_), false) => Err(Error::invalid("--console-socket", "is of no use: process.terminal is not set")),
            (Some(path), true) => dial(path, "--console-socket").map(Console::Socket),
        }
    }

    /// Hands the master over; what comes back is the caller's.
    pub fn deliver(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        let Console::Socket(socket) = self else { return Ok(Some(master)) };
        hand_over(socket, &master, b"/dev/ptmx").context(|| "send the terminal over --console-socket".into())?;
        Ok(None)
    }
}

/// Sends the pidfd of a process to the Unix socket at `path`.
///
/// # Errors
/// If nobody listens there.
pub fn send_pidfd(path: &Path, process: &Process) -> Result<()> {
    let socket = dial(path, "--pidfd-socket")?;
    hand_over(&socket, &process.pidfd, b"pidfd").context(|| format!("--pidfd-socket {}", path.display()))
}

fn dial(path: &Path, flag: &str) -> Result<OwnedFd> {
    let step = || format!("{flag} {}", path.display());
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context(step)?;
    let address = UnixAddr::new(path)
        .context(step)
        .map_err(|error| error.hint("the path of a Unix socket has at most 107 bytes (unix(7))"))?;
    connect(fd.as_raw_fd(), &address).context(step)?;
    Ok(fd)
}

/// The message is the descriptor's name, as in runc.
fn hand_over(socket: &OwnedFd, fd: &OwnedFd, name: &[u8]) -> nix::Result<()> {
    let (fds, name) = ([fd.as_raw_fd()], [IoSlice::new(name)]);
    sendmsg::<()>(socket.as_raw_fd(), &name, &[ControlMessage::ScmRights(&fds)], MsgFlags::MSG_NOSIGNAL, None).map(drop)
}
