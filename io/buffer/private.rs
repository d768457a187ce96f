//! Leases on plain heap memory: when the pool has nothing to lend, and for bytes of the user's own.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// The heap block of a vector, without its length: what private leases share.
///
/// Raw parts, since a `Vec` beside pointers into it would claim the bytes for itself.
pub(super) struct Heap {
    memory: NonNull<u8>,
    capacity: usize,
}

impl Heap {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut bytes = ManuallyDrop::new(bytes);
        // SAFETY: the pointer of a vector is never null.
        let memory = unsafe { NonNull::new_unchecked(bytes.as_mut_ptr()) };
        Self { memory, capacity: bytes.capacity() }
    }

    pub(super) fn memory(&self) -> NonNull<u8> {
        self.memory
    }
}

// SAFETY: it only frees the block. The bytes belong to the leases, which never overlap.
unsafe impl Send for Heap {}
// SAFETY: nothing is reachable through `&Heap` but an address.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: the parts of the vector that `new` took apart; no byte needs a drop.
        drop(unsafe { Vec::from_raw_parts(self.memory.as_ptr(), 0, self.capacity) });
    }
}
