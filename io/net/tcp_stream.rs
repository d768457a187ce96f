//! `TcpStream`: a connection.

mod convert;
mod options;

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::convert::DetachError;
use super::futures::{Recv, SendBuffer};
use super::handle::{Bound, StreamHandle};
use super::native;
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::{TcpSocket, ToSocketAddrs};
use crate::io::buffer::{BufError, IoBuf, IoBufMut};
use crate::io::descriptor::Descriptor;
use crate::io::dns;
use crate::io::request::call;

/// A TCP connection.
///
/// The handle is `Send` and `Sync`; the connection is served by the core whose program first reads
/// or writes, and answers elsewhere with an error that names that core. [`detach`](Self::detach)
/// frees it to be used on another one. All operations take `&self`, so one task may read while
/// another writes; concurrent reads are served in the order of their first poll, and writes go out
/// in the order of theirs.
///
/// `TCP_NODELAY` is on from the start, unless [`TcpSocket::set_nodelay`](super::TcpSocket) has
/// switched it off before.
///
/// # Dropping
///
/// Nothing that was received or committed is lost by dropping a *future*. Dropping the *stream*
/// with bytes unsent or input unread sends the committed bytes, then FIN, then discards input until
/// the peer's end or the [linger time](Self::set_linger) (5 seconds), then closes; otherwise it
/// closes at once. Bytes that the linger time leaves unsent make it a reset: FIN would tell the
/// peer that it has everything. [`close`](Self::close) does the same and reports errors;
/// [`abort`](Self::abort) resets.
///
/// A stream that is bound to no core lingers where it is dropped, or on the core that had it last.
/// Where neither is there, FIN goes out and the input that has come is discarded; input that comes
/// later is answered by a reset, as nobody is left to take it.
///
/// # Examples
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _) = listener.accept().await?;
///
/// client.send_all("hello").await?;
/// let lease = server.recv().await?;
/// assert_eq!(&lease[..], b"hello");
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TcpStream {
    pub(super) handle: Arc<StreamHandle>,
}

impl TcpStream {
    pub(crate) fn from_descriptor(descriptor: Descriptor) -> Self {
        Self { handle: StreamHandle::new(descriptor) }
    }

    /// Connects to a remote address.
    ///
    /// A name is resolved off the loop, and each of its addresses is tried in turn; the error is
    /// that of the last one.
    ///
    /// # Errors
    ///
    /// As connect(2), and [`InvalidInput`](io::ErrorKind::InvalidInput) when a name has no address.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt ends and its socket is closed.
    pub async fn connect<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        let mut last = None;
        for address in dns::resolve(&address).await? {
            let socket = TcpSocket::for_address(&address)?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address")
        }))
    }

    /// Connects to one address, giving up after `limit`.
    ///
    /// # Errors
    ///
    /// As connect(2); [`TimedOut`](io::ErrorKind::TimedOut) when the limit has passed.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt ends and its socket is closed.
    pub async fn connect_timeout(address: &SocketAddr, limit: Duration) -> io::Result<Self> {
        TcpSocket::for_address(address)?.connect_within(*address, Some(limit)).await
    }

    /// The next received bytes, lent from the core's pool: no copy, and no buffer to pass. An empty
    /// lease is the end of the stream.
    ///
    /// # Errors
    ///
    /// As recv(2). Bytes that came before an error are given out first.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing: what arrives waits for the next read of any tier.
    #[inline]
    pub fn recv(&self) -> Recv<'_> {
        Recv::new(&self.handle)
    }

    /// Reads into a buffer of yours, and gives it back with the count; 0 is the end of the stream,
    /// or a buffer without room.
    ///
    /// # Errors
    ///
    /// As recv(2), together with the buffer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the buffer and no byte: what arrives waits for the next read of any tier.
    pub async fn recv_into<B: IoBufMut>(&self, mut buffer: B) -> Result<(usize, B), BufError<B>> {
        let (address, room) = (buffer.stable_mut_ptr(), buffer.bytes_total());
        // SAFETY: `IoBufMut` promises that many writable bytes there, and nobody else touches them
        // while we hold the buffer.
        let into = unsafe { std::slice::from_raw_parts_mut(address.cast(), room) };
        match native::read(&self.handle, into).await {
            Ok(count) => {
                // SAFETY: the read has initialised that many bytes, from the start.
                unsafe { buffer.set_init(count) };
                Ok((count, buffer))
            }
            Err(error) => Err(BufError::new(error, Some(buffer))),
        }
    }

    /// Sends a whole buffer and gives it back with its length. A lease can be sent as it is.
    ///
    /// The buffer commits at the first poll that finds room: from then on it belongs to the stream
    /// and goes out whole, before any later write. The future resolves when the kernel has taken
    /// the last byte: at its first poll where the send is tried at once, else a turn later
    /// ([`Builder::send_inline`](crate::Builder::send_inline)). [`SendBuffer::timeout`]
    /// stops it and tells the exact count.
    ///
    /// # Errors
    ///
    /// As send(2), together with the buffer. After a failure every later write says so.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it commits, nothing is sent; dropped later, everything is.
    #[inline]
    pub fn send<B: IoBuf>(&self, buffer: B) -> SendBuffer<'_, B> {
        SendBuffer::new(&self.handle, buffer)
    }

    /// As [`send`](Self::send), for those who need neither count nor buffer back.
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn send_all<B: IoBuf>(&self, buffer: B) -> io::Result<()> {
        self.send(buffer).await?;
        Ok(())
    }

    /// Reads into a slice: what is there, at least one byte; 0 is the end of the stream, or an
    /// empty slice.
    ///
    /// # Errors
    ///
    /// As recv(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        native::read(&self.handle, native::as_uninit(into)).await
    }

    /// Fills a slice, and answers its length.
    ///
    /// # Errors
    ///
    /// As recv(2), and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). What had been read before
    /// an error goes back to the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, what it had read goes back to the stream: the next read of any tier
    /// continues at the exact byte. (`AsyncReadExt::read_exact` of other crates has its own loop
    /// and no such promise.)
    pub async fn read_exact(&self, into: &mut [u8]) -> io::Result<usize> {
        native::read_exact(&self.handle, into).await
    }

    /// Reads up to and with `delimiter`, and appends that to `into`: at most `limit` bytes. Returns
    /// the count; without the delimiter at the end, the stream has ended before it came.
    ///
    /// As `read_until` of the extension traits, except that it takes a limit, that it needs no
    /// buffered reader, and what dropping it does. Theirs is called by its trait:
    /// `AsyncBufReadExt::read_until(&mut stream, ..)`.
    ///
    /// # Errors
    ///
    /// As recv(2); [`InvalidData`](io::ErrorKind::InvalidData) when the first `limit` bytes hold no
    /// delimiter: they stay in the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, what it had read goes back to the stream, and `into` is as it was.
    pub async fn read_until(
        &self,
        delimiter: u8,
        into: &mut Vec<u8>,
        limit: usize,
    ) -> io::Result<usize> {
        native::read_until(&self.handle, delimiter, into, limit).await
    }

    /// Looks at the next bytes without taking them.
    ///
    /// # Errors
    ///
    /// As recv(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        native::peek(&self.handle, into).await
    }

    /// [`peek`](Self::peek) for those who write futures by hand. When it is pending, the waker of
    /// the last call, of this or of a trait's `poll_read`, is woken as soon as there is something
    /// to see.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    ///
    /// # Examples
    ///
    /// ```
    /// use quoit::net::{TcpListener, TcpStream};
    ///
    /// # quoit::block_on(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("hello").await?;
    /// let mut first = [0];
    /// std::future::poll_fn(|cx| server.poll_peek(cx, &mut first)).await?;
    /// assert_eq!((first, &server.recv().await?[..]), (*b"h", &b"hello"[..]));
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub fn poll_peek(&self, cx: &Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        native::poll_peek(&self.handle, into, cx)
    }

    /// Writes from a slice: as much as the socket takes at once, at least one byte. What is
    /// reported is what the kernel has taken; nothing is queued.
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing of the slice was sent.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)]).await
    }

    /// Writes several slices as one, in one system call.
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing was sent.
    pub async fn write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        native::write(&self.handle, parts).await
    }

    /// Writes a whole slice.
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, a part of the slice may have been sent; how much is not known. Use
    /// [`send`](Self::send) where that matters.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        native::write_all(&self.handle, bytes).await
    }

    /// Waits until everything committed is taken by the kernel.
    ///
    /// # Errors
    ///
    /// That of an earlier write whose future nobody awaited to its end.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    pub async fn flush(&self) -> io::Result<()> {
        native::flush(&self.handle).await
    }

    /// Waits until a read would not wait: bytes are there, the stream has ended or failed.
    ///
    /// It may also answer when a read that got all it had asked for took the last bytes; then
    /// [`try_read`](Self::try_read) says `WouldBlock` once, and the next call waits.
    ///
    /// # Errors
    ///
    /// Only when the stream belongs to another core or is gone; its own errors are left to the
    /// read.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    pub async fn readable(&self) -> io::Result<()> {
        native::readable(&self.handle).await
    }

    /// Waits until a write would not wait.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    pub async fn writable(&self) -> io::Result<()> {
        native::writable(&self.handle).await
    }

    /// Reads what is there.
    ///
    /// # Errors
    ///
    /// As recv(2); [`WouldBlock`](io::ErrorKind::WouldBlock) when nothing is, or another read
    /// stands in line: wait for [`readable`](Self::readable).
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        native::try_read(&self.handle, into)
    }

    /// Writes what the socket takes at once.
    ///
    /// # Errors
    ///
    /// As send(2); [`WouldBlock`](io::ErrorKind::WouldBlock) when it takes nothing, or
    /// committed bytes or other writes stand before it: wait for [`writable`](Self::writable).
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// Writes what the socket takes at once of several slices, in one system call.
    ///
    /// # Errors
    ///
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        native::try_write(&self.handle, parts)
    }

    /// Ends writing: waits until everything committed is taken, then sends FIN. Reading goes on.
    ///
    /// It is what `shutdown` means in tokio's `AsyncWriteExt`. For that of `std`, which takes a
    /// direction, see [`shutdown_with`](Self::shutdown_with).
    ///
    /// # Errors
    ///
    /// That of an earlier write. A connection that is down already is none: reads tell of it.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for committed bytes, nothing is ended.
    pub async fn shutdown(&self) -> io::Result<()> {
        native::shut_down(&self.handle).await
    }

    /// Ends one or both directions, as `shutdown` of [`std::net::TcpStream`]. Ending the writing
    /// one first waits until everything committed is taken, then sends FIN.
    ///
    /// # Errors
    ///
    /// As shutdown(2), or that of an earlier write.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for committed bytes, nothing is ended.
    #[doc(alias = "shutdown")]
    pub async fn shutdown_with(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.flush().await?;
        }
        call::shutdown(self.handle.number(), how)
    }

    /// Closes as dropping does, and tells what became of it: with bytes unsent or input unread it
    /// sends the committed bytes, then FIN, and discards input until the peer's end or the linger
    /// time.
    ///
    /// # Errors
    ///
    /// That of an earlier write that nobody saw, or [`TimedOut`](io::ErrorKind::TimedOut) when the
    /// linger time passed before the bytes were taken or the peer ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the stream closes all the same, as if it had been dropped.
    pub async fn close(self) -> io::Result<()> {
        native::close(&self.handle).await
    }

    /// Resets the connection now: what is unsent or unread is thrown away, and the peer sees
    /// `ECONNRESET`.
    pub fn abort(self) {
        let aborted = self.handle.with(|tables, key| {
            tables.streams.get_mut(key)?;
            tables.abort_stream(key);
            Some(Ok(()))
        });
        if aborted.is_err() {
            self.handle.abort_elsewhere();
        }
    }

    /// Frees the stream from its core, so that it can be used on another one, or converted: sends
    /// what is committed, ends what is in flight, and keeps received bytes with the handle.
    ///
    /// Operations that wait meanwhile are woken, and bind the stream again where they are polled.
    /// They keep their places in line: on the core that it comes from nothing goes before them.
    /// Once another core serves the stream, they answer with an error that names it; and if it has
    /// come back by then, reads ask anew, and writes fail, since others went before them. A read
    /// that has taken a part stays the first wherever the stream goes.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the stream stays usable where it was.
    pub async fn detach(&self) -> io::Result<()> {
        native::detach(&self.handle).await
    }

    /// Splits by reference into a reading and a writing half.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits into two halves that may live in different tasks of a core. Dropping the writing half
    /// sends what is committed, then FIN.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::into_split(self)
    }
}
