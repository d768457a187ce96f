//! The network between hosts: what is on the way, when it comes, and what becomes of it then.
//!
//! ```text
//!   send ── segment ──► arrives, some of it now and some later ──► read ── heard of ──► room
//!              │ blocked: stalled, until it is sent again, or ETIMEDOUT
//! ```
//!
//! TCP retransmits, so a blocked link loses no byte: what is on the way stalls, and goes on some
//! time after the link is healed, the later the longer it was blocked. What TCP sends once, a reset
//! and the answer to a SYN, is lost. A link sends one segment after the other, so a slow one is a
//! queue. All waits are those of Linux's defaults (tcp(7)).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use super::connection::{Fin, Segment, Side};
use super::random::Chance;
use super::state::{Kind, State};
use super::trace::Event;
use super::world;

const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MILLISECOND;

/// After so long without an acknowledgement a connection gives up (`tcp_retries2`).
const GIVE_UP: u64 = 924 * SECOND;
/// The shortest and the longest time until something is sent again.
const AGAIN: std::ops::RangeInclusive<u64> = 200 * MILLISECOND..=120 * SECOND;
/// The rest of a segment that has come in parts follows within this time.
const REST: usize = 50_000;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The least and the most time that it takes, in nanoseconds.
    pub(crate) latency: (u64, u64),
    /// Bytes in a second; `None` is no limit.
    pub(crate) bandwidth: Option<u64>,
    /// Nothing gets through.
    pub(crate) is_blocked: bool,
    /// What was sent before is through by then.
    free_at: u64,
}

impl Link {
    pub(crate) fn new(latency: (u64, u64), bandwidth: Option<u64>) -> Self {
        Self { latency, bandwidth, is_blocked: false, free_at: 0 }
    }

    /// When something that is sent now arrives.
    pub(super) fn arrival(&mut self, now: u64, bytes: usize, chance: &mut Chance) -> u64 {
        let sent = match self.bandwidth {
            None => now,
            Some(bandwidth) => {
                let takes = bytes as u64 * SECOND / bandwidth.max(1);
                self.free_at = self.free_at.max(now).saturating_add(takes);
                self.free_at
            }
        };
        let (least, most) = self.latency;
        sent + least + chance.below((most.saturating_sub(least) + 1) as usize) as u64
    }
}

/// What the network may do, of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Between two hosts, unless they say otherwise.
    pub(crate) link: Link,
    /// From a host to itself.
    pub(crate) loopback: Link,
    /// Bytes that a direction of a connection holds, sent and not received, at most.
    pub(crate) capacity_max: usize,
}

#[derive(Default)]
pub(super) struct Links(BTreeMap<(usize, usize), Link>);

/// What comes over the network, or to an end that waits in vain.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Syn {
        number: i32,
        attempt: u64,
        host: usize,
    },
    SynAck {
        number: i32,
        attempt: u64,
        connection: u64,
    },
    SynAgain {
        number: i32,
        attempt: u64,
    },
    Refusal {
        number: i32,
        attempt: u64,
        from: Option<usize>,
        error: i32,
    },
    /// The front of what `from` has sent.
    Front {
        connection: u64,
        from: Side,
    },
    /// What the other side of `from` has taken.
    Answer {
        connection: u64,
        from: Side,
    },
    /// The end of that side shall hear a reset.
    Reset {
        connection: u64,
        to: Side,
    },
    GiveUp {
        connection: u64,
        from: Side,
        since: u64,
    },
}

/// Something that will happen; the greatest is the next.
#[derive(Debug)]
pub(super) struct Happening {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Happening {}

impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse((self.at, self.order)).cmp(&Reverse((other.at, other.order)))
    }
}

impl State {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// When something happens next.
    pub(crate) fn next_happening(&self) -> Option<u64> {
        self.coming.peek().map(|next| next.at)
    }

    /// Lets time go on; what comes meanwhile happens. It never goes back.
    pub(crate) fn go_on_until(&mut self, time: u64) {
        while self.next_happening().is_some_and(|at| at <= time) {
            let Happening { at, what, .. } = self.coming.pop().expect("just seen");
            self.now = self.now.max(at);
            self.happen(what);
        }
        self.now = self.now.max(time);
    }

    pub(super) fn come(&mut self, at: u64, what: What) {
        let order = self.next_id();
        self.coming.push(Happening { at, order, what });
    }

    /// What holds from now on, for links that nobody has used or set.
    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(crate) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let usual = if from == to { self.weather.loopback } else { self.weather.link };
        self.links.0.entry((from, to)).or_insert(usual)
    }

    pub(super) fn is_blocked(&mut self, from: usize, to: usize) -> bool {
        self.link(from, to).is_blocked
    }

    /// When something that is sent now arrives.
    pub(super) fn arrival(&mut self, from: usize, to: usize, bytes: usize) -> u64 {
        let now = self.now;
        let mut chance = self.chance.clone();
        let arrival = self.link(from, to).arrival(now, bytes, &mut chance);
        self.chance = chance;
        arrival
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Syn { number, attempt, host } => self.take_syn(number, attempt, host),
            What::SynAck { number, attempt, connection } => {
                self.take_syn_ack(number, attempt, connection);
            }
            What::SynAgain { number, attempt } => self.try_again(number, attempt),
            What::Refusal { number, attempt, from, error } => {
                let host = self.boots[world::boot_of(number)].host;
                if !from.is_some_and(|from| self.is_blocked(from, host)) {
                    self.fail_connect(number, attempt, error);
                }
            }
            What::Front { connection, from } => self.take_front(connection, from),
            What::Answer { connection, from } => self.take_answer(connection, from),
            What::Reset { connection, to } => self.take_reset(connection, to),
            What::GiveUp { connection, from, since } => self.give_up(connection, from, since),
        }
    }

    /// Takes a connection off the books.
    pub(super) fn forget(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let (waiting, lost) = connection.balance();
        self.books.bytes_lost += waiting + lost;
        if let Some(listener) = connection.half_open {
            self.with_listener(connection.ends[1].boot, listener, |one| one.promised -= 1);
        }
    }

    pub(super) fn with_listener(
        &mut self,
        boot: usize,
        id: u64,
        f: impl FnOnce(&mut super::listening::Listening),
    ) -> bool {
        let sockets = self.boots[boot].sockets.iter_mut().flatten();
        let mut listeners = sockets.filter_map(|socket| match &mut socket.kind {
            Kind::Listening(listening) if listening.id == id => Some(listening),
            _ => None,
        });
        listeners.next().map(f).is_some()
    }

    /// Makes sure that what stands at the front will come.
    pub(super) fn expect_front(&mut self, id: u64, from: Side) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let pipe = &mut connection.pipes[from];
        if pipe.is_scheduled || pipe.stalled_at.is_some() {
            return;
        }
        if let Some(due) = pipe.front_due() {
            pipe.is_scheduled = true;
            self.come(due.max(now), What::Front { connection: id, from });
        }
    }

    /// A socket has taken bytes: they are on the way.
    pub(super) fn send_bytes(&mut self, id: u64, side: Side, count: usize) {
        let connection = &self.connections[&id];
        let (from, to) = (connection.ends[side].host, connection.ends[1 - side].host);
        let due = self.arrival(from, to, count);
        let pipe = &mut self.connections.get_mut(&id).expect("just seen").pipes[side];
        let due = due.max(pipe.last_due());
        pipe.segments.push_back(Segment { count, due });
        self.expect_front(id, side);
    }

    /// The end of a direction is on the way, if there is one.
    pub(super) fn send_fin(&mut self, id: u64, side: Side) {
        let connection = &self.connections[&id];
        if connection.pipes[side].fin != Fin::Sent || connection.pipes[side].fin_due != 0 {
            return;
        }
        let (from, to) = (connection.ends[side].host, connection.ends[1 - side].host);
        let due = self.arrival(from, to, 0);
        let pipe = &mut self.connections.get_mut(&id).expect("just seen").pipes[side];
        pipe.fin_due = due.max(pipe.last_due()).max(1);
        self.expect_front(id, side);
    }

    /// A reset is on the way from `side` to the other.
    pub(super) fn send_reset(&mut self, id: u64, side: Side) {
        let connection = &self.connections[&id];
        let (from, to) = (connection.ends[side].host, connection.ends[1 - side].host);
        let at = self.arrival(from, to, 0);
        self.come(at, What::Reset { connection: id, to: 1 - side });
    }

    /// `side` has taken bytes, which the other shall hear.
    pub(super) fn send_answer(&mut self, id: u64, side: Side) {
        let from = 1 - side;
        let connection = self.connections.get_mut(&id).expect("an end is open");
        if std::mem::replace(&mut connection.pipes[from].is_answered, true) {
            return;
        }
        let hosts = (connection.ends[side].host, connection.ends[from].host);
        let at = self.arrival(hosts.0, hosts.1, 0);
        self.come(at, What::Answer { connection: id, from });
    }

    fn take_answer(&mut self, id: u64, from: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.pipes[from].is_answered = false;
        let hosts = (connection.ends[1 - from].host, connection.ends[from].host);
        if self.is_blocked(hosts.0, hosts.1) {
            return;
        }
        let connection = self.connections.get_mut(&id).expect("just seen");
        let boot = connection.ends[from].boot;
        if connection.hear(from) {
            self.boots[boot].changes += 1;
        }
    }

    fn take_front(&mut self, id: u64, from: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.pipes[from].is_scheduled = false;
        let to = 1 - from;
        let hosts = (connection.ends[from].host, connection.ends[to].host);
        let (sender_is_gone, receiver_is_gone) =
            (connection.ends[from].is_gone, connection.ends[to].is_gone);
        let nobody_hears = receiver_is_gone && self.hosts[hosts.1].boot.is_none();
        if nobody_hears || self.is_blocked(hosts.0, hosts.1) {
            if !sender_is_gone {
                self.stall(id, from);
            }
            return;
        }
        if self.connections[&id].half_open.is_some() && !self.establish(id) {
            return;
        }
        let connection = self.connections.get_mut(&id).expect("just seen");
        let end = &connection.ends[to];
        let (at, boot) = (end.address, end.boot);
        if connection.pipes[from].segments.is_empty() {
            // Cut off by a reset, what was under way leaves nothing that could arrive.
            if !connection.arrive_fin(to) {
                return;
            }
            self.note_on(boot, Event::FinArrived { at });
        } else {
            self.take_bytes(id, from);
        }
        self.expect_front(id, from);
    }

    /// Some of the front segment arrives, or all of it.
    fn take_bytes(&mut self, id: u64, from: Side) {
        let to = 1 - from;
        let now = self.now;
        let connection = self.connections.get_mut(&id).expect("just seen");
        let (at, boot) = (connection.ends[to].address, connection.ends[to].boot);
        let front = connection.pipes[from].segments.front_mut().expect("just seen");
        let mut count = front.count;
        if count > 1 && self.chance.one_in(2) {
            count = self.chance.up_to(count);
        }
        front.count -= count;
        front.due = now + self.chance.below(REST) as u64;
        if front.count == 0 {
            connection.pipes[from].segments.pop_front();
        }
        if count == 0 {
            return;
        }
        let is_taken = connection.arrive(to, count);
        self.note_on(boot, Event::Arrived { at, count });
        if !is_taken {
            self.send_reset(id, to);
        }
    }

    fn take_reset(&mut self, id: u64, to: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let hosts = (connection.ends[1 - to].host, connection.ends[to].host);
        if self.is_blocked(hosts.0, hosts.1) {
            return;
        }
        // What the client sent before, the last part of the handshake, has come before.
        if self.connections[&id].half_open.is_none() || self.establish(id) {
            self.fail(id, to, libc::ECONNRESET);
        }
    }

    /// An end learns that its connection is no more.
    pub(super) fn fail(&mut self, id: u64, side: Side, error: i32) {
        let connection = self.connections.get_mut(&id).expect("just seen");
        if connection.ends[side].is_dead || connection.ends[side].is_gone {
            return;
        }
        connection.fail(side, error);
        let (at, boot) = (connection.ends[side].address, connection.ends[side].boot);
        self.note_on(boot, Event::Failed { at, error });
    }

    fn stall(&mut self, id: u64, from: Side) {
        let since = self.now;
        let pipe = &mut self.connections.get_mut(&id).expect("just seen").pipes[from];
        pipe.stalled_at = Some(since);
        self.come(since + GIVE_UP, What::GiveUp { connection: id, from, since });
    }

    fn give_up(&mut self, id: u64, from: Side, since: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.pipes[from].stalled_at == Some(since) {
            self.fail(id, from, libc::ETIMEDOUT);
        }
    }

    /// What has stalled between two hosts, in this direction, is sent again; `to` may hear again.
    pub(super) fn send_again(&mut self, from: usize, to: usize) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                let connection = self.connections.get_mut(&id).expect("just seen");
                let hosts = (connection.ends[side].host, connection.ends[1 - side].host);
                let pipe = &mut connection.pipes[side];
                if hosts == (from, to) && pipe.stalled_at.is_some() {
                    let since = pipe.stalled_at.take().expect("just seen");
                    let most = (self.now - since).clamp(*AGAIN.start(), *AGAIN.end());
                    let at = self.now + self.chance.below(most as usize) as u64;
                    pipe.is_scheduled = true;
                    self.come(at, What::Front { connection: id, from: side });
                } else if hosts == (to, from) && connection.pipes[side].has_unheard() {
                    self.send_answer(id, 1 - side);
                }
            }
        }
    }

    /// Every connection between two hosts is reset, as by a middle box: both sides hear of it.
    pub(crate) fn reset_between(&mut self, a: usize, b: usize) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            let hosts = self.connections[&id].ends.each_ref().map(|end| end.host);
            if hosts == [a, b] || hosts == [b, a] {
                if self.connections[&id].half_open.is_some() && !self.establish(id) {
                    continue;
                }
                for side in 0..2 {
                    if self.connections[&id].ends[side].is_open {
                        self.fail(id, side, libc::ECONNRESET);
                    }
                }
            }
        }
    }
}
