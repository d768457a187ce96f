//! The load generator: one thread, one epoll, no runtime.
//!
//! It must not be built on what it measures, and it must cost little, because in the cost cells it
//! shares a core with the server. So it is a plain readiness loop: edge-triggered, every socket
//! registered once, one `recv` and one `send` per batch of messages, nothing allocated per message.
//!
//! ```text
//!   connect in waves ──▶ one message each ──▶ warm-up ──▶ drain ──▶ Phase::Ready
//!                                                                      │ measured
//!                                              Phase::Finished ◀── drain ┘
//! ```
//!
//! Both phases begin and end with nothing in flight, so that a server's counters read at the two
//! marks belong to exactly the messages counted between them.
//!
//! Every echoed byte is compared. Connection `i` sends one endless stream cut from a repeating
//! table, starting at a place of its own; the table is longer than its period by a whole chunk, so
//! both sending and comparing are one slice, without a copy. The period is prime: lost, doubled or
//! swapped chunks of any usual size do not match.
//!
//! Closed loop (the default): the clock of a message starts when it is handed to the kernel. Open
//! loop (`rate`): it starts when the message was *planned*, so that a server that stalls is charged
//! for all the messages that had to wait (no coordinated omission).
//!
//! This file is the interface, `client.rs` the loop, `system.rs` what the loop asks of Linux. They
//! use `std`, `libc`, `socket2` and `hdrhistogram` only; another package may include the three side
//! by side in one module.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::client::Client;
use super::system::Pinned;

/// What to do to a server.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The echo server.
    pub(crate) address: SocketAddr,
    /// Connections open at once.
    pub(crate) connections: usize,
    /// Bytes per message.
    pub(crate) length: usize,
    /// Messages in flight per connection; `Mode::Stream` and the open loop only, otherwise 1.
    pub(crate) depth: usize,
    /// Which conversation.
    pub(crate) mode: Mode,
    /// How long to measure.
    pub(crate) duration: Duration,
    /// How long to load before measuring.
    pub(crate) warmup: Duration,
    /// Messages per second over all connections; `None`: each as soon as the last was answered.
    pub(crate) rate: Option<u64>,
    /// Stops the measurement early, after this many messages.
    pub(crate) limit: Option<u64>,
    /// The core to run on; the thread's own affinity is restored afterwards.
    pub(crate) pin: Option<usize>,
}

/// The conversation on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One message in flight.
    PingPong,
    /// `depth` messages in flight.
    Stream,
    /// Connect, one message, close, again; a message's time includes its connect.
    Churn,
    /// One message each, then silence for the duration.
    Idle,
}

/// The two moments at which a caller may want to read the server's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All connected, warm, nothing in flight: the measurement starts when the call returns.
    Ready,
    /// The last measured message is back; connections are still open.
    Finished,
}

/// What was measured between [`Phase::Ready`] and [`Phase::Finished`].
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Messages echoed in full and compared.
    pub(crate) messages: u64,
    /// Their bytes, one way.
    pub(crate) bytes: u64,
    /// From the first send to the last answer.
    pub(crate) elapsed: Duration,
    /// Nanoseconds per message.
    pub(crate) histogram: Histogram<u64>,
    /// Messages of the connection that got fewest: with the next field, the fairness figure.
    pub(crate) per_connection_min: u64,
    /// Messages of the connection that got most.
    pub(crate) per_connection_max: u64,
    /// Connections lost or refused, by cause.
    pub(crate) errors: Vec<Failure>,
    /// Open loop: messages planned that could not be sent before the end (the server is too slow).
    pub(crate) unsent: u64,
}

/// One cause of failed connections.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What the kernel said.
    pub(crate) cause: String,
    /// How often.
    pub(crate) count: u64,
}

impl Load {
    /// One connection, 64 bytes, ping-pong, two seconds after half a second of warm-up.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 1,
            length: 64,
            depth: 1,
            mode: Mode::PingPong,
            duration: Duration::from_secs(2),
            warmup: Duration::from_millis(500),
            rate: None,
            limit: None,
            pin: None,
        }
    }
}

/// Runs one load to its end.
///
/// # Errors
///
/// When the server cannot be reached, answers wrong bytes, stops answering for ten seconds, or
/// drops every connection. Single lost connections do not end the run; they are in
/// [`Outcome::errors`].
pub(crate) fn run(load: &Load) -> io::Result<Outcome> {
    run_with(load, &mut |_| Ok(()))
}

/// Like [`run`], and calls `mark` at both ends of the measurement.
pub(crate) fn run_with(
    load: &Load,
    mark: &mut dyn FnMut(Phase) -> io::Result<()>,
) -> io::Result<Outcome> {
    let _pinned = load.pin.map(Pinned::to).transpose()?;
    let mut client = Client::new(load)?;
    client.establish()?;
    if load.mode == Mode::Idle {
        mark(Phase::Ready)?;
        client.hold(load.duration)?;
        mark(Phase::Finished)?;
        return Ok(client.outcome());
    }
    if !load.warmup.is_zero() {
        client.drive(load.warmup, u64::MAX)?;
    }
    client.reset();
    mark(Phase::Ready)?;
    client.drive(load.duration, load.limit.unwrap_or(u64::MAX))?;
    mark(Phase::Finished)?;
    Ok(client.outcome())
}
