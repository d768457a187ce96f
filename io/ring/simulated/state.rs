//! What the kernels of a world know: numbers, sockets, listeners, and the calls that answer at
//! once.
//!
//! ```text
//!   number ──► Socket ─┬─ Fresh       bound or not, neither listening nor connected
//!   30 bits:           ├─ Connecting  its handshake is under way
//!   life | index       ├─ Listening   and the connections that nobody has accepted
//!                      ├─ Stream      an end of a Connection
//!                      └─ File        an open file of its Disk
//! ```
//!
//! As a kernel does, it hands out the lowest number that is free, so a number that is used after
//! its close soon means something else; and it takes a close of a number that a request still names
//! for what it is, a broken rule. Each life of a host has numbers of its own: what is left of an
//! earlier one names nothing.

use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};

use super::connection::{Connection, Farewell, Side};
use super::disk::Handle;
use super::host::{Boot, Host};
use super::listening::Listening;
use super::network::{Happening, Links, Weather};
use super::plan::{Fault, FaultPlan, Site, breaks_connection};
use super::random::Chance;
use super::rings::Rings;
use super::trace::{Event, Trace};
use super::world::{self, Books, FIRST};

/// So many bits of a number say which of its life's descriptors it is.
pub(super) const INDEX_BITS: u32 = 14;

/// The smallest send buffer (`SOCK_MIN_SNDBUF`, without what the kernel adds for its own).
const SNDBUF_MIN: usize = 2048;

/// A handshake that the client waits for.
#[derive(Debug)]
pub(super) struct Connecting {
    /// Names this attempt for ever.
    pub(super) id: u64,
    pub(super) local: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) tries: u32,
    /// What the other side has made of it.
    pub(super) connection: Option<u64>,
    /// It has failed, with this error.
    pub(super) error: Option<i32>,
}

pub(super) enum Kind {
    Fresh { local: Option<SocketAddr> },
    Connecting(Connecting),
    Listening(Listening),
    Stream { connection: u64, side: Side },
    File(Handle),
}

pub(super) struct Socket {
    pub(super) kind: Kind,
    pub(super) v4: bool,
    options: Vec<(i32, i32, Vec<u8>)>,
    /// Requests that name it.
    requests: usize,
}

/// The whole of a world; see the modules that implement its parts.
pub(crate) struct State {
    pub(super) seed: u64,
    /// Nanoseconds since the beginning.
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) boots: Vec<Boot>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) links: Links,
    pub(super) coming: BinaryHeap<Happening>,
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    /// What a ring is like that is made now.
    pub(super) rings: Rings,
    pub(super) books: Books,
    pub(super) plan: FaultPlan,
    pub(super) trace: Trace,
    /// Counts connections, attempts, listeners and happenings.
    last_id: u64,
}

impl State {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self {
            seed,
            now: 0,
            hosts: Vec::new(),
            boots: Vec::new(),
            connections: BTreeMap::new(),
            links: Links::default(),
            coming: BinaryHeap::new(),
            chance: Chance::of(seed, 1),
            weather,
            rings: Rings::new(),
            books: Books::default(),
            plan: FaultPlan::none(),
            trace: Trace::new(seed),
            last_id: 0,
        }
    }

    pub(super) fn books(&self) -> Books {
        let mut books = self.books;
        for connection in self.connections.values() {
            let (waiting, lost) = connection.balance();
            books.bytes_waiting += waiting;
            books.bytes_lost += lost;
        }
        let sockets = || self.boots.iter().flat_map(|boot| boot.sockets.iter().flatten());
        books.open = sockets().count();
        let queued = sockets().map(|socket| match &socket.kind {
            Kind::Listening(listening) => listening.backlog.len() as u64,
            _ => 0,
        });
        books.queued = queued.sum();
        books
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Notes what happens to a number.
    pub(super) fn note_at(&mut self, number: i32, event: Event) {
        self.note_on(world::boot_of(number), event);
    }

    /// Notes what happens on a host.
    pub(super) fn note_on(&mut self, boot: usize, event: Event) {
        let boot = &mut self.boots[boot];
        // An attempt in vain is no news for the other cores: theirs would be news for this one, and
        // so on for ever.
        let in_vain = match event {
            Event::Received { result, .. } | Event::Sent { result, .. } => result == -libc::EAGAIN,
            _ => false,
        };
        boot.changes += u64::from(!in_vain);
        self.trace.note(self.now, Some(boot.host), event);
    }

    /// The program has come to a site: what goes wrong there?
    pub(super) fn ask(&mut self, boot: usize, site: Site) -> Option<Fault> {
        let fault = self.plan.ask(site);
        if let Some(fault) = fault {
            self.note_on(boot, Event::Planned { site, fault });
        }
        fault
    }

    /// A call on a number answers an error; and what that says of its connection is so.
    pub(super) fn fail_call(&mut self, number: i32, error: i32) -> i32 {
        if breaks_connection(error) {
            // None, or not yet: there is nothing to break.
            let _ = self.disconnect(number);
        }
        -error
    }

    pub(super) fn open_socket(&mut self, boot: usize, v4: bool) -> i32 {
        self.open(boot, Kind::Fresh { local: None }, v4, Vec::new())
    }

    /// # Panics
    ///
    /// When the host has more descriptors than a number can name.
    pub(super) fn open(
        &mut self,
        boot: usize,
        kind: Kind,
        v4: bool,
        options: Vec<(i32, i32, Vec<u8>)>,
    ) -> i32 {
        let socket = Some(Socket { kind, v4, options, requests: 0 });
        let sockets = &mut self.boots[boot].sockets;
        let index = match sockets.iter().position(Option::is_none) {
            Some(index) => {
                sockets[index] = socket;
                index
            }
            None => {
                sockets.push(socket);
                sockets.len() - 1
            }
        };
        assert!(index < 1 << INDEX_BITS, "a simulated host has at most 16,384 descriptors");
        FIRST + ((boot << INDEX_BITS) | index) as i32
    }

    pub(super) fn entry(&mut self, number: i32) -> Option<&mut Option<Socket>> {
        let index = (number - FIRST) as usize & ((1 << INDEX_BITS) - 1);
        self.boots.get_mut(world::boot_of(number))?.sockets.get_mut(index)
    }

    pub(super) fn socket(&mut self, number: i32) -> Result<&mut Socket, i32> {
        self.entry(number).and_then(Option::as_mut).ok_or(-libc::EBADF)
    }

    /// The connection that a number is an end of, and which.
    pub(super) fn end(&mut self, number: i32) -> Result<(u64, Side), i32> {
        match self.socket(number)?.kind {
            Kind::Stream { connection, side } => Ok((connection, side)),
            _ => Err(-libc::ENOTCONN),
        }
    }

    pub(super) fn stream(&mut self, number: i32) -> Result<(&mut Connection, Side), i32> {
        let (id, side) = self.end(number)?;
        let connection = self.connections.get_mut(&id);
        Ok((connection.expect("it is there while an end is open"), side))
    }

    pub(super) fn listening(&mut self, number: i32) -> Result<&mut Listening, i32> {
        match &mut self.socket(number)?.kind {
            Kind::Listening(listening) => Ok(listening),
            _ => Err(-libc::EINVAL),
        }
    }

    /// A handshake of the number's is under way, or has failed and nobody has heard of it.
    pub(super) fn is_connecting(&mut self, number: i32) -> bool {
        matches!(self.socket(number), Ok(Socket { kind: Kind::Connecting(_), .. }))
    }

    /// A request begins to name a number, or ends to.
    pub(super) fn hold(&mut self, number: i32, begins: bool) {
        if number < FIRST || !self.boots[world::boot_of(number)].is_up {
            return;
        }
        let socket = self.socket(number).unwrap_or_else(|_| {
            panic!("a request names descriptor {:#x}, which is not open", number)
        });
        socket.requests = if begins { socket.requests + 1 } else { socket.requests - 1 };
    }

    pub(super) fn close(&mut self, number: i32) -> i32 {
        // What a host had open when it went down went with it.
        if !self.boots[world::boot_of(number)].is_up {
            return -libc::EBADF;
        }
        self.note_at(number, Event::Closed { number });
        let socket = self.entry(number).and_then(Option::take);
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
        match socket {
            Some(socket) => self.close_socket(world::boot_of(number), socket),
            None => -libc::EBADF,
        }
    }

    /// What the kernel does when the last number of a socket is closed.
    pub(super) fn close_socket(&mut self, boot: usize, socket: Socket) -> i32 {
        let resets = socket.resets_on_close();
        match socket.kind {
            Kind::Fresh { .. } | Kind::Connecting(_) => {}
            Kind::File(handle) => return self.disk_of(boot).close(handle),
            Kind::Stream { connection, side } => self.close_end(connection, side, resets),
            Kind::Listening(listening) => {
                for connection in listening.backlog {
                    self.books.refused += 1;
                    self.close_end(connection, 1, true);
                }
            }
        }
        0
    }

    pub(super) fn close_end(&mut self, id: u64, side: Side, resets: bool) {
        let connection = self.connections.get_mut(&id).expect("it is there while an end is open");
        let farewell = connection.close(side, resets);
        if connection.is_closed() {
            return self.forget(id);
        }
        match farewell {
            Farewell::Nothing => {}
            Farewell::Fin => self.send_fin(id, side),
            Farewell::Reset => self.send_reset(id, side),
        }
    }

    pub(super) fn bind(&mut self, number: i32, mut address: SocketAddr) -> i32 {
        let boot = world::boot_of(number);
        if !self.is_local(boot, address.ip()) {
            return -libc::EADDRNOTAVAIL;
        }
        if address.port() == 0 {
            address.set_port(self.ephemeral_port(boot));
        }
        let overlaps = |local: &SocketAddr| {
            local.port() == address.port()
                && (local.ip() == address.ip()
                    || local.ip().is_unspecified()
                    || address.ip().is_unspecified())
        };
        let taken = self.boots[boot].sockets.iter().flatten().any(|socket| match &socket.kind {
            Kind::Listening(listening) => overlaps(&listening.local),
            _ => false,
        });
        match self.socket(number) {
            Err(error) => error,
            Ok(socket) if taken && !socket.is_on(libc::SOL_SOCKET, libc::SO_REUSEPORT) => {
                -libc::EADDRINUSE
            }
            Ok(Socket { kind: Kind::Fresh { local: local @ None }, v4, .. })
                if *v4 == address.is_ipv4() =>
            {
                *local = Some(address);
                0
            }
            Ok(_) => -libc::EINVAL,
        }
    }

    pub(super) fn listen(&mut self, number: i32, backlog: i32) -> i32 {
        let boot = world::boot_of(number);
        let (id, port) = (self.next_id(), self.ephemeral_port(boot));
        let socket = match self.socket(number) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        let Kind::Fresh { local } = &socket.kind else { return -libc::EINVAL };
        let mut address = local.unwrap_or(unspecified(socket.v4));
        if address.port() == 0 {
            address.set_port(port);
        }
        let is_dual = !socket.is_on(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        socket.kind = Kind::Listening(Listening::new(id, address, is_dual, backlog));
        self.note_at(number, Event::Listens { number, address });
        0
    }

    pub(super) fn local_address(&mut self, number: i32) -> Result<SocketAddr, i32> {
        if let Ok((connection, side)) = self.stream(number) {
            return Ok(connection.ends[side].address);
        }
        let socket = self.socket(number)?;
        Ok(match &socket.kind {
            Kind::Fresh { local: Some(local) } => *local,
            Kind::Listening(listening) => listening.local,
            Kind::Connecting(connecting) => connecting.local,
            Kind::Fresh { local: None } | Kind::Stream { .. } => unspecified(socket.v4),
            Kind::File(_) => return Err(-libc::ENOTSOCK),
        })
    }

    pub(super) fn set_option(&mut self, number: i32, level: i32, name: i32, value: &[u8]) -> i32 {
        let socket = match self.socket(number) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        socket.options.retain(|(at, of, _)| (*at, *of) != (level, name));
        socket.options.push((level, name, value.to_vec()));
        if (level, name) == (libc::SOL_SOCKET, libc::SO_SNDBUF) {
            self.resize(number, value);
        }
        0
    }

    /// A connection's own send buffer; what a listener has been given is not inherited.
    fn resize(&mut self, number: i32, value: &[u8]) {
        let Some(size) = value.first_chunk().map(|size| i32::from_ne_bytes(*size)) else { return };
        let size = usize::try_from(size).unwrap_or(0).max(SNDBUF_MIN);
        let told = self.stream(number).map(|(stream, side)| stream.resize(side, size));
        if told == Ok(true) {
            self.boots[world::boot_of(number)].changes += 1;
        }
    }

    pub(super) fn option(&mut self, number: i32, level: i32, name: i32, into: &mut [u8]) -> i32 {
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

    pub(super) fn shut_down(&mut self, number: i32, how: Shutdown) -> i32 {
        let (id, side) = match self.end(number) {
            Ok(end) => end,
            Err(error) => return error,
        };
        let connection = self.connections.get_mut(&id).expect("it is there while an end is open");
        let result = connection.shut_down(side, how);
        if result == 0 {
            self.send_fin(id, side);
        }
        self.note_at(number, Event::ShutDown { number, result });
        result
    }

    pub(super) fn disconnect(&mut self, number: i32) -> i32 {
        let (id, side) = match self.end(number) {
            Ok(end) => end,
            Err(error) => return error,
        };
        let connection = self.connections.get_mut(&id).expect("it is there while an end is open");
        if connection.disconnect(side) {
            self.send_reset(id, side);
        }
        self.note_at(number, Event::Disconnected { number });
        0
    }

    pub(super) fn receive(&mut self, number: i32, room: usize, peek: bool) -> Result<Vec<u8>, i32> {
        let (id, side) = self.end(number)?;
        let connection = self.connections.get_mut(&id).expect("it is there while an end is open");
        let received = connection.receive(side, room, peek);
        let result = received.as_ref().map_or_else(|error| *error, |bytes| bytes.len() as i32);
        if result > 0 && !peek {
            self.books.bytes_received += result as u64;
            self.send_answer(id, side);
        }
        self.note_at(number, Event::Received { number, result });
        received
    }

    pub(super) fn send(&mut self, number: i32, bytes: &[u8]) -> i32 {
        let result = match self.end(number) {
            Ok((id, side)) => {
                let connection = self.connections.get_mut(&id).expect("an end is open");
                let count = connection.send(side, bytes);
                if count > 0 {
                    self.books.bytes_sent += count as u64;
                    self.send_bytes(id, side, count as usize);
                }
                count
            }
            Err(_) => -libc::EPIPE,
        };
        self.note_at(number, Event::Sent { number, result });
        result
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
        let boot = world::boot_of(number);
        Some(self.open(boot, Kind::Stream { connection, side: 1 }, v4, options))
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
