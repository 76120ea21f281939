// SPDX-License-Identifier: Apache-2.0
//! The jailed child: a layer on stdin, files in the working directory, one line on stdout.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use super::order::{ARCHIVE, Answer, Form, Order, Report};
use super::{jail, tree::Tree};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Verified};

/// What the tar's own words may take beside the files: headers, long names, extended attributes.
const HEADERS: u64 = 4096;
/// Bytes of a block of a tar.
const BLOCK: usize = 512;
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
    let (inner, compressed) = decompress(BufReader::with_capacity(BUFFER, io::stdin()))?;
    let stream = Capped { inner, left: limit };
    if compressed && order.sealed && order.diff_id.is_none() {
        return Err(Error::new("layer", "is compressed, and its diff_id is that of no tar"));
    }
    match &order.diff_id {
        _ if order.form == Form::Decoded => decode(stream),
        None if order.sealed => read(Padded { inner: stream, count: 0 }, order),
        None => read(stream, order),
        Some(digest) => {
            let stream = Verified::unsized_of(stream, digest.parse::<Digest>()?);
            read(Padded { inner: stream, count: 0 }, order)
        }
    }
}

fn decode(mut stream: impl Read) -> Result<Report> {
    let context = || ARCHIVE.to_owned();
    let mut file = File::create_new(ARCHIVE).context(context)?;
    let size = io::copy(&mut stream, &mut file).context(context)?;
    Ok(Report { size, ..Report::default() })
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
fn decompress(mut stream: impl io::BufRead + 'static) -> Result<(Box<dyn Read>, bool)> {
    let start = stream.fill_buf().context(|| "layer".into())?;
    Ok(match start {
        [0x1f, 0x8b, ..] => (Box::new(flate2::bufread::MultiGzDecoder::new(stream)), true),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            (Box::new(zstd::stream::read::Decoder::with_buffer(stream).context(|| "layer".into())?), true)
        }
        _ => (Box::new(stream), false),
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

/// A stream that ends with a whole block: umoci leaves out the padding of the last file. Whether something else is missing, the digest says.
struct Padded<R> {
    inner: R,
    count: usize,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.inner.read(buffer)?;
        if count == 0 {
            count = (self.count.next_multiple_of(BLOCK) - self.count).min(buffer.len());
            buffer[..count].fill(0);
        }
        self.count += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding() {
        for (length, padded) in [(0, 0), (1, 512), (512, 512), (513, 1024)] {
            let mut all = Vec::new();
            Padded { inner: &vec![7; length][..], count: 0 }.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), padded);
            assert!(all[length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_cap() {
        let mut all = Vec::new();
        assert!(Capped { inner: &b"abc"[..], left: 2 }.read_to_end(&mut all).is_err());
        assert_eq!(Capped { inner: &b"abc"[..], left: 3 }.read_to_end(&mut all).unwrap(), 3);
    }
}
