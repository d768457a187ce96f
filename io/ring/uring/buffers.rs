//! The provided buffer ring: buffers that the kernel may fill when bytes come, so that an idle
//! connection holds none.
//!
//! We write entries and then the tail; the kernel takes entries from its own head. The tail lives
//! in the first entry's spare field, and storing it is what publishes: once for a batch.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::setup::BUFFER_GROUP;
use crate::io::ring::Provided;

pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
}

impl BufferRing {
    /// Registers an empty ring with room for `count` buffers, rounded up to a power of two.
    pub(super) fn register(ring: &IoUring, count: u16) -> io::Result<Self> {
        let count = count.next_power_of_two();
        let length = Self::bytes(count);
        // SAFETY: an anonymous mapping of a fresh range.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = NonNull::new(address.cast()).expect("mmap gives no null mapping");
        let buffers = Self { entries, count, tail: 0 };
        // SAFETY: our own mapping. A child of fork(2) must not publish buffers to our kernel ring.
        unsafe { libc::madvise(address, length, libc::MADV_DONTFORK) };
        // SAFETY: the mapping is page-aligned, zeroed, large enough, and lives as long as the ring:
        // the engine drops (or leaks) both together, the ring first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                address as u64,
                count,
                BUFFER_GROUP,
                0,
            )?;
        }
        Ok(buffers)
    }

    fn bytes(count: u16) -> usize {
        usize::from(count) * size_of::<BufRingEntry>()
    }

    /// Writes entries and publishes them together. The pool never has more buffers than `count`, so
    /// an entry that the kernel has not taken is never overwritten.
    pub(super) fn provide(&mut self, buffers: impl Iterator<Item = Provided>) {
        let before = self.tail;
        for buffer in buffers {
            let index = usize::from(self.tail & (self.count - 1));
            // SAFETY: masked into the mapping; the kernel does not read beyond the published tail.
            let entry = unsafe { self.entries.add(index).as_mut() };
            entry.set_addr(buffer.address as u64);
            entry.set_len(buffer.length);
            entry.set_bid(buffer.id);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            // SAFETY: the tail lies in the first entry, inside the mapping, and is only ever
            // touched as an atomic by both sides. Release: the entries are written before they are
            // seen.
            unsafe {
                let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
                AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
            }
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the engine closes the ring before it drops this.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), Self::bytes(self.count)) };
    }
}
