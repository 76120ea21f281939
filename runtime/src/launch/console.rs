// SPDX-License-Identifier: Apache-2.0
//! Where the master of a terminal goes: over a console socket, as conmon and containerd-shim give it, or to the caller.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

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
            (Some(path), true) => connect_to("--console-socket", path).map(Console::Socket),
        }
    }

    /// Hands the master over; what comes back is the caller's.
    pub fn deliver(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        let Console::Socket(socket) = self else { return Ok(Some(master)) };
        send("--console-socket", socket, "/dev/ptmx", master)?;
        Ok(None)
    }
}

/// Connects to the Unix socket that `flag` names.
///
/// # Errors
/// If it is none, nobody listens, or its path is longer than the 107 bytes of unix(7).
pub fn connect_to(flag: &str, path: &Path) -> Result<OwnedFd> {
    let step = || format!("{flag} {}", path.display());
    let address = UnixAddr::new(path)
        .context(step)
        .map_err(|error| error.hint("the path of a Unix socket has at most 107 bytes (unix(7))"))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context(step)?;
    connect(fd.as_raw_fd(), &address).context(step)?;
    Ok(fd)
}

/// Sends a descriptor; the message is its name, as in runc.
pub fn send(flag: &str, socket: impl AsFd, name: &str, fd: impl AsFd) -> Result<()> {
    let (fds, name) = ([fd.as_fd().as_raw_fd()], [IoSlice::new(name.as_bytes())]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &name, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .context(|| format!("send to {flag}"))
        .map(drop)
}
