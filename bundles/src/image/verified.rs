// SPDX-License-Identifier: Apache-2.0
//! A reader that ends in an error if what it read is not what the digest and the size say.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::Digest;

/// Reads `inner` as it comes, and checks size and digest at its end: who has read to the end without an error has read the right bytes.
/// More bytes than the size are an error as soon as they come.
pub struct Verified<R> {
    inner: R,
    digest: Digest,
    size: Option<u64>,
    read: u64,
    hasher: Option<Sha256>,
}

impl<R: Read> Verified<R> {
    /// `inner` has to have `size` bytes of this digest.
    pub fn new(inner: R, digest: Digest, size: u64) -> Self {
        Self { size: Some(size), ..Self::unsized_of(inner, digest) }
    }

    /// `inner` has to have this digest, however long it is.
    pub fn unsized_of(inner: R, digest: Digest) -> Self {
        Self { inner, digest, size: None, read: 0, hasher: Some(Sha256::new()) }
    }

    /// Reads what a decompressor left unread, so that the check takes place.
    ///
    /// # Errors
    /// As reading.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }

    fn wrong(&self, why: String) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", self.digest))
    }

    fn check(&mut self) -> io::Result<()> {
        // Once is enough: reading on at the end gives nothing again.
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if let Some(size) = self.size.filter(|size| *size != self.read) {
            return Err(self.wrong(format!("has {} bytes instead of {size}", self.read)));
        }
        let found = Digest::from_hasher(hasher);
        if found != self.digest {
            return Err(self.wrong(format!("the content is {found}")));
        }
        Ok(())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return self.check().map(|()| 0);
        }
        self.read += count as u64;
        if let Some(size) = self.size.filter(|size| self.read > *size) {
            return Err(self.wrong(format!("has more than {size} bytes")));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], of: &[u8], size: u64) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        Verified::new(bytes, Digest::of(of), size).read_to_end(&mut all).map(|_| all).map_err(|error| error.to_string())
    }

    #[test]
    fn checks_at_the_end() {
        assert_eq!(read(b"abc", b"abc", 3).unwrap(), b"abc");
        assert!(read(b"abd", b"abc", 3).unwrap_err().contains("the content is sha256:"));
        assert!(read(b"ab", b"ab", 3).unwrap_err().contains("has 2 bytes instead of 3"));
        assert!(read(b"abcd", b"abc", 3).unwrap_err().contains("has more than 3 bytes"));
    }

    #[test]
    fn the_rest_counts() {
        let mut reader = Verified::new(&b"abcdef"[..], Digest::of(b"abcdeX"), 6);
        reader.read_exact(&mut [0; 3]).unwrap();
        assert!(reader.finish().is_err());
    }
}
