//! What a user holds of a stream or a listener: shared ownership of the descriptor, and a binding
//! to the core that serves it.
//!
//! The binding is plain integers, so handles are `Send` and `Sync` without a promise of ours, and a
//! stream accepted on one core can be used on another. Polled on a core that does not own it, an
//! operation answers with an error that names the owner.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::binding::{Binding, Entry, ListenerEntry, StreamEntry};
use super::listener::Listener;
use super::options;
use super::stream::{Farewell, Remains, Socket, Stream};
use super::tcp_stream::TcpStream;
use crate::io::allowance;
use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{self, CoreId, Key, Message, Wait, WaiterId};
use crate::io::proactor::{Proactor, off_core, outside};
use crate::io::request::call;
use crate::io::tables::Tables;
use crate::io::waiters::{Caller, HOLDER};

/// A future's place in the lines of a resource. Dropped on any thread, it leaves the line.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) waiter: Option<WaiterId>,
    core: CoreId,
    // Together the key: its generation has 24 bits, and every waiting task keeps a place.
    index: u32,
    generation: [u8; 3],
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Wait(Wait),
    /// A read that has taken a part, and the socket says so.
    Hold,
    /// A write that has no time to wait for a turn.
    Hurry,
}

impl Place {
    pub(crate) fn new(wait: Wait) -> Self {
        Self { waiter: None, core: 0, index: 0, generation: [0; 3], purpose: Purpose::Wait(wait) }
    }

    fn wait(&self) -> Wait {
        match self.purpose {
            Purpose::Wait(wait) => wait,
            Purpose::Hold => Wait::Read,
            Purpose::Hurry => Wait::Write,
        }
    }

    /// A write is to be tried at once, whatever others do.
    pub(super) fn hurry(&mut self) {
        self.purpose = Purpose::Hurry;
    }

    pub(super) fn hurries(&self) -> bool {
        self.purpose == Purpose::Hurry
    }

    fn holds(&self) -> bool {
        self.purpose == Purpose::Hold
    }

    fn key(&self) -> Key {
        let [low, middle, high] = self.generation;
        Key { index: self.index, generation: u32::from_le_bytes([low, middle, high, 0]) }
    }

    /// It may stand in a line of this entry now.
    #[inline]
    fn stand_on(&mut self, key: Key) {
        if self.waiter.is_some() {
            let [low, middle, high, _] = key.generation.to_le_bytes();
            (self.index, self.generation) = (key.index, [low, middle, high]);
            self.core = mailbox::current_core();
        }
    }

    /// Its place in the lines of this entry. If it stands elsewhere, it leaves.
    fn take_from(&mut self, core: CoreId, key: Key) -> Option<WaiterId> {
        if self.core == core && self.key() == key {
            return self.waiter.take();
        }
        self.leave();
        None
    }

    /// The stream is at this entry now: what this knew was another one, whose line it leaves. Who
    /// has taken a part stands first wherever the stream goes. `false`: a write that waited while
    /// another core served the stream, and may not go after the bytes of that one.
    #[cold]
    fn follow(&mut self, tables: &mut Tables) -> bool {
        let Some(waiter) = self.waiter.take() else { return true };
        tables.on_message(Message::Withdraw { key: self.key(), wait: self.wait(), waiter });
        self.waiter = self.holds().then_some(HOLDER);
        self.wait() != Wait::Write
    }

    /// Leaves the line.
    #[inline]
    pub(crate) fn leave(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.withdraw(waiter);
        }
    }

    #[cold]
    fn withdraw(&self, waiter: WaiterId) {
        let message = Message::Withdraw { key: self.key(), wait: self.wait(), waiter };
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
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// A handle whose resource stands on a core's table.
pub(crate) trait Bound {
    /// What it is called in errors.
    const NAME: &'static str;

    type Entry: Entry;

    fn binding(&self) -> &Binding<Self::Entry>;

    /// Binds it to this core, or says who serves it.
    fn bind(&self, proactor: &Proactor) -> io::Result<Key>;

    /// Runs `f` on the entry, binding it to this core at the first use.
    #[inline]
    fn on_entry<R>(&self, f: impl FnOnce(&mut Tables, Key) -> R) -> io::Result<R> {
        let done = Proactor::with_current(|proactor| {
            let key = match self.binding().key_on(proactor.id()) {
                Some(key) => key,
                None => self.bind(proactor)?,
            };
            Ok(proactor.with_tables(|tables| f(tables, key)))
        });
        done.unwrap_or_else(|| Err(outside(&format!("a {}", Self::NAME))))
    }

    /// The same for what needs no waiting. `None`: there is no such entry any more.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Tables, Key) -> Option<io::Result<R>>) -> io::Result<R> {
        self.on_entry(f)?.unwrap_or_else(|| Err(gone()))
    }

    /// The same for what may wait and has no place in line, within the allowance.
    #[inline]
    fn poll<R>(
        &self,
        cx: &Context<'_>,
        mut f: impl FnMut(&mut Tables, Key, &mut Caller<'_>) -> Option<Poll<io::Result<R>>>,
    ) -> Poll<io::Result<R>> {
        if !allowance::is_left() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut found = None;
        let reached = Caller::run(cx.waker(), |caller| {
            self.on_entry(|tables, key| found = f(tables, key, caller))
        });
        answer(reached, found)
    }

    /// The same with a place in line. Beyond the allowance the future still takes its place: who
    /// asked first is served first, whoever asks again first.
    #[inline]
    fn poll_in_line<R>(
        &self,
        place: &mut Place,
        cx: &Context<'_>,
        mut f: impl FnMut(
            &mut Tables,
            Key,
            &mut Option<WaiterId>,
            &mut Caller<'_>,
        ) -> Option<Poll<io::Result<R>>>,
    ) -> Poll<io::Result<R>> {
        if !allowance::is_left() {
            cx.waker().wake_by_ref();
            let wait = place.wait();
            let placed = self.with_place(place, cx.waker(), |tables, key, waiter, caller| {
                tables.enrol(key, wait, waiter, caller);
            });
            return placed.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending);
        }
        // Left here, and not handed back through all that is in between, which would copy it each
        // time.
        let mut found = None;
        let reached = self.with_place(place, cx.waker(), |tables, key, waiter, caller| {
            found = f(tables, key, waiter, caller);
        });
        answer(reached, found)
    }

    /// As `on_entry`, for a future that has or wants a place in line.
    #[inline]
    fn with_place<R>(
        &self,
        place: &mut Place,
        waker: &Waker,
        mut f: impl FnMut(&mut Tables, Key, &mut Option<WaiterId>, &mut Caller<'_>) -> R,
    ) -> io::Result<R> {
        if place.waiter.is_some() && place.core != mailbox::current_core() {
            return Err(off_core("this future", place.core, false));
        }
        let done = Caller::run(waker, |caller| {
            self.on_entry(|tables, key| {
                if place.waiter.is_some() && place.key() != key && !place.follow(tables) {
                    return None;
                }
                let result = f(tables, key, &mut place.waiter, caller);
                place.stand_on(key);
                Some(result)
            })
        });
        done?.ok_or_else(|| overtaken(Self::NAME))
    }
}

#[cold]
fn overtaken(what: &str) -> io::Error {
    io::Error::other(format!("this write waited while another core had the {what}"))
}

/// What was found, counted against the allowance.
#[inline]
fn answer<R>(reached: io::Result<()>, found: Option<Poll<io::Result<R>>>) -> Poll<io::Result<R>> {
    let polled = match (reached, found) {
        (Ok(()), Some(polled)) => polled,
        (Ok(()), None) => Poll::Ready(Err(gone())),
        (Err(error), _) => Poll::Ready(Err(error)),
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
    binding: Binding<StreamEntry>,
}

impl StreamHandle {
    pub(crate) fn new(descriptor: Descriptor) -> Arc<Self> {
        Arc::new(Self { socket: Arc::new(Socket::new(descriptor)), binding: Binding::new() })
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

    /// A read has taken a part and waits for more: nobody reads before it, wherever the stream
    /// goes.
    pub(crate) fn hold(&self, place: &mut Place) {
        if !place.holds() {
            place.purpose = Purpose::Hold;
            self.socket.hold();
        }
    }

    /// A read is over. Bytes that it had taken go back in front, wherever the stream is by now.
    pub(crate) fn give_back(&self, place: &mut Place, bytes: Vec<u8>) {
        let holds = place.holds();
        place.purpose = Purpose::Wait(Wait::Read);
        if bytes.is_empty() && !holds {
            return place.leave();
        }
        let here = mailbox::current_core();
        let (owner, key) = (self.binding.core(), self.binding.key());
        if owner != 0 && owner == here {
            if holds {
                self.socket.give_back(Vec::new());
            }
            let waiter = place.take_from(owner, key);
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| {
                    let Some(stream) = tables.streams.get_mut(key) else { return };
                    stream.give_back(waiter, bytes, &mut tables.services);
                });
            });
            return;
        }
        self.socket.give_back(bytes);
        // Read again: see `Socket`. Whoever is told in vain finds nothing.
        let (owner, key) = (self.binding.core(), self.binding.key());
        let waiter = place.take_from(owner, key);
        if owner != 0 {
            // A core that is gone serves nobody any more.
            let _ = mailbox::post(owner, Message::GivenBack { key, waiter });
        }
    }

    /// Takes the stream off its core: nothing is in flight any more.
    pub(crate) fn unbind(&self, remains: Remains) {
        self.socket.leave(remains, || self.binding.unbind());
    }

    /// Resets the connection from a thread that may not touch it.
    pub(crate) fn abort_elsewhere(&self) {
        // A socket that is not connected any more has nothing to reset.
        let _ = call::reset_on_close(self.number());
        match self.binding.core() {
            // The close that the drop brings is the reset.
            0 => self.binding.forget_home(),
            owner => {
                let _ = mailbox::post(owner, Message::AbortStream(self.binding.key()));
            }
        }
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
    /// yet. So a stream that was never used, or was detached, lingers as any other: here, or on the
    /// core that it comes from.
    fn linger_unbound(&self, home: CoreId) {
        let mut farewell = Some(Farewell::new(self.socket.clone()));
        Proactor::with_current(|proactor| {
            if let (false, Some(farewell)) = (proactor.is_closed(), farewell.take()) {
                proactor.with_tables(|tables| tables.linger(farewell));
            }
        });
        if let Some(farewell) = farewell {
            // With that core gone it comes back, and ends here.
            drop(mailbox::post(home, Message::Linger(farewell)));
        }
    }
}

impl Bound for StreamHandle {
    const NAME: &'static str = "stream";

    type Entry = StreamEntry;

    #[inline]
    fn binding(&self) -> &Binding<StreamEntry> {
        &self.binding
    }

    #[cold]
    fn bind(&self, proactor: &Proactor) -> io::Result<Key> {
        let mut holder_stands = false;
        let key = self.binding.bind(Self::NAME, proactor, |tables, before| {
            let (key, stands) = tables.insert_stream(before, Stream::new(self.socket.clone()));
            holder_stands = stands;
            key
        })?;
        // Only now: what is given back before this is found here, and after it told to this core.
        proactor.with_tables(|tables| tables.collect(key, None, holder_stands));
        Ok(key)
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        // Shared: the descriptor is being given away.
        let is_ours = Arc::strong_count(&self.socket) == 1;
        let Some(home) = self.binding.home().filter(|_| is_ours && !self.is_bound()) else {
            return;
        };
        if self.socket.descriptor.is_usable() && self.socket.has_input() {
            self.linger_unbound(home);
        }
    }
}

/// What a listener and its futures share.
#[derive(Debug)]
pub(crate) struct ListenerHandle {
    descriptor: Arc<Descriptor>,
    /// Its connections inherit no `TCP_NODELAY`, though they are to have it.
    sets_no_delay: bool,
    binding: Binding<ListenerEntry>,
}

impl ListenerHandle {
    pub(crate) fn new(descriptor: Descriptor, sets_no_delay: bool) -> Self {
        Self { descriptor: Arc::new(descriptor), sets_no_delay, binding: Binding::new() }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.descriptor.number()
    }

    /// A connection of this listener, for the user. Best effort: one that its peer has reset takes
    /// no option any more, and its first read tells.
    pub(crate) fn hand_out(&self, connection: Descriptor) -> TcpStream {
        if self.sets_no_delay {
            let _ = options::set_nodelay(connection.number(), true);
        }
        TcpStream::from_descriptor(connection)
    }

    pub(crate) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.binding.core() != 0
    }

    /// Whether this very core serves it, and goes on.
    #[cfg(feature = "futures-core")]
    pub(crate) fn is_served_here(&self) -> bool {
        let is_open = Proactor::with_current(|proactor| {
            self.binding.core() == proactor.id() && !proactor.is_closed()
        });
        is_open.unwrap_or(false)
    }
}

impl Bound for ListenerHandle {
    const NAME: &'static str = "listener";

    type Entry = ListenerEntry;

    fn binding(&self) -> &Binding<ListenerEntry> {
        &self.binding
    }

    #[cold]
    fn bind(&self, proactor: &Proactor) -> io::Result<Key> {
        self.binding.bind(Self::NAME, proactor, |tables, _| {
            tables.listeners.insert(Listener::new(self.descriptor.clone()))
        })
    }
}

pub(crate) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the runtime that served this is shut down")
}
