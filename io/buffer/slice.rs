//! A part of a buffer, by value: what a write sends, or where a read puts its bytes.

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};

use super::{IoBuf, IoBufMut};

/// A range of a buffer that owns the whole buffer.
///
/// Made by [`IoBuf::slice`] (a part of the bytes, to write) and [`IoBufMut::slice_mut`] (a part of
/// the room, to read into). It dereferences to the initialised bytes in its range.
///
/// ```
/// use quoit::buffer::IoBuf;
///
/// let middle = vec![1, 2, 3, 4, 5].slice(1..4);
/// assert_eq!(&middle[..], [2, 3, 4]);
/// assert_eq!(middle.into_inner(), [1, 2, 3, 4, 5]);
/// ```
pub struct Slice<B> {
    buffer: B,
    // Invariant: begin <= buffer.bytes_init(), and end is within the bytes or the room. It lasts
    // since the buffer is out of reach until `into_inner`, and our `set_init` never shrinks it.
    begin: usize,
    end: usize,
}

impl<B> Slice<B> {
    /// `range` is what `resolve` answered for this buffer.
    pub(super) fn new(buffer: B, range: Range<usize>) -> Self {
        Self { buffer, begin: range.start, end: range.end }
    }

    /// Which bytes of the buffer these are.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.begin..self.end
    }

    /// The buffer that this is a part of.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.buffer
    }

    /// Gives the whole buffer back.
    #[must_use]
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// The range is cut to the bytes of the cloned buffer: the clone of a vector has its bytes, and not
/// the capacity that a slice made for reading may reach into.
impl<B: IoBuf + Clone> Clone for Slice<B> {
    fn clone(&self) -> Self {
        let buffer = self.buffer.clone();
        // Whatever that clone is: the invariant has to hold for it.
        let init = buffer.bytes_init();
        Self { buffer, begin: self.begin.min(init), end: self.end.min(init) }
    }
}

// SAFETY: a part of what the buffer promises: `begin` is within its bytes, and the length is cut to
// them.
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn stable_ptr(&self) -> *const u8 {
        // SAFETY: the invariant: `begin` is within the bytes.
        unsafe { self.buffer.stable_ptr().add(self.begin) }
    }

    fn bytes_init(&self) -> usize {
        self.buffer.bytes_init().min(self.end) - self.begin
    }
}

// SAFETY: a part of what the buffer promises: the range is within its room.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: the invariant: `begin` is within the bytes.
        unsafe { self.buffer.stable_mut_ptr().add(self.begin) }
    }

    fn bytes_total(&self) -> usize {
        self.end - self.begin
    }

    unsafe fn set_init(&mut self, n: usize) {
        // Only ever outwards: what lies behind the range is not ours to cut off.
        let init = self.begin + n;
        if init > self.buffer.bytes_init() {
            // SAFETY: everything before `begin` is initialised, and the caller says so of `n` more,
            // which end within the range and so within the room.
            unsafe { self.buffer.set_init(init) }
        }
    }
}

impl<B: IoBuf> Deref for Slice<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the duty of IoBuf: that many initialised bytes, unwritten while `self` is
        // borrowed.
        unsafe { std::slice::from_raw_parts(self.stable_ptr(), self.bytes_init()) }
    }
}

impl<B: IoBuf> AsRef<[u8]> for Slice<B> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<B> fmt::Debug for Slice<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("range", &self.range()).finish_non_exhaustive()
    }
}

/// Turns a range into numbers. It starts within `init` and ends within `total`, which is also where
/// an open range ends.
#[track_caller]
pub(super) fn resolve(range: impl RangeBounds<usize>, init: usize, total: usize) -> Range<usize> {
    let begin = match range.start_bound() {
        Bound::Included(&begin) => Some(begin),
        Bound::Excluded(&before) => before.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.checked_add(1),
        Bound::Excluded(&end) => Some(end),
        Bound::Unbounded => Some(total),
    };
    let (Some(begin), Some(end)) = (begin, end) else {
        panic!("the range of a slice overflows");
    };
    assert!(begin <= end, "a slice cannot start at {begin} and end at {end}");
    assert!(begin <= init, "a slice that starts at {begin} leaves a gap after {init} bytes");
    assert!(end <= total, "a slice that ends at {end} goes beyond the buffer's {total} bytes");
    begin..end
}

#[cfg(test)]
mod tests {
    use super::super::iobuf::tests::fill;
    use super::*;

    fn vector(capacity: usize, bytes: &[u8]) -> Vec<u8> {
        let mut vec = Vec::with_capacity(capacity);
        vec.extend_from_slice(bytes);
        vec
    }

    #[test]
    fn a_read_inside_the_bytes_touches_nothing_else() {
        let mut middle = b"0123456789".to_vec().slice_mut(2..6);
        assert_eq!(middle.bytes_total(), 4);
        fill(&mut middle, b"ab");
        assert_eq!(middle.into_inner(), b"01ab456789");
    }

    #[test]
    fn a_read_across_the_end_grows_the_vector() {
        let mut tail = vector(16, b"0123").slice_mut(3..10);
        assert_eq!((tail.bytes_init(), tail.bytes_total()), (1, 7));
        fill(&mut tail, b"abc");
        assert_eq!(&tail[..], b"abc");
        assert_eq!(tail.into_inner(), b"012abc");
    }

    #[test]
    fn an_empty_read_changes_nothing() {
        let mut all = vector(16, b"0123").slice_mut(..);
        assert!(all.bytes_total() >= 16);
        fill(&mut all, b"");
        assert_eq!(all.into_inner(), b"0123");
    }

    #[test]
    fn slices_nest() {
        let mut inner = vector(16, b"0123").slice_mut(1..12).slice_mut(3..=7);
        assert_eq!(inner.range(), 3..8);
        assert_eq!((inner.bytes_init(), inner.bytes_total()), (0, 5));
        fill(&mut inner, b"abcde");
        assert_eq!(inner.inner().inner(), b"0123abcde");
        assert_eq!(inner.into_inner().into_inner(), b"0123abcde");
    }

    #[test]
    fn every_form_of_range_is_understood() {
        assert_eq!(&b"0123".to_vec().slice(1..)[..], b"123");
        assert_eq!(&b"0123".to_vec().slice(..=2)[..], b"012");
        assert_eq!(&b"0123".to_vec().slice(..)[..], b"0123");
        assert_eq!(&b"0123".to_vec().slice((Bound::Excluded(0), Bound::Excluded(2)))[..], b"1");
        assert!(b"0123".to_vec().slice(4..).is_empty());
    }

    #[test]
    fn a_clone_reaches_no_further_than_its_own_bytes() {
        let room = vector(16, b"0123").slice_mut(1..9);
        let clone = room.clone();
        assert_eq!((room.range(), clone.range()), (1..9, 1..4));
        assert_eq!(&clone[..], b"123");
        let bytes = room.into_inner().slice(1..3);
        assert_eq!(bytes.clone().range(), 1..3);
    }

    #[test]
    #[should_panic(expected = "goes beyond the buffer's 4 bytes")]
    fn bytes_that_are_not_there_cannot_be_sent() {
        let _ = vector(16, b"0123").slice(0..5);
    }

    #[test]
    #[should_panic(expected = "leaves a gap after 4 bytes")]
    fn a_read_cannot_leave_a_gap() {
        let _ = vector(16, b"0123").slice_mut(5..8);
    }

    #[test]
    #[should_panic(expected = "overflows")]
    fn the_last_number_of_all_is_no_end() {
        let _ = vector(16, b"0123").slice(0..=usize::MAX);
    }
}
