//! Who is tried when: what an event sets in motion, and what each attempt's answer leads to.

use super::epoll::Event;
use super::sources::Side;
use super::{Readiness, TIMER};
use crate::io::request::{Attempt, Completion, Poll, Request};

/// How many answers without a buffer one request gives in one turn. It bounds by how much a
/// listener overshoots the limit that its owner set.
const SMALL_ANSWERS_MAX: u32 = 16;

/// How many buffers one receive fills in a row. A run on one stream is cheaper than as many single
/// receives in turn with others: sent on in a row too, its segments and acknowledgements go
/// together. The bound, and that a run takes an eighth of what is free, keeps streams fair.
const BUFFERS_MAX: usize = 16;

/// What a visit to one waiting request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visit {
    /// Nothing to do before something happens: it has ended, or waits for an event.
    Settled,
    /// It can go on at once.
    GoesOn,
    /// Its side has nothing to give, to it and to those behind.
    Blocked,
}

impl Readiness {
    /// Acts on one event.
    pub(super) fn dispatch(&mut self, event: Event, completions: &mut Vec<Completion>) {
        // The ring's own.
        if event.data >= TIMER {
            if event.data == TIMER {
                self.kernel_timer.fired();
            }
            return;
        }
        let (number, generation) = (event.data as u32, (event.data >> 32) as u32);
        let source = &mut self.sources[number];
        if source.generation() != generation {
            // Forgotten, yet open: the handle has moved to another core, or a duplicate lives.
            // Every change of it would wake this core in vain.
            if !source.is_registered() {
                self.epoll.remove(number as i32);
            }
            return;
        }
        source.see(event.events);
        for side in Side::BOTH {
            if event.events & side.events() == 0 || self.sources[number].waiting(side).is_empty() {
                continue;
            }
            // A hang-up or an error is of both sides, also while one is not watched yet: who waits
            // there has that done first, and is told then.
            if self.sources[number].is_polled(side) && self.sources[number].is_watched(side) {
                self.tell(number, side, event.events, completions);
            }
            // Who stands in the queue was tried in this turn already, or has yet to be.
            if self.sources[number].is_queued(side) {
                continue;
            }
            if self.budget == 0 {
                self.enqueue(number, side);
            } else {
                self.visit_all(number, side, completions);
            }
        }
    }

    /// Answers those who wait for readiness itself by what the event says: it needs no call.
    fn tell(&mut self, number: u32, side: Side, events: u32, completions: &mut Vec<Completion>) {
        let mask = (events & side.events()) as i32;
        let mut polled = false;
        self.for_each(number, side, |ring, index| {
            let Request::Poll(poll) = ring.requests.request(index) else { return };
            if poll.multishot {
                polled = true;
                ring.requests.take_fresh(index);
                ring.go_on(index, mask, None, completions);
            } else {
                ring.end(index, mask, completions);
            }
        });
        self.sources[number].set_polled(side, polled);
    }

    /// Tries each request that waits on one side, in the order of submission.
    pub(super) fn visit_all(&mut self, number: u32, side: Side, completions: &mut Vec<Completion>) {
        let mut goes_on = false;
        self.for_each(number, side, |ring, index| {
            let visit = match ring.requests.request(index) {
                Request::Poll(poll) => ring.visit_poll(number, side, index, poll, completions),
                _ if ring.sources[number].is_blocked(side) => Visit::Blocked,
                request => ring.visit((number, side), index, &request, completions),
            };
            goes_on = match visit {
                Visit::Settled => goes_on,
                Visit::GoesOn => true,
                Visit::Blocked => false,
            };
        });
        if goes_on {
            self.enqueue_again(number, side);
        }
    }

    /// Calls `action` for each request that waits on one side. It may end that request, and no
    /// other.
    #[inline]
    fn for_each(&mut self, number: u32, side: Side, mut action: impl FnMut(&mut Self, u32)) {
        let list = *self.sources[number].waiting(side);
        let Some((mut index, last)) = self.requests.ends(list) else { return };
        loop {
            let after = self.requests.after(index);
            action(self, index);
            if index == last {
                return;
            }
            index = after;
        }
    }

    fn visit(
        &mut self,
        (number, side): (u32, Side),
        index: u32,
        request: &Request,
        completions: &mut Vec<Completion>,
    ) -> Visit {
        // Few buffers are shared out in short runs.
        let run = (self.buffers.len() / 8).clamp(1, BUFFERS_MAX);
        let mut buffers = 0;
        for _ in 0..SMALL_ANSWERS_MAX {
            self.counters.direct_calls += 1;
            // SAFETY: the submitter keeps what the request names until its terminal completion.
            match unsafe { request.attempt(&mut self.buffers) } {
                Attempt::Done { result } => {
                    self.end(index, result, completions);
                    return Visit::Settled;
                }
                Attempt::More { result, buffer, drained } => {
                    self.go_on(index, result, buffer, completions);
                    // After a hang-up a short answer says nothing: the end may stand behind it, and
                    // no further event will tell.
                    if drained && !self.sources[number].is_hung_up() {
                        return self.block(number, side, index, completions);
                    }
                    buffers += usize::from(buffer.is_some());
                    // The last buffer ends the run, not the request: it ends when it comes back and
                    // still finds none.
                    let no_more = buffers >= run || self.budget == 0;
                    if buffer.is_some() && (no_more || self.buffers.is_empty()) {
                        return Visit::GoesOn;
                    }
                }
                Attempt::WouldBlock(_) => {
                    self.counters.would_block += 1;
                    return self.block(number, side, index, completions);
                }
                Attempt::Blocking => {
                    panic!("{request:?} waits for its descriptor, not for a thread")
                }
            }
        }
        Visit::GoesOn
    }

    /// Looks at readiness once, for who has just asked for it; from then on events tell.
    fn visit_poll(
        &mut self,
        number: u32,
        side: Side,
        index: u32,
        poll: Poll,
        completions: &mut Vec<Completion>,
    ) -> Visit {
        if !self.requests.take_fresh(index) {
            return Visit::Settled;
        }
        let source = &self.sources[number];
        if !source.is_watched(side) {
            // Registering reports the present state as the first event.
            let own = [side];
            let sides = if poll.multishot { &own[..] } else { &Side::BOTH };
            let refusal = self.register(number, sides);
            if refusal == 0 {
                return Visit::Settled;
            }
            if refusal != -libc::EPERM {
                self.end(index, refusal, completions);
                return Visit::Settled;
            }
            // What epoll does not watch (a regular file) is always ready, as poll(2) says.
        } else if source.is_blocked(side) && !source.is_hung_up() {
            return Visit::Settled;
        }
        let watched = self.sources[number].is_watched(side);
        self.counters.direct_calls += 1;
        // SAFETY: the submitter keeps the descriptor open until the terminal completion.
        match unsafe { poll.attempt() } {
            Attempt::More { result, .. } if watched => {
                self.go_on(index, result, None, completions);
            }
            Attempt::Done { result } | Attempt::More { result, .. } => {
                self.end(index, result, completions);
            }
            _ if watched => {}
            _ => self.end(index, -libc::EPERM, completions),
        }
        Visit::Settled
    }

    /// Lets a side wait for its next event, which takes a registration. Refused that, the request
    /// ends.
    fn block(
        &mut self,
        number: u32,
        side: Side,
        index: u32,
        completions: &mut Vec<Completion>,
    ) -> Visit {
        let refusal = self.register(number, &[side]);
        if refusal < 0 {
            self.end(index, refusal, completions);
            return Visit::Settled;
        }
        self.sources[number].block(side);
        Visit::Blocked
    }

    /// Has epoll watch sides of a descriptor, each once in its life, whatever waits there. Zero, or
    /// the negated error number (`ENOSPC`: the user's `max_user_watches` are used up).
    ///
    /// Who asks for readiness once gets both: that is a descriptor of who knows what, and a driver
    /// may take its waiters down only when it is added, and only for what is asked for then.
    #[inline]
    fn register(&mut self, number: u32, sides: &[Side]) -> i32 {
        let source = &self.sources[number];
        if sides.iter().all(|side| source.is_watched(*side)) {
            return 0;
        }
        self.counters.registrations += 1;
        let data = u64::from(source.generation()) << 32 | u64::from(number);
        let (edges, is_known) = (source.edges_with(sides), source.is_registered());
        let result = if is_known {
            self.epoll.change(number as i32, edges, data)
        } else {
            self.epoll.register(number as i32, edges, data)
        };
        if result == 0 {
            self.sources[number].set_watched(sides);
        }
        result
    }
}
