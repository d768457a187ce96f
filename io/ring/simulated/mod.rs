//! The simulated ring: a kernel in memory that completes requests in the order of a seed.
//!
//! ```text
//!   submit ──► pending ── work: by chance, now or later ──► answers ── by chance ──► Completion
//!   cancel ──►    │                    │
//!                 └── nobody's turn    └── world: descriptors, listeners, connections, a disk
//! ```
//!
//! It gives every answer that the kernel may give, and the rare ones as often as the others:
//! requests complete in any order and late, a cancel races its target and loses, multishots end
//! early, sends are short, buffers run out. What was taken from a socket may wait to be posted, as
//! a completion waits in the kernel's queue, so whoever asks the socket meanwhile finds it gone.
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
use self::trace::{Event, name_of};
pub use self::world::Books;
use self::world::World;
use super::{Provided, RingCounters};
use crate::io::mailbox::Mailbox;
use crate::io::request::{Attempt, Completion, Flags, ReadAt, Request, Token};

/// How often in a row a request is passed over, at most: then it gets what it can.
const PASSED_OVER_MAX: u32 = 6;

/// One core's simulated ring.
pub(crate) struct Simulated {
    world: Rc<World>,
    /// The life of the host whose core this is.
    boot: usize,
    chance: Chance,
    pending: Vec<Pending>,
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
            world,
            pending: Vec::new(),
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
        self.counters.submissions += 1;
        self.settled_at = None;
        let mut request = *request;
        let fault = self.world.with(|state| {
            let named = pending::descriptor_of(&request);
            let (what, number) = (name_of(&request), named.unwrap_or(-1));
            state.note_on(self.boot, Event::Submitted { token: token.0, what, number });
            if let Some(number) = named {
                state.hold(number, true);
            }
            let fault = state.ask(self.boot, Site::of(&request));
            if fault == Some(Fault::Short) {
                state.shorten(&mut request);
            }
            fault
        });
        // SAFETY: handed on; a shorter one names less.
        self.pending.push(unsafe { Pending::new(token, request, fault) });
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
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.token == token) {
            pending.cancel();
            self.settled_at = None;
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
            self.step(completions);
        } else {
            self.end(completions);
        }
    }

    /// The host is down, so nothing is in flight any more.
    fn end(&mut self, completions: &mut Vec<Completion>) {
        for pending in self.pending.drain(..) {
            completions.push(Completion::done(pending.token, -libc::ECANCELED));
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn wants_turn(&self) -> bool {
        self.pending.iter().any(Pending::has_answers)
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
            let mut kernel = Kernel { state, boot, chance, provided };
            let mut order: Vec<usize> = (0..self.pending.len()).collect();
            kernel.chance.shuffle(&mut order);
            let mut quiet = true;
            for index in order {
                let pending = &mut self.pending[index];
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

    /// Posts some of the answers. Those of one request stay in order.
    fn post(&mut self, completions: &mut Vec<Completion>) {
        let mut order: Vec<usize> = (0..self.pending.len()).collect();
        self.chance.shuffle(&mut order);
        for index in order {
            let pending = &mut self.pending[index];
            while pending.has_answers() {
                self.settled_at = None;
                if self.chance.one_in(2) {
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
