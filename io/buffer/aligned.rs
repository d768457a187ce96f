//! Memory aligned as `O_DIRECT` demands.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use super::{IoBuf, IoBufMut};

/// A zeroed heap buffer of fixed length whose address is a multiple of `align`.
///
/// Files opened with `O_DIRECT` want the address, the length and the file offset aligned, or answer
/// `EINVAL`. How far is for the file to say: `statx(2)` with `STATX_DIOALIGN` (Linux 6.1) tells
/// `stx_dio_mem_align` and `stx_dio_offset_align`; 4096 satisfies nearly every disk.
///
/// ```
/// use quoit::buffer::AlignedBuf;
///
/// let mut page = AlignedBuf::new(4096, 4096);
/// page[..5].copy_from_slice(b"hello");
/// assert_eq!(page.as_ptr() as usize % 4096, 0);
/// assert_eq!(page.len(), 4096);
/// ```
pub struct AlignedBuf {
    memory: NonNull<u8>,
    layout: Layout,
}

impl AlignedBuf {
    /// Allocates `len` zeroed bytes at a multiple of `align`.
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two, or `len` rounded up to it exceeds `isize::MAX`.
    #[must_use]
    pub fn new(len: usize, align: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(len, align) else {
            panic!("no memory can have {len} bytes aligned to {align}");
        };
        let memory = if len == 0 {
            ptr::without_provenance_mut(align)
        } else {
            // SAFETY: the layout is not empty.
            unsafe { alloc_zeroed(layout) }
        };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, layout }
    }

    /// What the address is a multiple of.
    #[must_use]
    pub fn alignment(&self) -> usize {
        self.layout.align()
    }
}

// SAFETY: it owns its block alone, and the allocator does not care which thread frees it.
unsafe impl Send for AlignedBuf {}
// SAFETY: through `&self` the bytes are only read.
unsafe impl Sync for AlignedBuf {}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout, and freed once.
            unsafe { dealloc(self.memory.as_ptr(), self.layout) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is ours, as long as the layout says, and initialised by `alloc_zeroed`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.layout.size()) }
    }
}

// SAFETY: a heap block of fixed length, initialised, which stays in place until it is dropped.
unsafe impl IoBuf for AlignedBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.memory.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.layout.size()
    }
}

// SAFETY: all of the block is writable and initialised from the start.
unsafe impl IoBufMut for AlignedBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.layout.size()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len())
            .field("alignment", &self.alignment())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::iobuf::tests::fill;
    use super::*;

    #[test]
    fn is_aligned_and_zeroed() {
        for align in [1, 64, 512, 4096, 1 << 16] {
            let buffer = AlignedBuf::new(1000, align);
            assert_eq!(buffer.stable_ptr() as usize % align, 0);
            assert_eq!(buffer.alignment(), align);
            assert_eq!(*buffer, [0; 1000]);
        }
    }

    #[test]
    fn keeps_its_length_over_a_read() {
        let mut buffer = AlignedBuf::new(8, 512);
        fill(&mut buffer, b"abc");
        assert_eq!(*buffer, *b"abc\0\0\0\0\0");
    }

    #[test]
    fn may_be_empty() {
        let buffer = AlignedBuf::new(0, 4096);
        assert!(buffer.is_empty());
        assert_eq!(buffer.stable_ptr() as usize, 4096);
    }

    #[test]
    #[should_panic(expected = "aligned to 3")]
    fn refuses_what_is_no_power_of_two() {
        let _ = AlignedBuf::new(8, 3);
    }
}
