// SPDX-License-Identifier: Apache-2.0
//! Layers to files. The parent reads the blob, checks its digest and feeds a child, which alone looks into it: jailed in the folder
//! it fills, a hostile archive can at worst spoil its own output.

mod child;
mod entry;
mod jail;
mod order;
mod sparse;
mod tree;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use child::run as child;
pub use order::{ARCHIVE, Form, Limits, Order, Report};
pub(crate) use tree::OPAQUE_ATTRIBUTE;

use crate::error::{Context, Error, Result};
use crate::progress::Progress;

/// Bytes given to the child at once: what a pipe takes.
const CHUNK: usize = 64 << 10;
/// Bytes of the child's answer that are read.
const ANSWER: u64 = 16 << 20;
/// Between two looks whether to go on.
const LOOK: Duration = Duration::from_millis(50);

/// How the child is started: a program that calls [`child`] with the argument that is added.
#[derive(Clone, Debug)]
pub struct Unpacker {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Unpacker {
    /// `program` with `arguments` and an order has to end in [`child`].
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// Unpacks `layer` into the folder `into`.
    ///
    /// # Errors
    /// If the layer can not be read, is not what its digest says, is refused, or does not fit on the disk; or the user had enough.
    /// `into` is half-made then.
    pub fn unpack(&self, layer: impl Read, order: &Order, into: &Path, progress: &Progress) -> Result<Report> {
        let text = serde_json::to_string(order).context(|| "order of the unpacker".into())?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(text)
            .env_clear()
            .current_dir(into)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(|| format!("start the unpacker {}", self.program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (fed, said) = watched(&child, progress, || {
            let fed = stdin.map_or(Ok(false), |stdin| feed(layer, stdin, progress));
            if fed.is_err() {
                // Its part of the story does not count: what it got is not the layer.
                end(&child);
            }
            let mut said = Vec::new();
            let read = stdout.map_or(Ok(0), |stdout| stdout.take(ANSWER).read_to_end(&mut said));
            (fed, read.map(|_| said))
        });
        let answer = answer(child, said);
        progress.check()?;
        match (fed?, answer?) {
            (true, report) => Ok(report),
            // What was not read was not checked either.
            (false, _) => Err(Error::new("layer", "its unpacker ended before it had all of it")),
        }
    }
}

/// It is not waited for before the end, so that its pid is its own.
fn end(child: &Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
}

/// While `work` goes on, ends the child when the user has had enough: it may be busy with a file of holes, and read nothing.
fn watched<T>(child: &Child, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                if progress.check().is_err() {
                    return end(child);
                }
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Whether all was read. The child may end before; then its answer says why.
fn feed(mut layer: impl Read, mut child: ChildStdin, progress: &Progress) -> Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        progress.check()?;
        let count = layer.read(&mut buffer).context(|| "layer".into())?;
        if count == 0 {
            return Ok(true);
        }
        progress.add(count as u64);
        match child.write_all(&buffer[..count]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            result => result.context(|| "feed the unpacker".into())?,
        }
    }
}

fn answer(mut child: Child, said: io::Result<Vec<u8>>) -> Result<Report> {
    let status = child.wait().context(|| "unpacker".into())?;
    let said = said.context(|| "unpacker".into())?;
    match (status.signal(), serde_json::from_slice::<order::Answer>(&said)) {
        (None, Ok(answer)) => answer.into(),
        (Some(libc::SIGABRT), _) => {
            Err(Error::new("layer", "takes more memory to unpack than any image should; it is refused"))
        }
        (Some(signal), _) => Err(Error::new("layer", format!("its unpacker was killed by signal {signal}"))),
        (None, Err(_)) => Err(Error::new("unpacker", format!("ended with {status} and without an answer"))),
    }
}
