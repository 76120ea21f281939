// SPDX-License-Identifier: Apache-2.0
//! sd_notify(3) for payloads: a socket of the container's own at [`SOCKET`], and the little of what comes out of it that is passed
//! on to the service manager's. The manager's own socket is never in the container: what it takes from us it takes for
//! ours (MAINPID, FDSTORE, BUSERROR).

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use oci_spec::runtime::{MountBuilder, Spec};

use crate::error::{Context, Error, Result};

/// The folder in the state folder, and where the container sees it: a mount, so that the socket can come later, by `start`.
const FOLDER: &str = "notify";
pub const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// What the payload has in NOTIFY_SOCKET.
pub const SOCKET: &str = "/run/notify/notify.sock";
/// What may pass, and no more bytes of one assignment than this.
const PASSED: [&str; 4] = ["READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS="];
const LONGEST: usize = 256;
/// Between two messages.
const REST: Duration = Duration::from_millis(20);
/// Messages that are still looked at when the payload has ended: more than a socket's queue holds (unix(7), max_dgram_qlen).
const LAST: usize = 512;

/// Puts the folder's mount and the variable into a config.
///
/// # Errors
/// If something else is mounted there.
pub fn add(spec: &mut Spec, state_folder: &Path) -> Result<()> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    if mounts.iter().any(|mount| mount.destination() == Path::new(INSIDE)) {
        let error = Error::invalid("NOTIFY_SOCKET", format!("the bundle mounts something on {INSIDE} itself"));
        return Err(error.hint("unset it, or mount that elsewhere"));
    }
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(state_folder.join(FOLDER))
        .options(options)
        .build()
        .map_err(|error| Error::invalid("NOTIFY_SOCKET", error.to_string()))?;
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
        env.push(format!("NOTIFY_SOCKET={SOCKET}"));
        process.set_env(Some(env));
    }
    Ok(())
}

/// Makes the folder that is to be mounted.
pub fn make_folder(state_folder: &Path) -> Result<()> {
    let path = state_folder.join(FOLDER);
    fs::DirBuilder::new().mode(0o755).create(&path).context(|| path.display().to_string())?;
    // Whatever the umask is: the payload is somebody else.
    fs::set_permissions(&path, Permissions::from_mode(0o755)).context(|| path.display().to_string())
}

/// Removes it, with the socket.
pub fn remove_folder(state_folder: &Path) {
    let _ = fs::remove_file(state_folder.join(FOLDER).join(NAME));
    let _ = fs::remove_dir(state_folder.join(FOLDER));
}

/// The two sockets.
#[derive(Debug)]
pub struct Proxy {
    inside: UnixDatagram,
    manager: UnixDatagram,
}

impl Proxy {
    /// Opens the container's socket for the manager's at `host`; None for a container that was not made for one.
    ///
    /// # Errors
    /// If the manager's is not there.
    pub fn open(state_folder: &Path, host: &OsStr) -> Result<Option<Self>> {
        let folder = state_folder.join(FOLDER);
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = match File::options().read(true).custom_flags(flags).open(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.context(|| folder.display().to_string())?,
        };
        // Short enough for sun_path, wherever the state root is (unix(7)).
        let path = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let _ = fs::remove_file(&path);
        let inside = UnixDatagram::bind(&path).context(|| folder.join(NAME).display().to_string())?;
        fs::set_permissions(&path, Permissions::from_mode(0o666)).context(|| path.clone())?;
        Ok(Some(Self { inside, manager: connect(host)? }))
    }

    /// Passes on what comes until the payload says that it is ready, or ends.
    pub fn until_ready(&self, pid: Pid, pidfd: impl AsFd) -> Result<()> {
        self.pass(pid, pidfd.as_fd(), true)
    }

    /// Passes on what comes until the payload has ended and all that it said has been passed on: the thread's end.
    pub fn follow(self, pid: Pid, pidfd: OwnedFd) -> JoinHandle<()> {
        std::thread::spawn(move || drop(self.pass(pid, pidfd.as_fd(), false)))
    }

    fn pass(&self, pid: Pid, pidfd: std::os::fd::BorrowedFd<'_>, only_ready: bool) -> Result<()> {
        let (mut buffer, mut last) = ([0; 4096], 0);
        loop {
            let mut fds = [PollFd::new(self.inside.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context(|| "NOTIFY_SOCKET".into())?,
            };
            let [told, ended] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            // What was said before the end is passed on, however long others go on talking.
            last += usize::from(ended);
            if told && last <= LAST {
                // Descriptors that come along are closed by the kernel: a barrier (sd_notify(3)) is answered so.
                let count = self.inside.recv(&mut buffer).context(|| "NOTIFY_SOCKET".into())?;
                let (message, ready) = filter(&buffer[..count], pid);
                if !message.is_empty() {
                    // A manager that is gone, or does not read, is no reason to end a payload.
                    let _ = self.manager.send(message.as_bytes());
                }
                if ready && only_ready {
                    return Ok(());
                }
                // A payload that talks all the time waits for us, and takes none of the host's time.
                if !ended {
                    std::thread::sleep(REST);
                }
            } else if ended {
                return Ok(());
            }
        }
    }
}

/// A path, or with an @ a name in the abstract namespace (sd_notify(3)).
fn connect(host: &OsStr) -> Result<UnixDatagram> {
    let step = || format!("NOTIFY_SOCKET={}", host.display());
    let socket = UnixDatagram::unbound().context(step)?;
    socket.set_nonblocking(true).context(step)?;
    match host.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            SocketAddr::from_abstract_name(name).and_then(|address| socket.connect_addr(&address)).context(step)?
        }
        None => {
            let target = PathBuf::from(host);
            let name = target.file_name().unwrap_or_default().to_owned();
            let dir = File::options()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(target.parent().unwrap_or(Path::new("/")))
                .context(step)?;
            let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
            socket.connect(path).context(step)?;
        }
    }
    Ok(socket)
}

/// What of a message passes, with the payload's pid for the manager; and whether it says that the payload is ready.
fn filter(message: &[u8], pid: Pid) -> (String, bool) {
    let text = String::from_utf8_lossy(message);
    let passes = |line: &&str| {
        let known =
            PASSED.iter().any(|known| if known.ends_with('=') { line.starts_with(known) } else { line == known });
        known && line.len() <= LONGEST && !line.chars().any(char::is_control)
    };
    let lines: Vec<&str> = text.lines().filter(passes).collect();
    let ready = lines.contains(&"READY=1");
    let mut passed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if ready {
        passed.push_str(&format!("MAINPID={pid}\n"));
    }
    (passed, ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_payloads_to_say_passes() {
        let pid = Pid::from_raw(7);
        let said = b"MAINPID=1\nREADY=1\nFDSTORE=1\nSTATUS=up\nREADY=12\nERRNO=2\nSTATUS=a\x1b[0m";
        assert_eq!(filter(said, pid), ("READY=1\nSTATUS=up\nMAINPID=7\n".into(), true));
        assert_eq!(filter(b"BARRIER=1", pid), (String::new(), false));
        assert_eq!(filter(&[b"STATUS=".as_slice(), &[b'x'; 300]].concat(), pid), (String::new(), false));
        assert_eq!(filter(b"WATCHDOG=1\nSTOPPING=1", pid), ("WATCHDOG=1\nSTOPPING=1\n".into(), false));
    }
}
