//! tokio's traits.
//!
//! The loops of its extension traits (`read_exact`, `write_all`, `copy`) keep tokio's own rules
//! when they are dropped half-way; the native methods of the same names promise more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::{Handle, OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf, lend, poll};

macro_rules! readers {
    ($($handle:ty),+) => {$(
        impl AsyncRead for $handle {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                // SAFETY: nothing but bytes that were read is written there.
                let room = unsafe { buffer.unfilled_mut() };
                let count = ready!(poll::read(self.handle(), room, cx))?;
                // SAFETY: the read has written so many, from the start.
                unsafe { buffer.assume_init(count) };
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    )+};
}

macro_rules! buffered_readers {
    ($($handle:ty),+) => {$(
        impl AsyncBufRead for $handle {
            /// Lends received bytes straight from the core's pool.
            fn poll_fill_buf(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<&[u8]>> {
                lend::fill(self.get_mut(), cx)
            }

            /// # Panics
            ///
            /// On another core than the stream's, or outside a runtime.
            fn consume(self: Pin<&mut Self>, count: usize) {
                lend::consume(self.get_mut(), count);
            }
        }
    )+};
}

macro_rules! writers {
    ($($handle:ty),+) => {$(
        impl AsyncWrite for $handle {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                poll::write(self.handle(), slice::from_ref(&IoSlice::new(bytes)), cx)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                poll::write(self.handle(), parts, cx)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                poll::flush(self.handle(), cx)
            }

            /// Sends FIN behind what is committed; reading goes on.
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                poll::shut_down(self.handle(), cx)
            }
        }
    )+};
}

readers!(TcpStream, &TcpStream, ReadHalf<'_>, OwnedReadHalf);
buffered_readers!(TcpStream, OwnedReadHalf);
writers!(TcpStream, &TcpStream, WriteHalf<'_>, OwnedWriteHalf);
