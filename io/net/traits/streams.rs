//! Streams of what keeps coming: connections of a listener, leases of a connection.
//!
//! ```text
//!   Incoming, IntoIncoming ──► Listener::poll_flow
//!   Leases, IntoLeases ──────► Receiving::poll_flow
//! ```
//!
//! They hold a handle and what a waiting future would, and never an item: what nobody has asked for
//! stays in its resource, so dropping one at any moment loses nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::super::TcpListener;
use super::super::handle::{Bound, ListenerHandle, Place, StreamHandle};
use super::{Handle, OwnedReadHalf, TcpStream};
use crate::io::buffer::Lease;
use crate::io::mailbox::Wait;

/// What waits for items, and whether any can come.
#[derive(Debug)]
struct Flow {
    place: Place,
    has_ended: bool,
}

impl Flow {
    fn new(wait: Wait) -> Self {
        Self { place: Place::new(wait), has_ended: false }
    }

    fn poll_incoming(
        &mut self,
        listener: &ListenerHandle,
        cx: &Context<'_>,
    ) -> Poll<Option<io::Result<TcpStream>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next =
            ready!(listener.poll_in_line(&mut self.place, cx, |tables, key, waiter, caller| {
                let entry = tables.listeners.get_mut(key)?;
                Some(entry.poll_flow(key, waiter, caller, &mut tables.services).map(Ok))
            }));
        let result = next.and_then(|next| {
            self.has_ended = !next.goes_on;
            next.result
        });
        Poll::Ready(Some(match result {
            Ok(connection) => Ok(listener.hand_out(connection)),
            Err(error) => {
                self.has_ended |= !listener.is_served_here();
                Err(error)
            }
        }))
    }

    fn poll_leases(
        &mut self,
        stream: &StreamHandle,
        cx: &Context<'_>,
    ) -> Poll<Option<io::Result<Lease>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next =
            ready!(stream.poll_in_line(&mut self.place, cx, |tables, key, waiter, caller| {
                let entry = tables.streams.get_mut(key)?;
                let (number, services) = (entry.number(), &mut tables.services);
                Some(entry.receive.poll_flow(key, number, waiter, caller, services))
            }));
        self.has_ended = next.as_ref().map_or(true, |lease| lease.is_empty());
        Poll::Ready(match next {
            Ok(lease) if lease.is_empty() => None,
            next => Some(next),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.has_ended.then_some(0))
    }
}

/// Stream of [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a> {
    listener: &'a ListenerHandle,
    flow: Flow,
}

/// Stream of [`TcpListener::into_incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct IntoIncoming {
    listener: TcpListener,
    flow: Flow,
}

impl TcpListener {
    /// The connections, one after another, as `incoming` of [`std::net::TcpListener`]: the streams
    /// alone. Their peers' addresses are asked of them ([`TcpStream::peer_addr`]), which saves
    /// those who do not want them a system call each.
    ///
    /// It may be kept and not polled, and stands in nobody's way meanwhile: connections that come
    /// go to whoever asks for them, be it by [`accept`](Self::accept) or by another such stream.
    ///
    /// # Errors
    ///
    /// The items are those of [`accept`](Self::accept). While descriptors or memory are short,
    /// there is an error now and then, and it goes on; any other is the last item, as a loop around
    /// it would spin.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any moment, it loses nothing: a connection that arrives waits for who asks next.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::StreamExt;
    /// use quoit::net::{TcpListener, TcpStream};
    ///
    /// # quoit::block_on(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let address = listener.local_addr()?;
    /// let clients = quoit::spawn(async move {
    ///     for _ in 0..3 {
    ///         TcpStream::connect(address).await?.send_all("hello").await?;
    ///     }
    ///     std::io::Result::Ok(())
    /// });
    /// let mut incoming = listener.incoming().take(3);
    /// while let Some(stream) = incoming.next().await {
    ///     assert_eq!(stream?.recv().await?, "hello");
    /// }
    /// clients.await.unwrap()
    /// # }).unwrap();
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self.handle(), flow: Flow::new(Wait::Incoming) }
    }

    /// As [`incoming`](Self::incoming), with the listener in it: for what takes a stream and keeps
    /// it.
    ///
    /// # Errors
    ///
    /// As [`incoming`](Self::incoming).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the listener, which closes what nobody took;
    /// [`into_inner`](IntoIncoming::into_inner) gives the listener back instead.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming { listener: self, flow: Flow::new(Wait::Incoming) }
    }
}

impl IntoIncoming {
    /// The listener.
    #[must_use]
    pub fn get_ref(&self) -> &TcpListener {
        &self.listener
    }

    /// Gives the listener back, with the connections that have come and were not taken.
    #[must_use]
    pub fn into_inner(self) -> TcpListener {
        self.listener
    }
}

/// Stream of [`TcpStream::leases`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Leases<'a> {
    stream: &'a StreamHandle,
    flow: Flow,
}

/// Stream of [`TcpStream::into_leases`] and [`OwnedReadHalf::into_leases`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct IntoLeases<R> {
    reader: R,
    flow: Flow,
}

impl TcpStream {
    /// What is received, lease after lease, up to the peer's end.
    ///
    /// It may be kept and not polled, and stands in nobody's way meanwhile: what is received goes
    /// to whoever reads next, in any way.
    ///
    /// # Errors
    ///
    /// The items are those of [`recv`](Self::recv). An error is the last.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any moment, it loses nothing: what arrives waits for the next read of any tier.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::TryStreamExt;
    ///
    /// # quoit::block_on(async {
    /// # let listener = quoit::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let client = quoit::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (stream, _) = listener.accept().await?;
    /// # client.send_all("four").await?;
    /// # client.close().await?;
    /// let mut leases = stream.leases();
    /// let mut count = 0;
    /// while let Some(lease) = leases.try_next().await? {
    ///     count += lease.len();
    ///     stream.send_all(lease).await?;
    /// }
    /// # assert_eq!(count, 4);
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub fn leases(&self) -> Leases<'_> {
        Leases { stream: &self.handle, flow: Flow::new(Wait::Readable) }
    }

    /// As [`leases`](Self::leases), with the connection in it: for what takes a stream and keeps
    /// it.
    ///
    /// # Errors
    ///
    /// As [`leases`](Self::leases).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the connection; [`into_inner`](IntoLeases::into_inner) gives it back
    /// instead, at the exact byte.
    pub fn into_leases(self) -> IntoLeases<Self> {
        IntoLeases { reader: self, flow: Flow::new(Wait::Readable) }
    }
}

impl OwnedReadHalf {
    /// As [`TcpStream::leases`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::leases`].
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::leases`].
    pub fn leases(&self) -> Leases<'_> {
        Leases { stream: &self.handle, flow: Flow::new(Wait::Readable) }
    }

    /// As [`TcpStream::into_leases`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::leases`].
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::into_leases`].
    pub fn into_leases(self) -> IntoLeases<Self> {
        IntoLeases { reader: self, flow: Flow::new(Wait::Readable) }
    }
}

impl<R> IntoLeases<R> {
    /// What it reads from.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Gives back what it reads from, with all that has come and was not taken.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.reader
    }
}

macro_rules! streams {
    ($($stream:ty => $item:ty, |$this:ident, $cx:ident| $poll:expr;)+) => {$(
        impl Stream for $stream {
            type Item = io::Result<$item>;

            fn poll_next(
                self: Pin<&mut Self>,
                $cx: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                let $this = self.get_mut();
                $poll
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.flow.size_hint()
            }
        }

        impl FusedStream for $stream {
            fn is_terminated(&self) -> bool {
                self.flow.has_ended
            }
        }
    )+};
}

streams! {
    Incoming<'_> => TcpStream, |this, cx| this.flow.poll_incoming(this.listener, cx);
    IntoIncoming => TcpStream, |this, cx| this.flow.poll_incoming(this.listener.handle(), cx);
    Leases<'_> => Lease, |this, cx| this.flow.poll_leases(this.stream, cx);
    IntoLeases<TcpStream> => Lease, |this, cx| this.flow.poll_leases(this.reader.handle(), cx);
    IntoLeases<OwnedReadHalf> => Lease, |this, cx| this.flow.poll_leases(this.reader.handle(), cx);
}
