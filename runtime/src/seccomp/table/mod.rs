// SPDX-License-Identifier: Apache-2.0
//! Names and numbers of all system calls, for every ABI; one list, so that a name is looked up once for all of them.

mod calls;

use super::abi::Abi;
use calls::{CALLS, FOREIGN};

/// One system call.
pub(crate) struct Call {
    /// Its name, as in the kernel's headers (`__NR_` cut off).
    pub name: &'static str,
    /// Its number by ABI, `u32::MAX` where it does not exist.
    numbers: [u32; 5],
}

impl Call {
    /// Its number in the ABI's own count, which for x32 has no bit set.
    pub fn number(&self, abi: Abi) -> Option<u32> {
        Some(self.numbers[abi as usize]).filter(|&number| number != u32::MAX)
    }
}

/// Every call, by row.
pub(crate) fn calls() -> &'static [Call] {
    &CALLS
}

/// The row of the call `name`.
pub(crate) fn row(name: &str) -> Option<usize> {
    // 32-bit ARM has two names for one number.
    let name = if name == "arm_sync_file_range" { "sync_file_range2" } else { name };
    let mut place = hash(name.as_bytes());
    loop {
        let row = usize::from(INDEX[place % PLACES]);
        if CALLS.get(row)?.name == name {
            return Some(row);
        }
        place += 1;
    }
}

/// Places in the index by name: a power of two, twice the calls and more.
const PLACES: usize = 1024;
/// Marks a free place.
const FREE: u16 = u16::MAX;
/// Rows by hash of the name, made by the compiler: a profile has hundreds of names, a search by halves takes ten times as
/// long. A row that finds its place taken is in the next free one.
static INDEX: [u16; PLACES] = index();

const fn index() -> [u16; PLACES] {
    let mut index = [FREE; PLACES];
    let mut row = 0;
    while row < CALLS.len() {
        let mut place = hash(CALLS[row].name.as_bytes());
        while index[place % PLACES] != FREE {
            place += 1;
        }
        index[place % PLACES] = row as u16;
        row += 1;
    }
    index
}

/// FNV-1a (Fowler, Noll, Vo), folded to the index's size.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 16)) as usize % PLACES
}

/// Enough slots for every number of an ABI, and one after the last.
pub(crate) const SLOTS: usize = 576;
/// The slot of the first number of an ABI's own.
const PRIVATE_SLOT: u32 = 512;

/// Where `number`, in the ABI's own count, stands in a list of all; private numbers lie close behind the common ones.
pub(crate) fn slot(abi: Abi, number: u32) -> usize {
    let private = number.checked_sub(abi.private_from());
    private.map_or(number, |private| PRIVATE_SLOT + private) as usize
}

/// The number that stands in `slot`.
pub(crate) fn number_of_slot(abi: Abi, slot: u32) -> u32 {
    match slot.checked_sub(PRIVATE_SLOT) {
        Some(private) if abi.private_from() < u32::MAX => abi.private_from() + private,
        _ => slot,
    }
}

/// Whether only architectures have the call on which wsbox does not run.
pub(crate) fn is_foreign(name: &str) -> bool {
    FOREIGN.binary_search(&name).is_ok()
}

/// The number that `seccomp_data.nr` holds for the call `name` (with x32's bit); none if the ABI does not have it.
pub fn number(name: &str, abi: Abi) -> Option<u32> {
    row(name).and_then(|row| CALLS[row].number(abi)).map(|number| number + abi.base())
}

/// The name of the call with this `seccomp_data.nr`.
pub fn name(number: u32, abi: Abi) -> Option<&'static str> {
    CALLS.iter().find(|call| call.number(abi).is_some_and(|own| own + abi.base() == number)).map(|call| call.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_sorted() {
        assert!(CALLS.is_sorted_by(|a, b| a.name < b.name));
        assert!(FOREIGN.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_number_has_one_name() {
        for abi in Abi::ALL {
            for call in calls().iter().filter(|call| call.number(abi).is_some()) {
                let nr = number(call.name, abi).unwrap();
                assert_eq!(name(nr, abi), Some(call.name), "{abi:?} {nr}");
            }
        }
    }

    #[test]
    fn every_call_is_found_by_name_and_slot() {
        for (at, call) in calls().iter().enumerate() {
            assert_eq!(row(call.name), Some(at));
            for (abi, number) in Abi::ALL.iter().filter_map(|&abi| Some((abi, call.number(abi)?))) {
                let slot = slot(abi, number);
                assert!(slot < SLOTS - 1);
                assert_eq!(number_of_slot(abi, slot as u32), number);
            }
        }
        assert_eq!([row(""), row("raed"), row("readx")], [None; 3]);
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let known = [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("mseal", libc::SYS_mseal),
            ("futex_waitv", libc::SYS_futex_waitv),
        ];
        for (name, nr) in known {
            assert_eq!(number(name, super::super::Arch::native().abi()).map(i64::from), Some(nr), "{name}");
        }
    }

    #[test]
    fn special_numbers() {
        assert_eq!(number("execve", Abi::X32), Some(0x4000_0000 + 520));
        assert_eq!(number("set_tls", Abi::Arm), Some(0x000f_0005));
        assert_eq!(number("arm_sync_file_range", Abi::Arm), Some(341));
        assert_eq!(number("open", Abi::Aarch64), None);
        assert!(is_foreign("riscv_hwprobe") && !is_foreign("read"));
        for abi in Abi::ALL {
            let common = CALLS.iter().filter_map(|call| call.number(abi)).filter(|&number| number < abi.private_from());
            assert_eq!(common.max(), Some(471), "{abi:?}");
        }
    }
}
