//! `TcpListener`: takes connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::Poll;

use super::futures::Accept;
use super::handle::{Bound, ListenerHandle};
use super::options;
use super::{TcpSocket, TcpStream, ToSocketAddrs};
use crate::io::descriptor::Descriptor;
use crate::io::dns;
use crate::io::mailbox::current_core;
use crate::io::operation::{self, Pending};
use crate::io::payload::AnyPayload;
use crate::io::request::call;

/// The backlog of [`TcpListener::bind`]; the kernel caps it at `net.core.somaxconn` (listen(2)).
pub(super) const BACKLOG: u32 = 4096;

/// How connections to one address are spread over the listeners of several cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Placement {
    /// By the kernel's hash of the connection's addresses (`SO_REUSEPORT`, socket(7)): even on
    /// average, and it costs nothing. A listener that dies takes the connections along that the
    /// kernel has queued for it.
    Hash,
}

/// A listening TCP socket.
///
/// Taking connections starts with the first [`accept`](Self::accept). From then on up to 64 (see
/// [`Builder::accept_ahead`](crate::Builder::accept_ahead)) wait here ahead of the program, so that
/// a burst costs no system call each; further ones stay in the kernel's queue.
///
/// Dropping a listener closes the connections that nobody took; [`close`](Self::close) returns
/// them.
///
/// # When its runtime is gone
///
/// The socket lives as long as its handle, as tokio's does. So a listener that is kept beyond the
/// runtime that served it goes on listening: the kernel takes connections into its backlog, nobody
/// serves them, and their clients wait. What had been taken ahead is closed with the runtime, and
/// `accept` answers [`NotConnected`](io::ErrorKind::NotConnected). Drop the listener to have
/// clients refused. One that no runtime has served yet is for any that comes.
///
/// # Examples
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, peer) = listener.accept().await?;
/// assert_eq!(peer, client.local_addr()?);
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TcpListener {
    handle: ListenerHandle,
}

impl TcpListener {
    /// Of a socket whose options its connections inherit.
    pub(super) fn from_descriptor(descriptor: Descriptor) -> Self {
        Self { handle: ListenerHandle::new(descriptor, false) }
    }

    #[cfg(feature = "futures-core")]
    pub(super) fn handle(&self) -> &ListenerHandle {
        &self.handle
    }

    /// Listens on an address, with `SO_REUSEADDR`. A name is resolved off the loop, and the first
    /// of its addresses that can be bound is taken.
    ///
    /// # Errors
    ///
    /// As bind(2) and listen(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves nothing behind.
    pub async fn bind<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        Self::bind_any(address, false).await
    }

    /// Listens on an address that the other cores listen on too: call it on each, with the same
    /// address. Connections are spread by `placement`.
    ///
    /// # Errors
    ///
    /// As bind(2) and listen(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves nothing behind.
    pub async fn bind_sharded<A: ToSocketAddrs>(
        address: A,
        placement: Placement,
    ) -> io::Result<Self> {
        match placement {
            Placement::Hash => Self::bind_any(address, true).await,
        }
    }

    async fn bind_any<A: ToSocketAddrs>(address: A, shared: bool) -> io::Result<Self> {
        let mut last = None;
        for address in dns::resolve(&address).await? {
            match Self::bind_one(address, shared) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address")
        }))
    }

    fn bind_one(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = TcpSocket::for_address(&address)?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// The next connection, and its peer's address.
    ///
    /// # Errors
    ///
    /// As accept(2), except that errors of the connection alone are skipped. When descriptors or
    /// memory run out, one call is told so; the connection stays in the kernel's queue, and the
    /// next attempt waits 10 ms, doubling up to a second, so a loop around `accept` does not spin.
    ///
    /// A peer that has already reset its connection leaves no address: it is then `0.0.0.0:0`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing: a connection that arrives waits for the next `accept`.
    pub fn accept(&self) -> Accept<'_> {
        Accept::new(&self.handle)
    }

    /// Stops listening and returns the connections that were taken from the kernel and not yet
    /// accepted.
    ///
    /// # Errors
    ///
    /// When the listener belongs to another core, or its runtime is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the listener closes all the same, and so do those connections.
    pub async fn close(self) -> io::Result<Vec<TcpStream>> {
        if !self.handle.is_bound() {
            return Ok(Vec::new());
        }
        let mut closing: Option<Pending<Vec<Descriptor>>> = None;
        let undelivered = std::future::poll_fn(|cx| {
            if closing.is_none() {
                let mut waker = Some(cx.waker().clone());
                let opened = self.handle.with(|tables, key| {
                    let entry = tables.listeners.get_mut(key)?;
                    let payload = AnyPayload::plain(Vec::<Descriptor>::new());
                    let operation = operation::open(&mut tables.operations, payload, waker.take());
                    entry.release_for(key, operation, &mut tables.services);
                    tables.settle_listener(key);
                    Some(Ok(operation))
                });
                match opened {
                    Ok(operation) => closing = Some(Pending::new(current_core(), operation)),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            closing.as_mut().expect("just set").poll(cx)
        })
        .await?
        .1;
        Ok(undelivered.into_iter().map(|one| self.handle.hand_out(one)).collect())
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        call::local_address(self.handle.number())
    }

    /// The hop limit that accepted connections inherit.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn ttl(&self) -> io::Result<u32> {
        options::ttl(self.handle.number())
    }

    /// Sets the hop limit that accepted connections inherit.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        options::set_ttl(self.handle.number(), hops)
    }

    /// Takes over a listener of the standard library, or one that was inherited, and switches it to
    /// non-blocking. Its connections get `TCP_NODELAY` when they are accepted, which costs a system
    /// call each, unless the listener has it, and they inherit it.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Not set here: others may have the socket, too, and who is in its backlog has been made.
        let inherits = options::nodelay(listener.as_raw_fd()).unwrap_or(true);
        let descriptor = OwnedFd::from(listener).into();
        Ok(Self { handle: ListenerHandle::new(descriptor, !inherits) })
    }
}

impl TryFrom<OwnedFd> for TcpListener {
    type Error = io::Error;

    /// Takes over a listening socket, which is switched to non-blocking.
    fn try_from(owned: OwnedFd) -> io::Result<Self> {
        Self::from_std(owned.into())
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.descriptor().as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.number()
    }
}
