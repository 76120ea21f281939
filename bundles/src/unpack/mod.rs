// SPDX-License-Identifier: Apache-2.0
//! Layers to files. The parent reads the blob, checks its digest and feeds a child, which alone looks into it: jailed in the folder
//! it fills, a hostile archive can at worst spoil its own output.

mod child;
mod entry;
mod jail;
mod order;
mod tree;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

pub use child::run as child;
pub use order::{Form, Limits, Order, Report};

use crate::error::{Context, Error, Result};
use crate::progress::Progress;

/// Bytes given to the child at once: what a pipe takes.
const CHUNK: usize = 64 << 10;
/// Bytes of the child's answer that are read.
const ANSWER: u64 = 16 << 20;

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
        let fed = child.stdin.take().map_or(Ok(()), |stdin| feed(layer, stdin, progress));
        if fed.is_err() {
            // Its part of the story does not count: what it got is not the layer.
            let _ = child.kill();
        }
        let answer = answer(child);
        fed.and(answer)
    }
}

/// The child may end before all is read; then its answer says why.
fn feed(mut layer: impl Read, mut child: ChildStdin, progress: &Progress) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut gone = false;
    loop {
        progress.check()?;
        let count = layer.read(&mut buffer).context(|| "layer".into())?;
        if count == 0 {
            return Ok(());
        }
        progress.add(count as u64);
        match child.write_all(&buffer[..count]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => gone = true,
            result => result.context(|| "feed the unpacker".into())?,
        }
        if gone {
            return Ok(());
        }
    }
}

fn answer(mut child: Child) -> Result<Report> {
    let mut text = Vec::new();
    let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(ANSWER).read_to_end(&mut text));
    let status = child.wait().and_then(|status| read.map(|_| status)).context(|| "unpacker".into())?;
    match (status.signal(), serde_json::from_slice::<order::Answer>(&text)) {
        (None, Ok(answer)) => answer.into(),
        (Some(libc::SIGABRT), _) => {
            Err(Error::new("layer", "takes more memory to unpack than any image should; it is refused"))
        }
        (Some(signal), _) => Err(Error::new("layer", format!("its unpacker was killed by signal {signal}"))),
        (None, Err(_)) => Err(Error::new("unpacker", format!("ended with {status} and without an answer"))),
    }
}
