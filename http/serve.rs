//! `serve`: what it takes, and what can be asked of it.

use std::fmt;
use std::future::{IntoFuture, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use hyper::server::conn::{http1, http2};
use hyper::{Request, Response};
use quoit::net::TcpListener;
use quoit::rt::QuoitExecutor;
use tower_service::Service;

use crate::body::RequestBody;
use crate::handshake::{After, Handshake, Plain, Start};
use crate::options::{Options, Versions};
use crate::report::{BoxError, Report, Trouble};
use crate::server::Server;

/// Serves a tower service, such as an axum `Router`, on every connection that the listener accepts.
///
/// Each connection gets a clone of the service. It need not be `Send`: its connections and their
/// tasks stay on this core. See [`Serve`] for what can be set.
///
/// # Examples
///
/// ```
/// use axum::{Router, routing::get};
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::block_on(async {
/// let router = Router::new().route("/", get(|| async { "hello from the ring\n" }));
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// quoit::spawn(quoit_http::serve(listener, router).into_future());
///
/// let client = TcpStream::connect(address).await?;
/// client.send_all("GET / HTTP/1.1\r\nhost: me\r\nconnection: close\r\n\r\n").await?;
/// let mut answer = Vec::new();
/// while let lease @ [_, ..] = &client.recv().await?[..] {
///     answer.extend_from_slice(lease);
/// }
/// assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
/// assert!(answer.ends_with(b"hello from the ring\n"));
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
pub fn serve<S>(listener: TcpListener, service: S) -> Serve<impl FnMut(SocketAddr) -> S>
where
    S: Clone,
{
    serve_with(listener, move |_| service.clone())
}

/// As [`serve`], with a service made for each connection, from the address of its peer. It is made
/// on the server's task, so a panic of `make` ends the server.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use axum::{Extension, Router, routing::get};
/// use quoit::net::{TcpListener, TcpStream};
///
/// async fn whoami(Extension(peer): Extension<SocketAddr>) -> String {
///     peer.to_string()
/// }
///
/// # quoit::block_on(async {
/// let router: Router = Router::new().route("/", get(whoami));
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// let make = move |peer: SocketAddr| router.clone().layer(Extension(peer));
/// quoit::spawn(quoit_http::serve_with(listener, make).into_future());
/// # let client = TcpStream::connect(address).await?;
/// # client.send_all("GET / HTTP/1.1\r\nhost: me\r\nconnection: close\r\n\r\n").await?;
/// # let mut answer = String::new();
/// # while let lease @ [_, ..] = &client.recv().await?[..] {
/// #     answer.push_str(std::str::from_utf8(lease).unwrap());
/// # }
/// # assert!(answer.ends_with(&client.local_addr()?.to_string()), "{answer}");
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
pub fn serve_with<M, S>(listener: TcpListener, make: M) -> Serve<M>
where
    M: FnMut(SocketAddr) -> S,
{
    Serve {
        listener,
        make,
        start: Plain,
        options: Options::new(),
        max_connections: usize::MAX,
        stop: Box::pin(pending()),
        drain_timeout: Some(Duration::from_secs(20)),
        on_error: Box::new(drop),
    }
}

/// A server that has not started: [`await`](IntoFuture) it.
///
/// | limit | default | at the limit |
/// |---|---|---|
/// | [`header_timeout`](Self::header_timeout) | 30 s | the connection is dropped |
/// | [`idle_timeout`](Self::idle_timeout) | 75 s | the connection is closed gracefully |
/// | [`max_connections`](Self::max_connections) | none | further ones wait in the backlog |
/// | [`drain_timeout`](Self::drain_timeout) | 20 s | connections that have not ended are cut |
///
/// Nothing limits how long a service may take to answer, nor how long a peer may take to read the
/// answer: a connection with a request in flight is never idle. For the first, put a
/// [`timeout`](quoit::time::timeout) into the service.
///
/// It ends when it is told to, with a [`Report`]. It is not ended by errors of `accept`, of a
/// connection, or by a panic of the service: these go to [`on_error`](Self::on_error).
///
/// # Errors
///
/// When the listener can never accept again: it belongs to another core, its runtime is gone, or it
/// is no listening socket. What is in flight is drained before.
///
/// # Panics
///
/// Outside a runtime.
///
/// # Cancel safety
///
/// Dropped, the future closes the listener and drops all connections, whatever they are in the
/// middle of; those that were upgraded live on.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use quoit::net::TcpListener;
///
/// # quoit::block_on(async {
/// # let stop = quoit::time::sleep(Duration::from_millis(5)); // or quoit::signal::terminate()
/// let router = Router::new().route("/", get(|| async { "hello\n" }));
/// let report = quoit_http::serve(TcpListener::bind("127.0.0.1:0").await?, router)
///     .header_timeout(Duration::from_secs(10))
///     .idle_timeout(Duration::from_secs(60))
///     .max_connections(10_000)
///     .on_error(|trouble| eprintln!("{trouble}"))
///     .with_graceful_shutdown(stop)
///     .drain_timeout(Duration::from_secs(5))
///     .await?;
/// assert!(report.is_clean());
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[must_use = "a server does nothing unless awaited"]
pub struct Serve<M, H = Plain> {
    pub(crate) listener: TcpListener,
    pub(crate) make: M,
    pub(crate) start: H,
    pub(crate) options: Options,
    pub(crate) max_connections: usize,
    pub(crate) stop: Pin<Box<dyn Future<Output = ()>>>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) on_error: Box<dyn FnMut(Trouble)>,
}

impl<M> Serve<M> {
    /// Begins each connection with a handshake: TLS, as a rule. With the feature `tls`,
    /// `quoit_tls::TlsAcceptor` is what to give; what else can be is a [`Handshake`].
    ///
    /// It runs in the connection's own task, from the first byte of its peer on, and within the
    /// time of the [`header_timeout`](Self::header_timeout), which is for both, the handshake and
    /// the first head. A failure is a [`Trouble::Handshake`], except for a peer that goes without
    /// having sent anything, as those do that only look whether somebody listens. A shutdown lets
    /// handshakes that have begun come to their end.
    ///
    /// Where the handshake has agreed on a protocol (ALPN: `h2`, `http/1.1`), that one is spoken.
    /// So offer both: `config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()]`.
    ///
    /// Every request has `quoit_tls::TlsInfo` among its extensions: the name that was asked for,
    /// the client's certificates, and so on.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "tls")]
    /// # async fn example(
    /// #     listener: quoit::net::TcpListener,
    /// #     config: std::sync::Arc<quoit_tls::rustls::ServerConfig>,
    /// # ) -> std::io::Result<()> {
    /// use axum::{Extension, Router, routing::get};
    /// use quoit_tls::{TlsAcceptor, TlsInfo};
    ///
    /// async fn name(Extension(tls): Extension<TlsInfo>) -> String {
    ///     tls.server_name().unwrap_or("nobody in particular").to_owned()
    /// }
    ///
    /// let router = Router::new().route("/", get(name));
    /// quoit_http::serve(listener, router).tls(TlsAcceptor::from(config)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tls<H: Handshake>(self, handshake: H) -> Serve<M, After<H>> {
        Serve {
            listener: self.listener,
            make: self.make,
            start: After(Rc::new(handshake)),
            options: self.options,
            max_connections: self.max_connections,
            stop: self.stop,
            drain_timeout: self.drain_timeout,
            on_error: self.on_error,
        }
    }
}

impl<M, H> Serve<M, H> {
    /// Speaks HTTP/1 only. Without this, each connection speaks what its client starts with: a
    /// client that starts with the preface of HTTP/2 (RFC 9113, section 3.4) gets that. Upgrades
    /// from HTTP/1 to HTTP/2 (`h2c`, which RFC 9113 has withdrawn) are not made.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn http1_only(mut self) -> Self {
        self.options.versions = Versions::Http1;
        self
    }

    /// Speaks HTTP/2 only, with prior knowledge: a client that starts otherwise gets an error of
    /// that protocol.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn http2_only(mut self) -> Self {
        self.options.versions = Versions::Http2;
        self
    }

    /// How long the head of a request may take: from accepting the connection for the first one,
    /// from its first byte for each further one over HTTP/1. `None` is for ever, also for a peer
    /// that never says anything.
    ///
    /// Over HTTP/2 further heads count as idleness: a connection with other requests in flight is
    /// none of a lone slow client. Over HTTP/1 there is no limit while the service keeps a body of
    /// an earlier request without reading it to its end: what comes may be of it.
    ///
    /// # Panics
    ///
    /// When it is zero.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn header_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.options.limits.header = positive(limit.into());
        self
    }

    /// How long a connection may be kept alive without a request in flight. Then it is closed as by
    /// a shutdown: GOAWAY over HTTP/2, FIN over HTTP/1. `None` is for ever.
    ///
    /// A response that the peer has yet to take is in flight, and so is, over HTTP/1, a request
    /// whose body has yet to come, also after its response has ended. What HTTP/2's flow control
    /// holds back after a response has ended is not, but each part of it that the peer takes puts
    /// the close off, as does each part that is taken of a request. Pings and other frames of the
    /// connection itself do not. It is off for an HTTP/2 connection of which a stream was upgraded,
    /// for such a stream may be silent for long.
    ///
    /// # Panics
    ///
    /// When it is zero.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.options.limits.idle = positive(limit.into());
        self
    }

    /// How many connections may be open, those included that were upgraded. At the limit no more
    /// are accepted until one has ended. They wait in the kernel's backlog, and, as far as the
    /// listener takes connections ahead of `accept`
    /// ([`Builder::accept_ahead`](quoit::Builder::accept_ahead), 64), in the listener. To their
    /// clients they are connected, and unanswered.
    ///
    /// A connection that waits there has no timeout running. On several cores each has a limit of
    /// its own. A shutdown serves those that the listener has taken, beyond the limit if need be.
    ///
    /// # Panics
    ///
    /// When it is zero.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn max_connections(mut self, count: usize) -> Self {
        assert!(count > 0, "a server without connections serves nobody");
        self.max_connections = count;
        self
    }

    /// When this future is ready, the server comes to an end:
    ///
    /// 1. The listener is closed. Connections that it had taken from the kernel are served, those
    ///    in the kernel's own queue are reset.
    /// 2. Connections learn of it: HTTP/2 by GOAWAY, HTTP/1 by `connection: close` in the next
    ///    response. Idle ones are closed; new ones have a tenth of a second for a first request.
    /// 3. When all have ended, or the [`drain_timeout`](Self::drain_timeout) is over, the server
    ///    reports.
    ///
    /// The server waits for upgraded connections too, but it cannot tell them: let their code wait
    /// for the same event.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn with_graceful_shutdown<F>(mut self, stop: F) -> Self
    where
        F: Future + 'static,
    {
        self.stop = Box::pin(async { drop(stop.await) });
        self
    }

    /// How long a shutdown may take before it cuts what has not ended; their peers are in
    /// [`Report::cut`]. `None` is for ever.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn drain_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.drain_timeout = limit.into();
        self
    }

    /// Is told of each [`Trouble`]. Without this, they are only counted in the [`Report`].
    ///
    /// It runs on the server's task, so it must neither block nor panic: that would be the end of
    /// the server.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn on_error(mut self, report: impl FnMut(Trouble) + 'static) -> Self {
        self.on_error = Box::new(report);
        self
    }

    /// Changes what this crate does not know of HTTP/1.
    ///
    /// hyper's own `header_read_timeout` is off: this crate has timeouts for heads and for
    /// idleness, which that one does not tell apart.
    ///
    /// ```
    /// # async fn f(listener: quoit::net::TcpListener, router: axum::Router) {
    /// # let server =
    /// quoit_http::serve(listener, router).http1(|http1| _ = http1.max_headers(50))
    /// # ; drop(server);
    /// # }
    /// ```
    pub fn http1(mut self, change: impl FnOnce(&mut http1::Builder)) -> Self {
        change(&mut self.options.http1);
        self
    }

    /// Changes what this crate does not know of HTTP/2.
    ///
    /// ```
    /// # async fn f(listener: quoit::net::TcpListener, router: axum::Router) {
    /// # let server =
    /// quoit_http::serve(listener, router).http2(|http2| _ = http2.max_concurrent_streams(50))
    /// # ; drop(server);
    /// # }
    /// ```
    pub fn http2(mut self, change: impl FnOnce(&mut http2::Builder<QuoitExecutor>)) -> Self {
        change(&mut self.options.http2);
        self
    }
}

/// A limit of no time at all would be no server.
#[track_caller]
fn positive(limit: Option<Duration>) -> Option<Duration> {
    assert!(limit != Some(Duration::ZERO), "a limit of no time; `None` is for ever");
    limit
}

impl<M, S, B, H> IntoFuture for Serve<M, H>
where
    M: FnMut(SocketAddr) -> S + 'static,
    H: Start,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    type Output = io::Result<Report>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<Report>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let (server, listener) = Server::new(self);
        Box::pin(server.run(listener))
    }
}

impl<M, H> fmt::Debug for Serve<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("options", &self.options)
            .field("max_connections", &self.max_connections)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}
