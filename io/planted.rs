//! Bugs that our own tests plant, to show that they would find them.
//!
//! A test that has never failed proves little. So the places where such a bug would be made ask
//! here whether to make it. Without the feature `planted`, which is for this repository's tests
//! alone, the answer is a constant, and nothing of it is left in the program; with it, a bug is
//! made on the thread that has planted it, until it is dropped.

/// A bug that a change might make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "planted"), allow(unreachable_pub, reason = "public with the feature"))]
pub enum Bug {
    /// A connection that is accepted when its request is being cancelled is closed.
    LostLateAccept,
    /// What a receive brings when it is being cancelled is dropped.
    LostLateRead,
    /// A buffer goes back to the ring with the last but one of the leases that share it.
    BufferFreedEarly,
    /// A send that may be tried at once overtakes what is committed.
    SendOutOfOrder,
    /// A stream is off the table, and its descriptor closed, while its receive is in flight.
    DescriptorClosedTooSoon,
}

/// Whether this bug shall be made.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub(crate) use self::garden::is;
#[cfg(feature = "planted")]
pub use self::garden::{Planted, plant};

#[cfg(feature = "planted")]
mod garden {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Until this is dropped, a bug is there.
    #[derive(Debug)]
    #[must_use]
    pub struct Planted(());

    /// Plants a bug on this thread.
    pub fn plant(bug: Bug) -> Planted {
        PLANTED.set(Some(bug));
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
