//! The futures of the native operations. Each holds a place in line or the name of an operation,
//! never anything that the kernel could touch.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::handle::{ListenerHandle, Place, StreamHandle};
use super::stream::{Commit, SendNow};
use super::tcp_stream::TcpStream;
use crate::io::alarm::Alarm;
use crate::io::buffer::{BufError, IoBuf, Lease};
use crate::io::mailbox::{Wait, current_core};
use crate::io::operation::{self, Pending, outcome_to_result};
use crate::io::payload::AnyPayload;
use crate::io::request::call;

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
        let accepted = listener.with_place(place, cx.waker(), |tables, key, waiter, caller| {
            let entry = tables.listeners.get_mut(key)?;
            Some(match entry.poll_accept(key, waiter, caller, &mut tables.services) {
                Poll::Ready(Ok(connection)) => Ok(Poll::Ready(connection)),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => Ok(Poll::Pending),
            })
        });
        let connection = match accepted {
            Ok(Poll::Ready(connection)) => connection,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        // Best effort: a peer that has reset meanwhile leaves neither option nor address behind,
        // and the connection is handed on all the same: its first read tells.
        let _ = call::set_option(connection.number(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        let peer = call::peer_address(connection.number())
            .or_else(|_| call::local_address(listener.number()).map(unspecified))?;
        Poll::Ready(Ok((TcpStream::from_descriptor(connection), peer)))
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
        let polled = stream.with_place(place, cx.waker(), |tables, key, waiter, caller| {
            let entry = tables.streams.get_mut(key)?;
            let number = entry.number();
            Some(
                match entry.receive.poll_lease(key, number, waiter, caller, &mut tables.services) {
                    Poll::Ready(Ok(lease)) => Ok(Poll::Ready(lease)),
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => Ok(Poll::Pending),
                },
            )
        });
        flatten(polled)
    }
}

/// `Ok(Pending)` is pending; everything else is ready.
pub(super) fn flatten<T>(polled: io::Result<Poll<T>>) -> Poll<io::Result<T>> {
    match polled {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// The other way around, for use inside a table closure.
pub(super) fn unflatten<T>(polled: Poll<io::Result<T>>) -> io::Result<Poll<T>> {
    match polled {
        Poll::Ready(Ok(value)) => Ok(Poll::Ready(value)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(Poll::Pending),
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
    /// [`TimedOut`](io::ErrorKind::TimedOut) with the buffer when not a byte went out.
    pub fn timeout(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }

    fn poll_fresh(&mut self, cx: &Context<'_>) -> Poll<Result<(usize, B), BufError<B>>> {
        let State::Fresh(slot) = &mut self.state else { panic!("only called when fresh") };
        let buffer = slot.take().expect("polled after completion");
        let length = buffer.bytes_init();
        // SAFETY: `IoBuf` promises that many initialised bytes there, still while we hold the
        // buffer.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.stable_ptr(), length) };
        let tried =
            self.stream.with_place(&mut self.place, cx.waker(), |tables, key, waiter, caller| {
                let entry = tables.streams.get_mut(key)?;
                let (number, services) = (entry.number(), &mut tables.services);
                let now = entry.send.try_send(number, *waiter, bytes, services);
                match now {
                    SendNow::Wait => {
                        let _: Poll<()> = entry.send.wait(waiter, caller, services);
                    }
                    // The place is kept until the rest is committed: whoever is woken now may run
                    // at once, and would send in between.
                    SendNow::Room { .. } => {}
                    SendNow::Taken | SendNow::Failed(_) => entry.send.served(waiter, services),
                }
                Some(Ok(now))
            });
        match tried {
            Ok(SendNow::Taken) => Poll::Ready(Ok((length, buffer))),
            Ok(SendNow::Wait) => {
                *slot = Some(buffer);
                Poll::Pending
            }
            Ok(SendNow::Room { taken }) => self.commit(buffer, taken, cx),
            Ok(SendNow::Failed(error)) | Err(error) => {
                Poll::Ready(Err(BufError::new(error, Some(buffer))))
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
                Some(Ok(operation))
            });
        match committed {
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

/// An operation with a time limit, from its `timeout` method.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited or polled"]
pub struct Timed<F> {
    operation: F,
    alarm: Alarm,
    expired: bool,
}

impl<F> Timed<F> {
    fn new(operation: F, limit: Duration) -> Self {
        Self { operation, alarm: Alarm::new(limit), expired: false }
    }
}

/// What an operation does when its time is up.
trait Expire: Future + Unpin {
    /// Ends it, as far as that takes nothing from anyone. `Pending`: the end is on its way, and the
    /// operation itself will answer. Else it leaves its line: the future may be kept for long.
    fn expire(&mut self) -> Poll<Self::Output>;

    /// The last word on an answer that came after the time was up.
    fn settle(output: Self::Output) -> Self::Output {
        output
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the operation's time limit has passed")
}

impl Expire for Recv<'_> {
    fn expire(&mut self) -> Poll<Self::Output> {
        self.place.leave();
        Poll::Ready(Err(timed_out()))
    }
}

impl Expire for Accept<'_> {
    fn expire(&mut self) -> Poll<Self::Output> {
        self.place.leave();
        Poll::Ready(Err(timed_out()))
    }
}

impl<B: IoBuf> Expire for SendBuffer<'_, B> {
    fn expire(&mut self) -> Poll<Self::Output> {
        match &mut self.state {
            State::Fresh(buffer) => {
                self.place.leave();
                Poll::Ready(Err(BufError::new(timed_out(), buffer.take())))
            }
            State::Committed(operation) => {
                if let (true, Some(operation)) = (operation.is_here(), operation.key()) {
                    // A stream that is gone has finished the operation: the next poll tells.
                    let _ = self.stream.with(|tables, key| {
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

impl<F: Expire> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(output) = Pin::new(&mut this.operation).poll(cx) {
            return Poll::Ready(if this.expired { F::settle(output) } else { output });
        }
        if this.expired || this.alarm.poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.expired = true;
        if let Poll::Ready(output) = this.operation.expire() {
            return Poll::Ready(output);
        }
        Pin::new(&mut this.operation).poll(cx).map(F::settle)
    }
}
