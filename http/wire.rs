//! A connection's socket as hyper gets it: it knows its protocol, counts what goes through, and
//! holds the connection's place among those that are open.
//!
//! ```text
//!   socket ──► up to 24 bytes, kept ──► are they the preface of HTTP/2? ──► read again from here
//!   socket ──────────────────────────► everything after them
//! ```
//!
//! An upgrade hands the wire on, so an upgraded connection still counts as open.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use crate::activity::Activity;
use crate::frames::Frames;
use crate::slots::Slot;

/// What every client of HTTP/2 sends first (RFC 9113, section 3.4). No request of HTTP/1 starts
/// like this: `PRI` is reserved for it.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Http1,
    Http2,
}

pub(crate) struct Wire<T> {
    io: T,
    /// What was read to tell the version, and is still to be read by the protocol.
    start: [u8; PREFACE.len()],
    filled: usize,
    taken: usize,
    /// What is written in HTTP/2; all that HTTP/1 writes is of a response.
    frames: Option<Frames>,
    /// Something of a message was written, and has not been flushed.
    unflushed: bool,
    activity: Arc<Activity>,
    slot: Slot,
}

impl<T> Wire<T> {
    pub(crate) fn new(io: T, activity: Arc<Activity>, slot: Slot) -> Self {
        Self {
            io,
            start: [0; PREFACE.len()],
            filled: 0,
            taken: 0,
            frames: None,
            unflushed: false,
            activity,
            slot,
        }
    }

    /// From here on it carries this protocol.
    pub(crate) fn carry(&mut self, version: Version) {
        self.frames = (version == Version::Http2).then(Frames::default);
    }

    /// The socket; what was read of it and not taken; the place that it holds.
    pub(crate) fn into_parts(self) -> (T, Bytes, Slot) {
        let rest = Bytes::copy_from_slice(&self.start[self.taken..self.filled]);
        (self.io, rest, self.slot)
    }
}

impl<T: Read + Unpin> Wire<T> {
    /// Reads until it is clear which protocol the peer speaks. One that is gone before that is left
    /// to HTTP/1, which knows whether it went in the middle of something.
    pub(crate) fn poll_version(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Version>> {
        loop {
            if self.start[..self.filled] != PREFACE[..self.filled] {
                return Poll::Ready(Ok(Version::Http1));
            }
            if self.filled == PREFACE.len() {
                return Poll::Ready(Ok(Version::Http2));
            }
            let mut buffer = ReadBuf::new(&mut self.start[self.filled..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()))?;
            match buffer.filled().len() {
                0 => return Poll::Ready(Ok(Version::Http1)),
                count => self.filled += count,
            }
            self.activity.has_read();
        }
    }
}

impl<T: Read + Unpin> Read for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let kept = &this.start[this.taken..this.filled];
        if !kept.is_empty() {
            let count = kept.len().min(buffer.remaining());
            buffer.put_slice(&kept[..count]);
            this.taken += count;
            return Poll::Ready(Ok(()));
        }
        let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buffer) else {
            this.activity.has_read_all();
            return Poll::Pending;
        };
        read?;
        this.activity.has_read();
        Poll::Ready(Ok(()))
    }
}

impl<T> Wire<T> {
    /// Notes what has become of a write.
    fn note(&mut self, parts: &[IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => {
                let mut ahead = self.frames;
                let is_message = is_message(ahead.as_mut(), parts, usize::MAX);
                self.activity.set_stalled(is_message || self.unflushed);
            }
            Poll::Ready(Ok(count)) => {
                let is_message = is_message(self.frames.as_mut(), parts, *count);
                self.activity.set_stalled(false);
                if is_message {
                    self.unflushed = true;
                    self.activity.has_written();
                }
            }
            Poll::Ready(Err(_)) => self.activity.set_stalled(false),
        }
    }
}

/// Whether some of the first `count` bytes are of a message.
fn is_message(mut frames: Option<&mut Frames>, parts: &[IoSlice<'_>], mut count: usize) -> bool {
    let mut is_message = false;
    for part in parts {
        let part = &part[..part.len().min(count)];
        count -= part.len();
        is_message |= match &mut frames {
            Some(frames) => frames.pass(part),
            None => !part.is_empty(),
        };
    }
    is_message
}

impl<T: Write + Unpin> Write for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(&[IoSlice::new(bytes)], &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note(parts, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.unflushed &= flushed.is_pending();
        let is_stalled = self.unflushed;
        self.activity.set_stalled(is_stalled);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing more of a request is read, and one that was not read to its end is over.
        self.activity.end_reading();
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // All that HTTP had to say was flushed before. TLS says goodbye, and a peer that has
            // gone, as it may, is none the worse for not hearing it. But who has upgraded may not
            // have flushed: then something is lost.
            Err(error) if is_gone(&error) && !self.unflushed => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl<T: fmt::Debug> fmt::Debug for Wire<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("io", &self.io).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::slots::Slots;

    /// It takes everything, and its peer has gone when it is to say goodbye.
    struct Gone;

    impl Write for Gone {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[test]
    fn a_goodbye_that_nobody_hears_is_a_failure_only_if_something_is_lost() {
        let mut cx = Context::from_waker(Waker::noop());
        for is_flushed in [true, false] {
            let slot = Slots::new(1).take();
            let mut wire = Wire::new(Gone, Arc::new(Activity::new()), slot);
            let mut wire = Pin::new(&mut wire);
            assert!(wire.as_mut().poll_write(&mut cx, b"bytes").is_ready());
            if is_flushed {
                assert!(wire.as_mut().poll_flush(&mut cx).is_ready());
            }
            let Poll::Ready(shut) = wire.as_mut().poll_shutdown(&mut cx) else {
                panic!("it waits")
            };
            assert_eq!(shut.is_ok(), is_flushed, "{shut:?}");
        }
    }
}
