//! A descriptor number with one owner.
//!
//! Handles and the tables share a descriptor, so the number is closed by the last of handle and
//! in-flight requests, never earlier: as long as a request may name it, it cannot come to mean
//! something else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// An open descriptor; dropping it closes the number.
#[derive(Debug)]
pub(crate) struct Descriptor(OwnedFd);

impl Descriptor {
    /// Takes over a number that a completion or a system call has just handed us.
    ///
    /// # Safety
    ///
    /// The number is open and nobody else will close it.
    pub(crate) unsafe fn from_raw(number: RawFd) -> Self {
        // SAFETY: handed on.
        Self(unsafe { OwnedFd::from_raw_fd(number) })
    }

    #[inline]
    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(owned: OwnedFd) -> Self {
        Self(owned)
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0
    }
}

impl IntoRawFd for Descriptor {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
