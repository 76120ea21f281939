// SPDX-License-Identifier: Apache-2.0
//! Lazy pages: criu's dump does not end before a restore has asked for all memory, so wsbox.json is written as soon as it can ask.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};

use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};

use super::stage::handed;
use crate::error::{Context, Error, Result};
use crate::sys::{pidfd, signals};

/// The caller's descriptor, which is told when pages can be asked for.
pub struct Status(File);

impl Status {
    /// That with this number.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(number: i32) -> Result<Self> {
        let own = pidfd::open(Pid::this()).and_then(|own| pidfd::get_fd(own, number));
        own.map(|fd| Self(fd.into())).map_err(|errno| {
            Error::system(format!("--status-fd {number}"), errno).hint("open it for writing, and pass it on")
        })
    }

    /// As criu says it.
    fn tell(mut self) -> Result<()> {
        match self.0.write_all(b"\0") {
            // Who does not listen any more asks for pages all the same.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.context(|| "--status-fd".into()),
        }
    }
}

/// Starts criu, and once it serves pages does `finish` and tells `status`. An error of ours ends criu, after `give_up`: nobody would know
/// that it serves.
///
/// # Errors
/// If criu is not there; or what `finish` says.
pub fn serve(
    command: &mut Command,
    status: Option<Status>,
    finish: impl FnOnce() -> Result<()>,
    give_up: impl FnOnce(),
) -> Result<Child> {
    let (mut child, serves) = start(command)?;
    let told = if serves { finish().and_then(|()| tell(status)) } else { Ok(()) };
    if let Err(error) = told {
        give_up();
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

fn tell(status: Option<Status>) -> Result<()> {
    status.map_or(Ok(()), Status::tell)
}

/// Starts criu, and waits until it serves pages or has ended: whether it serves.
fn start(command: &mut Command) -> Result<(Child, bool)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context(|| "pipe".into())?;
    let given: OwnedFd = handed(write.as_fd())?;
    command.arg("--status-fd").arg(given.as_raw_fd().to_string());
    // While it serves, it can be ended.
    signals::unblock(command);
    let child = command.spawn().context(|| command.get_program().display().to_string())?;
    drop((write, given));
    let serves = File::from(read).read_exact(&mut [0]).is_ok();
    Ok((child, serves))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In place of criu: writes to the descriptor after --status-fd.
    fn criu(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("fd=$2; {script}"), "criu"]);
        command
    }

    #[test]
    fn the_caller_is_told_last() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let status = Status::new(write.as_raw_fd()).unwrap();
        drop(write);
        let mut done = false;
        let mut command = criu("printf x >/proc/self/fd/$fd; exit 7");
        let finish = || {
            done = true;
            Ok(())
        };
        let mut child = serve(&mut command, Some(status), finish, || panic!("all is well")).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        let mut told = Vec::new();
        File::from(read).read_to_end(&mut told).unwrap();
        assert!(done && told == b"\0", "{told:?}");
        assert!(Status::new(i32::MAX).err().unwrap().to_string().starts_with("--status-fd 2147483647: bad file"));
    }

    #[test]
    fn a_criu_that_does_not_serve() {
        let never = || -> Result<()> { panic!("nothing is to be restored") };
        assert_eq!(serve(&mut criu("exit 3"), None, never, || ()).unwrap().wait().unwrap().code(), Some(3));
    }

    #[test]
    fn an_error_ends_criu() {
        let mut command = criu("printf x >/proc/self/fd/$fd; exec sleep 1000");
        let mut given_up = false;
        let found = serve(&mut command, None, || Err(Error::invalid("wsbox.json", "no")), || given_up = true);
        assert!(given_up && found.is_err_and(|error| error.to_string().contains("wsbox.json: no")));
    }
}
