//! A simulated world: the hosts in it, what their kernels know, the network between them, and the
//! time that all of them share.
//!
//! ```text
//!   World ─► State ─┬─ hosts ── lives (boots) ── sockets by number      host, socket
//!                   ├─ connections, what is on the way, and when        connection, network
//!                   └─ books, trace
//! ```
//!
//! A world belongs to the simulation that entered it, on one thread, and all direct calls of
//! numbers of its own go to it. What a program does is done by the host whose turn it is (`on`).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::disk::Disk;
use super::host::Crash;
use super::network::Weather;
use super::plan::{Fault, FaultPlan, Site};
use super::rings::Rings;
use super::state::{self, State};
use super::trace::Event;
use crate::io::system::signals::Signal;

/// The first number of a simulated descriptor; the kernel's stay below its limit of open files
/// (`fs.nr_open`), which is at most 2^30 - 64.
pub(crate) const FIRST: i32 = 0x4000_0000;

/// What has become of all connections and bytes, for tests to balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Books {
    /// Connections that came to a listener's queue.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were reset before anyone accepted them: by the close of their listener, or
    /// the end of its host.
    pub refused: u64,
    /// Connections that wait in a listener's queue.
    pub queued: u64,
    /// Bytes that a socket took from a program.
    pub bytes_sent: u64,
    /// Bytes that a program took from a socket.
    pub bytes_received: u64,
    /// Bytes that are on the way, or wait to be received.
    pub bytes_waiting: u64,
    /// Bytes that nobody can receive any more: a reset, a close or a crash came first.
    pub bytes_lost: u64,
    /// Descriptors that are open.
    pub open: usize,
    /// Descriptors that were still open when a program had returned and its runtime had ended.
    pub leaked: u64,
}

impl Books {
    /// Whether everything that came in has gone out, is still there, or is known to be lost. Only a
    /// bug of the simulation breaks it.
    #[must_use]
    pub fn are_balanced(&self) -> bool {
        self.connections == self.accepted + self.refused + self.queued
            && self.bytes_sent == self.bytes_received + self.bytes_waiting + self.bytes_lost
    }
}

/// What a program asks of whoever drives the world, who does it after the program's turn.
pub(crate) enum Order {
    Crash {
        host: usize,
        how: Crash,
    },
    Restart {
        host: usize,
    },
    Signal {
        host: usize,
        signal: Signal,
    },
    At {
        time: u64,
        action: Box<dyn FnOnce()>,
    },
    /// What means something to whoever drives the world, and nothing here.
    Wish(Box<dyn Any>),
}

/// A simulated world.
pub(crate) struct World {
    seed: u64,
    /// Names this world for ever.
    serial: u64,
    state: RefCell<State>,
    /// The host's life whose program is at its turn.
    current: Cell<usize>,
    cores: Cell<u64>,
    tasks: Cell<u64>,
    /// A core was told something by another, or by nobody's turn.
    rung: Arc<AtomicBool>,
    orders: RefCell<Vec<Order>>,
}

thread_local! {
    static CURRENT: Cell<Option<Rc<World>>> = const { Cell::new(None) };
}

/// The world whose simulation runs on this thread.
pub(crate) fn current() -> Option<Rc<World>> {
    let world = CURRENT.take();
    CURRENT.set(world.clone());
    world
}

/// The world of a simulated number; `None` for one of the kernel's.
///
/// # Panics
///
/// When the number belongs to a simulation that does not run on this thread.
#[inline]
pub(crate) fn of(number: i32) -> Option<Rc<World>> {
    if number < FIRST {
        return None;
    }
    Some(current().expect("a simulated descriptor is used on its simulation's thread"))
}

/// What belongs to the process and not to a host is not there while a simulation runs.
///
/// # Errors
///
/// `Unsupported`, on the thread of a simulation.
pub(crate) fn refuse(what: &str) -> io::Result<()> {
    match current() {
        None => Ok(()),
        Some(_) => {
            let text = format!("inside a simulation there are no {what}");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    }
}

/// Keeps a world the current one of this thread.
pub(crate) struct Entered {
    before: Option<Rc<World>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Keeps a host's program at its turn.
pub(crate) struct Turn<'a> {
    world: &'a World,
    before: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.world.current.set(self.before);
    }
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather) -> Rc<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Rc::new(Self {
            seed,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            state: RefCell::new(State::new(seed, weather)),
            current: Cell::new(usize::MAX),
            cores: Cell::new(0),
            tasks: Cell::new(1),
            rung: Arc::default(),
            orders: RefCell::default(),
        })
    }

    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        Entered { before: CURRENT.replace(Some(self.clone())) }
    }

    /// Until the guard goes, what happens is done by this life of a host.
    pub(crate) fn on(&self, boot: usize) -> Turn<'_> {
        Turn { world: self, before: self.current.replace(boot) }
    }

    /// Until the guard goes, it is nobody's turn.
    pub(crate) fn on_nobody(&self) -> Turn<'_> {
        self.on(usize::MAX)
    }

    /// The life of the host whose program is at its turn.
    ///
    /// # Panics
    ///
    /// When it is nobody's turn.
    pub(crate) fn here(&self) -> usize {
        let here = self.current.get();
        assert!(here != usize::MAX, "this needs a simulated host, and is called outside of all");
        here
    }

    /// The same, if it is anybody's turn.
    pub(crate) fn try_here(&self) -> Option<usize> {
        Some(self.current.get()).filter(|here| *here != usize::MAX)
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// An id for a core. Its upper half names the world, so that no two cores ever share one; its
    /// lower half counts, so that the same seed has the same ids.
    pub(crate) fn next_core(&self) -> u64 {
        self.cores.set(self.cores.get() + 1);
        self.serial << 32 | self.cores.get()
    }

    /// The first of so many task ids that nobody else in this world gets.
    pub(crate) fn reserve_ids(&self, count: u64) -> u64 {
        self.tasks.replace(self.tasks.get() + count)
    }

    /// What is raised whenever a core is told something.
    pub(crate) fn rung(&self) -> &Arc<AtomicBool> {
        &self.rung
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
    }

    pub(crate) fn take_orders(&self) -> Vec<Order> {
        self.orders.take()
    }

    /// A hash of everything that has happened, in order.
    pub(crate) fn trace(&self) -> u64 {
        self.with(|state| state.trace.hash())
    }

    /// What was planned, and the sites that the program has come to.
    pub(crate) fn plan(&self) -> FaultPlan {
        self.with(|state| state.plan.clone())
    }

    /// Replaces what is planned; nothing is, at first.
    pub(crate) fn set_plan(&self, plan: FaultPlan) {
        self.with(|state| state.plan = plan);
    }

    /// What the rings are like that are made from now on.
    pub(crate) fn set_rings(&self, rings: Rings) {
        self.with(|state| state.rings = rings);
    }

    pub(crate) fn books(&self) -> Books {
        self.with(|state| state.books())
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.borrow_mut())
    }

    /// A new number, or a negated error number.
    pub(crate) fn tcp_socket(&self, v4: bool) -> i32 {
        let here = self.here();
        self.with(|state| match state.ask(here, Site::Socket) {
            Some(Fault::Fails(error)) => -error,
            _ => state.open_socket(here, v4),
        })
    }

    /// # Panics
    ///
    /// When a request still names the number: it would soon serve a stranger.
    pub(crate) fn close(&self, number: i32) {
        // Nobody asks how it went: who does, closes with a request.
        let _ = self.with(|state| state.close(number));
    }

    pub(crate) fn bind(&self, number: i32, address: SocketAddr) -> i32 {
        self.with(|state| match state.ask(boot_of(number), Site::Bind) {
            Some(Fault::Fails(error)) => -error,
            _ => state.bind(number, address),
        })
    }

    pub(crate) fn listen(&self, number: i32, backlog: i32) -> i32 {
        self.with(|state| match state.ask(boot_of(number), Site::Listen) {
            Some(Fault::Fails(error)) => -error,
            _ => state.listen(number, backlog),
        })
    }

    pub(crate) fn local_address(&self, number: i32) -> Result<SocketAddr, i32> {
        self.with(|state| state.local_address(number))
    }

    pub(crate) fn peer_address(&self, number: i32) -> Result<SocketAddr, i32> {
        self.with(|state| {
            let (connection, side) = state.stream(number)?;
            if connection.is_over(side) {
                return Err(-libc::ENOTCONN);
            }
            Ok(connection.ends[1 - side].address)
        })
    }

    pub(crate) fn set_option(&self, number: i32, level: i32, name: i32, value: &[u8]) -> i32 {
        self.with(|state| state.set_option(number, level, name, value))
    }

    /// Fills in what was set, or zeroes; the few that the library asks for have their defaults.
    pub(crate) fn option(&self, number: i32, level: i32, name: i32, into: &mut [u8]) -> i32 {
        self.with(|state| state.option(number, level, name, into))
    }

    pub(crate) fn shut_down(&self, number: i32, how: Shutdown) -> i32 {
        self.with(|state| state.shut_down(number, how))
    }

    /// Resets a connection whose number stays open (connect(2): `AF_UNSPEC`).
    pub(crate) fn disconnect(&self, number: i32) -> i32 {
        self.with(|state| state.disconnect(number))
    }

    /// The flags of an open file, or none.
    pub(crate) fn status_flags(&self, number: i32) -> i32 {
        self.with(|state| state.status_flags(number))
    }

    pub(crate) fn is_file(&self, number: i32) -> bool {
        self.with(|state| state.file(number).is_ok())
    }

    /// What direct I/O on a file has to be aligned to.
    pub(crate) fn direct_alignment(&self) -> u32 {
        let here = self.here();
        self.with(|state| state.disk_of(here).alignment())
    }

    /// Looks into the disk of the host whose turn it is.
    pub(crate) fn with_disk<R>(&self, look: impl FnOnce(&mut Disk) -> R) -> R {
        let here = self.here();
        self.with(|state| look(state.disk_of(here)))
    }

    pub(crate) fn unread(&self, number: i32) -> usize {
        self.with(|state| state.stream(number).map_or(0, |(stream, side)| stream.unread(side)))
    }

    pub(crate) fn receive(&self, number: i32, room: usize, peek: bool) -> Result<Vec<u8>, i32> {
        self.with(|state| match state.ask(boot_of(number), Site::ReceiveNow) {
            Some(Fault::Fails(error)) => Err(state.fail_call(number, error)),
            _ => state.receive(number, room, peek),
        })
    }

    pub(crate) fn send(&self, number: i32, bytes: &[u8]) -> i32 {
        self.with(|state| match state.ask(boot_of(number), Site::SendNow) {
            Some(Fault::Fails(error)) => state.fail_call(number, error),
            Some(Fault::Short) => state.send(number, &bytes[..bytes.len().min(1)]),
            _ => state.send(number, bytes),
        })
    }

    /// The addresses of a name, as the host whose turn it is would have them.
    pub(crate) fn look_up(&self, name: &str) -> Option<Vec<IpAddr>> {
        let here = self.try_here();
        self.with(|state| state.look_up(here, name))
    }

    /// The time on the clock of the host whose turn it is; of nobody's turn, the world's.
    pub(crate) fn clock(&self) -> u64 {
        let here = self.try_here();
        self.with(|state| state.monotonic(here))
    }

    /// The time of day on the same clock, in nanoseconds since 1970.
    pub(crate) fn time_of_day(&self) -> u64 {
        let here = self.try_here();
        self.with(|state| state.time_of_day(here))
    }

    /// The last events, one a line.
    pub(crate) fn tell(&self) -> String {
        self.with(|state| state.trace.tell(|host| state.host_name(host).to_owned()))
    }

    /// A line in the trace, by whoever's turn it is.
    pub(crate) fn note(&self, text: &str) {
        let host = self.try_here().map(|boot| self.with(|state| state.boots[boot].host));
        self.with(|state| state.trace.note(state.now, host, Event::Said { text: text.into() }));
    }
}

/// The life of a host that a number belongs to.
pub(super) fn boot_of(number: i32) -> usize {
    (number - FIRST) as usize >> state::INDEX_BITS
}
