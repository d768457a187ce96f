//! What has happened in a simulation, as one number, and as lines for who has to read it.
//!
//! Two runs of a seed that give the same hash made the same choices in the same order. The last
//! events are kept, for whoever asks after a failure; with `QUOIT_SIMULATION_TRACE` set, each event
//! is a line on standard error when it happens.

use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::net::SocketAddr;

use super::host::Crash;
use super::plan::{Fault, Site};
use super::random::mix;
use crate::io::request::Request;
use crate::io::system::signals::Signal;

/// So many events are kept.
const KEPT: usize = 200;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Submitted { token: u64, what: &'static str, number: i32 },
    Cancelled { token: u64 },
    Completed { token: u64, what: &'static str, result: i32, flags: u32 },
    Connected { number: i32 },
    NotConnected { number: i32, error: i32 },
    Listens { number: i32, address: SocketAddr },
    Queued { at: SocketAddr },
    Closed { number: i32 },
    Disconnected { number: i32 },
    ShutDown { number: i32, result: i32 },
    Sent { number: i32, result: i32 },
    Received { number: i32, result: i32 },
    Arrived { at: SocketAddr, count: usize },
    FinArrived { at: SocketAddr },
    Failed { at: SocketAddr, error: i32 },
    Booted,
    Crashed { how: Crash },
    Left,
    Blocked { to: usize, is_blocked: bool },
    ClockJumped,
    Signalled { signal: Signal },
    Planned { site: Site, fault: Fault },
    Said { text: Box<str> },
}

/// The name of a request in the trace.
pub(super) fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Nop(_) => "nop",
        Request::Poll(_) => "poll",
        Request::Accept(_) => "accept",
        Request::Connect(_) => "connect",
        Request::ReceiveMany(_) => "receive",
        Request::SendBytes(_) => "send",
        Request::Open(_) => "open",
        Request::ReadAt(_) => "read at",
        Request::WriteAt(_) => "write at",
        Request::Synchronize(_) => "synchronize",
        Request::SetLength(_) => "set length",
        Request::Allocate(_) => "allocate",
        Request::Metadata(_) => "metadata",
        Request::Close(_) => "close",
    }
}

impl Event {
    /// The same for the same event in every run: no address of memory is in it.
    fn words(&self) -> [u64; 4] {
        let signed = |value: i32| value as u64;
        let port = |address: &SocketAddr| u64::from(address.port());
        match self {
            Self::Submitted { token, number, .. } => [1, *token, signed(*number), 0],
            Self::Cancelled { token } => [2, *token, 0, 0],
            Self::Completed { token, result, flags, .. } => {
                [3, *token, signed(*result), u64::from(*flags)]
            }
            Self::Connected { number } => [4, signed(*number), 0, 0],
            Self::Closed { number } => [5, signed(*number), 0, 0],
            Self::ShutDown { number, result } => [6, signed(*number), signed(*result), 0],
            Self::Sent { number, result } => [7, signed(*number), signed(*result), 0],
            Self::Received { number, result } => [8, signed(*number), signed(*result), 0],
            Self::Arrived { at, count } => [9, port(at), *count as u64, 0],
            Self::FinArrived { at } => [10, port(at), 0, 0],
            Self::Failed { at, error } => [11, port(at), signed(*error), 0],
            Self::Disconnected { number } => [12, signed(*number), 0, 0],
            Self::NotConnected { number, error } => [13, signed(*number), signed(*error), 0],
            Self::Listens { number, address } => [14, signed(*number), port(address), 0],
            Self::Queued { at } => [15, port(at), 0, 0],
            Self::Booted => [16, 0, 0, 0],
            Self::Crashed { how } => [17, u64::from(*how == Crash::Kill), 0, 0],
            Self::Blocked { to, is_blocked } => [18, *to as u64, u64::from(*is_blocked), 0],
            Self::ClockJumped => [19, 0, 0, 0],
            Self::Left => [21, 0, 0, 0],
            Self::Signalled { signal } => [23, *signal as u64, 0, 0],
            Self::Planned { site, fault } => match fault {
                Fault::Fails(error) => [22, *site as u64, 0, signed(*error)],
                Fault::Late => [22, *site as u64, 1, 0],
                Fault::Short => [22, *site as u64, 2, 0],
            },
            Self::Said { text } => {
                let digest = text.bytes().fold(0, |digest, byte| mix(digest ^ u64::from(byte)));
                [20, digest, 0, 0]
            }
        }
    }
}

/// A number or an error, as strace(1) shows them.
struct Answer(i32);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number @ super::world::FIRST.. => write!(f, "descriptor {number:#x}"),
            number @ 0.. => write!(f, "{number}"),
            error => write!(f, "{}", std::io::Error::from_raw_os_error(-error)),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { token, what, number } if *number < 0 => {
                write!(f, "submits {what} [{token:x}]")
            }
            Self::Submitted { token, what, number } => {
                write!(f, "submits {what} on {number:#x} [{token:x}]")
            }
            Self::Cancelled { token } => write!(f, "cancels [{token:x}]"),
            Self::Completed { token, what, result, flags } => {
                let more = if flags & 2 == 0 { ", the last" } else { "" };
                write!(f, "{what} answers {}{more} [{token:x}]", Answer(*result))
            }
            Self::Connected { number } => write!(f, "{number:#x} is connected"),
            Self::NotConnected { number, error } => {
                write!(f, "{number:#x} is not connected: {}", Answer(-error))
            }
            Self::Listens { number, address } => write!(f, "{number:#x} listens on {address}"),
            Self::Queued { at } => write!(f, "a connection is queued at {at}"),
            Self::Closed { number } => write!(f, "closes {number:#x}"),
            Self::Disconnected { number } => write!(f, "resets {number:#x}"),
            Self::ShutDown { number, result } => {
                write!(f, "shuts {number:#x} down: {}", Answer(*result))
            }
            Self::Sent { number, result } => write!(f, "sends on {number:#x}: {}", Answer(*result)),
            Self::Received { number, result } => {
                write!(f, "receives on {number:#x}: {}", Answer(*result))
            }
            Self::Arrived { at, count } => write!(f, "{count} bytes arrive at {at}"),
            Self::FinArrived { at } => write!(f, "the end of the stream arrives at {at}"),
            Self::Failed { at, error } => write!(f, "{at} fails: {}", Answer(-error)),
            Self::Booted => f.write_str("starts"),
            Self::Crashed { how } => write!(f, "crashes ({how:?})"),
            Self::Blocked { to, is_blocked } => {
                let does = if *is_blocked { "does not reach" } else { "reaches" };
                write!(f, "{does} host {to}")
            }
            Self::Left => f.write_str("ends"),
            Self::ClockJumped => f.write_str("has another time"),
            Self::Signalled { signal } => write!(f, "gets a signal ({signal:?})"),
            Self::Planned { site, fault } => write!(f, "{site:?}, as planned, {fault}"),
            Self::Said { text } => write!(f, "says: {text}"),
        }
    }
}

/// An event, and when and where it was.
#[derive(Debug)]
struct Entry {
    time: u64,
    host: Option<usize>,
    event: Event,
}

#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    last: VecDeque<Entry>,
    is_told: bool,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        let is_told = env::var_os("QUOIT_SIMULATION_TRACE").is_some();
        Self { hash: mix(seed), events: 0, last: VecDeque::new(), is_told }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(&mut self, time: u64, host: Option<usize>, event: Event) {
        if self.is_told {
            let host = host.map_or_else(String::new, |host| host.to_string());
            eprintln!("{:>16.6} ms  {host:>3}  {event}", time as f64 / 1e6);
        }
        let place = time << 8 ^ host.map_or(0xff, |host| host as u64);
        for word in [place].into_iter().chain(event.words()) {
            self.hash = mix(self.hash.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ word);
        }
        self.events += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Entry { time, host, event });
    }

    /// The last events, one a line.
    pub(super) fn tell(&self, name: impl Fn(usize) -> String) -> String {
        let before = self.events - self.last.len() as u64;
        let mut text = match before {
            0 => String::new(),
            before => format!("  ({before} events before these)\n"),
        };
        for Entry { time, host, event } in &self.last {
            let host = host.map_or_else(String::new, &name);
            text += &format!("{:>16.6} ms  {host:<12} {event}\n", *time as f64 / 1e6);
        }
        text
    }
}
