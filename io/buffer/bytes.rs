//! The buffers of the crate `bytes`: received ones made of leases, and theirs lent to the kernel.
//!
//! ```text
//!   Lease ──into──► Bytes ──clone, slice──► Bytes ──► sent, kept, given to another thread
//!     ▲                                       │
//!     └── the pool has its buffer back ◄──────┘ the last of them is dropped, on any thread
//! ```

use ::bytes::{Buf, Bytes, BytesMut};

use super::{IoBuf, IoBufMut, Lease};

/// Without a copy: the buffer goes back to its pool with the last clone or part, from any thread.
/// It costs one small allocation, that of the shared count.
///
/// A whole buffer of the pool is kept from other receives as long as a part of it lives: what is
/// kept for long is better copied, by [`Bytes::copy_from_slice`].
///
/// ```
/// use bytes::Bytes;
/// use quoit::buffer::Lease;
///
/// let bytes = Bytes::from(Lease::copy_from(b"GET / HTTP/1.1"));
/// let path = bytes.slice(4..5);
/// drop(bytes);
/// assert_eq!(path, "/");
/// ```
impl From<Lease> for Bytes {
    fn from(lease: Lease) -> Self {
        // An empty lease holds no buffer, so nothing has to know when it is over.
        if lease.is_empty() { Self::new() } else { Self::from_owner(lease) }
    }
}

/// A lease is a buffer to parse from, and the data of a `http_body::Body`, as it is.
///
/// [`copy_to_bytes`](Buf::copy_to_bytes) does not copy, despite its name: both hold the buffer.
///
/// ```
/// use bytes::Buf;
/// use quoit::buffer::Lease;
///
/// let mut frame = Lease::copy_from(b"\x00\x05hello!");
/// let length = frame.get_u16();
/// assert_eq!(frame.copy_to_bytes(length.into()), "hello");
/// assert_eq!(frame, "!");
/// ```
impl Buf for Lease {
    #[inline]
    fn remaining(&self) -> usize {
        self.len()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        Self::advance(self, count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.split_to(length).into()
    }
}

// SAFETY: the bytes lie behind a pointer, are written by nobody while they are shared, and stay in
// place while this part of them lives.
unsafe impl IoBuf for Bytes {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: the bytes lie in a heap block, of which each `BytesMut` has its part alone; the part stays
// in place until it is reached through `&mut`.
unsafe impl IoBuf for BytesMut {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: its part of the block has room for `capacity` bytes, the first `len` of which are
// initialised.
unsafe impl IoBufMut for BytesMut {
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

#[cfg(test)]
mod tests {
    use super::super::iobuf::tests::{fill, sent};
    use super::*;

    #[test]
    fn both_kinds_send_their_bytes_from_a_stable_place() {
        assert_eq!(sent(Bytes::from_static(b"bytes")), b"bytes");
        assert_eq!(sent(Bytes::from(b"some bytes".to_vec()).slice(5..)), b"bytes");
        assert_eq!(sent(Bytes::from(Lease::copy_from(b"bytes"))), b"bytes");
        assert_eq!(sent(BytesMut::from(&b"bytes"[..])), b"bytes");
        assert_eq!(sent(BytesMut::from(&b"some bytes"[..]).split_off(5)), b"bytes");
    }

    #[test]
    fn it_holds_just_what_was_read() {
        let mut bytes = BytesMut::from(&b"12345678"[..]);
        fill(&mut bytes, b"abc");
        assert_eq!(bytes, "abc");
        assert!(bytes.bytes_total() >= 8, "a shorter read does not lose capacity");
        fill(&mut bytes, b"");
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_read_behind_its_bytes_appends() {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.extend_from_slice(b"head");
        let mut room = bytes.slice_mut(4..);
        fill(&mut room, b", tail");
        assert_eq!(room.into_inner(), "head, tail");
    }

    #[test]
    fn a_read_stays_within_its_part_of_a_shared_block() {
        let mut front = BytesMut::with_capacity(64);
        front.extend_from_slice(b"12345678");
        let back = front.split_off(4);
        assert_eq!(front.bytes_total(), 4);
        fill(&mut front, b"abcd");
        assert_eq!((front, back), (BytesMut::from("abcd"), BytesMut::from("5678")));
    }

    #[test]
    fn the_bytes_of_a_lease_are_where_they_were() {
        let lease = Lease::copy_from(b"lease");
        let address = lease.stable_ptr();
        let bytes = Bytes::from(lease);
        assert_eq!(bytes.stable_ptr(), address);
        assert_eq!(bytes, "lease");
        assert!(Bytes::from(Lease::empty()).is_empty());
    }

    #[test]
    fn a_lease_is_a_buffer_to_parse_from() {
        let mut lease = Lease::copy_from(b"\x01\x02\x03rest");
        let address = lease.stable_ptr();
        assert_eq!((lease.get_u8(), lease.get_u16()), (1, 0x203));
        let part = lease.copy_to_bytes(3);
        assert_eq!((part.as_ptr(), &part[..]), (address.wrapping_add(3), &b"res"[..]));
        assert_eq!((Buf::remaining(&lease), lease.chunk()), (1, &b"t"[..]));
    }

    #[test]
    #[should_panic(expected = "cannot split 1 bytes at 2")]
    fn no_more_is_parsed_than_there_is() {
        Lease::copy_from(b"1").copy_to_bytes(2);
    }
}
