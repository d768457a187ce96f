//! From and to the standard library and descriptors. A stream that a core serves, or that holds
//! received bytes, cannot be given away: the handle comes back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::TcpStream;

impl TcpStream {
    /// Takes over a connected stream of the standard library, which is switched to non-blocking.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::from_descriptor(OwnedFd::from(stream).into()))
    }

    /// Gives the stream to the standard library, blocking as that expects.
    ///
    /// # Errors
    ///
    /// The handle comes back when the stream is bound to a core or holds unread bytes:
    /// [`detach`](Self::detach) it and read them first.
    pub fn into_std(self) -> Result<std::net::TcpStream, DetachError> {
        let descriptor = self.into_owned_fd()?;
        let stream = std::net::TcpStream::from(descriptor);
        // A switch that fails leaves the stream non-blocking, which std's methods report
        // themselves.
        let _ = stream.set_nonblocking(false);
        Ok(stream)
    }

    /// Gives the descriptor away, non-blocking.
    ///
    /// # Errors
    ///
    /// As [`into_std`](Self::into_std).
    pub fn into_owned_fd(self) -> Result<OwnedFd, DetachError> {
        match self.handle.into_descriptor() {
            Ok(descriptor) => Ok(descriptor.into()),
            Err(handle) => Err(DetachError(Self { handle })),
        }
    }
}

impl TryFrom<OwnedFd> for TcpStream {
    type Error = io::Error;

    /// Takes over a connected stream socket, which is switched to non-blocking.
    fn try_from(owned: OwnedFd) -> io::Result<Self> {
        Self::from_std(owned.into())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.socket().descriptor.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.number()
    }
}

/// A stream could not be taken from its core; the stream comes back.
#[derive(Debug)]
pub struct DetachError(TcpStream);

impl DetachError {
    /// The stream, as it was.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.0
    }
}

impl std::fmt::Display for DetachError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.handle.is_bound() {
            "the stream is served by a core; detach it first"
        } else {
            "the stream holds received bytes; read them first"
        })
    }
}

impl std::error::Error for DetachError {}

impl From<DetachError> for io::Error {
    fn from(error: DetachError) -> Self {
        Self::other(error)
    }
}
