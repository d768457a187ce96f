//! The futures of the native operations. Each holds a place in line or the name of an operation,
//! never anything that the kernel could touch.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::handle::{Bound, ListenerHandle, Place, StreamHandle, gone};
use super::stream::{Commit, SendNow};
use super::tcp_stream::TcpStream;
use crate::io::buffer::{BufError, IoBuf, Lease};
use crate::io::mailbox::{Wait, current_core};
use crate::io::operation::{self, Pending, outcome_to_result};
use crate::io::payload::AnyPayload;
use crate::io::request::call;
use crate::io::timed::{Expire, Timed, timed_out};

/// Future of [`TcpListener::accept`](super::TcpListener::accept).
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited or polled"]
pub struct Accept<'a> {
    listener: &'a ListenerHandle,
    place: Place,
}

impl<'a> Accept<'a> {
    pub(super) fn new(listener: &'a ListenerHandle) -> Self {
        Self { listener, place: Place::new(Wait::Accept) }
    }

    /// Gives up after `limit` with [`TimedOut`](io::ErrorKind::TimedOut). A connection that came
    /// just then is returned; one that comes later waits for the next `accept`.
    pub fn timeout(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }
}

impl Future for Accept<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { listener, place } = self.get_mut();
        let connection =
            ready!(listener.poll_in_line(place, cx, |tables, key, waiter, caller| {
                let entry = tables.listeners.get_mut(key)?;
                Some(entry.poll_accept(key, waiter, caller, &mut tables.services))
            }))?;
        // A peer that has reset meanwhile leaves no address behind, and the connection is handed on
        // all the same: its first read tells.
        let peer = call::peer_address(connection.number())
            .or_else(|_| call::local_address(listener.number()).map(unspecified))?;
        Poll::Ready(Ok((listener.hand_out(connection), peer)))
    }
}

fn unspecified(of: SocketAddr) -> SocketAddr {
    match of {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    }
}

/// Future of [`TcpStream::recv`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited or polled"]
pub struct Recv<'a> {
    stream: &'a StreamHandle,
    place: Place,
}

impl<'a> Recv<'a> {
    pub(super) fn new(stream: &'a StreamHandle) -> Self {
        Self { stream, place: Place::new(Wait::Read) }
    }

    /// Gives up after `limit` with [`TimedOut`](io::ErrorKind::TimedOut). Bytes that came just then
    /// are returned; those that come later wait for the next read.
    pub fn timeout(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }
}

impl Future for Recv<'_> {
    type Output = io::Result<Lease>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stream, place } = self.get_mut();
        stream.poll_in_line(place, cx, |tables, key, waiter, caller| {
            let entry = tables.streams.get_mut(key)?;
            let number = entry.number();
            Some(entry.receive.poll_lease(key, number, waiter, caller, &mut tables.services))
        })
    }
}

/// Future of [`TcpStream::send`].
#[derive(Debug)]
#[must_use = "nothing is sent unless awaited or polled"]
pub struct SendBuffer<'a, B: IoBuf> {
    stream: &'a StreamHandle,
    place: Place,
    state: State<B>,
}

#[derive(Debug)]
enum State<B> {
    /// Not committed: dropped now, nothing is sent.
    Fresh(Option<B>),
    /// The buffer belongs to the stream and goes out whole.
    Committed(Pending<B>),
}

impl<'a, B: IoBuf> SendBuffer<'a, B> {
    pub(super) fn new(stream: &'a StreamHandle, buffer: B) -> Self {
        Self { stream, place: Place::new(Wait::Write), state: State::Fresh(Some(buffer)) }
    }

    /// Stops sending after `limit`. What the kernel had taken by then stays taken: the answer is
    /// `Ok((count, buffer))` with the exact count, or the error
    /// [`TimedOut`](io::ErrorKind::TimedOut) with the buffer when not a byte went out. With a limit
    /// of zero it is tried at once, and only once.
    pub fn timeout(mut self, limit: Duration) -> Timed<Self> {
        if limit.is_zero() {
            self.place.hurry();
        }
        Timed::new(self, limit)
    }

    fn poll_fresh(&mut self, cx: &Context<'_>) -> Poll<Result<(usize, B), BufError<B>>> {
        let State::Fresh(slot) = &mut self.state else { panic!("only called when fresh") };
        let buffer = slot.take().expect("polled after completion");
        let length = buffer.bytes_init();
        // SAFETY: `IoBuf` promises that many initialised bytes there, still while we hold the
        // buffer.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.stable_ptr(), length) };
        let hurries = self.place.hurries();
        let tried = self.stream.poll_in_line(&mut self.place, cx, |tables, key, waiter, caller| {
            let entry = tables.streams.get_mut(key)?;
            let (number, services) = (entry.number(), &mut tables.services);
            let now = entry.send.try_send(number, *waiter, (bytes, hurries), services);
            match now {
                SendNow::Wait => return Some(entry.send.wait(waiter, caller, services)),
                // The place is kept until the rest is committed: whoever is woken now may run at
                // once, and would send in between.
                SendNow::Room { .. } => {}
                SendNow::Taken | SendNow::Failed(_) => entry.send.served(waiter, services),
            }
            Some(Poll::Ready(Ok(now)))
        });
        match tried {
            Poll::Ready(Ok(SendNow::Taken)) => Poll::Ready(Ok((length, buffer))),
            Poll::Ready(Ok(SendNow::Room { taken })) => self.commit(buffer, taken, cx),
            Poll::Ready(Ok(SendNow::Failed(error)) | Err(error)) => {
                Poll::Ready(Err(BufError::new(error, Some(buffer))))
            }
            Poll::Ready(Ok(SendNow::Wait)) | Poll::Pending => {
                *slot = Some(buffer);
                Poll::Pending
            }
        }
    }

    fn commit(
        &mut self,
        buffer: B,
        taken: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<(usize, B), BufError<B>>> {
        let remaining = buffer.bytes_init() - taken;
        if remaining == 0 && taken == 0 {
            self.place.leave();
            return Poll::Ready(Ok((0, buffer)));
        }
        // SAFETY: within the buffer's bytes, which stay there however the buffer is moved.
        let address = unsafe { buffer.stable_ptr().add(taken) };
        let commit = Commit { address, remaining, taken };
        // Taken only when it is committed: its drop may run anything, so not within the tables.
        let (mut buffer, mut waker) = (Some(buffer), Some(cx.waker().clone()));
        let committed =
            self.stream.with_place(&mut self.place, cx.waker(), |tables, key, waiter, _| {
                let entry = tables.streams.get_mut(key)?;
                let payload = AnyPayload::plain(buffer.take().expect("committed once"));
                let operation = operation::open(&mut tables.operations, payload, waker.take());
                let (operations, services) = (&mut tables.operations, &mut tables.services);
                let number = entry.number();
                entry.send.served(waiter, services);
                entry.send.commit((key, number), operation, commit, operations, services);
                Some(operation)
            });
        match committed.and_then(|key| key.ok_or_else(gone)) {
            Ok(key) => {
                self.state = State::Committed(Pending::new(current_core(), key));
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(BufError::new(error, buffer))),
        }
    }
}

impl<B: IoBuf> Future for SendBuffer<'_, B> {
    type Output = Result<(usize, B), BufError<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let State::Committed(operation) = &mut this.state else {
            return this.poll_fresh(cx);
        };
        operation.poll(cx).map(|outcome| match outcome {
            Ok((outcome, buffer)) => match outcome_to_result(outcome) {
                Ok(count) => Ok((count, buffer)),
                Err(error) => Err(BufError::new(error, Some(buffer))),
            },
            Err(error) => Err(BufError::new(error, None)),
        })
    }
}

impl Expire for Recv<'_> {
    fn expire(mut self: Pin<&mut Self>) -> Poll<Self::Output> {
        self.place.leave();
        Poll::Ready(Err(timed_out()))
    }
}

impl Expire for Accept<'_> {
    fn expire(mut self: Pin<&mut Self>) -> Poll<Self::Output> {
        self.place.leave();
        Poll::Ready(Err(timed_out()))
    }
}

impl<B: IoBuf> Expire for SendBuffer<'_, B> {
    fn expire(self: Pin<&mut Self>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match &mut this.state {
            State::Fresh(buffer) => {
                this.place.leave();
                Poll::Ready(Err(BufError::new(timed_out(), buffer.take())))
            }
            State::Committed(operation) => {
                if let (true, Some(operation)) = (operation.is_here(), operation.key()) {
                    // A stream that is gone has finished the operation: the next poll tells.
                    let _ = this.stream.with(|tables, key| {
                        let entry = tables.streams.get_mut(key)?;
                        let place = (key, entry.number());
                        let (operations, services) = (&mut tables.operations, &mut tables.services);
                        entry.send.cancel(place, operation, operations, services);
                        Some(Ok(()))
                    });
                }
                Poll::Pending
            }
        }
    }

    fn settle(output: Self::Output) -> Self::Output {
        match output {
            Ok((0, buffer)) if buffer.bytes_init() > 0 => {
                Err(BufError::new(timed_out(), Some(buffer)))
            }
            other => other,
        }
    }
}
