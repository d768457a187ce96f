//! One anonymous mapping: the memory of a chunk of buffers.
//!
//! A mapping costs address space when made and memory only where it is touched, so a chunk of
//! buffers that are never filled stays free.

use std::io;
use std::ptr::{self, NonNull};

/// Zeroed pages, unmapped on drop.
pub(super) struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Region {
    /// Maps `length` bytes; the kernel rounds up to whole pages.
    pub(super) fn map(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping wherever the kernel likes touches no memory that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(start) = NonNull::new(start.cast()) else {
            return Err(io::Error::other("the kernel mapped buffers at address zero"));
        };
        Ok(Self { start, length })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, unmapped once; whoever drops it has no pointer into it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0, "unmapping our own pages cannot fail");
        #[cfg(test)]
        tests::UNMAPPED.set(tests::UNMAPPED.get() + 1);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// Regions that this thread has unmapped. Per thread, so that tests do not count each
        /// other's.
        pub(in super::super) static UNMAPPED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn maps_zeroed_writable_memory_and_unmaps_it_once() {
        let before = UNMAPPED.get();
        let region = super::Region::map(3 * 4096).unwrap();
        assert_eq!(region.length, 3 * 4096);
        let last = region.start().as_ptr().wrapping_add(3 * 4096 - 1);
        // SAFETY: the last byte of the region, which is ours.
        unsafe {
            assert_eq!(last.read(), 0);
            last.write(7);
            assert_eq!(last.read(), 7);
        }
        drop(region);
        assert_eq!(UNMAPPED.get() - before, 1);
    }

    #[test]
    fn says_when_there_is_no_room() {
        assert_eq!(
            super::Region::map(isize::MAX as usize).err().unwrap().raw_os_error(),
            Some(libc::ENOMEM)
        );
    }
}
