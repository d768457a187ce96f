//! The load generator's loop: what is in flight, what is due, what came back.
//!
//! A message is *issued* (its clock starts, its bytes are owed), *pushed* (the kernel takes them),
//! and *answered* (its last byte was read and compared). `turn` waits once and handles all that is
//! ready; whoever calls it decides when to stop issuing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::{Domain, Socket, Type};

use super::load::{Failure, Load, Mode, Outcome};
use super::system::{Poller, set_cubic};

/// Answered bytes are read, and sent ones cut, in chunks of at most this.
const CHUNK: usize = 64 * 1024;
/// Prime, so that no usual length is a multiple of it.
const PERIOD: usize = 4093;
/// Connections opened before their first answers are awaited: below every usual listen backlog.
const WAVE: usize = 128;
/// A server that answers nothing for this long has failed.
const STALL: Duration = Duration::from_secs(10);
/// Failed connections after which a run is pointless.
const MAX_FAILURES: u64 = 10_000;

/// One connection's place in its stream of messages.
struct Connection {
    stream: Option<TcpStream>,
    /// Where in the table the next byte to send stands, and the next to be seen.
    send_at: usize,
    seen_at: usize,
    /// Bytes of issued messages that the kernel has not taken yet.
    owed: usize,
    /// Bytes seen of the oldest message in flight.
    partial: usize,
    /// Messages issued and answered in this phase; the difference is in flight.
    issued: u64,
    answered: u64,
}

impl Connection {
    fn in_flight(&self) -> usize {
        (self.issued - self.answered) as usize
    }
}

pub(super) struct Client<'a> {
    load: &'a Load,
    depth: usize,
    table: Vec<u8>,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
    /// When each message in flight started: `depth` nanosecond stamps per connection, a ring.
    stamps: Vec<u64>,
    poller: Poller,
    base: Instant,
    histogram: Histogram<u64>,
    failures: Vec<Failure>,
    failed: u64,
    live: usize,
    /// Sum over all connections.
    in_flight: usize,
    messages: u64,
    /// Messages each connection may issue in a closed loop; 0 while draining.
    quota: u64,
    /// Open loop, while it runs: messages planned so far. They go to the connections in turn.
    planned: Option<u64>,
    started: u64,
    last_answer: u64,
    /// Churn: connections opened so far, which picks their source address.
    opened: u32,
}

impl<'a> Client<'a> {
    pub(super) fn new(load: &'a Load) -> io::Result<Self> {
        if load.connections == 0 || load.length == 0 || load.depth == 0 || load.rate == Some(0) {
            let text = "connections, length, depth and rate must be at least 1";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let depth = if load.mode == Mode::Stream || load.rate.is_some() { load.depth } else { 1 };
        Ok(Self {
            load,
            depth,
            table: table(),
            buffer: vec![0; CHUNK],
            connections: Vec::with_capacity(load.connections),
            stamps: vec![0; depth * load.connections],
            poller: Poller::new()?,
            base: Instant::now(),
            histogram: Histogram::new_with_bounds(1, 100_000_000_000, 3)
                .map_err(io::Error::other)?,
            failures: Vec::new(),
            failed: 0,
            live: 0,
            in_flight: 0,
            messages: 0,
            quota: 0,
            planned: None,
            started: 0,
            last_answer: 0,
            opened: 0,
        })
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    /// Opens all connections, and makes sure the server has accepted each by one echoed message.
    pub(super) fn establish(&mut self) -> io::Result<()> {
        let total = self.load.connections;
        self.connections.extend((0..total).map(|_| Connection {
            stream: None,
            send_at: 0,
            seen_at: 0,
            owed: 0,
            partial: 0,
            issued: 0,
            answered: 0,
        }));
        if self.load.mode == Mode::Churn {
            // One trial, so that a server that is not there is an error and not a statistic.
            let address = self.load.address;
            let trial = TcpStream::connect_timeout(&address, STALL).map(drop);
            return trial.map_err(|error| {
                io::Error::new(error.kind(), format!("connecting to {address}: {error}"))
            });
        }
        self.quota = 1;
        for first in (0..total).step_by(WAVE) {
            for id in first..(first + WAVE).min(total) {
                self.open(id).map_err(|error| at_connection(&error, id, total))?;
            }
            while self.in_flight > 0 {
                self.turn(STALL)?;
            }
            if let Some(failure) = self.failures.first() {
                let text = format!("connecting to {}: {}", self.load.address, failure.cause);
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
            }
        }
        Ok(())
    }

    /// Keeps every connection busy for `time` or `limit` messages, then waits for what is in
    /// flight.
    pub(super) fn drive(&mut self, time: Duration, limit: u64) -> io::Result<()> {
        self.reset();
        self.quota = u64::MAX;
        self.planned = self.load.rate.map(|_| 0);
        let end = self.started + time.as_nanos() as u64;
        for id in 0..self.connections.len() {
            if self.connections[id].stream.is_none() && self.load.mode == Mode::Churn {
                self.reopen(id)?;
            } else {
                self.issue(id, self.now());
                self.push(id);
            }
        }
        loop {
            let now = self.now();
            if self.quota > 0 && (now >= end || self.messages >= limit) {
                self.quota = 0;
            }
            if (self.quota == 0 && self.in_flight == 0) || self.live == 0 {
                break;
            }
            let mut wait = STALL;
            if self.quota > 0 {
                wait = Duration::from_nanos(end - now);
                if let Some(next) = self.release(now) {
                    wait = wait.min(Duration::from_nanos(next.saturating_sub(now)));
                }
            }
            self.turn(wait.min(STALL))?;
            if self.failed > MAX_FAILURES {
                break;
            }
        }
        match self.failures.first() {
            Some(failure) if self.live == 0 && self.load.mode != Mode::Churn => {
                let text = format!("all connections were lost: {}", failure.cause);
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
            _ => Ok(()),
        }
    }

    /// Open loop: issues what is due at `now`, and says when the next message is.
    fn release(&mut self, now: u64) -> Option<u64> {
        let mut planned = self.planned?;
        while self.planned_at(planned) <= now {
            let id = (planned % self.connections.len() as u64) as usize;
            planned += 1;
            self.planned = Some(planned);
            self.issue(id, now);
            self.push(id);
        }
        Some(self.planned_at(planned))
    }

    fn planned_at(&self, index: u64) -> u64 {
        let rate = u128::from(self.load.rate.unwrap_or(1));
        self.started + (u128::from(index) * 1_000_000_000 / rate) as u64
    }

    /// Says nothing for `time`, and notices who is hung up on.
    pub(super) fn hold(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Forgets what was counted: a phase starts.
    pub(super) fn reset(&mut self) {
        self.histogram.reset();
        self.messages = 0;
        self.quota = 0;
        self.planned = None;
        self.started = self.now();
        self.last_answer = self.started;
        for connection in &mut self.connections {
            connection.issued = 0;
            connection.answered = 0;
        }
    }

    /// One wait, and all that it brought.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let count = self.poller.wait(wait)?;
        for index in 0..count {
            let (id, flags) = self.poller.event(index);
            if flags & libc::EPOLLOUT != 0 && self.connections[id].owed > 0 {
                self.push(id);
            }
            if flags & !libc::EPOLLOUT != 0 {
                // After a hang-up no further edge comes, so this one reads to the very end.
                self.pull(id, flags & !(libc::EPOLLOUT | libc::EPOLLIN) != 0)?;
            }
        }
        if self.in_flight > 0 && self.now() - self.last_answer > STALL.as_nanos() as u64 {
            let text = format!(
                "the server has answered nothing for {} s; {} messages are in flight",
                STALL.as_secs(),
                self.in_flight
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(())
    }

    /// Reads what has come, compares it, and answers it with as many new messages.
    fn pull(&mut self, id: usize, to_the_end: bool) -> io::Result<()> {
        loop {
            let Some(stream) = &mut self.connections[id].stream else { return Ok(()) };
            match stream.read(&mut self.buffer) {
                Ok(0) => {
                    self.lose(id, "closed by the server".to_owned());
                    return Ok(());
                }
                Ok(count) => {
                    self.compare(id, count)?;
                    // A short read means drained: the next byte is a new edge.
                    if count < self.buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(id, format!("receive: {error}"));
                    return Ok(());
                }
            }
        }
        if self.load.mode == Mode::Churn {
            if self.connections[id].in_flight() == 0 {
                self.connections[id].stream = None;
                self.live -= 1;
                return self.reopen(id);
            }
            return Ok(());
        }
        self.issue(id, self.last_answer);
        self.push(id);
        Ok(())
    }

    /// Checks `count` bytes of the buffer and completes the messages they end.
    fn compare(&mut self, id: usize, count: usize) -> io::Result<()> {
        let now = self.base.elapsed().as_nanos() as u64;
        let connection = &mut self.connections[id];
        let length = self.load.length;
        let expected = connection.in_flight() * length - connection.partial - connection.owed;
        let wanted = &self.table[connection.seen_at..connection.seen_at + count];
        if count > expected || self.buffer[..count] != *wanted {
            return Err(wrong_bytes(id, connection, &self.buffer[..count], wanted, expected));
        }
        connection.seen_at = (connection.seen_at + count) % PERIOD;
        connection.partial += count;
        while connection.partial >= length {
            connection.partial -= length;
            let slot = id * self.depth + (connection.answered % self.depth as u64) as usize;
            connection.answered += 1;
            self.histogram.saturating_record(now.saturating_sub(self.stamps[slot]));
            self.messages += 1;
            self.in_flight -= 1;
        }
        self.last_answer = now;
        Ok(())
    }

    /// Starts as many messages as depth and plan allow; `push` hands them to the kernel.
    fn issue(&mut self, id: usize, now: u64) {
        let total = self.connections.len() as u64;
        let due = match self.planned {
            Some(planned) if self.quota > 0 => {
                planned / total + u64::from((id as u64) < planned % total)
            }
            _ => self.quota,
        };
        while self.connections[id].stream.is_some() {
            let connection = &self.connections[id];
            if connection.issued >= due || connection.in_flight() >= self.depth {
                break;
            }
            let slot = id * self.depth + (connection.issued % self.depth as u64) as usize;
            self.stamps[slot] = match self.planned {
                Some(_) => self.planned_at(connection.issued * total + id as u64),
                None => now,
            };
            let connection = &mut self.connections[id];
            connection.issued += 1;
            connection.owed += self.load.length;
            self.in_flight += 1;
        }
    }

    /// Hands owed bytes to the kernel until there are none or it takes no more.
    fn push(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let Some(stream) = &mut connection.stream else { return };
        while connection.owed > 0 {
            let end = connection.send_at + connection.owed.min(CHUNK);
            match stream.write(&self.table[connection.send_at..end]) {
                Ok(count) => {
                    connection.owed -= count;
                    connection.send_at = (connection.send_at + count) % PERIOD;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose(id, format!("send: {error}")),
            }
        }
    }

    /// Connects slot `id` and gives it its first message. The connect is not waited for: until it
    /// is through, a send would block like any other, and its failure is the send's or receive's
    /// error.
    fn open(&mut self, id: usize) -> io::Result<()> {
        let now = self.now();
        let stream = self.connect()?;
        self.poller.add(&stream, id)?;
        let connection = &mut self.connections[id];
        connection.stream = Some(stream);
        connection.owed = 0;
        connection.partial = 0;
        connection.send_at = id * 1009 % PERIOD;
        connection.seen_at = connection.send_at;
        self.live += 1;
        if self.in_flight == 0 {
            self.last_answer = now; // the stall clock starts with the first message out
        }
        self.issue(id, now);
        self.push(id);
        Ok(())
    }

    /// Churn: the next connection in this slot, unless the phase is over.
    fn reopen(&mut self, id: usize) -> io::Result<()> {
        if self.quota == 0 {
            return Ok(());
        }
        match self.open(id) {
            Err(error) if self.live == 0 => Err(error),
            Err(error) => {
                self.fail(format!("connect: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        let address = self.load.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        // Absent on kernels built without it; the server's own setting decides there.
        let _ = set_cubic(&socket);
        if self.load.mode == Mode::Churn && address.ip().is_loopback() && address.is_ipv4() {
            // The closing side keeps its port for a minute; many source addresses have many ports.
            self.opened = self.opened.wrapping_add(1);
            let [_, _, high, low] = self.opened.to_be_bytes();
            let source = Ipv4Addr::new(127, 1, high & 0x0f, low.max(1));
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket.into()),
        }
    }

    /// Gives up a connection and what it had in flight.
    fn lose(&mut self, id: usize, cause: String) {
        let connection = &mut self.connections[id];
        connection.stream = None;
        self.in_flight -= connection.in_flight();
        connection.issued = connection.answered;
        connection.owed = 0;
        self.live -= 1;
        self.fail(cause);
    }

    fn fail(&mut self, cause: String) {
        self.failed += 1;
        match self.failures.iter_mut().find(|failure| failure.cause == cause) {
            Some(failure) => failure.count += 1,
            None => self.failures.push(Failure { cause, count: 1 }),
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        let answered = self.connections.iter().map(|connection| connection.answered);
        let planned = self.planned.unwrap_or(0);
        Outcome {
            messages: self.messages,
            bytes: self.messages * self.load.length as u64,
            elapsed: Duration::from_nanos(self.last_answer - self.started),
            per_connection_min: answered.clone().min().unwrap_or(0),
            per_connection_max: answered.max().unwrap_or(0),
            histogram: self.histogram,
            errors: self.failures,
            unsent: planned.saturating_sub(self.messages),
        }
    }
}

/// The repeating bytes: one period of a fixed pseudo-random sequence, and then a chunk more.
fn table() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    bytes.resize(PERIOD + CHUNK, 0);
    for index in PERIOD..bytes.len() {
        bytes[index] = bytes[index - PERIOD];
    }
    bytes
}

fn at_connection(error: &io::Error, id: usize, total: usize) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE) => " (raise the limit of open descriptors: ulimit -n)",
        Some(libc::EADDRNOTAVAIL) => " (no local port is free: net.ipv4.ip_local_port_range)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("connection {} of {total}: {error}{remedy}", id + 1))
}

fn wrong_bytes(
    id: usize,
    connection: &Connection,
    seen: &[u8],
    wanted: &[u8],
    expected: usize,
) -> io::Error {
    let text = match seen.iter().zip(wanted).position(|(seen, wanted)| seen != wanted) {
        Some(place) => format!(
            "connection {id}, message {}, byte {}: sent {:#04x}, echoed {:#04x}",
            connection.answered,
            connection.partial + place,
            wanted[place],
            seen[place]
        ),
        None => format!("connection {id}: {} bytes echoed where {expected} were due", seen.len()),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("the echo is wrong: {text}"))
}
