//! What an [`AsyncFd`](super::AsyncFd) answers: the readiness, and the guard that takes it back.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::{AsyncFd, Interest};

/// What a descriptor is ready for, as far as the wait asked for it.
///
/// The end and errors make a direction ready too: a call then does not wait, and tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    events: i32,
    interest: Interest,
}

impl Ready {
    pub(super) fn new(events: i32, interest: Interest) -> Self {
        Self { events, interest }
    }

    fn has(self, events: i16) -> bool {
        self.events & i32::from(events) != 0
    }

    /// Whether reading would not wait.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.interest == Interest::READABLE
    }

    /// Whether writing would not wait.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.interest == Interest::WRITABLE
    }

    /// Whether nothing will come any more after what is there: the other side has closed, or has
    /// ended its writing (`POLLRDHUP`, `POLLHUP`).
    #[must_use]
    pub fn is_read_closed(self) -> bool {
        self.has(libc::POLLRDHUP | libc::POLLHUP)
    }

    /// Whether nothing can be written any more (`POLLHUP`, or `POLLERR` of one that was to be
    /// written: a pipe without a reader).
    #[must_use]
    pub fn is_write_closed(self) -> bool {
        self.has(libc::POLLHUP) || (self.is_writable() && self.is_error())
    }

    /// Whether an error waits to be fetched (`POLLERR`).
    #[must_use]
    pub fn is_error(self) -> bool {
        self.has(libc::POLLERR)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("is_readable", &self.is_readable())
            .field("is_writable", &self.is_writable())
            .field("is_read_closed", &self.is_read_closed())
            .field("is_write_closed", &self.is_write_closed())
            .field("is_error", &self.is_error())
            .finish()
    }
}

/// A call that was to be tried under a guard would block: the readiness is taken back, so the next
/// wait really waits.
#[derive(Debug)]
pub struct TryIoError(());

impl TryIoError {
    pub(super) const fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the descriptor was not ready: the call would block")
    }
}

impl std::error::Error for TryIoError {}

/// A direction of an [`AsyncFd`] is ready, and stays so until it is said that it is not.
///
/// A call that gives `WouldBlock` has to be told, by [`try_io`](Self::try_io) or
/// [`clear_ready`](Self::clear_ready): without it the next wait answers at once, and a loop spins.
/// Dropping the guard leaves the readiness as it is.
#[must_use = "readiness that a call has used up has to be taken back, by `try_io` or `clear_ready`"]
pub struct AsyncFdReadyGuard<'a, T: AsFd> {
    fd: &'a AsyncFd<T>,
    ready: Ready,
}

impl<'a, T: AsFd> AsyncFdReadyGuard<'a, T> {
    pub(super) fn new(fd: &'a AsyncFd<T>, ready: Ready) -> Self {
        Self { fd, ready }
    }

    /// Tries a call. `WouldBlock` takes the readiness back, and comes back as [`TryIoError`]; any
    /// other answer is handed on.
    ///
    /// # Errors
    ///
    /// [`TryIoError`] when the call would block: wait again.
    pub fn try_io<R>(
        &mut self,
        call: impl FnOnce(&'a AsyncFd<T>) -> io::Result<R>,
    ) -> Result<io::Result<R>, TryIoError> {
        match call(self.fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear_ready();
                Err(TryIoError::new())
            }
            result => Ok(result),
        }
    }

    /// Takes the readiness back, as a call would block. The next wait looks at the descriptor
    /// again, so clearing what is ready after all loses nothing.
    ///
    /// On another core than that of the `AsyncFd` it does nothing.
    pub fn clear_ready(&mut self) {
        self.fd.clear(self.ready.interest);
    }

    /// Keeps the readiness, as dropping the guard does: there may be more.
    pub fn retain_ready(&mut self) {}

    /// What the descriptor is ready for.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready
    }

    /// The `AsyncFd`.
    #[must_use]
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.fd
    }

    /// What is within it.
    #[must_use]
    pub fn get_inner(&self) -> &'a T {
        self.fd.get_ref()
    }
}

impl<T: AsFd> fmt::Debug for AsyncFdReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFdReadyGuard").field("ready", &self.ready).finish_non_exhaustive()
    }
}
