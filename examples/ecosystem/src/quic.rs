//! QUIC by quinn, on quoit: its published `Runtime` trait on an `AsyncFd`, the core's timers and
//! the core's tasks. No `unsafe`, and nothing that promises `Send` for what is not.
//!
//! ```text
//!   quinn::Endpoint ── spawn ──► a task of this core
//!                   ── timer ──► quoit::time::Sleep
//!                   ── socket ─► quinn_udp on the std socket, when AsyncFd says so
//! ```
//!
//! An endpoint stays on the core that made it, with all its connections: `Endpoint::new` spawns its
//! driver there. Streams may be used by any task of that core. A server on every core binds with
//! `SO_REUSEPORT` (of `socket2`), as the kernel keeps a peer's address with one socket.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::rustls::{self, RootCertStore};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{
    AsyncTimer, AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, Runtime, UdpPoller,
};
use quinn::{Incoming, ServerConfig};
use quoit::io::{AsyncFd, Interest};
use quoit::time::{self, Sleep};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What quinn asks of a runtime: the core that it is called on.
#[derive(Debug)]
pub struct QuoitRuntime;

impl Runtime for QuoitRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(time::sleep_until(time::Instant::from_std(deadline))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(quoit::spawn(future));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Socket { state, socket: AsyncFd::new(socket)? }))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Timer(Sleep);

impl AsyncTimer for Timer {
    fn reset(self: Pin<&mut Self>, deadline: Instant) {
        Pin::new(&mut self.get_mut().0).reset(time::Instant::from_std(deadline));
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.get_mut().0).poll(cx)
    }
}

#[derive(Debug)]
struct Socket {
    socket: AsyncFd<UdpSocket>,
    /// Batches of datagrams, by the kernel's segmentation, and what else a platform has.
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = |socket: &UdpSocket| self.state.send(socket.into(), transmit);
        self.socket.try_io(Interest::WRITABLE, send)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            let receive =
                guard.try_io(|socket| self.state.recv(socket.get_ref().into(), buffers, meta));
            if let Ok(received) = receive {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// One waiter among many: a connection each. So it waits by a future of its own, not by the poll
/// method, which knows the last caller only.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, waiting } = self.get_mut();
        let future = waiting.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.socket.writable().await.map(drop) })
        });
        let result = ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

/// What the echo server and its client speak, as they tell in the handshake (ALPN).
pub const ECHO: &str = "quoit-echo";

/// An endpoint that accepts connections for this protocol, and the certificate that it has made for
/// `localhost`.
///
/// # Errors
///
/// As bind(2), and when the certificate cannot be made.
pub fn server(address: SocketAddr, protocol: &str) -> Result<(Endpoint, CertificateDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = CertificateDer::from(made.cert);
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    tls.alpn_protocols = vec![protocol.into()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok((endpoint(address, Some(config))?, certificate))
}

/// An endpoint that connects, for this protocol, to servers with this certificate.
///
/// # Errors
///
/// As bind(2), and when the certificate is none.
pub fn client(
    address: SocketAddr,
    protocol: &str,
    trusted: CertificateDer<'static>,
) -> Result<Endpoint> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.into()];
    let mut endpoint = endpoint(address, None)?;
    endpoint
        .set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    Ok(endpoint)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn endpoint(address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(QuoitRuntime))?)
}

/// Sends back what comes on each stream of each connection, until the endpoint is closed.
pub async fn echo(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        quoit::spawn(async move {
            // A connection that fails, or is closed by its client, concerns no other.
            let _ = echo_connection(incoming).await;
        });
    }
}

async fn echo_connection(incoming: Incoming) -> Result<()> {
    let connection = incoming.await?;
    loop {
        let (mut send, mut receive) = connection.accept_bi().await?;
        quoit::spawn(async move {
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
                send.write_chunk(chunk.bytes).await?;
            }
            send.finish()?;
            Result::Ok(())
        });
    }
}
