// SPDX-License-Identifier: Apache-2.0
//! What the container's filter says of a call: the kernel does not tell, so the same program is run once more.

// Instruction codes (linux/bpf_common.h): all that the compiler of filters writes.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// SECCOMP_RET_ERRNO of linux/seccomp.h, and the largest number that it may have (MAX_ERRNO).
const ERRNO: u32 = 0x0005_0000;
const LARGEST: u32 = 4095;
const EPERM: u32 = 1;

/// The error number for a call, given as the words of `struct seccomp_data`; EPERM where the filter has none.
pub fn error_number(filter: &[u8], data: &[u32; 16]) -> i32 {
    match run(filter, data) {
        Some(verdict) if verdict & 0xffff_0000 == ERRNO => (verdict & 0xffff).min(LARGEST) as i32,
        _ => EPERM as i32,
    }
}

/// What `filter`, 8 bytes an instruction (`struct sock_filter`), returns; none if it is no filter of ours.
pub fn run(filter: &[u8], data: &[u32; 16]) -> Option<u32> {
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let raw = filter.get(at * 8..at * 8 + 8)?;
        let (code, jt, jf) = (u16::from_ne_bytes([raw[0], raw[1]]), raw[2], raw[3]);
        let k = u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]);
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1 + match code {
            RETURN => return Some(k),
            LOAD => {
                accumulator = *data.get(k as usize / 4)?;
                0
            }
            AND => {
                accumulator &= k;
                0
            }
            JUMP => k as usize,
            IF_EQUAL => branch(accumulator == k),
            IF_GREATER => branch(accumulator > k),
            IF_AT_LEAST => branch(accumulator >= k),
            _ => return None,
        };
    }
}
