//! What a user holds of a stream or a listener: shared ownership of the descriptor, and a binding
//! to the core that serves it.
//!
//! ```text
//!   unbound ──first I/O poll, by compare-exchange──► BINDING ──► bound to (core, entry)
//!      ▲                                                                   │
//!      └────────────────────────────── detach ─────────────────────────────┘
//! ```
//!
//! BINDING lasts until the entry is there: who saw the core before would speak of a stranger's.
//!
//! Both are plain integers, so handles are `Send` and `Sync` without a promise of ours, and a
//! stream accepted on one core can be used on another. Polled on a core that does not own it, an
//! operation answers with an error that names the owner.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use super::listener::Listener;
use super::stream::{Socket, Stream};
use crate::io::allowance;
use crate::io::buffer::Lease;
use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{self, CoreId, Key, Message, Wait, WaiterId};
use crate::io::proactor::{Proactor, off_core, outside};
use crate::io::request::call;
use crate::io::tables::Tables;

/// In place of a core: one of them is making the entry.
const BINDING: CoreId = CoreId::MAX;

/// To which core, and which entry of its table. Zero is unbound.
#[derive(Debug)]
pub(crate) struct Binding {
    core: AtomicU64,
    key: AtomicU64,
    release: Release,
}

/// How the owner is told that the last handle is gone: by a message, or directly on its own core.
#[derive(Clone, Copy, Debug)]
struct Release {
    message: fn(Key) -> Message,
    here: fn(&mut Tables, Key),
}

impl Binding {
    fn new(message: fn(Key) -> Message, here: fn(&mut Tables, Key)) -> Self {
        let release = Release { message, here };
        Self { core: AtomicU64::new(0), key: AtomicU64::new(0), release }
    }

    /// The entry on this core, making one at the first use.
    #[inline]
    fn bind(
        &self,
        what: &str,
        proactor: &Proactor,
        insert: impl FnOnce(&mut Tables) -> Key,
    ) -> io::Result<Key> {
        let here = proactor.id();
        if self.core.load(Ordering::Relaxed) == here {
            return Ok(self.key());
        }
        match self.core.compare_exchange(0, BINDING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // Should the insert panic, nothing is bound.
                let mut bound = Settled(self, 0);
                let key = proactor.with_tables(insert);
                let packed = u64::from(key.index) | u64::from(key.generation) << 32;
                self.key.store(packed, Ordering::Relaxed);
                bound.1 = here;
                Ok(key)
            }
            Err(BINDING) => Err(io::Error::other(format!(
                "this {what} is being bound to another core at this moment"
            ))),
            Err(owner) => Err(off_core(&format!("this {what}"), owner)),
        }
    }

    #[inline]
    fn key(&self) -> Key {
        let packed = self.key.load(Ordering::Relaxed);
        Key { index: packed as u32, generation: (packed >> 32) as u32 }
    }

    /// The owner; zero while there is none, or none yet.
    fn core(&self) -> CoreId {
        match self.core.load(Ordering::Acquire) {
            BINDING => 0,
            core => core,
        }
    }

    fn unbind(&self) {
        self.core.store(0, Ordering::Release);
    }
}

/// Ends BINDING, with the core that is named by then.
struct Settled<'a>(&'a Binding, CoreId);

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        // Release: the entry is written before.
        self.0.core.store(self.1, Ordering::Release);
    }
}

/// The last handle is gone: the owner lets go.
impl Drop for Binding {
    fn drop(&mut self) {
        let (owner, key, release) = (self.core(), self.key(), self.release);
        if owner == 0 {
            return;
        }
        if mailbox::current_core() == owner {
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| (release.here)(tables, key));
            });
        } else {
            // A core that is gone has closed its side already.
            let _ = mailbox::post(owner, (release.message)(key));
        }
    }
}

/// A future's place in the lines of a resource. Dropped on any thread, it leaves the line.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) waiter: Option<WaiterId>,
    wait: Wait,
    core: CoreId,
    key: Key,
}

impl Place {
    pub(crate) fn new(wait: Wait) -> Self {
        Self { waiter: None, wait, core: 0, key: Key { index: 0, generation: 0 } }
    }

    /// Leaves the line, giving back what a read had already taken.
    pub(crate) fn leave(&mut self, unread: Vec<u8>) {
        let Some(waiter) = self.waiter.take() else { return };
        let (key, wait) = (self.key, self.wait);
        let message = if unread.is_empty() {
            Message::Withdraw { key, wait, waiter }
        } else {
            Message::Unread { key, waiter, bytes: unread }
        };
        if mailbox::current_core() == self.core {
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| tables.on_message(message));
            });
        } else {
            let _ = mailbox::post(self.core, message);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave(Vec::new());
    }
}

/// A handle whose resource stands on a core's table.
pub(crate) trait Bound {
    /// What it is called in errors.
    const NAME: &'static str;

    fn binding(&self) -> &Binding;

    /// Makes the entry on the table of the core that is to serve it.
    fn insert(&self, tables: &mut Tables) -> Key;

    /// Runs `f` on the entry, binding it to this core at the first use.
    #[inline]
    fn on_entry<R>(&self, f: impl FnOnce(&mut Tables, Key) -> R) -> io::Result<R> {
        let done = Proactor::with_current(|proactor| {
            let bound = self.binding().bind(Self::NAME, proactor, |tables| self.insert(tables));
            bound.map(|key| proactor.with_tables(|tables| f(tables, key)))
        });
        done.unwrap_or_else(|| Err(outside(&format!("a {}", Self::NAME))))
    }

    /// The same for what needs no waiting. `None`: there is no such entry any more.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Tables, Key) -> Option<io::Result<R>>) -> io::Result<R> {
        self.on_entry(f)?.unwrap_or_else(|| Err(gone()))
    }

    /// The same for what may wait and has no place in line, within the allowance.
    #[cfg(any(feature = "tokio-io", feature = "futures-io", feature = "hyper"))]
    #[inline]
    fn poll<R>(
        &self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut Tables, Key) -> Option<Poll<io::Result<R>>>,
    ) -> Poll<io::Result<R>> {
        if !allowance::is_left() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        answer(self.on_entry(f))
    }

    /// The same with a place in line. Beyond the allowance the future still takes its place: who
    /// asked first is served first, whoever asks again first.
    #[inline]
    fn poll_in_line<R>(
        &self,
        place: &mut Place,
        cx: &Context<'_>,
        f: impl FnOnce(&mut Tables, Key, &mut Option<WaiterId>) -> Option<Poll<io::Result<R>>>,
    ) -> Poll<io::Result<R>> {
        if !allowance::is_left() {
            cx.waker().wake_by_ref();
            let placed = self
                .with_place(place, |tables, key, waiter, wait| tables.enrol(key, wait, waiter, cx));
            return placed.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending);
        }
        answer(self.with_place(place, |tables, key, waiter, _| f(tables, key, waiter)))
    }

    /// As `on_entry`, for a future that has or wants a place in line.
    #[inline]
    fn with_place<R>(
        &self,
        place: &mut Place,
        f: impl FnOnce(&mut Tables, Key, &mut Option<WaiterId>, Wait) -> R,
    ) -> io::Result<R> {
        if place.waiter.is_some() && place.core != mailbox::current_core() {
            return Err(off_core("this future", place.core));
        }
        self.on_entry(|tables, key| {
            let result = f(tables, key, &mut place.waiter, place.wait);
            if place.waiter.is_some() {
                place.key = key;
                place.core = mailbox::current_core();
            }
            result
        })
    }
}

/// What was found, counted against the allowance.
#[inline]
fn answer<R>(polled: io::Result<Option<Poll<io::Result<R>>>>) -> Poll<io::Result<R>> {
    let polled = match polled {
        Ok(Some(polled)) => polled,
        Ok(None) => Poll::Ready(Err(gone())),
        Err(error) => Poll::Ready(Err(error)),
    };
    if polled.is_ready() {
        allowance::spend();
    }
    polled
}

/// What stream, halves and futures share.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    socket: Arc<Socket>,
    binding: Binding,
}

impl StreamHandle {
    pub(crate) fn new(descriptor: Descriptor) -> Arc<Self> {
        Arc::new(Self {
            socket: Arc::new(Socket::new(descriptor)),
            binding: Binding::new(Message::ReleaseStream, Tables::release_stream),
        })
    }

    #[inline]
    pub(crate) fn number(&self) -> RawFd {
        self.socket.number()
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.binding.core() != 0
    }

    /// Whether the core that served it is gone.
    #[cfg(any(feature = "tokio-io", feature = "futures-io"))]
    pub(crate) fn is_stranded(&self) -> bool {
        let owner = self.binding.core();
        owner != 0 && mailbox::find(owner).is_none()
    }

    /// Bytes that a read had taken go back in front, wherever the stream is by now.
    pub(crate) fn give_back(&self, place: &mut Place, bytes: Vec<u8>) {
        let (owner, key) = (self.binding.core(), self.binding.key());
        if bytes.is_empty() || owner == place.core && key == place.key && place.waiter.is_some() {
            return place.leave(bytes);
        }
        // It has moved since, or the read ended in an error and stands in no line.
        place.leave(Vec::new());
        if owner == 0 {
            self.socket.put_back(bytes);
        } else if mailbox::current_core() == owner {
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| tables.on_message(Message::PutBack { key, bytes }));
            });
        } else {
            let _ = mailbox::post(owner, Message::PutBack { key, bytes });
        }
    }

    /// Takes the stream off its core: nothing is in flight any more.
    pub(crate) fn unbind(&self, unread: Vec<u8>) {
        self.socket.keep_unread(Lease::from_vec(unread));
        self.binding.unbind();
    }

    /// The writing half is gone: FIN follows what is committed.
    pub(crate) fn finish(&self) {
        let (owner, key) = (self.binding.core(), self.binding.key());
        if owner == 0 {
            // A connection that is already down has nothing to finish.
            let _ = call::shutdown(self.number(), std::net::Shutdown::Write);
        } else if mailbox::current_core() == owner {
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| tables.on_message(Message::FinishStream(key)));
            });
        } else {
            let _ = mailbox::post(owner, Message::FinishStream(key));
        }
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.socket.has_unread()
    }

    /// The descriptor itself, when nobody else holds it.
    pub(crate) fn into_descriptor(self: Arc<Self>) -> Result<Descriptor, Arc<Self>> {
        if self.is_bound() || self.has_unread() {
            return Err(self);
        }
        let handle = Arc::try_unwrap(self)?;
        let socket = handle.socket.clone();
        drop(handle);
        let socket = Arc::into_inner(socket).expect("an unbound stream is on no table");
        Ok(socket.descriptor)
    }

    /// Closing a socket with input unread resets it, and takes with it what the peer has not read
    /// yet. So a stream that was never used, or was detached, lingers as any other.
    fn linger_unbound(&self) {
        Proactor::with_current(|proactor| {
            if proactor.is_closed() {
                return;
            }
            proactor.with_tables(|tables| {
                let key = tables.streams.insert(Stream::new(self.socket.clone()));
                tables.release_stream(key);
            });
        });
    }
}

impl Bound for StreamHandle {
    const NAME: &'static str = "stream";

    #[inline]
    fn binding(&self) -> &Binding {
        &self.binding
    }

    fn insert(&self, tables: &mut Tables) -> Key {
        tables.streams.insert(Stream::new(self.socket.clone()))
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        // Shared: the descriptor is being given away.
        let is_ours = Arc::strong_count(&self.socket) == 1;
        if !self.is_bound() && is_ours && call::unread(self.number()) > 0 {
            self.linger_unbound();
        }
    }
}

/// What a listener and its futures share.
#[derive(Debug)]
pub(crate) struct ListenerHandle {
    descriptor: Arc<Descriptor>,
    binding: Binding,
}

impl ListenerHandle {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        let binding = Binding::new(Message::ReleaseListener, Tables::release_listener);
        Self { descriptor: Arc::new(descriptor), binding }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.descriptor.number()
    }

    pub(crate) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.binding.core() != 0
    }
}

impl Bound for ListenerHandle {
    const NAME: &'static str = "listener";

    fn binding(&self) -> &Binding {
        &self.binding
    }

    fn insert(&self, tables: &mut Tables) -> Key {
        tables.listeners.insert(Listener::new(self.descriptor.clone()))
    }
}

pub(crate) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the runtime that served this is shut down")
}
