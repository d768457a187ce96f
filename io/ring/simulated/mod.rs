//! The simulated ring: a kernel in memory that completes requests in the order of a seed.
//!
//! ```text
//!   submit ──► queue ──► pending ── work: by chance, now or later ──► answers ── by chance ──►
//!   cancel ──►   │          │                    │                                 Completion
//!                └── full   └── nobody's turn    └── world: descriptors, connections, a disk
//! ```
//!
//! It gives every answer that the kernel may give, and the rare ones as often as the others:
//! requests complete in any order and late, a cancel races its target and loses, multishots end
//! early, sends are short, buffers run out, requests are interrupted. What was taken from a socket
//! may wait to be posted, as a completion waits in the kernel's queue, so whoever asks the socket
//! meanwhile finds it gone. Both queues are as small as the seed likes: what has no room is handed
//! in, or posted, in a later turn.
//!
//! Memory that is lent belongs to the kernel until the terminal completion, and this one shows it:
//! provided buffers are scribbled on at any time and get their bytes when the completion is posted;
//! the bytes of a send are read bit by bit, and must not have changed in between.
//!
//! A turn that shall wait while nothing can ever happen is a deadlock of the program, and panics.

mod connection;
mod disk;
mod drift;
mod files;
mod handshake;
mod host;
mod listening;
mod network;
mod outsider;
mod pending;
mod plan;
mod random;
mod rings;
pub(crate) mod signals;
mod state;
mod trace;
pub(crate) mod world;

use std::collections::VecDeque;
use std::rc::Rc;

pub use self::disk::{Disk, DiskOptions, Survival, with_disk};
pub use self::host::Crash;
pub(crate) use self::network::{Link, Weather};
pub use self::outsider::{Outsider, is_simulated};
use self::pending::{Kernel, Pending};
pub(crate) use self::plan::{Fault, FaultPlan, Site};
pub use self::random::Chance;
pub use self::rings::Rings;
use self::trace::{Event, name_of};
pub use self::world::Books;
use self::world::World;
use super::{Provided, RingCounters};
use crate::io::mailbox::Mailbox;
use crate::io::request::{Attempt, Completion, Flags, ReadAt, Request, Token};

/// How often in a row a request is passed over, at most: then it gets what it can.
const PASSED_OVER_MAX: u32 = 6;

/// What waits for the kernel to take it.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Request(Token),
    Cancel(Token),
}

/// One core's simulated ring.
pub(crate) struct Simulated {
    world: Rc<World>,
    /// The life of the host whose core this is.
    boot: usize,
    chance: Chance,
    rings: Rings,
    pending: Vec<Pending>,
    /// The submission queue and what it has no room for. Bounded by the requests in flight, each of
    /// which has at most itself and one cancel here.
    queue: VecDeque<Entry>,
    /// Buffers to lend, in the order in which they were provided.
    provided: VecDeque<Provided>,
    /// The host's changes after which nothing could go on here.
    settled_at: Option<u64>,
    counters: RingCounters,
}

impl Simulated {
    /// # Panics
    ///
    /// When no simulation runs on this thread.
    pub(super) fn new(mailbox: &Mailbox) -> Self {
        let world = world::current().expect("a simulated ring is made inside a simulation");
        // The lower half of a simulated core's id counts the cores of its world.
        let core = mailbox.core() & u64::from(u32::MAX);
        Self {
            chance: Chance::of(world.seed(), 1 << 32 | core),
            boot: world.here(),
            rings: world.with(|state| state.rings),
            world,
            pending: Vec::new(),
            queue: VecDeque::new(),
            provided: VecDeque::new(),
            settled_at: None,
            counters: RingCounters::default(),
        }
    }

    /// # Safety
    ///
    /// As `Ring::submit`: what the request names stays valid until the terminal completion.
    pub(super) unsafe fn submit(&mut self, token: Token, request: &Request) {
        let taken = self.pending.iter().any(|pending| pending.token == token);
        assert!(!taken, "{request:?} was submitted with the token of a request in flight");
        self.make_room();
        self.counters.submissions += 1;
        self.settled_at = None;
        let mut request = *request;
        let site = Site::of(&request);
        let interrupted = self.rings.interrupt(&mut self.chance);
        let hiccup = interrupted.then(|| site.hiccup(&mut self.chance)).flatten();
        let fault = self.world.with(|state| {
            let named = pending::descriptor_of(&request);
            let (what, number) = (name_of(&request), named.unwrap_or(-1));
            state.note_on(self.boot, Event::Submitted { token: token.0, what, number });
            if let Some(number) = named {
                state.hold(number, true);
            }
            let fault = state.ask(self.boot, site);
            if fault == Some(Fault::Short) {
                state.shorten(&mut request);
            }
            fault.or(hiccup)
        });
        // SAFETY: handed on; a shorter one names less.
        self.pending.push(unsafe { Pending::new(token, request, fault) });
        self.queue.push_back(Entry::Request(token));
    }

    /// Tries a read at once, without submitting it.
    ///
    /// # Safety
    ///
    /// The memory is writable for this call.
    pub(super) unsafe fn try_read(&self, read: ReadAt) -> Attempt {
        match self.world.with(|state| state.try_read(self.boot, read)) {
            None => Attempt::Blocking,
            Some(Err(result)) => Attempt::Done { result },
            Some(Ok(bytes)) => {
                // SAFETY: writable, says the caller, and no more bytes than were asked for.
                unsafe { read.address.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                Attempt::Done { result: bytes.len() as i32 }
            }
        }
    }

    pub(super) fn cancel(&mut self, token: Token) {
        self.world.with(|state| state.note_on(self.boot, Event::Cancelled { token: token.0 }));
        if self.pending.iter().any(|pending| pending.token == token) {
            self.make_room();
            self.queue.push_back(Entry::Cancel(token));
            self.settled_at = None;
        }
    }

    /// A full queue is handed in at once, if the kernel takes it now; else what comes is held back.
    fn make_room(&mut self) {
        if self.queue.len() >= self.rings.submissions && self.chance.one_in(2) {
            self.counters.enters += 1;
            self.hand_in();
        }
    }

    /// The kernel takes what the queue holds, or some of it if it is interrupted.
    fn hand_in(&mut self) {
        let mut count = self.rings.submissions.min(self.queue.len());
        if count > 0 && self.rings.interrupt(&mut self.chance) {
            count = self.chance.below(count + 1);
        }
        for entry in self.queue.drain(..count) {
            // Of two requests with this token one is over, and not yet posted; or the other is yet
            // to come, and no cancel from before is meant for it.
            let (Entry::Request(token) | Entry::Cancel(token)) = entry;
            let is_request = matches!(entry, Entry::Request(_));
            let mut pending = self.pending.iter_mut();
            match pending.find(|one| one.token == token && one.is_queued == is_request) {
                Some(pending) if is_request => pending.is_queued = false,
                Some(pending) => pending.cancel(),
                None => {}
            }
        }
    }

    /// What a turn hands in: a queue, and of what was held back what the kernel takes.
    fn hand_in_all(&mut self) {
        self.hand_in();
        while !self.queue.is_empty() && self.chance.one_in(2) {
            self.counters.enters += 1;
            self.hand_in();
        }
    }

    pub(super) fn provide(&mut self, buffers: impl Iterator<Item = Provided>) {
        for buffer in buffers {
            let twice = self.provided.iter().any(|other| other.id == buffer.id);
            assert!(!twice, "buffer {} was provided twice", buffer.id);
            self.provided.push_back(buffer);
            self.settled_at = None;
        }
    }

    /// One step: some requests go on, and some of their answers are posted. It never waits: the
    /// simulation gives the next turn when something may have happened.
    pub(super) fn turn(&mut self, completions: &mut Vec<Completion>) {
        self.counters.enters += 1;
        if self.world.with(|state| state.is_up(self.boot)) {
            self.hand_in_all();
            self.step(completions);
        } else {
            self.end(completions);
        }
    }

    /// The host is down, so nothing is in flight any more.
    fn end(&mut self, completions: &mut Vec<Completion>) {
        self.queue.clear();
        for pending in self.pending.drain(..) {
            completions.push(Completion::done(pending.token, -libc::ECANCELED));
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn wants_turn(&self) -> bool {
        !self.queue.is_empty() || self.pending.iter().any(Pending::has_answers)
    }

    pub(super) fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Whether nothing can go on before the program, the network or the clock does.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled_at == Some(self.world.with(|state| state.changes(self.boot)))
    }

    /// When a disk gets on with a request, if that is what the next is waited for.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.pending.iter().filter_map(Pending::due).min()
    }

    /// What is in flight, for whoever asks why nothing happens.
    pub(crate) fn describe(&self) -> String {
        let mut lines: Vec<String> = self.pending.iter().map(|one| format!("{one:?}")).collect();
        lines.sort();
        lines.join(", ")
    }

    /// Some of the requests go on, in some order.
    fn step(&mut self, completions: &mut Vec<Completion>) {
        let boot = self.boot;
        self.world.with(|state| {
            let (chance, provided) = (&mut self.chance, &mut self.provided);
            let waiting: usize = self.pending.iter().map(Pending::answers).sum();
            let is_full = waiting >= self.rings.completions;
            let mut kernel = Kernel { state, boot, chance, provided, is_full };
            let mut order: Vec<usize> = (0..self.pending.len()).collect();
            kernel.chance.shuffle(&mut order);
            let mut quiet = self.queue.is_empty();
            for index in order {
                let pending = &mut self.pending[index];
                if pending.is_queued {
                    continue;
                }
                if pending.passed_over < PASSED_OVER_MAX && kernel.chance.one_in(2) {
                    pending.passed_over += 1;
                    quiet = false;
                } else if pending.go_on(&mut kernel) {
                    pending.passed_over = 0;
                    quiet = false;
                }
            }
            self.settled_at = quiet.then(|| kernel.state.changes(boot));
        });
        self.post(completions);
        self.scribble();
    }

    /// Posts some of the answers, as many as there is room for. Those of one request stay in order.
    fn post(&mut self, completions: &mut Vec<Completion>) {
        let full = completions.len() + self.rings.completions;
        let mut order: Vec<usize> = (0..self.pending.len()).collect();
        self.chance.shuffle(&mut order);
        for index in order {
            let pending = &mut self.pending[index];
            while pending.has_answers() {
                self.settled_at = None;
                let has_room = completions.len() < full;
                if !has_room || self.chance.one_in(2) {
                    break;
                }
                let completion = pending.post();
                self.counters.completions += 1;
                self.world.with(|state| {
                    let Completion { token: Token(token), result, flags: Flags(flags) } =
                        completion;
                    let what = pending.name();
                    let event = Event::Completed { token, what, result, flags };
                    state.note_on(self.boot, event);
                    if let (true, Some(number)) = (completion.is_terminal(), pending.descriptor()) {
                        state.hold(number, false);
                    }
                });
                completions.push(completion);
            }
        }
        self.pending.retain(|pending| !pending.is_posted());
        let overflows = completions.len() == full && self.pending.iter().any(Pending::has_answers);
        self.counters.overflows += u64::from(overflows);
    }

    /// What was provided is the kernel's to write to.
    fn scribble(&mut self) {
        if self.provided.is_empty() || !self.chance.one_in(4) {
            return;
        }
        let index = self.chance.below(self.provided.len());
        // SAFETY: the buffer was provided and not lent on since.
        unsafe { pending::scribble(&self.provided[index], self.chance.bits()) };
    }
}

#[cfg(test)]
mod tests;
