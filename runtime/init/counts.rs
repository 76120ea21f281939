// SPDX-License-Identifier: Apache-2.0
//! The file of counts, `violations` in a container's state folder, and the messages to its monitor. Both sides compile this file.
//!
//! # Layout, version 1
//! [`BYTES`] bytes, all of it native-endian 64-bit words, each written whole: whoever maps it shared reads it live, without a
//! lock. First [`HEADER`] words, by index:
//!
//! | word | what it holds |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 1 | [`VERSION`]: another one is another layout |
//! | 2 | rows in use; one is complete before it is counted here, and never goes again |
//! | 3 | denied calls, all of them |
//! | 4 | those of them that no row was left for |
//! | 5 | listeners that came and could not be taken: calls of those processes fail with ENOSYS, uncounted |
//! | 6 | processes that wsbox waited for and that the filter killed (SIGSYS) |
//! | 7 | reserved, 0 |
//!
//! Then [`ROWS`] rows of [`ROW`] words: the call's number below, the architecture (AUDIT_ARCH_*) in the upper 32 bits; the
//! process's name, 16 bytes in two words, NUL at the end; the count. A name of nothing stands for "not read": a container
//! that renames itself without end gets [`NAMED`] names, then one row a call.

/// Word 0: "wsboxcnt", as a little-endian machine has it.
pub const MAGIC: u64 = 0x746e_6378_6f62_7377;
/// Word 1.
pub const VERSION: u64 = 1;
/// Words before the rows.
pub const HEADER: usize = 8;
/// Words of a row.
pub const ROW: usize = 4;
/// How many rows there are.
pub const ROWS: usize = 510;
/// How many of them may have a name.
pub const NAMED: usize = 256;
/// The whole file.
pub const BYTES: usize = (HEADER + ROWS * ROW) * 8;

/// Word of the rows in use.
pub const USED: usize = 2;
/// Word of all denied calls.
pub const TOTAL: usize = 3;
/// Word of those without a row.
pub const OVERFLOW: usize = 4;
/// Word of the listeners that could not be taken.
pub const LOST: usize = 5;
/// Word of the processes that the filter killed.
pub const KILLED: usize = 6;

/// First byte of the first message: [`SET_UP_BYTES`] bytes, and descriptors: the filters (a sealed memfd: the monitor's own,
/// then the container's), the file of counts, a proc file system, the pidfd of the container's first process.
pub const SET_UP: u8 = 1;
/// First byte of every other message, which brings one listener.
pub const LISTENER: u8 = 2;
/// The first byte; whether every right can, and so must, be given up; two of 0; the lengths of the two filters (`u32` each).
pub const SET_UP_BYTES: usize = 12;
