// SPDX-License-Identifier: Apache-2.0
//! Sparse files in pax form, as GNU tar writes them: versions 0.0, 0.1 and 1.0 ("Storing Sparse Files" in its manual). The entry has the data
//! alone; where it belongs stands in pax headers, in 1.0 before the data.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Before the keys of all three.
pub const PREFIX: &str = "GNU.sparse.";
/// Pieces of one file.
const PIECES: usize = 1 << 20;
/// What the map of version 1.0 is padded to.
const BLOCK: usize = 512;

/// What the headers say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// The file's own name: the entry's is another, for programs that do not know sparse files
    pub name: Option<Vec<u8>>,
    /// Its bytes, holes included
    pub size: Option<u64>,
    map: Vec<u64>,
    before_data: bool,
}

impl Sparse {
    /// One header, without [`PREFIX`].
    ///
    /// # Errors
    /// If it is none that GNU tar writes.
    pub fn note(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let number = || {
            let text = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            text.ok_or_else(|| format!("has no number as {PREFIX}{key}"))
        };
        match key {
            "name" => self.name = Some(value.to_vec()),
            "size" | "realsize" => self.size = Some(number()?),
            "major" => match number()? {
                0 => {}
                1 => self.before_data = true,
                other => return Err(format!("is a sparse file of the unknown version {other}")),
            },
            "minor" | "numblocks" => drop(number()?),
            "offset" | "numbytes" => self.push(number()?)?,
            "map" => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                for part in text.split(',') {
                    self.push(part.parse().map_err(|_| format!("has no number in {PREFIX}map"))?)?;
                }
            }
            other => return Err(format!("has the unknown {PREFIX}{other}")),
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), String> {
        if self.map.len() >= 2 * PIECES {
            return Err(format!("is a sparse file of more than {PIECES} pieces"));
        }
        self.map.push(number);
        Ok(())
    }

    /// Puts the data of `source` where it belongs in the new file `into`, and gives the file its size.
    ///
    /// # Errors
    /// If the map is none, or does not fit the data.
    pub fn copy(&self, mut source: impl Read, into: &mut File) -> io::Result<()> {
        let (size, mut end) = (self.size.unwrap_or_default(), 0);
        let map = if self.before_data { read_map(&mut source)? } else { self.map.clone() };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse file does not fit it");
        if !map.len().is_multiple_of(2) {
            return Err(wrong());
        }
        for piece in map.chunks_exact(2) {
            let (at, length) = (piece[0], piece[1]);
            let next = at.checked_add(length).filter(|next| at >= end && *next <= size).ok_or_else(wrong)?;
            into.seek(SeekFrom::Start(at))?;
            if io::copy(&mut source.by_ref().take(length), into)? != length {
                return Err(wrong());
            }
            end = next;
        }
        if source.read(&mut [0])? != 0 {
            return Err(wrong());
        }
        into.set_len(size)
    }
}

/// Version 1.0: decimal numbers, a line each, first of them how many pairs there are; padded to a block.
fn read_map(source: &mut impl Read) -> io::Result<Vec<u64>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse file can not be read");
    let (mut numbers, mut digits): (Vec<u64>, String) = (Vec::new(), String::new());
    loop {
        let mut block = [0; BLOCK];
        source.read_exact(&mut block).map_err(|_| wrong())?;
        for byte in block {
            match byte {
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte.into()),
                b'\n' => numbers.push(std::mem::take(&mut digits).parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
            let Some(count) = numbers.first() else { continue };
            let wanted = usize::try_from(*count).ok().filter(|count| *count <= PIECES).ok_or_else(wrong)?;
            if numbers.len() == 1 + 2 * wanted {
                return Ok(numbers.split_off(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_before_the_data() {
        let map = |text: &str| {
            let mut block = text.as_bytes().to_vec();
            block.resize(block.len().next_multiple_of(BLOCK), 0);
            read_map(&mut block.as_slice())
        };
        assert_eq!(map("2\n0\n512\n4096\n7\n").unwrap(), [0, 512, 4096, 7]);
        assert!(map("0\n").unwrap().is_empty());
        let many = (0..300).map(|at| format!("{at}\n")).collect::<String>();
        assert_eq!(map(&format!("150\n{many}")).unwrap().len(), 300);
        for bad in ["", "x\n", "2\n1\n", "-1\n", "99999999999\n", "1\n0\n99999999999999999999999\n"] {
            assert!(map(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers() {
        let mut sparse = Sparse::default();
        for (key, value) in [("major", "0"), ("minor", "1"), ("numblocks", "1"), ("map", "0,5"), ("size", "9")] {
            sparse.note(key, value.as_bytes()).unwrap();
        }
        assert_eq!((sparse.size, sparse.map.as_slice(), sparse.before_data), (Some(9), &[0, 5][..], false));
        for (key, value) in [("major", "2"), ("map", "1,x"), ("size", "-1"), ("other", "1")] {
            assert!(Sparse::default().note(key, value.as_bytes()).is_err(), "{key}");
        }
    }
}
