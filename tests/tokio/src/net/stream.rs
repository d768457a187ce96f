//! `TcpStream`: quoit's, with the readiness calls that tokio has on top.
//!
//! Readiness means what quoit's `readable` and `writable` mean: a read or a write would not wait.
//! The poll forms keep such a wait with the stream, as its waiter must outlive one poll.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio_real::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::{ToSocketAddrs, route, tcp};
use crate::runtime::require_io;

type Wait = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A TCP connection.
pub struct TcpStream {
    stream: Arc<quoit::net::TcpStream>,
    readable: Mutex<Option<Wait>>,
    writable: Mutex<Option<Wait>>,
}

// The waits are quoit's own futures; a panic leaves them as every other poll does.
impl UnwindSafe for TcpStream {}
impl RefUnwindSafe for TcpStream {}

impl TcpStream {
    pub(super) fn new(stream: quoit::net::TcpStream) -> Self {
        Self { stream: Arc::new(stream), readable: Mutex::default(), writable: Mutex::default() }
    }

    pub(super) fn inner(&self) -> &quoit::net::TcpStream {
        &self.stream
    }

    /// The stream alone; there is one reference, as those of the waits go first.
    fn into_inner(self) -> quoit::net::TcpStream {
        let Self { stream, readable, writable } = self;
        drop((readable, writable));
        Arc::into_inner(stream).expect("the waits are gone")
    }

    /// Connects.
    pub async fn connect<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        route::check()?;
        if quoit::Handle::try_current().is_some() {
            return quoit::net::TcpStream::connect(address).await.map(Self::new);
        }
        let addresses: Vec<_> = quoit::net::lookup_host(address).await?.collect();
        let connect = move || async move { quoit::net::TcpStream::connect(&addresses[..]).await };
        route::run(connect).await.map(Self::new)
    }

    /// Takes a socket of the standard library's.
    #[track_caller]
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        require_io();
        quoit::net::TcpStream::from_std(stream).map(Self::new)
    }

    /// Gives the socket away.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        Ok(self.into_inner().into_std()?)
    }

    /// Our address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// The socket's pending error.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.stream.take_error()
    }

    /// Reads without taking.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(into).await
    }

    /// Waits until a read would not wait.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Waits until a write would not wait.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Waits until one of the directions is ready, and says which.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let (mut readable, mut writable) = (pin!(self.readable()), pin!(self.writable()));
        let ready = poll_fn(|cx| {
            let mut ready = Ready::EMPTY;
            if interest.is_readable() && readable.as_mut().poll(cx)?.is_ready() {
                ready |= Ready::READABLE;
            }
            if interest.is_writable() && writable.as_mut().poll(cx)?.is_ready() {
                ready |= Ready::WRITABLE;
            }
            if ready.is_empty() { Poll::Pending } else { Poll::Ready(io::Result::Ok(ready)) }
        });
        let ready = ready.await?;
        let at_end = ready.is_readable() && matches!(self.peek(&mut [0]).await, Ok(0));
        Ok(if at_end { ready | Ready::READ_CLOSED } else { ready })
    }

    fn poll_wait(
        slot: &Mutex<Option<Wait>>,
        cx: &mut Context<'_>,
        wait: impl FnOnce() -> Wait,
    ) -> Poll<io::Result<()>> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let result = ready!(slot.get_or_insert_with(wait).as_mut().poll(cx));
        *slot = None;
        Poll::Ready(result)
    }

    /// The poll form of `readable`.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_wait(&self.readable, cx, || {
            let stream = self.stream.clone();
            Box::pin(async move { stream.readable().await })
        })
    }

    /// The poll form of `writable`.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_wait(&self.writable, cx, || {
            let stream = self.stream.clone();
            Box::pin(async move { stream.writable().await })
        })
    }

    /// The poll form of `peek`.
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_read_ready(cx))?;
        let count = ready!(pin!(self.stream.peek(into.initialize_unfilled())).poll(cx))?;
        into.advance(count);
        Poll::Ready(Ok(count))
    }

    /// Reads what is there.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(into)
    }

    /// Reads what is there, into several pieces.
    pub fn try_read_vectored(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for piece in into {
            match self.stream.try_read(piece) {
                Ok(count) => {
                    total += count;
                    if count < piece.len() {
                        break;
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Reads what is there, to the end of a buffer.
    pub fn try_read_buf<B: bytes::BufMut>(&self, into: &mut B) -> io::Result<usize> {
        let mut piece = vec![0; into.remaining_mut().min(64 * 1024)];
        let count = self.stream.try_read(&mut piece)?;
        into.put_slice(&piece[..count]);
        Ok(count)
    }

    /// Writes what the socket takes.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Writes what the socket takes of several pieces.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.try_write_vectored(pieces)
    }

    fn is_ready(&self, interest: Interest) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        interest.is_readable() && pin!(self.readable()).poll(&mut cx).is_ready()
            || interest.is_writable() && pin!(self.writable()).poll(&mut cx).is_ready()
    }

    /// Runs `io`, which goes past quoit to the socket, if it is ready.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        if self.is_ready(interest) { io() } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Runs `io`, which goes past quoit to the socket, until it does not say that it would wait.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut io: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            self.ready(interest).await?;
            match io() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    crate::task::yield_now().await;
                }
                result => return result,
            }
        }
    }

    /// Borrowed halves.
    pub fn split(&mut self) -> (tcp::ReadHalf<'_>, tcp::WriteHalf<'_>) {
        (tcp::ReadHalf::new(self), tcp::WriteHalf::new(self))
    }

    /// Owned halves.
    pub fn into_split(self) -> (tcp::OwnedReadHalf, tcp::OwnedWriteHalf) {
        let (reader, writer) = self.into_inner().into_split();
        (tcp::OwnedReadHalf::new(reader), tcp::OwnedWriteHalf::new(writer))
    }

    /// Whether small writes go at once.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.stream.nodelay()
    }

    /// Sets whether small writes go at once.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.stream.set_nodelay(on)
    }

    /// Whether acknowledgements go at once.
    pub fn quickack(&self) -> io::Result<bool> {
        SockRef::from(self).tcp_quickack()
    }

    /// Sets whether acknowledgements go at once.
    pub fn set_quickack(&self, on: bool) -> io::Result<()> {
        SockRef::from(self).set_tcp_quickack(on)
    }

    /// The socket's own linger time.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets the socket's own linger time.
    #[deprecated = "it blocks the thread that closes the socket"]
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// Makes close a reset.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    /// How many hops its packets may take.
    pub fn ttl(&self) -> io::Result<u32> {
        self.stream.ttl()
    }

    /// Sets how many hops its packets may take.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.stream.set_ttl(hops)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_shutdown(cx)
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    #[track_caller]
    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        Self::from_std(stream)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(f)
    }
}
