//! Halves of a stream, for two tasks.
//!
//! Both directions go through one session of rustls, so the halves take turns at it: a poll never
//! waits while it has it, so tasks of one core never meet there.
//!
//! A stream tells one writer that there is room: the latest. A read that fails has the session send
//! an alert, and so becomes that writer in passing, and the one who waited would never be told. So
//! his waker stands here, too, and a failed read wakes him to ask again.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The reading half of a stream, from `into_split`.
#[derive(Debug)]
pub struct ReadHalf<S>(Arc<Mutex<Shared<S>>>);

/// The writing half of a stream, from `into_split`. Dropping it sends nothing: what is to be sent
/// is flushed before, and `shutdown` tells the peer of the end.
#[derive(Debug)]
pub struct WriteHalf<S>(Arc<Mutex<Shared<S>>>);

#[derive(Debug)]
struct Shared<S> {
    stream: S,
    /// Who waits to write, flush or shut down.
    writer: Option<Waker>,
}

/// Two halves were not of one stream; they come back.
#[derive(Debug)]
pub struct ReuniteError<S>(
    /// The reading half.
    pub ReadHalf<S>,
    /// The writing half.
    pub WriteHalf<S>,
);

impl<S> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves belong to different streams")
    }
}

impl<S: fmt::Debug> Error for ReuniteError<S> {}

pub(crate) fn into_split<S>(stream: S) -> (ReadHalf<S>, WriteHalf<S>) {
    let shared = Arc::new(Mutex::new(Shared { stream, writer: None }));
    (ReadHalf(shared.clone()), WriteHalf(shared))
}

impl<S> ReadHalf<S> {
    /// The whole stream again.
    ///
    /// # Errors
    ///
    /// Gives the halves back when they are of different streams.
    pub fn reunite(self, other: WriteHalf<S>) -> Result<S, ReuniteError<S>> {
        if !Arc::ptr_eq(&self.0, &other.0) {
            return Err(ReuniteError(self, other));
        }
        drop(other);
        let shared = Arc::into_inner(self.0).expect("there were two halves");
        Ok(shared.into_inner().unwrap_or_else(PoisonError::into_inner).stream)
    }
}

impl<S: Unpin> WriteHalf<S> {
    /// Polls what writes, and remembers who waits.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = poll(Pin::new(&mut shared.stream), cx);
        let waker = polled.is_pending().then(|| cx.waker().clone());
        let before = mem::replace(&mut shared.writer, waker);
        drop(shared);
        // Its drop may run anything.
        drop(before);
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadHalf<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = Pin::new(&mut shared.stream).poll_read(cx, buffer);
        let writer = if let Poll::Ready(Err(_)) = polled { shared.writer.take() } else { None };
        drop(shared);
        if let Some(writer) = writer {
            writer.wake();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteHalf<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    /// Sends `close_notify`, then FIN; the other half reads on.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
