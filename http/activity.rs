//! What the parts of one connection tell each other: its wire, its service, its task.
//!
//! hyper owns the wire and the service once it serves them, so what its task has to know in order
//! to judge idleness is written down here.
//!
//! ```text
//!   request comes ──► in flight ──► response ends ─┐   both: it rests from here on, and what is
//!        └──► in message ──► its body ends ────────┘   read is the next head
//! ```
//!
//! It is atomic because an upgraded wire and a request's body have to be `Send`. But it is one
//! core that counts and judges, so counting is a load and a store. A body that ends elsewhere says
//! when, and then that it has; what follows from that the core finds when it looks. Between all
//! other fields no order matters.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// The request of HTTP/1 whose body has not ended, though its response may have; 0: none.
    in_message: AtomicU64,
    /// The last request whose body has ended, twice its number, and one more if all of it was read;
    /// and when that was, in nanoseconds since birth.
    ended: AtomicU64,
    ended_after: AtomicU64,
    /// A body of HTTP/1 was dropped before its end: hyper reads what is there of it, and has come
    /// to its end, or closes. What it has already, no read tells of; so it is over, too, when a
    /// read finds nothing.
    unread: AtomicBool,
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
    /// The connection is being polled, and will look at the clock at the end of that, once, if
    /// there is something to set the time of.
    in_poll: AtomicBool,
    untimed: AtomicBool,
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
            in_message: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            ended_after: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            idle_after: AtomicU64::new(0),
            reads_then: AtomicU64::new(0),
            in_poll: AtomicBool::new(false),
            untimed: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            last: AtomicBool::new(false),
        }
    }

    pub(crate) fn has_read(&self) {
        // What ended before is not followed by this as a part of it.
        self.settle();
        count(&self.reads);
    }

    /// A read found nothing: what was left of a body that nobody wants has been read, or will not
    /// be.
    pub(crate) fn has_read_all(&self) {
        self.settle();
        if self.unread.load(Relaxed) {
            self.unread.store(false, Relaxed);
            self.reads_then.store(self.reads.load(Relaxed), Relaxed);
        }
    }

    /// The peer has taken something of a response, or may send more of a request.
    pub(crate) fn has_written(&self) {
        count(&self.writes);
        if !self.is_busy() {
            self.set_time();
        }
    }

    /// Whether a write is waiting for the peer. It was not idle until the end of that.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        if self.stalled.load(Relaxed) != stalled {
            self.stalled.store(stalled, Relaxed);
            if !stalled {
                self.set_time();
            }
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    fn age_at(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    /// It was not idle until now.
    fn set_time(&self) {
        if self.in_poll.load(Relaxed) {
            self.untimed.store(true, Relaxed);
        } else {
            self.idle_after.store(self.age_at(Instant::now()), Relaxed);
        }
    }

    pub(crate) fn begin_poll(&self) {
        self.in_poll.store(true, Relaxed);
    }

    /// The time, if something has happened in this poll that sets it.
    pub(crate) fn end_poll(&self) -> Option<Instant> {
        self.in_poll.store(false, Relaxed);
        if self.unread.load(Relaxed) && self.has_read_since() {
            self.unread.store(false, Relaxed);
            self.reads_then.store(self.reads.load(Relaxed), Relaxed);
        }
        if !self.untimed.load(Relaxed) {
            return None;
        }
        self.untimed.store(false, Relaxed);
        let now = Instant::now();
        self.idle_after.store(self.age_at(now), Relaxed);
        Some(now)
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.settle();
        self.in_flight.load(Relaxed) > 0 || self.in_message.load(Relaxed) != 0
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

    /// The latest request is one of HTTP/1 that has a body: until `end_message` of this number,
    /// what is read may be of it.
    pub(crate) fn begin_message(&self) -> u64 {
        let number = self.requests();
        self.in_message.store(number, Relaxed);
        number
    }

    /// A request of HTTP/1 has come: the one before has ended, whoever may hold its body.
    pub(crate) fn forget_message(&self) {
        self.in_message.store(0, Relaxed);
        self.unread.store(false, Relaxed);
    }

    /// The body has ended, or nobody wants what is left of it. On any thread.
    pub(crate) fn end_message(&self, number: u64, is_complete: bool) {
        self.ended_after.store(self.age_at(Instant::now()), Relaxed);
        // The latest: a body that was kept may end after one that came later.
        self.ended.fetch_max(number * 2 + u64::from(is_complete), Ordering::Release);
    }

    /// Draws the conclusions from the end of a body.
    fn settle(&self) {
        let number = self.in_message.load(Relaxed);
        if number == 0 {
            return;
        }
        let ended = self.ended.load(Ordering::Acquire);
        if ended / 2 != number {
            return;
        }
        self.in_message.store(0, Relaxed);
        self.unread.store(ended % 2 == 0, Relaxed);
        let idle_after = self.idle_after.load(Relaxed).max(self.ended_after.load(Relaxed));
        self.idle_after.store(idle_after, Relaxed);
        self.reads_then.store(self.reads.load(Relaxed), Relaxed);
    }

    /// Nothing more is read of any request.
    pub(crate) fn end_reading(&self) {
        if self.in_message.swap(0, Relaxed) != 0 {
            self.rest();
        }
    }

    fn rest(&self) {
        self.set_time();
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

/// One core counts.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// A request from its head to the end of its response, however that ends.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl InFlight {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        count(&activity.requests);
        activity.in_flight.store(activity.in_flight.load(Relaxed) + 1, Relaxed);
        Self(activity.clone())
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Self(activity) = self;
        let others = activity.in_flight.load(Relaxed) - 1;
        activity.in_flight.store(others, Relaxed);
        if !activity.is_busy() {
            activity.rest();
        }
    }
}
