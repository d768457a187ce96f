//! `TcpListener`: quoit's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use socket2::SockRef;

use super::{TcpStream, ToSocketAddrs, route};
use crate::runtime::require_io;

type Accepted = io::Result<(quoit::net::TcpStream, SocketAddr)>;
type Wait = Pin<Box<dyn Future<Output = Accepted> + Send + Sync>>;

/// A TCP socket that listens.
pub struct TcpListener {
    listener: Arc<quoit::net::TcpListener>,
    accept: Mutex<Option<Wait>>,
}

// The wait is quoit's own future; a panic leaves it as every other poll does.
impl UnwindSafe for TcpListener {}
impl RefUnwindSafe for TcpListener {}

impl TcpListener {
    pub(super) fn new(listener: quoit::net::TcpListener) -> Self {
        Self { listener: Arc::new(listener), accept: Mutex::default() }
    }

    /// Binds and listens.
    pub async fn bind<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        route::check()?;
        if quoit::Handle::try_current().is_some() {
            return quoit::net::TcpListener::bind(address).await.map(Self::new);
        }
        let addresses: Vec<_> = quoit::net::lookup_host(address).await?.collect();
        let bind = move || async move { quoit::net::TcpListener::bind(&addresses[..]).await };
        route::run(bind).await.map(Self::new)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((TcpStream::new(stream), peer))
    }

    /// The poll form of `accept`: the wait stays with the listener.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let mut slot = self.accept.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = slot.get_or_insert_with(|| {
            let listener = self.listener.clone();
            Box::pin(async move { listener.accept().await })
        });
        let result = ready!(wait.as_mut().poll(cx));
        *slot = None;
        Poll::Ready(result.map(|(stream, peer)| (TcpStream::new(stream), peer)))
    }

    /// Takes a socket of the standard library's.
    #[track_caller]
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        require_io();
        quoit::net::TcpListener::from_std(listener).map(Self::new)
    }

    /// Its address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How many hops the packets of its connections may take.
    pub fn ttl(&self) -> io::Result<u32> {
        self.listener.ttl()
    }

    /// Sets how many hops the packets of its connections may take.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.listener.set_ttl(hops)
    }

    /// The socket's pending error.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self).take_error()
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    #[track_caller]
    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        Self::from_std(listener)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.listener.fmt(f)
    }
}
