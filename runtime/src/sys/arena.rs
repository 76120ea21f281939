// SPDX-License-Identifier: Apache-2.0
//! The allocator of the `wsbox` command: most commands live for half a millisecond and allocate some kilobytes, of which each
//! mapping, and each page of it, costs as much as a dozen system calls.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes. Pages that are not touched cost nothing.
const SIZE: usize = 512 << 10;

/// What malloc(3) gives also where less is asked: nix 0.31's sendmsg reads a cmsghdr in a Vec<u8>.
const ALIGN: usize = 8;

/// Hands out one block of memory from its beginning to its end, and then what the system's allocator has. In the block only
/// the last allocation can be freed, or grow where it is: what goes on for long ends up at the system's.
pub struct Arena {
    block: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: each byte of the block is handed out once, as `used` grows atomically.
unsafe impl Sync for Arena {}

impl Arena {
    /// An empty one, for a static.
    #[expect(clippy::new_without_default, reason = "only a static of zeroes costs nothing in the binary")]
    pub const fn new() -> Self {
        Self { block: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> usize {
        self.block.get().addr()
    }

    /// The offset of `ptr` in the block, if it is in there.
    fn offset(&self, ptr: *mut u8) -> Option<usize> {
        ptr.addr().checked_sub(self.start()).filter(|offset| *offset < SIZE)
    }

    /// Takes `layout` from the block; None once it is full.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let first = (self.start() + used).next_multiple_of(layout.align().max(ALIGN)) - self.start();
            let end = first.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
            match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(self.block.get().cast::<u8>().wrapping_add(first)),
                Err(now) => used = now,
            }
        }
    }

    /// Moves the end of the allocation at `offset` from `old` bytes to `new`, if it is the last one and there is room.
    fn resize_last(&self, offset: usize, old: usize, new: usize) -> bool {
        let Some(end) = offset.checked_add(new).filter(|end| *end <= SIZE) else { return false };
        self.used.compare_exchange(offset + old, end, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: what `take` returns is aligned, of the size asked for, inside the block and nobody else's until it is freed as the
// last allocation; all else is the system allocator's, which is told the same pointers and layouts as it was given.
unsafe impl GlobalAlloc for Arena {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    #[inline(never)]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        match self.offset(ptr) {
            Some(offset) => _ = self.resize_last(offset, layout.size(), 0),
            // SAFETY: it is not from the block, so it is the system's.
            None => unsafe { System.dealloc(ptr, layout) },
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(ptr) else {
            // SAFETY: it is not from the block, so it is the system's.
            return unsafe { System.realloc(ptr, layout, new_size) };
        };
        if new_size <= layout.size() || self.resize_last(offset, layout.size(), new_size) {
            return ptr;
        }
        // SAFETY: the caller promises that the new size is no overflow; the old bytes are the caller's, the new ones nobody's.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(ptr, layout.size());
            }
            new
        }
    }
}
