//! A lease: received bytes in a buffer that goes back where it came from.
//!
//! ```text
//!            ┌ pooled ──── split ───► split ┐   each half returns by itself,
//!   (new) ───┤                              ├── the last one returns the buffer
//!            └ private, shares its block ───┘
//!   any of them ── no byte left ──► empty: the buffer is returned at once
//! ```
//!
//! Three words: where the bytes are, how many, which buffer, and whose. Leases of one
//! buffer never overlap, so each owns its bytes alone and may write them.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::IoBuf;
use super::private::Heap;
use super::shared::Shared;

/// Received bytes, lent from a core's pool of buffers.
///
/// A receive returns one without copying. It dereferences to exactly the bytes received, can be cut
/// apart, kept, sent to another thread, sent out again as it is ([`IoBuf`]), or made a
/// `bytes::Bytes` (by `Bytes::from_owner(lease)`, or with the feature `bytes` by `into`). Dropping
/// the last part of it gives the buffer back to the pool, from any thread, and even after its
/// runtime has ended.
///
/// An empty lease is the end of the stream. It holds no buffer, nor does one whose bytes have all
/// been taken away by [`advance`](Self::advance), [`truncate`](Self::truncate) or a split.
///
/// A lease keeps a whole buffer (a little over 64 KiB by default) from other receives, however few
/// bytes it shows. What is kept for long is better copied, by `to_vec`.
///
/// ```
/// use quoit::buffer::Lease;
///
/// let mut lease = Lease::copy_from(b"GET / HTTP/1.1");
/// let method = lease.split_to(3);
/// lease.advance(1);
/// assert_eq!(method, b"GET");
/// assert_eq!(lease, b"/ HTTP/1.1");
/// ```
pub struct Lease {
    start: NonNull<u8>,
    length: u32,
    /// The buffer, when it is of a pool.
    id: u16,
    owner: Owner,
    /// A `Shared` when pooled or split, an `Arc<Heap>` when private, else dangling.
    held: NonNull<()>,
}

/// Who gets the memory back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// Nobody: there is none.
    Empty,
    /// The pool, at the end of this lease.
    Pool,
    /// The pool, at the end of the last lease that shares the buffer.
    PoolSplit,
    /// The heap, at the end of the last lease that shares the block.
    Heap,
}

impl Lease {
    /// A lease of no bytes.
    #[must_use]
    pub const fn empty() -> Self {
        let (start, held) = (NonNull::dangling(), NonNull::dangling());
        Self { start, length: 0, id: 0, owner: Owner::Empty, held }
    }

    /// Copies bytes into a lease of its own, which belongs to no pool.
    ///
    /// # Panics
    ///
    /// If there are more than `u32::MAX` bytes.
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::from_vec(bytes.to_vec())
    }

    /// Makes a lease of a vector without copying. It belongs to no pool.
    ///
    /// # Panics
    ///
    /// If there are more than `u32::MAX` bytes.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let Ok(length) = u32::try_from(bytes.len()) else {
            panic!("a lease holds at most u32::MAX bytes, not {}", bytes.len());
        };
        if length == 0 {
            return Self::empty();
        }
        let heap = Arc::new(Heap::new(bytes));
        let start = heap.memory();
        // SAFETY: the address of a value in an `Arc` is never null.
        let held = unsafe { NonNull::new_unchecked(Arc::into_raw(heap).cast_mut()) }.cast();
        Self { start, length, id: 0, owner: Owner::Heap, held }
    }

    /// Lends a buffer of a pool.
    ///
    /// # Safety
    ///
    /// * `start` is the start of buffer `id` of `shared`, at least `length` bytes long.
    /// * The buffer is marked as lent, by nobody else, and the kernel no longer writes to it.
    #[inline]
    pub(super) unsafe fn pooled(
        start: NonNull<u8>,
        length: u32,
        id: u16,
        shared: NonNull<Shared>,
    ) -> Self {
        Self { start, length, id, owner: Owner::Pool, held: shared.cast() }
    }

    /// How many bytes there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there are none: the end of the stream.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes `count` bytes away from the front.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "cannot advance by {count} in {} bytes", self.len());
        if count == self.len() {
            *self = Self::empty();
        } else {
            // SAFETY: within our bytes.
            self.start = unsafe { self.start.add(count) };
            self.length -= count as u32;
        }
    }

    /// Takes away all but the first `length` bytes. Does nothing when there are no more than these.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        if length == 0 {
            *self = Self::empty();
        } else if length < self.len() {
            self.length = length as u32;
        }
    }

    /// Splits off the first `at` bytes, which are returned; `self` keeps the rest. Copies nothing:
    /// both hold the buffer, until the last is dropped.
    ///
    /// # Panics
    ///
    /// If there are fewer than `at` bytes.
    #[must_use = "use `advance` to drop the front"]
    pub fn split_to(&mut self, at: usize) -> Self {
        let back = self.split_off(at);
        mem::replace(self, back)
    }

    /// Splits off what follows the first `at` bytes, which stay in `self`; the rest is returned.
    /// Copies nothing: both hold the buffer, until the last is dropped.
    ///
    /// # Panics
    ///
    /// If there are fewer than `at` bytes.
    #[must_use = "use `truncate` to drop the back"]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.len(), "cannot split {} bytes at {at}", self.len());
        if at == 0 {
            return mem::take(self);
        }
        if at == self.len() {
            return Self::empty();
        }
        self.share();
        // SAFETY: within our bytes.
        let start = unsafe { self.start.add(at) };
        let back = Self { start, length: self.length - at as u32, ..*self };
        self.length = at as u32;
        back
    }
}

// SAFETY: a lease owns its bytes alone, as leases of one buffer never overlap. What it points to
// besides is made for any thread: a private block is in an `Arc`, and of the pool's shared part the
// share counts, the remote queue and the tally are atomic, while the rest is touched only on the
// thread that is the core at that moment.
unsafe impl Send for Lease {}
// SAFETY: through `&Lease` the bytes are only read, and nothing else changes.
unsafe impl Sync for Lease {}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        match self.owner {
            Owner::Empty => {}
            // SAFETY: the buffer was lent to this lease alone, and it ends here.
            Owner::Pool => unsafe { Shared::give_back(self.held.cast(), self.id) },
            // SAFETY: `share` has counted this lease, and it ends here.
            Owner::PoolSplit => unsafe { Shared::give_back_shared(self.held.cast(), self.id) },
            // SAFETY: this lease owns one count of the `Arc`, and ends here.
            Owner::Heap => drop(unsafe { Arc::from_raw(self.held.cast::<Heap>().as_ptr()) }),
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: our bytes: initialised, and nobody else's while the lease lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len()) }
    }
}

// SAFETY: the bytes stay in their buffer while the lease moves, and it owns them alone.
unsafe impl IoBuf for Lease {
    fn stable_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Vec<u8>> for Lease {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

impl AsRef<[u8]> for Lease {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Lease {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// With all that is bytes: slices, arrays, vectors, strings, and other leases.
impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Lease {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Lease {}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl Lease {
    /// Counts a second lease of what this one holds.
    fn share(&mut self) {
        match self.owner {
            Owner::Empty => unreachable!("an empty lease has nothing to split"),
            Owner::Pool | Owner::PoolSplit => {
                // SAFETY: this lease is not returned, so the shared part is not freed.
                let shared = unsafe { self.held.cast::<Shared>().as_ref() };
                shared.share(self.id, self.owner == Owner::PoolSplit);
                self.owner = Owner::PoolSplit;
            }
            // SAFETY: from `Arc::into_raw`, and this lease owns one count of it.
            Owner::Heap => unsafe {
                Arc::increment_strong_count(self.held.cast::<Heap>().as_ptr());
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_three_words_with_room_for_an_option() {
        assert_eq!(size_of::<Lease>(), 24);
        assert_eq!(size_of::<Option<Lease>>(), 24);
    }

    #[test]
    fn crosses_threads_and_panics() {
        fn check<T: Send + Sync + Unpin + std::panic::UnwindSafe + 'static>() {}
        check::<Lease>();
    }

    #[test]
    fn cuts_where_it_is_told() {
        let mut lease = Lease::copy_from(b"0123456789");
        let front = lease.split_to(3);
        let back = lease.split_off(4);
        assert_eq!((&front[..], &lease[..], &back[..]), (&b"012"[..], &b"3456"[..], &b"789"[..]));
        drop(front);
        lease.advance(1);
        lease.truncate(2);
        lease.truncate(7);
        assert_eq!(lease, b"45");
        drop(lease);
        assert_eq!(back, "789", "the last part keeps the memory");
    }

    #[test]
    fn parts_are_written_apart() {
        let mut left = Lease::from_vec(vec![0; 8]);
        let mut right = left.split_off(4);
        std::thread::scope(|scope| {
            scope.spawn(|| left.fill(1));
            scope.spawn(|| right.fill(2));
        });
        assert_eq!(left, [1; 4]);
        assert_eq!(right, [2; 4]);
    }

    #[test]
    fn holds_nothing_once_it_is_empty() {
        let emptied: [fn(&mut Lease); 4] = [
            |lease| lease.advance(3),
            |lease| lease.truncate(0),
            |lease| assert_eq!(lease.split_to(3), b"abc"),
            |lease| assert_eq!(lease.split_off(0), b"abc"),
        ];
        for empty in emptied {
            let mut lease = Lease::copy_from(b"abc");
            empty(&mut lease);
            assert!(lease.is_empty());
            assert_eq!(lease.owner, Owner::Empty);
        }
        assert_eq!(Lease::copy_from(b"").owner, Owner::Empty);
        assert_eq!(Lease::from_vec(Vec::with_capacity(64)).owner, Owner::Empty);
    }

    #[test]
    fn splitting_at_an_end_shares_nothing() {
        let mut lease = Lease::copy_from(b"abc");
        assert_eq!(lease.split_to(0).owner, Owner::Empty);
        assert_eq!(lease.split_off(3).owner, Owner::Empty);
        assert_eq!(lease, b"abc");
        let mut empty = Lease::empty();
        assert!(empty.split_to(0).is_empty() && empty.split_off(0).is_empty());
        empty.advance(0);
    }

    #[test]
    fn takes_a_vector_without_copying() {
        let bytes = b"abc".to_vec();
        let address = bytes.as_ptr();
        let lease = Lease::from(bytes);
        assert_eq!(lease.stable_ptr(), address);
        assert_eq!(lease, lease.to_vec());
        assert_eq!(format!("{lease:?}"), "b\"abc\"");
    }

    #[test]
    #[should_panic(expected = "cannot advance by 4 in 3 bytes")]
    fn cannot_advance_beyond_its_bytes() {
        Lease::copy_from(b"abc").advance(4);
    }

    #[test]
    #[should_panic(expected = "cannot split 3 bytes at 4")]
    fn cannot_split_beyond_its_bytes() {
        let _ = Lease::copy_from(b"abc").split_to(4);
    }
}
