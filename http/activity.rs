//! What the parts of one connection tell each other: its wire, its service, its task.
//!
//! hyper owns the wire and the service once it serves them, so what its task has to know in order
//! to judge idleness is written down here. All of it happens on one core; it is atomic because an
//! upgraded wire has to be `Send`, and no order between the fields matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use quoit::time::Instant;

#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    /// Requests that came, and those among them whose response is not complete.
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// There is no HTTP yet.
    in_handshake: AtomicBool,
    /// HTTP/1 has not come to the next head yet: a body may still come whose response has ended.
    in_message: AtomicBool,
    /// Reads that brought something, and writes that did something for a request.
    reads: AtomicU64,
    writes: AtomicU64,
    /// The peer has not taken what is to be written, whose request may have ended: hyper is done
    /// with a body when it has all of it.
    stalled: AtomicBool,
    /// When the last request was over, or something was last written for it, in nanoseconds since
    /// birth; and the reads until it was over.
    idle_after: AtomicU64,
    reads_then: AtomicU64,
    /// A request has made a tunnel of one of the streams: silence says nothing any more.
    tunnel: AtomicBool,
    /// No further request is wanted: the next response is to say so.
    last: AtomicBool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_handshake: AtomicBool::new(false),
            in_message: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            idle_after: AtomicU64::new(0),
            reads_then: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            last: AtomicBool::new(false),
        }
    }

    pub(crate) fn has_read(&self) {
        self.reads.fetch_add(1, Relaxed);
    }

    /// The peer has taken something of a response, or may send more of a request.
    pub(crate) fn has_written(&self) {
        self.writes.fetch_add(1, Relaxed);
        if !self.is_busy() {
            self.idle_after.store(self.age(), Relaxed);
        }
    }

    /// Whether a write is waiting for the peer. It was not idle until the end of that.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        if self.stalled.swap(stalled, Relaxed) && !stalled {
            self.idle_after.store(self.age(), Relaxed);
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.in_message.load(Relaxed)
    }

    pub(crate) fn begin_handshake(&self) {
        self.in_handshake.store(true, Relaxed);
    }

    pub(crate) fn end_handshake(&self) {
        self.in_handshake.store(false, Relaxed);
    }

    /// Whether a handshake is going on that the peer has begun.
    pub(crate) fn is_in_handshake(&self) -> bool {
        self.in_handshake.load(Relaxed) && self.reads.load(Relaxed) > 0
    }

    /// A request of HTTP/1 has come: until `await_head`, what is read may be of its body.
    pub(crate) fn begin_message(&self) {
        self.in_message.store(true, Relaxed);
    }

    /// HTTP/1 is done with a request and its response, and waits for another, or for the end.
    pub(crate) fn await_head(&self) {
        if self.in_message.swap(false, Relaxed) {
            self.rest();
        }
    }

    fn rest(&self) {
        self.idle_after.store(self.age(), Relaxed);
        self.reads_then.store(self.reads.load(Relaxed), Relaxed);
    }

    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    pub(crate) fn idle_since(&self) -> Instant {
        self.born + Duration::from_nanos(self.idle_after.load(Relaxed))
    }

    /// Whether something came after the last request was over.
    pub(crate) fn has_read_since(&self) -> bool {
        self.reads.load(Relaxed) > self.reads_then.load(Relaxed)
    }

    pub(crate) fn become_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    pub(crate) fn want_no_more(&self) {
        self.last.store(true, Relaxed);
    }

    pub(crate) fn wants_no_more(&self) -> bool {
        self.last.load(Relaxed)
    }
}

/// A request from its head to the end of its response, however that ends.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl InFlight {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Relaxed);
        activity.in_flight.fetch_add(1, Relaxed);
        Self(activity.clone())
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Self(activity) = self;
        if activity.in_flight.fetch_sub(1, Relaxed) == 1 && !activity.is_busy() {
            activity.rest();
        }
    }
}
