// SPDX-License-Identifier: Apache-2.0
//! The jailed child: a layer on stdin, files in the working directory, one line on stdout.

use std::io::{self, BufReader, Read, Write};

use super::order::{Answer, Order, Report};
use super::{jail, tree::Tree};
use crate::error::{Context, Result};
use crate::image::{Digest, Verified};

/// What the tar's own words may take beside the files: headers, long names, extended attributes.
const HEADERS: u64 = 4096;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Does what `order` (JSON of [`Order`]) says, and answers on stdout. The exit code is 0 if all went well.
pub fn run(order: &str) -> u8 {
    let result =
        serde_json::from_str(order).context(|| "order of the unpacker".into()).and_then(|order| unpack(&order));
    let code = u8::from(result.is_err());
    let answer = serde_json::to_vec(&Answer::from(result)).unwrap_or_default();
    match io::stdout().lock().write_all(&answer) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

fn unpack(order: &Order) -> Result<Report> {
    jail::enter()?;
    let limit = order.limits.size.saturating_add(order.limits.entries.saturating_mul(HEADERS));
    let stream = Capped { inner: decompress(BufReader::with_capacity(BUFFER, io::stdin()))?, left: limit };
    match &order.diff_id {
        None => read(stream, order),
        Some(digest) => read(Verified::unsized_of(stream, digest.parse::<Digest>()?), order),
    }
}

fn read(stream: impl Read, order: &Order) -> Result<Report> {
    let mut archive = tar::Archive::new(stream);
    let mut tree = Tree::new(order);
    for entry in archive.entries().context(|| "layer".into())? {
        tree.entry(entry.context(|| "layer".into())?)?;
    }
    // What stands after the end of the archive counts for the digest.
    io::copy(&mut archive.into_inner(), &mut io::sink()).context(|| "layer".into())?;
    tree.finish()
}

/// By the first bytes, which can not be mistaken for a tar's: RFC 1952, RFC 8878.
fn decompress(mut stream: impl io::BufRead + 'static) -> Result<Box<dyn Read>> {
    let start = stream.fill_buf().context(|| "layer".into())?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(stream).context(|| "layer".into())?)
        }
        _ => Box::new(stream),
    })
}

/// A stream that must not be longer.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the archive is longer than --max-size and --max-entries allow")
        })?;
        Ok(count)
    }
}
