//! `AsyncFd`: readiness of descriptors that are not quoit's.
//!
//! ```text
//!   AsyncFd { handle: duplicate + binding, inner: T }     the user's calls go to T's own number
//!        │ first poll                                     the kernel polls the duplicate
//!        ▼
//!   Foreign on the core's table ── one-shot Request::Poll ──► ring
//! ```
//!
//! `T` may be anything, and be dropped or handed back at any moment on any thread, with a poll in
//! flight. Hence the duplicate: it stays with the core until the kernel has let go of it.

pub(crate) mod foreign;
mod handle;
mod ready;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use self::handle::ForeignHandle;
pub use self::ready::{AsyncFdReadyGuard, Ready, TryIoError};
use crate::io::mailbox::Wait;
use crate::io::net::handle::{Bound, Place};
use crate::io::request;
use crate::io::ring::simulated::world;
use crate::io::waiters::POLLER;

/// Which direction of an [`AsyncFd`] is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(Direction);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Read,
    Write,
}

impl Interest {
    /// Reading would not wait (`POLLIN`), the other side has ended, or there is an error.
    pub const READABLE: Self = Self(Direction::Read);
    /// Writing would not wait (`POLLOUT`), nobody reads any more, or there is an error.
    pub const WRITABLE: Self = Self(Direction::Write);

    fn asked(self) -> request::Interest {
        match self.0 {
            Direction::Read => request::Interest::Readable,
            Direction::Write => request::Interest::Writable,
        }
    }

    fn wait(self) -> Wait {
        match self.0 {
            Direction::Read => Wait::ForeignReadable,
            Direction::Write => Wait::ForeignWritable,
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Direction::Read => "READABLE",
            Direction::Write => "WRITABLE",
        })
    }
}

/// Tells when a descriptor that is not quoit's is ready: a socket of another crate, a pipe, an
/// eventfd, a timerfd, an inotify or a device.
///
/// It makes no calls on the descriptor itself: those are yours, by [`get_ref`](Self::get_ref), and
/// must not block, so the descriptor has to be non-blocking (`O_NONBLOCK`, or flags of each call
/// such as `MSG_DONTWAIT`). The rule is that of tokio's type of this name: wait, try, and when the
/// try says `WouldBlock`, say so, by [`AsyncFdReadyGuard::try_io`] or
/// [`clear_ready`](AsyncFdReadyGuard::clear_ready). [`async_io`](Self::async_io) is that loop.
///
/// Any number of tasks may wait for either direction, and all of them are told; of those that use
/// the `poll_` methods, the last one for each direction.
///
/// As a stream it is `Send` and `Sync` when `T` is, and served by the core that first waits for it;
/// elsewhere waiting answers with an error that names that core. [`detach`](Self::detach) frees it
/// to be used on another one.
///
/// # Its own descriptor
///
/// What is polled is a duplicate (dup(2)) of what `T` answers to [`as_fd`](AsFd::as_fd) when this
/// is made, so each `AsyncFd` takes one more descriptor number of the process. Should `T` come to
/// mean another descriptor later, readiness is still told of the first. With the duplicate, `T` can
/// be dropped, or taken out by [`into_inner`](Self::into_inner), at any moment, and its number used
/// again by anybody.
///
/// The *file* behind it is closed with the last of its descriptors. When a wait has been dropped
/// unanswered, the duplicate goes at its core's next turn at the latest: until then a peer sees no
/// end, and an address is not free to be bound again. After [`detach`](Self::detach) dropping
/// closes at once.
///
/// # What cannot be waited for
///
/// Regular files and directories are always ready, so waiting says nothing: they are refused, on
/// either ring, as epoll refuses them. Files are read and written by [`fs`](crate::fs).
///
/// In a [simulation](crate::sim) there is no operating system, and no descriptor of it:
/// [`Unsupported`](io::ErrorKind::Unsupported).
///
/// # Examples
///
/// A datagram socket of the standard library:
///
/// ```
/// use std::net::UdpSocket;
/// use quoit::io::{AsyncFd, Interest};
///
/// # quoit::block_on(async {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.set_nonblocking(true)?;
/// let socket = AsyncFd::new(socket)?;
///
/// let sender = UdpSocket::bind("127.0.0.1:0")?;
/// sender.send_to(b"hello", socket.get_ref().local_addr()?)?;
///
/// let mut bytes = [0; 16];
/// let (count, from) =
///     socket.async_io(Interest::READABLE, |socket| socket.recv_from(&mut bytes)).await?;
/// assert_eq!((&bytes[..count], from), (&b"hello"[..], sender.local_addr()?));
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
pub struct AsyncFd<T: AsFd> {
    // First: the core lets go before `inner` is dropped.
    handle: ForeignHandle,
    inner: T,
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes it over. No core serves it before the first wait, so this works anywhere.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) when it cannot be waited for: a
    /// regular file, a directory. [`Unsupported`](io::ErrorKind::Unsupported) in a simulation. As
    /// dup(2), when descriptors are short. `inner` is dropped with the error: pass a reference to
    /// keep it.
    pub fn new(inner: T) -> io::Result<Self> {
        if world::current().is_some() {
            return Err(handle::in_simulation());
        }
        let handle = ForeignHandle::new(inner.as_fd())?;
        Ok(Self { handle, inner })
    }

    /// What is within.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is within.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives back what is within, at once. Nothing polls its descriptor: see
    /// [above](Self#its-own-descriptor).
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until reading would not wait: something is there, the end, or an error.
    ///
    /// # Errors
    ///
    /// When it belongs to another core or its runtime is gone, and what the kernel says when it
    /// cannot poll. The descriptor's own errors are left to your call.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing: the answer is there for the next wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use quoit::io::AsyncFd;
    ///
    /// # quoit::block_on(async {
    /// let (socket, mut peer) = UnixStream::pair()?;
    /// socket.set_nonblocking(true)?;
    /// let socket = AsyncFd::new(socket)?;
    /// peer.write_all(b"hello")?;
    /// let mut bytes = [0; 16];
    /// let count = loop {
    ///     let mut guard = socket.readable().await?;
    ///     match guard.try_io(|fd| fd.get_ref().read(&mut bytes)) {
    ///         Ok(count) => break count?,
    ///         Err(_would_block) => continue,
    ///     }
    /// };
    /// assert_eq!(&bytes[..count], b"hello");
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, T>> {
        self.ready(Interest::READABLE).await
    }

    /// Waits until writing would not wait: there is room, nobody reads any more, or an error.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// As [`readable`](Self::readable).
    pub async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, T>> {
        self.ready(Interest::WRITABLE).await
    }

    /// Waits for the direction that is named.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// As [`readable`](Self::readable).
    pub async fn ready(&self, interest: Interest) -> io::Result<AsyncFdReadyGuard<'_, T>> {
        let mut place = Place::new(interest.wait());
        let events = poll_fn(|cx| {
            self.handle.poll_in_line(&mut place, cx, |tables, key, waiter, caller| {
                let entry = tables.foreign.get_mut(key)?;
                let services = &mut tables.services;
                Some(entry.poll_ready(key, interest.asked(), waiter, caller, services))
            })
        })
        .await?;
        Ok(AsyncFdReadyGuard::new(self, Ready::new(events, interest)))
    }

    /// The poll form of [`readable`](Self::readable), for the implementation of traits. Only the
    /// task of the last call is woken.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    pub fn poll_read_ready(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Interest::READABLE, cx)
    }

    /// The poll form of [`writable`](Self::writable), as
    /// [`poll_read_ready`](Self::poll_read_ready).
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    pub fn poll_write_ready(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Interest::WRITABLE, cx)
    }

    fn poll_ready(
        &self,
        interest: Interest,
        cx: &Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        let polled = self.handle.poll(cx, |tables, key, caller| {
            let (entry, services) = (tables.foreign.get_mut(key)?, &mut tables.services);
            let mut poller = Some(POLLER);
            Some(entry.poll_ready(key, interest.asked(), &mut poller, caller, services))
        });
        polled.map_ok(|events| AsyncFdReadyGuard::new(self, Ready::new(events, interest)))
    }

    /// Makes a call as soon as it does not block: waits for the direction, tries, and waits again
    /// when the call says `WouldBlock`.
    ///
    /// # Errors
    ///
    /// Those of the call but `WouldBlock`, and as [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the call was not made, or said `WouldBlock`.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let mut guard = self.ready(interest).await?;
            if let Ok(result) = guard.try_io(|fd| call(fd.get_ref())) {
                return result;
            }
        }
    }

    /// Makes a call if the direction is known to be ready, as a wait has told and no call has
    /// denied.
    ///
    /// # Errors
    ///
    /// Those of the call; `WouldBlock` also when nothing is known: wait first. When it belongs to
    /// another core.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        call: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let is_ready = self.handle.with(|tables, key| {
            Some(Ok(tables.foreign.get_mut(key)?.is_ready(interest.asked())))
        })?;
        if !is_ready {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = call(&self.inner);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.clear(interest);
        }
        result
    }

    /// Elsewhere it does nothing, nor does it bind what is bound to no core: a guard may outlive
    /// the stay.
    fn clear(&self, interest: Interest) {
        if !self.handle.is_here() {
            return;
        }
        let _ = self.handle.with(|tables, key| {
            tables.foreign.get_mut(key)?.clear(interest.asked());
            Some(Ok(()))
        });
    }

    /// Frees it from its core, so that another one can serve it: ends the polls that are in flight.
    /// Those who wait meanwhile are woken, and have it served where they wait next.
    ///
    /// # Errors
    ///
    /// When it belongs to another core, or its runtime is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it stays usable where it is.
    pub async fn detach(&self) -> io::Result<()> {
        let mut place = Place::new(Wait::ForeignIdle);
        poll_fn(|cx| {
            if !self.handle.is_bound() {
                return Poll::Ready(Ok(()));
            }
            self.handle.poll_in_line(&mut place, cx, |tables, key, waiter, caller| {
                let entry = tables.foreign.get_mut(key)?;
                if entry.poll_idle(key, waiter, caller, &mut tables.services).is_pending() {
                    return Some(Poll::Pending);
                }
                *waiter = None;
                // Before those who are woken by this look for it.
                self.handle.unbind();
                tables.close_foreign(key);
                Some(Poll::Ready(Ok(())))
            })
        })
        .await
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd").field("inner", &self.inner).finish_non_exhaustive()
    }
}
