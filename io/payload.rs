//! What an operation owns while it is in flight, kept without knowing its type.
//!
//! ```text
//!   AnyPayload { space: 7 words, kind }      small: the value itself      large: a box of it
//! ```
//!
//! A buffer with the descriptor that it is read from fits in, so an operation allocates nothing.
//! The price: a payload moves with its slot. What a request names must therefore lie *behind* a
//! pointer of the payload, never within it.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::task::Waker;

/// Memory, descriptors and marks that an operation keeps alive.
pub(crate) trait Payload: 'static {
    /// The operation ended with `outcome` and nobody waits for it any more. An outcome that owns
    /// something, such as a new descriptor, finds its end here. Runs with the tables free.
    fn abandoned(self, outcome: i64)
    where
        Self: Sized,
    {
        let _ = outcome;
    }

    /// The kernel is done, and the future may ask now or never: whatever would hold up others is
    /// let go. Runs with the tables borrowed; what it leaves is dropped when they are free.
    fn landed(&mut self, outcome: i64) -> Option<AnyPayload> {
        let _ = outcome;
        None
    }

    /// The core ends, and the kernel still holds the operation: those who wait for its end shall
    /// look again. Runs with the tables borrowed.
    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        let _ = wakers;
    }
}

/// An operation that owns nothing.
impl Payload for () {}

/// Seven words and the kind make a cache line.
type Space = MaybeUninit<[usize; 7]>;

/// A payload of any type, on the core that made it.
pub(crate) struct AnyPayload {
    space: Space,
    kind: &'static Kind,
    /// The value within may be of a type that must not change threads.
    not_send: PhantomData<*mut ()>,
}

/// What can be done with a value whose type is forgotten. Each function is given the space that
/// this very type was written to.
struct Kind {
    type_id: fn() -> TypeId,
    drop: unsafe fn(*mut Space),
    abandon: unsafe fn(*mut Space, i64),
    landed: unsafe fn(*mut Space, i64) -> Option<AnyPayload>,
    stranded: unsafe fn(*mut Space, &mut Vec<Waker>),
}

impl AnyPayload {
    #[inline]
    pub(crate) fn new<P: Payload>(payload: P) -> Self {
        Self::with(
            payload,
            const {
                &Kind {
                    type_id: TypeId::of::<P>,
                    drop: drop::<P>,
                    abandon: abandon::<P>,
                    landed: landed::<P>,
                    stranded: stranded::<P>,
                }
            },
        )
    }

    /// A value whose operation leaves nothing behind but the value.
    #[inline]
    pub(crate) fn plain<P: 'static>(value: P) -> Self {
        let kind = const {
            &Kind {
                type_id: TypeId::of::<P>,
                drop: drop::<P>,
                abandon: forget_outcome::<P>,
                landed: |_, _| None,
                stranded: |_, _| {},
            }
        };
        Self::with(value, kind)
    }

    #[inline]
    fn with<P: 'static>(value: P, kind: &'static Kind) -> Self {
        let mut space = Space::uninit();
        // SAFETY: `fits` has checked size and alignment of what is written.
        unsafe {
            if fits::<P>() {
                (&raw mut space).cast::<P>().write(value);
            } else {
                (&raw mut space).cast::<Box<P>>().write(Box::new(value));
            }
        }
        Self { space, kind, not_send: PhantomData }
    }

    #[inline]
    fn is<P: 'static>(&self) -> bool {
        (self.kind.type_id)() == TypeId::of::<P>()
    }

    /// Takes the value out.
    ///
    /// # Panics
    ///
    /// When it is of another type.
    #[inline]
    pub(crate) fn take<P: 'static>(self) -> P {
        assert!(self.is::<P>(), "the payload is of the type that was put in");
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the type was just checked, and the value is not dropped again.
        unsafe { read::<P>(&raw mut this.space) }
    }

    /// The value, if it is of this type.
    pub(crate) fn downcast_mut<P: 'static>(&mut self) -> Option<&mut P> {
        if !self.is::<P>() {
            return None;
        }
        // SAFETY: the type was just checked; the value is borrowed as long as `self`.
        Some(unsafe { value(&raw mut self.space) })
    }

    /// Tells the value that the kernel is done with it.
    #[inline]
    pub(crate) fn landed(&mut self, outcome: i64) -> Option<Self> {
        // SAFETY: the space holds a value of this kind, borrowed for the call.
        unsafe { (self.kind.landed)(&raw mut self.space, outcome) }
    }

    /// Tells the value that the kernel keeps it.
    pub(crate) fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        // SAFETY: as above.
        unsafe { (self.kind.stranded)(&raw mut self.space, wakers) }
    }

    /// Tells the value how its operation ended.
    pub(crate) fn abandon(self, outcome: i64) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the space holds the value of this kind, which is not dropped again.
        unsafe { (this.kind.abandon)(&raw mut this.space, outcome) }
    }
}

impl Drop for AnyPayload {
    fn drop(&mut self) {
        // SAFETY: the space holds a value of this kind: whoever takes it forgets `self`.
        unsafe { (self.kind.drop)(&raw mut self.space) }
    }
}

impl fmt::Debug for AnyPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyPayload")
    }
}

const fn fits<P>() -> bool {
    size_of::<P>() <= size_of::<Space>() && align_of::<P>() <= align_of::<Space>()
}

/// # Safety
///
/// The space holds a `P` from `with`, which is gone from it afterwards.
#[inline]
unsafe fn read<P>(space: *mut Space) -> P {
    // SAFETY: handed on; `with` has chosen the place in the same way.
    unsafe { if fits::<P>() { space.cast::<P>().read() } else { *space.cast::<Box<P>>().read() } }
}

/// # Safety
///
/// The space holds a `P` from `with`, and nobody else looks at it for as long as this one does.
#[inline]
unsafe fn value<'a, P>(space: *mut Space) -> &'a mut P {
    // SAFETY: handed on; `with` has chosen the place in the same way.
    unsafe { if fits::<P>() { &mut *space.cast::<P>() } else { &mut *space.cast::<Box<P>>() } }
}

/// # Safety
///
/// As `value`.
unsafe fn landed<P: Payload>(space: *mut Space, outcome: i64) -> Option<AnyPayload> {
    // SAFETY: handed on.
    unsafe { value::<P>(space) }.landed(outcome)
}

/// # Safety
///
/// As `value`.
unsafe fn stranded<P: Payload>(space: *mut Space, wakers: &mut Vec<Waker>) {
    // SAFETY: handed on.
    unsafe { value::<P>(space) }.stranded(wakers);
}

/// # Safety
///
/// As `read`.
unsafe fn drop<P>(space: *mut Space) {
    // SAFETY: handed on.
    std::mem::drop(unsafe { read::<P>(space) });
}

/// # Safety
///
/// As `read`.
unsafe fn abandon<P: Payload>(space: *mut Space, outcome: i64) {
    // SAFETY: handed on.
    unsafe { read::<P>(space) }.abandoned(outcome);
}

/// # Safety
///
/// As `read`.
unsafe fn forget_outcome<P>(space: *mut Space, _: i64) {
    // SAFETY: handed on.
    unsafe { drop::<P>(space) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Counts its end, however it comes; `SIZE` words decide whether it is boxed.
    struct Probe<const SIZE: usize> {
        drops: Rc<Cell<u32>>,
        outcome: Rc<Cell<i64>>,
        _ballast: [usize; SIZE],
    }

    impl<const SIZE: usize> Payload for Probe<SIZE> {
        fn abandoned(self, outcome: i64) {
            self.outcome.set(outcome);
        }
    }

    impl<const SIZE: usize> Drop for Probe<SIZE> {
        fn drop(&mut self) {
            self.drops.set(self.drops.get() + 1);
        }
    }

    fn each_way<const SIZE: usize>() {
        let (drops, outcome) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let probe = || Probe::<SIZE> {
            drops: drops.clone(),
            outcome: outcome.clone(),
            _ballast: [7; SIZE],
        };
        std::mem::drop(AnyPayload::new(probe()));
        assert_eq!((drops.get(), outcome.get()), (1, 0), "dropped without an outcome");
        AnyPayload::new(probe()).abandon(-5);
        assert_eq!((drops.get(), outcome.get()), (2, -5), "abandoned with one");
        AnyPayload::plain(probe()).abandon(9);
        assert_eq!((drops.get(), outcome.get()), (3, -5), "plain values hear of no outcome");

        let mut payload = AnyPayload::new(probe());
        assert!(payload.downcast_mut::<u8>().is_none());
        payload.downcast_mut::<Probe<SIZE>>().unwrap()._ballast = [8; SIZE];
        let moved = Box::new(payload);
        let taken = moved.take::<Probe<SIZE>>();
        assert_eq!((drops.get(), taken._ballast), (3, [8; SIZE]), "taken out whole");
        std::mem::drop(taken);
        assert_eq!(drops.get(), 4);
        assert_eq!(Rc::strong_count(&drops), 1);
    }

    #[test]
    fn small_and_large_values_live_and_end_alike() {
        assert!(fits::<Probe<5>>() && !fits::<Probe<6>>());
        each_way::<0>();
        each_way::<5>();
        each_way::<6>();
    }

    #[test]
    #[should_panic(expected = "of the type that was put in")]
    fn a_value_is_never_taken_for_another() {
        AnyPayload::plain(7_u64).take::<i64>();
    }
}
