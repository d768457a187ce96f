//! What comes between accepting a connection and speaking HTTP on it: TLS, as a rule.
//!
//! ```text
//!   accepted ── first byte ──► Handshake::begin ──► Agreed ──► HTTP/1 or HTTP/2
//!      nothing is held for one that says nothing      └─ which one, and what requests carry
//! ```
//!
//! It runs in the connection's own task, so it holds up nobody else.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::http::Extensions;
use hyper::rt::{Read, Write};
use quoit::net::TcpStream;

use crate::activity::Activity;

/// Turns an accepted connection into what HTTP is spoken on; see [`Serve::tls`](crate::Serve::tls).
///
/// `quoit_tls::TlsAcceptor` is one, with the feature `tls`. So is every function from a stream to a
/// future of an [`Agreed`].
///
/// # Examples
///
/// A proxy in front sends a line with the client's address, which the handlers are to see:
///
/// ```
/// use std::io;
/// use axum::{Extension, Router, routing::get};
/// use quoit::net::{TcpListener, TcpStream};
/// use quoit_http::Agreed;
///
/// #[derive(Clone)]
/// struct Client(String);
///
/// async fn told(stream: TcpStream) -> io::Result<Agreed<TcpStream>> {
///     let mut line = Vec::new();
///     stream.read_until(b'\n', &mut line, 100).await?;
///     let client = String::from_utf8_lossy(&line).trim_end().to_owned();
///     Ok(Agreed::new(stream).extension(Client(client)))
/// }
///
/// # quoit::block_on(async {
/// let router = Router::new()
///     .route("/", get(|Extension(Client(client)): Extension<Client>| async { client }));
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// quoit::spawn(quoit_http::serve(listener, router).tls(told).into_future());
/// # let client = TcpStream::connect(address).await?;
/// # client.send_all("192.0.2.7\nGET / HTTP/1.1\r\nhost: me\r\nconnection: close\r\n\r\n").await?;
/// # let mut answer = String::new();
/// # while let lease @ [_, ..] = &client.recv().await?[..] {
/// #     answer.push_str(std::str::from_utf8(lease).unwrap());
/// # }
/// # assert!(answer.ends_with("192.0.2.7"), "{answer}");
/// # io::Result::Ok(())
/// # }).unwrap();
/// ```
pub trait Handshake: 'static {
    /// What HTTP is spoken on.
    type Io: Read + Write + Unpin + Send + 'static;

    /// The handshake of one connection, whose peer has sent something.
    ///
    /// # Errors
    ///
    /// When there is nothing to speak HTTP on; see
    /// [`Trouble::Handshake`](crate::Trouble::Handshake).
    ///
    /// # Cancel safety
    ///
    /// It is dropped when its time is over, and the connection with it.
    fn begin(&self, stream: TcpStream) -> impl Future<Output = io::Result<Agreed<Self::Io>>>;
}

impl<F, R, T> Handshake for F
where
    F: Fn(TcpStream) -> R + 'static,
    R: Future<Output = io::Result<Agreed<T>>> + 'static,
    T: Read + Write + Unpin + Send + 'static,
{
    type Io = T;

    async fn begin(&self, stream: TcpStream) -> io::Result<Agreed<T>> {
        self(stream).await
    }
}

/// Puts what a handshake has left among the extensions of a request.
pub(crate) type Carry = Box<dyn Fn(&mut Extensions) + Send + Sync>;

/// What a [`Handshake`] has come to.
pub struct Agreed<T> {
    /// In a box: a session of TLS takes more than a kilobyte, and has some way to go from here.
    io: Box<T>,
    pub(crate) protocol: Option<Vec<u8>>,
    /// As a call: a map of its own would be built only to be copied for each request.
    carry: Option<Carry>,
}

impl<T> Agreed<T> {
    /// HTTP is spoken on this. Which one shows from how the client starts.
    #[must_use]
    pub fn new(io: T) -> Self {
        Self { io: Box::new(io), protocol: None, carry: None }
    }

    /// The protocol that was agreed on, by its name in ALPN (RFC 7301): after `h2` it is HTTP/2,
    /// after `http/1.1` and `http/1.0` it is HTTP/1, and after any other it shows from how the
    /// client starts.
    #[must_use]
    pub fn protocol(mut self, name: impl Into<Vec<u8>>) -> Self {
        self.protocol = Some(name.into());
        self
    }

    /// Something that every request of the connection is to carry among its
    /// [extensions](hyper::Request::extensions).
    #[must_use]
    pub fn extension<E: Clone + Send + Sync + 'static>(mut self, value: E) -> Self {
        let before = self.carry.take();
        self.carry = Some(Box::new(move |extensions| {
            if let Some(before) = &before {
                before(extensions);
            }
            extensions.insert(value.clone());
        }));
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for Agreed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.as_deref().map(String::from_utf8_lossy);
        f.debug_struct("Agreed")
            .field("io", &self.io)
            .field("protocol", &protocol)
            .finish_non_exhaustive()
    }
}

/// A handshake that has ended well.
pub(crate) struct Shaken<T> {
    pub(crate) io: T,
    pub(crate) protocol: Option<Vec<u8>>,
    pub(crate) carry: Option<Carry>,
}

impl<T> From<Agreed<T>> for Shaken<Box<T>> {
    fn from(agreed: Agreed<T>) -> Self {
        let Agreed { io, protocol, carry } = agreed;
        Self { io, protocol, carry }
    }
}

/// A handshake whose peer has begun it.
type Begun<T> = Pin<Box<dyn Future<Output = io::Result<Shaken<T>>>>>;

/// A [`Handshake`] of which nobody asks what it is.
pub(crate) trait Begin<T> {
    fn begin(self: Rc<Self>, stream: TcpStream) -> Begun<T>;
}

impl<H: Handshake> Begin<Box<H::Io>> for H {
    fn begin(self: Rc<Self>, stream: TcpStream) -> Begun<Box<H::Io>> {
        Box::pin(async move { Handshake::begin(&*self, stream).await.map(Into::into) })
    }
}

/// What a server does first with what it has accepted.
pub(crate) enum Started<T> {
    Ready(T),
    Shaking(Shaking<T>),
}

/// A handshake, from the wait for its first byte on.
///
/// A peer that says nothing has its socket, and neither a session of TLS nor room for one.
pub(crate) enum Shaking<T> {
    Silent(Option<TcpStream>, Rc<dyn Begin<T>>),
    Begun(Begun<T>),
}

impl<T> Shaking<T> {
    /// `None`: the peer went without having said a word.
    pub(crate) fn poll(
        &mut self,
        activity: &Activity,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Shaken<T>>>> {
        loop {
            match self {
                Self::Silent(slot, handshake) => {
                    let stream = slot.as_ref().expect("a stream is begun with once");
                    match ready!(stream.poll_peek(cx, &mut [0])) {
                        Ok(0) => return Poll::Ready(Ok(None)),
                        // Some of those who only look whether somebody listens go like this.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                            return Poll::Ready(Ok(None));
                        }
                        peeked => peeked?,
                    };
                    activity.has_read();
                    let stream = slot.take().expect("it was there");
                    *self = Self::Begun(handshake.clone().begin(stream));
                }
                Self::Begun(future) => return future.as_mut().poll(cx).map_ok(Some),
            }
        }
    }
}

/// How a server starts with a connection: at once ([`Plain`]), or [`After`] a handshake.
pub(crate) trait Start: 'static {
    type Io: Read + Write + Unpin + Send + 'static;

    fn start(&self, stream: TcpStream) -> Started<Self::Io>;
}

/// HTTP is spoken at once.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Start for Plain {
    type Io = TcpStream;

    fn start(&self, stream: TcpStream) -> Started<TcpStream> {
        Started::Ready(stream)
    }
}

/// HTTP is spoken after a [`Handshake`]; see [`Serve::tls`](crate::Serve::tls).
#[derive(Debug)]
pub struct After<H>(pub(crate) Rc<H>);

impl<H: Handshake> Start for After<H> {
    type Io = Box<H::Io>;

    fn start(&self, stream: TcpStream) -> Started<Box<H::Io>> {
        Started::Shaking(Shaking::Silent(Some(stream), self.0.clone()))
    }
}
