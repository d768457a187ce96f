//! The error of an operation that had taken a buffer: it brings the buffer back.

use std::error::Error;
use std::fmt;
use std::io;

/// Why an operation failed, together with the buffer that it had been given.
///
/// `?` turns it into an [`io::Error`] and drops the buffer; [`into_parts`](Self::into_parts) keeps
/// it.
///
/// ```
/// use std::io;
/// use quoit::buffer::BufError;
///
/// fn length(result: Result<(usize, Vec<u8>), BufError<Vec<u8>>>) -> io::Result<usize> {
///     let (length, _buffer) = result?;
///     Ok(length)
/// }
///
/// let failed = BufError::new(io::ErrorKind::TimedOut.into(), Some(vec![1, 2, 3]));
/// assert_eq!(failed.error().kind(), io::ErrorKind::TimedOut);
/// let (_, buffer) = failed.into_parts();
/// assert_eq!(buffer, Some(vec![1, 2, 3]));
/// # assert_eq!(length(Ok((3, vec![1, 2, 3]))).unwrap(), 3);
/// ```
pub struct BufError<B> {
    error: io::Error,
    buffer: Option<B>,
}

impl<B> BufError<B> {
    /// Joins an error with the buffer that comes back.
    #[must_use]
    pub fn new(error: io::Error, buffer: Option<B>) -> Self {
        Self { error, buffer }
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Takes both apart.
    ///
    /// The buffer is `None` only when the operation had been started on one core and was then
    /// polled on another: its memory is still lent there, and is dropped there when the kernel is
    /// done.
    #[must_use]
    pub fn into_parts(self) -> (io::Error, Option<B>) {
        (self.error, self.buffer)
    }
}

impl<B> From<BufError<B>> for io::Error {
    fn from(failed: BufError<B>) -> Self {
        failed.error
    }
}

impl<B> Error for BufError<B> {
    // The error itself is what `Display` shows, so the chain goes on below it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl<B> fmt::Display for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

// Without `B: Debug`, so that `unwrap` works with every buffer; and contents do not belong in a
// log.
impl<B> fmt::Debug for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufError")
            .field("error", &self.error)
            .field("has_buffer", &self.buffer.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Opaque;

    #[test]
    fn converts_to_the_io_error_itself() {
        fn forward() -> io::Result<()> {
            Err(BufError::new(io::Error::from_raw_os_error(libc::EPIPE), Some(Opaque)))?
        }
        assert_eq!(forward().unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn shows_the_error_once_and_never_the_buffer() {
        let inner = io::Error::other("cable cut");
        let failed = BufError::new(inner, Some(Opaque));
        assert_eq!(failed.to_string(), "cable cut");
        assert!(failed.source().is_none());
        assert!(format!("{failed:?}").ends_with("has_buffer: true }"));
    }

    #[test]
    fn is_a_boxable_error() {
        let boxed: Box<dyn Error + Send + Sync> =
            BufError::<Vec<u8>>::new(io::ErrorKind::NotConnected.into(), None).into();
        assert!(boxed.downcast::<BufError<Vec<u8>>>().unwrap().into_parts().1.is_none());
    }
}
