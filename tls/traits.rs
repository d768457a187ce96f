//! The streams as readers and writers of tokio and of hyper.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{ClientStream, ServerStream, TlsStream};

/// What stands below one of the streams, with its traits.
macro_rules! inner {
    ($stream:ident, $self:ident, $inner:ident => $call:expr) => {
        inner!(@ $stream, $self.get_mut(), $inner => $call)
    };
    (@ TlsStream, $stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            TlsStream::Client(ClientStream(stream)) => {
                let $inner = Pin::new(stream);
                $call
            }
            TlsStream::Server(ServerStream(stream)) => {
                let $inner = Pin::new(stream);
                $call
            }
        }
    };
    (@ $name:ident, $stream:expr, $inner:ident => $call:expr) => {{
        let $inner = Pin::new(&mut $stream.0);
        $call
    }};
}

macro_rules! streams {
    ($($stream:ident),+) => {$(
        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for $stream<IO> {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                inner!($stream, self, inner => inner.poll_read(cx, buffer))
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for $stream<IO> {
            #[inline]
            fn poll_fill_buf(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<&[u8]>> {
                inner!($stream, self, inner => inner.poll_fill_buf(cx))
            }

            #[inline]
            fn consume(self: Pin<&mut Self>, count: usize) {
                inner!($stream, self, inner => inner.consume(count));
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $stream<IO> {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                inner!($stream, self, inner => inner.poll_write(cx, bytes))
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                inner!($stream, self, inner => inner.poll_write_vectored(cx, parts))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                inner!($stream, self, inner => inner.poll_flush(cx))
            }

            /// Sends `close_notify`, then FIN; reading goes on.
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                inner!($stream, self, inner => inner.poll_shutdown(cx))
            }
        }

        #[cfg(feature = "hyper")]
        impl<IO: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for $stream<IO> {
            /// Copies what is decrypted, as tokio's trait does.
            #[inline]
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut buffer: hyper::rt::ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                let bytes = std::task::ready!(self.as_mut().poll_fill_buf(cx))?;
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                self.consume(count);
                Poll::Ready(Ok(()))
            }
        }

        #[cfg(feature = "hyper")]
        impl<IO: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for $stream<IO> {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                AsyncWrite::poll_write(self, cx, bytes)
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                AsyncWrite::poll_write_vectored(self, cx, parts)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                AsyncWrite::poll_flush(self, cx)
            }

            /// Sends `close_notify`, then FIN; reading goes on.
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                AsyncWrite::poll_shutdown(self, cx)
            }
        }
    )+};
}

streams!(ClientStream, ServerStream, TlsStream);
