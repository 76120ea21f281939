// SPDX-License-Identifier: Apache-2.0
//! Lines for daemons of the host: journald's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL.md) and syslog (RFC 3164, as glibc's
//! syslog(3) sends it). Datagrams, never waited for: a daemon that does not read must not hold a container.

use std::os::unix::net::UnixDatagram;

use crate::error::{Context, Result};

const JOURNALD: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// LOG_AUTHPRIV | LOG_NOTICE (syslog.h)
const PRIORITY: u8 = 10 << 3 | 5;

fn connect(path: &str) -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    let socket = socket.context(|| format!("--audit-log: {path}"))?;
    socket.connect(path).context(|| format!("--audit-log: {path}"))?;
    Ok(socket)
}

fn send(path: &str, message: &[u8]) -> Result<()> {
    connect(path)?.send(message).map(drop).context(|| format!("--audit-log: {path}"))
}

/// Whether somebody has the socket open.
pub fn journald_answers() -> Result<()> {
    connect(JOURNALD).map(drop)
}

/// Whether somebody has the socket open.
pub fn syslog_answers() -> Result<()> {
    connect(SYSLOG).map(drop)
}

/// One message with fields of ours.
pub fn journald(message: &str, fields: &[(&str, &str)]) -> Result<()> {
    send(JOURNALD, &entry(message, fields))
}

/// Fields as NAME, newline, length, value, newline: a value may hold anything.
fn entry(message: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let own = [("MESSAGE", message), ("PRIORITY", "5"), ("SYSLOG_IDENTIFIER", "wsbox")];
    let mut entry = Vec::new();
    for (name, value) in own.iter().chain(fields) {
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

/// One message.
pub fn syslog(message: &str) -> Result<()> {
    send(SYSLOG, format!("<{PRIORITY}>wsbox[{}]: {message}", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn values_of_the_journal_may_hold_anything() {
        let wanted = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY\n\x01\0\0\0\0\0\0\x005\nSYSLOG_IDENTIFIER\n\x05\0\0\0\0\0\0\0wsbox\nX\n\x01\0\0\0\0\0\0\0y\n";
        assert_eq!(entry("a\nb", &[("X", "y")]), wanted);
    }
}
