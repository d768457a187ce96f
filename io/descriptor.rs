//! A descriptor number with one owner.
//!
//! Handles and the tables share a descriptor, so the number is closed by the last of handle and
//! in-flight requests, never earlier: as long as a request may name it, it cannot come to mean
//! something else.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::io::ring::simulated::world;

/// An open descriptor; dropping it closes the number.
#[derive(Debug)]
pub(crate) struct Descriptor(RawFd);

impl Descriptor {
    /// Takes over a number that a completion or a system call has just handed us.
    ///
    /// # Safety
    ///
    /// The number is open and nobody else will close it.
    pub(crate) unsafe fn from_raw(number: RawFd) -> Self {
        Self(number)
    }

    #[inline]
    pub(crate) fn number(&self) -> RawFd {
        self.0
    }

    /// Whether this thread may make calls on it: a simulation's number lives on its thread alone.
    pub(crate) fn is_usable(&self) -> bool {
        self.0 < world::FIRST || world::current().is_some()
    }

    /// The number, if the operating system knows it.
    fn real(&self) -> RawFd {
        assert!(
            self.0 < world::FIRST,
            "a simulated descriptor means nothing outside its simulation"
        );
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.0 < world::FIRST {
            // SAFETY: open and ours, says `from_raw`; this is the end of it.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        } else if let Some(world) = world::current() {
            // A simulation that is over has closed everything.
            world.close(self.0);
        }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(owned: OwnedFd) -> Self {
        Self(owned.into_raw_fd())
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        let number = ManuallyDrop::new(descriptor).real();
        // SAFETY: open and ours; whoever gave it up does not close it any more.
        unsafe { Self::from_raw_fd(number) }
    }
}

impl IntoRawFd for Descriptor {
    fn into_raw_fd(self) -> RawFd {
        ManuallyDrop::new(self).0
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as the descriptor is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.real()) }
    }
}
