//! The two traits of buffers that can be lent to the kernel.
//!
//! The kernel keeps a bare address while the value that owns the memory moves: from the caller into
//! the future, into the in-flight slot, and back. So only memory that does *not* move with its
//! owner qualifies: heap blocks and statics. `[u8; N]` cannot, for it is its own memory.

use std::ops::RangeBounds;
use std::sync::Arc;

use super::slice::{Slice, resolve};

/// Memory that the kernel may read: a buffer to send or write from.
///
/// Implemented by `Vec<u8>`, `Box<[u8]>`, `Arc<[u8]>`, `String`, `&'static [u8]`, `&'static str`,
/// [`Lease`](super::Lease), [`AlignedBuf`](super::AlignedBuf), with the feature `bytes` by `Bytes` and
/// `BytesMut`, and by [`Slice`] of any of them.
///
/// ```
/// use quoit::buffer::IoBuf;
///
/// let tail = String::from("hello, world").slice(7..);
/// assert_eq!(&tail[..], b"world");
/// assert_eq!(tail.into_inner(), "hello, world");
/// ```
///
/// # Safety
///
/// An implementation promises that:
///
/// * [`stable_ptr`](Self::stable_ptr) points to [`bytes_init`](Self::bytes_init) initialised bytes;
/// * they stay valid at that address, and nobody writes to them, however the value is moved, until
///   it is dropped or reached through `&mut`; a value that is leaked keeps them for ever;
/// * both methods answer the same until the value is reached through `&mut`.
pub unsafe trait IoBuf: Unpin + 'static {
    /// Where the bytes are.
    fn stable_ptr(&self) -> *const u8;

    /// How many bytes there are: as many as a write sends.
    fn bytes_init(&self) -> usize;

    /// Narrows the buffer to a range of its bytes, to write that part only.
    ///
    /// With this trait in scope it is also what `bytes.slice(..)` calls on a `Bytes`, whose own
    /// method takes `&self`: write `Bytes::slice(&bytes, ..)` for that, which serves as well.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the bytes there are.
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self>
    where
        Self: Sized,
    {
        let range = resolve(range, self.bytes_init(), self.bytes_init());
        Slice::new(self, range)
    }
}

/// Memory that the kernel may write: a buffer to receive or read into.
///
/// A read fills the buffer from its start, over what was there.
///
/// | buffer | room for a read | after `n` bytes were read |
/// |---|---|---|
/// | `Vec<u8>`, `BytesMut` | its capacity | `len() == n`: it holds just what was read |
/// | `Box<[u8]>`, [`AlignedBuf`](super::AlignedBuf) | its length | the old bytes follow the `n` |
/// | [`Slice<B>`](Slice) | its range | a vector grows as needed, never shrinks |
///
/// A read that fails leaves the length as it was. `Vec::new()` has no room: reading into it returns
/// 0 at once, which looks like the end of the stream; give it a capacity, as `BytesMut::new()`. To append to a vector,
/// read into what lies behind its bytes:
///
/// ```
/// use quoit::buffer::IoBufMut;
///
/// let mut vec = Vec::with_capacity(64);
/// vec.extend_from_slice(b"head");
/// let room = vec.slice_mut(4..);
/// assert!(room.bytes_total() >= 60);
/// // let (n, room) = stream.recv_into(room).await?;
/// assert_eq!(room.into_inner(), b"head");
/// ```
///
/// # Safety
///
/// An implementation promises, besides what [`IoBuf`] asks, that:
///
/// * [`stable_mut_ptr`](Self::stable_mut_ptr) points to [`bytes_total`](Self::bytes_total) writable
///   bytes, of which the first [`bytes_init`](IoBuf::bytes_init) are those of the `IoBuf`;
/// * nobody else reads or writes them, however the value is moved, until it is dropped or reached
///   again;
/// * after `set_init(n)` at least the first `n` bytes count as initialised.
pub unsafe trait IoBufMut: IoBuf {
    /// Where a read puts its first byte.
    fn stable_mut_ptr(&mut self) -> *mut u8;

    /// How many bytes a read may fill.
    fn bytes_total(&self) -> usize;

    /// Takes note that a read has filled the first `n` bytes.
    ///
    /// # Safety
    ///
    /// * `n` is at most [`bytes_total`](Self::bytes_total).
    /// * The first `n` bytes are initialised.
    unsafe fn set_init(&mut self, n: usize);

    /// Narrows the buffer to a range of its room, to read into that part only.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the room there is, or starts beyond the initialised bytes,
    /// which would leave a gap.
    fn slice_mut(self, range: impl RangeBounds<usize>) -> Slice<Self>
    where
        Self: Sized,
    {
        let range = resolve(range, self.bytes_init(), self.bytes_total());
        Slice::new(self, range)
    }
}

// SAFETY: a vector's bytes are a heap block, which stays in place until the vector is changed.
unsafe impl IoBuf for Vec<u8> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: the block has room for `capacity` bytes, the first `len` of which are initialised.
unsafe impl IoBufMut for Vec<u8> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, n: usize) {
        // SAFETY: the caller pays both duties: within the capacity, and initialised.
        unsafe { self.set_len(n) }
    }
}

// SAFETY: the bytes are a heap block of fixed length, which stays in place.
unsafe impl IoBuf for Box<[u8]> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: all of the block is writable, and initialised from the start.
unsafe impl IoBufMut for Box<[u8]> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

// SAFETY: shared bytes are never written, and stay in place while this owner lives. (`Arc::get_mut`
// needs `&mut`.)
unsafe impl IoBuf for Arc<[u8]> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for the vector within.
unsafe impl IoBuf for String {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: borrowed for ever: neither moved, freed nor written.
unsafe impl IoBuf for &'static [u8] {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: borrowed for ever: neither moved, freed nor written.
unsafe impl IoBuf for &'static str {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::io::buffer::{AlignedBuf, Lease};

    /// Does what a read does: writes at the pointer, then says how much.
    pub(in super::super) fn fill(buffer: &mut impl IoBufMut, bytes: &[u8]) {
        assert!(bytes.len() <= buffer.bytes_total());
        // SAFETY: the room is writable and long enough; then that much is initialised.
        unsafe {
            buffer.stable_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            buffer.set_init(bytes.len());
        }
    }

    /// Does what a write does: reads all there is, after the value has moved twice.
    pub(in super::super) fn sent<B: IoBuf>(buffer: B) -> Vec<u8> {
        let pointer = buffer.stable_ptr();
        let moved = Box::new(buffer);
        assert_eq!(moved.stable_ptr(), pointer, "the bytes moved with their owner");
        // SAFETY: the duty of IoBuf.
        unsafe { std::slice::from_raw_parts(pointer, moved.bytes_init()) }.to_vec()
    }

    #[test]
    fn every_kind_sends_its_bytes_from_a_stable_place() {
        let mut aligned = AlignedBuf::new(5, 512);
        aligned.copy_from_slice(b"bytes");
        assert_eq!(sent(b"bytes".to_vec()), b"bytes");
        assert_eq!(sent(b"bytes".to_vec().into_boxed_slice()), b"bytes");
        assert_eq!(sent(Arc::<[u8]>::from(&b"bytes"[..])), b"bytes");
        assert_eq!(sent(String::from("bytes")), b"bytes");
        assert_eq!(sent(&b"bytes"[..]), b"bytes");
        assert_eq!(sent("bytes"), b"bytes");
        assert_eq!(sent(Lease::copy_from(b"bytes")), b"bytes");
        assert_eq!(sent(aligned), b"bytes");
        assert_eq!(sent(b"some bytes".to_vec().slice(5..)), b"bytes");
    }

    #[test]
    fn a_vector_holds_just_what_was_read() {
        let mut vec = vec![9; 8];
        fill(&mut vec, b"abc");
        assert_eq!(vec, b"abc");
        assert!(vec.bytes_total() >= 8, "a shorter read does not lose capacity");
        fill(&mut vec, b"longer");
        assert_eq!(vec, b"longer");
        fill(&mut vec, b"");
        assert!(vec.is_empty());
    }

    #[test]
    fn a_box_keeps_its_length() {
        let mut boxed = vec![9; 4].into_boxed_slice();
        fill(&mut boxed, b"ab");
        assert_eq!(*boxed, *b"ab\x09\x09");
    }
}
