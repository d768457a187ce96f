//! What the simulated kernel knows: descriptors, listeners, connections, and the books of them.
//!
//! ```text
//!   number ──► Socket ─┬─ Fresh       bound or not, neither listening nor connected
//!                      ├─ Listening   and the connections that nobody has accepted
//!                      └─ Stream      an end of a Connection
//! ```
//!
//! A world belongs to the simulation that entered it, on one thread, and all direct calls of
//! numbers of its own go to it. Numbers begin where no kernel's do. As a kernel does, it hands out
//! the lowest that is free, so a number that is used after its close soon means something else; and
//! it takes a close of a number that a request still names for what it is, a broken rule.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::rc::Rc;

use super::connection::{Connection, Side};
use super::listening::Listening;
use super::plan::{Fault, Plan, Site, breaks_connection};
use super::random::Chance;
use super::trace::{Event, Trace};

/// The first number of a simulated descriptor; the kernel's stay below its limit of open files
/// (`fs.nr_open`), which is at most 2^30 - 64.
pub(crate) const FIRST: i32 = 0x4000_0000;

/// What the network may do, of one seed.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Bytes that a direction holds, sent and not received, at most.
    capacity_max: usize,
}

/// What has become of all connections and bytes, for tests to balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Books {
    /// Connections made.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that their listener's close has reset before anyone accepted them.
    pub refused: u64,
    /// Descriptors that are open.
    pub open: usize,
}

enum Kind {
    Fresh { local: Option<SocketAddr> },
    Listening(Listening),
    Stream { connection: usize, side: Side },
}

struct Socket {
    kind: Kind,
    v4: bool,
    options: Vec<(i32, i32, Vec<u8>)>,
    /// Requests that name it.
    requests: usize,
}

pub(super) struct State {
    sockets: Vec<Option<Socket>>,
    connections: Vec<Option<Connection>>,
    chance: Chance,
    weather: Weather,
    next_port: u16,
    books: Books,
    plan: Plan,
    trace: Trace,
}

/// A simulated kernel.
pub(crate) struct World {
    seed: u64,
    state: RefCell<State>,
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

/// Keeps a world the current one of this thread.
pub(crate) struct Entered {
    before: Option<Rc<World>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> Rc<Self> {
        let mut chance = Chance::of(seed, 1);
        let weather = Weather { capacity_max: 1 << chance.up_to(12) };
        let state = State {
            sockets: Vec::new(),
            connections: Vec::new(),
            chance,
            weather,
            next_port: 40_000,
            books: Books::default(),
            plan,
            trace: Trace::new(seed),
        };
        Rc::new(Self { seed, state: RefCell::new(state) })
    }

    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        Entered { before: CURRENT.replace(Some(self.clone())) }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// A hash of everything that has happened, in order.
    pub(crate) fn trace(&self) -> u64 {
        self.state.borrow().trace.hash()
    }

    /// What was planned, and the sites that the program has come to.
    pub(crate) fn plan(&self) -> Plan {
        self.state.borrow().plan.clone()
    }

    pub(crate) fn books(&self) -> Books {
        let state = self.state.borrow();
        Books { open: state.sockets.iter().flatten().count(), ..state.books }
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.borrow_mut())
    }

    /// A new number, or a negated error number.
    pub(crate) fn tcp_socket(&self, v4: bool) -> i32 {
        self.with(|state| match state.ask(Site::Socket) {
            Some(Fault::Fails(error)) => -error,
            _ => state.open(Kind::Fresh { local: None }, v4, Vec::new()),
        })
    }

    /// # Panics
    ///
    /// When a request still names the number: it would soon serve a stranger.
    pub(crate) fn close(&self, number: i32) {
        self.with(|state| state.close(number));
    }

    pub(crate) fn bind(&self, number: i32, address: SocketAddr) -> i32 {
        self.with(|state| match state.ask(Site::Bind) {
            Some(Fault::Fails(error)) => -error,
            _ => state.bind(number, address),
        })
    }

    pub(crate) fn listen(&self, number: i32, backlog: i32) -> i32 {
        self.with(|state| match state.ask(Site::Listen) {
            Some(Fault::Fails(error)) => -error,
            _ => state.listen(number, backlog),
        })
    }

    pub(crate) fn local_address(&self, number: i32) -> Result<SocketAddr, i32> {
        self.with(|state| {
            if let Ok((connection, side)) = state.stream(number) {
                return Ok(connection.address(side));
            }
            let socket = state.socket(number)?;
            Ok(match &socket.kind {
                Kind::Fresh { local: Some(local) } => *local,
                Kind::Listening(listening) => listening.local,
                Kind::Fresh { local: None } | Kind::Stream { .. } => unspecified(socket.v4),
            })
        })
    }

    pub(crate) fn peer_address(&self, number: i32) -> Result<SocketAddr, i32> {
        self.with(|state| {
            let (connection, side) = state.stream(number)?;
            if connection.is_over(side) {
                return Err(-libc::ENOTCONN);
            }
            Ok(connection.address(1 - side))
        })
    }

    pub(crate) fn set_option(&self, number: i32, level: i32, name: i32, value: &[u8]) -> i32 {
        self.with(|state| {
            let socket = match state.socket(number) {
                Ok(socket) => socket,
                Err(error) => return error,
            };
            socket.options.retain(|(at, of, _)| (*at, *of) != (level, name));
            socket.options.push((level, name, value.to_vec()));
            0
        })
    }

    /// Fills in what was set, or zeroes; the few that the library asks for have their defaults.
    pub(crate) fn option(&self, number: i32, level: i32, name: i32, into: &mut [u8]) -> i32 {
        self.with(|state| state.option(number, level, name, into))
    }

    pub(crate) fn shut_down(&self, number: i32, how: Shutdown) -> i32 {
        self.with(|state| match state.stream(number) {
            Ok((connection, side)) => {
                let result = connection.shut_down(side, how);
                state.note(Event::ShutDown { number, result });
                result
            }
            Err(error) => error,
        })
    }

    /// Resets a connection whose number stays open (connect(2): `AF_UNSPEC`).
    pub(crate) fn disconnect(&self, number: i32) -> i32 {
        self.with(|state| match state.stream(number) {
            Ok((connection, side)) => {
                connection.disconnect(side);
                state.note(Event::Disconnected { number });
                0
            }
            Err(error) => error,
        })
    }

    pub(crate) fn unread(&self, number: i32) -> usize {
        self.with(|state| state.stream(number).map_or(0, |(stream, side)| stream.unread(side)))
    }

    pub(crate) fn receive(&self, number: i32, room: usize, peek: bool) -> Result<Vec<u8>, i32> {
        self.with(|state| match state.ask(Site::ReceiveNow) {
            Some(Fault::Fails(error)) => Err(state.fail_now(number, error)),
            _ => state.receive(number, room, peek),
        })
    }

    pub(crate) fn send(&self, number: i32, bytes: &[u8]) -> i32 {
        self.with(|state| match state.ask(Site::SendNow) {
            Some(Fault::Fails(error)) => state.fail_now(number, error),
            Some(Fault::Short) => state.send(number, &bytes[..bytes.len().min(1)]),
            _ => state.send(number, bytes),
        })
    }
}

impl State {
    /// What identifies the state of this world, as far as events tell.
    pub(super) fn trace(&self) -> u64 {
        self.trace.hash()
    }

    pub(super) fn note(&mut self, event: Event<'_>) {
        self.trace.note(event);
    }

    /// The program has come to a site: what goes wrong there?
    pub(super) fn ask(&mut self, site: Site) -> Option<Fault> {
        let fault = self.plan.ask(site);
        if let Some(fault) = fault {
            self.note(Event::Planned { site, fault });
        }
        fault
    }

    pub(super) fn has_shortages(&self) -> bool {
        self.plan.has_shortages
    }

    fn fail_now(&mut self, number: i32, error: i32) -> i32 {
        if breaks_connection(error) {
            self.break_connection(number);
        }
        -error
    }

    /// A call has answered that the connection is gone, so it is.
    pub(super) fn break_connection(&mut self, number: i32) {
        if let Ok((connection, side)) = self.stream(number) {
            connection.disconnect(side);
            self.note(Event::Disconnected { number });
        }
    }

    /// What is on the way goes on, some of it.
    pub(super) fn step(&mut self) {
        self.plan.step();
        for connection in self.connections.iter_mut().flatten() {
            connection.step(&mut self.chance, &mut self.trace);
        }
    }

    pub(super) fn is_moving(&self) -> bool {
        self.connections.iter().flatten().any(Connection::is_moving)
    }

    fn open(&mut self, kind: Kind, v4: bool, options: Vec<(i32, i32, Vec<u8>)>) -> i32 {
        let socket = Some(Socket { kind, v4, options, requests: 0 });
        let index = match self.sockets.iter().position(Option::is_none) {
            Some(index) => {
                self.sockets[index] = socket;
                index
            }
            None => {
                self.sockets.push(socket);
                self.sockets.len() - 1
            }
        };
        FIRST + index as i32
    }

    fn socket(&mut self, number: i32) -> Result<&mut Socket, i32> {
        let index = (number - FIRST) as usize;
        self.sockets.get_mut(index).and_then(Option::as_mut).ok_or(-libc::EBADF)
    }

    /// The connection and the end of it that a number names.
    pub(super) fn stream(&mut self, number: i32) -> Result<(&mut Connection, Side), i32> {
        match self.socket(number)?.kind {
            Kind::Stream { connection, side } => {
                let connection = self.connections[connection].as_mut();
                Ok((connection.expect("it is there while an end is open"), side))
            }
            _ => Err(-libc::ENOTCONN),
        }
    }

    pub(super) fn listening(&mut self, number: i32) -> Result<&mut Listening, i32> {
        match &mut self.socket(number)?.kind {
            Kind::Listening(listening) => Ok(listening),
            _ => Err(-libc::EINVAL),
        }
    }

    /// A request begins to name a number, or ends to.
    pub(super) fn hold(&mut self, number: i32, begins: bool) {
        if number < FIRST {
            return;
        }
        let socket = self.socket(number).unwrap_or_else(|_| {
            panic!("a request names descriptor {:#x}, which is not open", number)
        });
        socket.requests = if begins { socket.requests + 1 } else { socket.requests - 1 };
    }

    fn close(&mut self, number: i32) {
        self.note(Event::Closed { number });
        let index = (number - FIRST) as usize;
        let socket = self.sockets.get_mut(index).and_then(Option::take);
        let broken = match &socket {
            None => Some("is not open".to_owned()),
            Some(socket) if socket.requests > 0 => {
                Some(format!("is named by {} requests in flight", socket.requests))
            }
            Some(_) => None,
        };
        if let (Some(broken), false) = (broken, std::thread::panicking()) {
            panic!("descriptor {number:#x} was closed, which {broken}");
        }
        let Some(socket) = socket else { return };
        let resets = socket.resets_on_close();
        match socket.kind {
            Kind::Fresh { .. } => {}
            Kind::Stream { connection, side } => self.close_end(connection, side, resets),
            Kind::Listening(listening) => {
                for connection in listening.backlog {
                    self.books.refused += 1;
                    self.close_end(connection, 1, true);
                }
            }
        }
    }

    fn close_end(&mut self, connection: usize, side: Side, resets: bool) {
        let entry = &mut self.connections[connection];
        let open = entry.as_mut().expect("it is there while an end is open");
        open.close(side, resets);
        if open.is_closed() {
            *entry = None;
        }
    }

    fn bind(&mut self, number: i32, mut address: SocketAddr) -> i32 {
        if address.port() == 0 {
            address.set_port(self.ephemeral_port());
        }
        let taken = self.sockets.iter().flatten().any(|socket| match &socket.kind {
            Kind::Listening(listening) => listening.local.port() == address.port(),
            _ => false,
        });
        match self.socket(number) {
            Err(error) => error,
            Ok(socket) if taken && !socket.is_on(libc::SOL_SOCKET, libc::SO_REUSEPORT) => {
                -libc::EADDRINUSE
            }
            Ok(Socket { kind: Kind::Fresh { local: local @ None }, .. }) => {
                *local = Some(address);
                0
            }
            Ok(_) => -libc::EINVAL,
        }
    }

    fn listen(&mut self, number: i32, backlog: i32) -> i32 {
        let port = self.ephemeral_port();
        let socket = match self.socket(number) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        let Kind::Fresh { local } = &socket.kind else { return -libc::EINVAL };
        let mut address = local.unwrap_or(unspecified(socket.v4));
        if address.port() == 0 {
            address.set_port(port);
        }
        socket.kind = Kind::Listening(Listening::new(address, backlog));
        0
    }

    fn ephemeral_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(40_000);
        self.next_port
    }

    fn option(&mut self, number: i32, level: i32, name: i32, into: &mut [u8]) -> i32 {
        let default = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                self.stream(number).map_or(0, |(stream, side)| stream.take_error(side))
            }
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => match self.socket(number) {
                Ok(socket) if !socket.v4 => libc::AF_INET6,
                _ => libc::AF_INET,
            },
            (libc::IPPROTO_IP, libc::IP_TTL) => 64,
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => {
                self.weather.capacity_max as i32
            }
            _ => 0,
        };
        let socket = match self.socket(number) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        let set = socket.options.iter().find(|(at, of, _)| (*at, *of) == (level, name));
        let value = set.map_or_else(|| default.to_ne_bytes().to_vec(), |(.., value)| value.clone());
        into.fill(0);
        let count = into.len().min(value.len());
        into[..count].copy_from_slice(&value[..count]);
        0
    }

    pub(super) fn receive(&mut self, number: i32, room: usize, peek: bool) -> Result<Vec<u8>, i32> {
        let (connection, side) = self.stream(number)?;
        let received = connection.receive(side, room, peek);
        let result = received.as_ref().map_or_else(|error| *error, |bytes| bytes.len() as i32);
        self.note(Event::Received { number, result });
        received
    }

    pub(super) fn send(&mut self, number: i32, bytes: &[u8]) -> i32 {
        let result = match self.stream(number) {
            Ok((connection, side)) => connection.send(side, bytes),
            Err(_) => -libc::EPIPE,
        };
        self.note(Event::Sent { number, result });
        result
    }

    /// Makes a connection, when a listener has room for it. `None`: not yet.
    pub(super) fn connect(&mut self, number: i32, to: SocketAddr) -> Option<i32> {
        let client = match self.socket(number) {
            Ok(Socket { kind: Kind::Fresh { local }, v4, .. }) => local.unwrap_or(loopback(*v4)),
            Ok(_) => return Some(-libc::EISCONN),
            Err(error) => return Some(error),
        };
        // Several listeners may share an address; which one gets the connection is a hash's choice.
        let listeners: Vec<usize> = (0..self.sockets.len())
            .filter(|index| match &self.sockets[*index] {
                Some(Socket { kind: Kind::Listening(listening), .. }) => {
                    listening.local.port() == to.port()
                }
                _ => false,
            })
            .collect();
        if listeners.is_empty() {
            return Some(-libc::ECONNREFUSED);
        }
        let chosen = listeners[self.chance.below(listeners.len())];
        let index = self.connections.iter().position(Option::is_none);
        let index = index.unwrap_or(self.connections.len());
        let Some(Socket { kind: Kind::Listening(listening), .. }) = &mut self.sockets[chosen]
        else {
            unreachable!("just found")
        };
        if !listening.take(index) {
            return None;
        }
        let mut client = client;
        if client.port() == 0 {
            client.set_port(self.ephemeral_port());
        }
        let most = self.weather.capacity_max;
        let capacities = [self.chance.up_to(most), self.chance.up_to(most)];
        let connection = Some(Connection::new([client, to], capacities));
        if index == self.connections.len() {
            self.connections.push(connection);
        } else {
            self.connections[index] = connection;
        }
        self.books.connections += 1;
        self.socket(number).expect("just seen").kind = Kind::Stream { connection: index, side: 0 };
        self.note(Event::Connected { number });
        Some(0)
    }

    /// Takes a connection from a listener's queue. `None`: there is none.
    pub(super) fn accept(&mut self, number: i32) -> Option<i32> {
        let connection = match self.listening(number) {
            Ok(listening) => listening.backlog.pop_front()?,
            Err(error) => return Some(error),
        };
        let listener = self.socket(number).expect("just seen");
        let (v4, options) = (listener.v4, listener.options.clone());
        self.books.accepted += 1;
        Some(self.open(Kind::Stream { connection, side: 1 }, v4, options))
    }
}

impl Socket {
    fn is_on(&self, level: i32, name: i32) -> bool {
        let set = self.options.iter().find(|(at, of, _)| (*at, *of) == (level, name));
        set.is_some_and(|(.., value)| value.iter().any(|byte| *byte != 0))
    }

    /// `SO_LINGER`, on, with no time (socket(7)).
    fn resets_on_close(&self) -> bool {
        let linger = (libc::SOL_SOCKET, libc::SO_LINGER);
        let set = self.options.iter().find(|(at, of, _)| (*at, *of) == linger);
        set.is_some_and(|(.., value)| {
            let (on, time) = value.split_at(size_of::<i32>());
            on.iter().any(|byte| *byte != 0) && time.iter().all(|byte| *byte == 0)
        })
    }
}

fn unspecified(v4: bool) -> SocketAddr {
    if v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

fn loopback(v4: bool) -> SocketAddr {
    if v4 { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() }
}
