//! The traits of futures-io.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll};

use ::futures_io::{AsyncBufRead, AsyncRead, AsyncWrite};

use super::{Handle, OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf, lend, poll};
use crate::io::net::native::as_uninit;

macro_rules! readers {
    ($($handle:ty),+) => {$(
        impl AsyncRead for $handle {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                poll::read(self.handle(), as_uninit(into), cx)
            }

            /// Reads into the first slice that has room.
            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                match parts.iter_mut().find(|part| !part.is_empty()) {
                    Some(part) => poll::read(self.handle(), as_uninit(part), cx),
                    None => Poll::Ready(Ok(0)),
                }
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

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                poll::flush(self.handle(), cx)
            }

            /// Sends FIN behind what is committed; reading goes on.
            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                poll::shut_down(self.handle(), cx)
            }
        }
    )+};
}

readers!(TcpStream, &TcpStream, ReadHalf<'_>, OwnedReadHalf);
buffered_readers!(TcpStream, OwnedReadHalf);
writers!(TcpStream, &TcpStream, WriteHalf<'_>, OwnedWriteHalf);
