// SPDX-License-Identifier: Apache-2.0
//! The wsbox under test, by its command line or as a library, with a state root of its own.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Bundle, TempDir, stuck, unique};

/// The binary under test: $WSBOX, or the quick build of this workspace.
pub fn wsbox_path() -> String {
    let built = || {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        target.join(triple).join("quick/wsbox").display().to_string()
    };
    std::env::var("WSBOX").unwrap_or_else(|_| built())
}

/// How wsbox is reached, and whether with a user namespace: an attack is tried through each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The command, root in the host's user namespace
    Root,
    /// The command, with a user namespace
    Userns,
    /// The library, in this process, with a user namespace
    Library,
}

impl Door {
    /// All of them.
    pub const ALL: [Door; 3] = [Door::Root, Door::Userns, Door::Library];
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; 128 + n for signal n
    pub code: i32,
    /// Its stdout
    pub stdout: String,
    /// Its stderr
    pub stderr: String,
}

impl Outcome {
    /// Panics unless it succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Panics unless it failed with `code` and one line on stderr that holds `words`.
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        let errors = self.stderr.lines().filter(|line| !line.contains("warning:")).count();
        assert_eq!(errors, 1, "one message, not: {}", self.stderr);
        self
    }
}

/// A wsbox with a state root of its own; what is left in it is deleted when it is dropped.
#[derive(Debug)]
pub struct Engine {
    root: TempDir,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// A new one.
    pub fn new() -> Self {
        Self { root: TempDir::new("state") }
    }

    /// Its state root.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The command `wsbox --root ROOT ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(wsbox_path());
        command.arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `wsbox ARGS` to its end.
    pub fn wsbox(&self, args: &[&str]) -> Outcome {
        captured(&mut self.command(args))
    }

    /// `wsbox run` of a bundle through a door; the bundle's config is written first.
    pub fn run(&self, bundle: &Bundle, door: Door) -> Outcome {
        bundle.write();
        match door {
            Door::Root | Door::Userns => {
                self.wsbox(&["run", "--bundle", &bundle.path().display().to_string(), &unique("c")])
            }
            Door::Library => self.run_library(bundle),
        }
    }

    /// The library writes to our own stdout, so the payload's goes through a file that the caller bound; here only errors
    /// and codes come back.
    fn run_library(&self, bundle: &Bundle) -> Outcome {
        let id = unique("lib");
        let root = wsbox::Root::new(Some(self.root().to_owned()));
        let ran = wsbox::Bundle::open(bundle.path())
            .and_then(|bundle| wsbox::run(&root, &id, &bundle, &wsbox::Options::default()))
            .and_then(|process| process.wait());
        let deleted = wsbox::delete(&root, &id, true);
        match ran.and_then(|exit| deleted.map(|_| exit)) {
            Ok(exit) => Outcome { code: exit.code(), stdout: String::new(), stderr: String::new() },
            Err(error) => Outcome { code: error.exit_code(), stdout: String::new(), stderr: format!("{error}\n") },
        }
    }

    /// A container that runs `sleep`, by its id.
    pub fn sleeping(&self, bundle: Bundle) -> (Bundle, String) {
        let (bundle, id) = (bundle.args(&["sleep", "1000"]), unique("c"));
        bundle.write();
        self.wsbox(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id]).ok();
        (bundle, id)
    }

    /// What `state` says.
    pub fn state(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.wsbox(&["state", id]).ok().stdout).expect("JSON")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = self.wsbox(&["list", "--quiet"]).stdout;
        for id in ids.lines() {
            self.wsbox(&["delete", "--force", id]);
        }
    }
}

/// Runs a command to its end. Its output goes into files, not pipes: a detached payload keeps its stdout open for as long as it lives.
pub fn captured(command: &mut Command) -> Outcome {
    let (stdout, stderr) = (scratch(), scratch());
    let copy = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
    let child = command.stdout(copy(&stdout)).stderr(copy(&stderr)).spawn().expect("the command is installed");
    let code = finish(child).code;
    Outcome { code, stdout: whole(stdout), stderr: whole(stderr) }
}

/// A file without a name.
fn scratch() -> File {
    nix::sys::memfd::memfd_create(c"output", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd").into()
}

fn whole(mut file: File) -> String {
    file.rewind().expect("a file");
    read(&mut Some(file))
}

/// Waits for a child whose output is piped; [`stuck`] tells what is done if it does not end.
pub fn finish(mut child: Child) -> Outcome {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || read(&mut stderr));
    let watch = stuck::watch(child.id());
    let output = read(&mut stdout);
    let status = child.wait().expect("our child");
    drop(watch);
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
    Outcome { code: status.code().unwrap_or(128 + signal), stdout: output, stderr: errors.join().expect("a reader") }
}

fn read(from: &mut Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until `done`, at most ten seconds.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The descriptor that comes with the next message.
#[allow(unsafe_code)]
pub fn receive_file(stream: &std::os::unix::net::UnixStream) -> std::fs::File {
    use std::os::fd::{AsRawFd, FromRawFd};
    let mut bytes = [0u8; 64];
    let mut iov = [std::io::IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let flags = nix::sys::socket::MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        nix::sys::socket::recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags).expect("a message");
    for control in message.cmsgs().expect("control messages") {
        if let nix::sys::socket::ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel just installed it for us.
            return unsafe { std::fs::File::from_raw_fd(fds[0]) };
        }
    }
    panic!("no descriptor came")
}
