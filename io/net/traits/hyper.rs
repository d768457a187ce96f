//! hyper's traits. Its executor and timer are the runtime's, not ours.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll, ready};

use ::hyper::rt::{Read, ReadBufCursor, Write};

use super::{Handle, OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf, poll};

macro_rules! readers {
    ($($handle:ty),+) => {$(
        impl Read for $handle {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut buffer: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                // SAFETY: nothing but bytes that were read is written there.
                let room = unsafe { buffer.as_mut() };
                let count = ready!(poll::read(self.handle(), room, cx))?;
                // SAFETY: the read has written so many, from the start.
                unsafe { buffer.advance(count) };
                Poll::Ready(Ok(()))
            }
        }
    )+};
}

macro_rules! writers {
    ($($handle:ty),+) => {$(
        impl Write for $handle {
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
writers!(TcpStream, &TcpStream, WriteHalf<'_>, OwnedWriteHalf);
