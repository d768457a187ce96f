//! The simulated ring: a kernel in memory that completes requests in the order of a seed.
//!
//! ```text
//!   submit ──► pending ── work: by chance, now or later ──► answers ── by chance ──► Completion
//!   cancel ──►    │                    │
//!                 └── nobody's turn    └── world: descriptors, listeners, connections
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
mod listening;
mod pending;
mod plan;
mod random;
mod trace;
pub(crate) mod world;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use self::pending::{Kernel, Pending};
pub(crate) use self::plan::{Fault, Plan, Site};
pub use self::random::Chance;
use self::trace::Event;
pub use self::world::Books;
use self::world::World;
use super::{Provided, RingCounters, Waiting};
use crate::io::mailbox::Mailbox;
use crate::io::request::{Completion, Flags, Request, Token};

/// How often in a row a request is passed over, at most: then it gets what it can.
const PASSED_OVER_MAX: u32 = 6;

/// The longest that one step of the network takes, in nanoseconds.
const STEP_MAX: usize = 200_000;

/// One core's simulated ring.
pub(crate) struct Simulated {
    world: Rc<World>,
    chance: Chance,
    pending: Vec<Pending>,
    /// Buffers to lend, in the order in which they were provided.
    provided: VecDeque<Provided>,
    /// The state of the world in which nothing can happen before the program or the clock goes on.
    settled_at: Option<u64>,
    mailbox: Arc<Mailbox>,
    counters: RingCounters,
}

impl Simulated {
    /// # Panics
    ///
    /// When no simulation runs on this thread.
    pub(super) fn new(mailbox: &Arc<Mailbox>) -> Self {
        let world = world::current().expect("a simulated ring is made inside a simulation");
        Self {
            chance: Chance::of(world.seed(), 2),
            world,
            pending: Vec::new(),
            provided: VecDeque::new(),
            settled_at: None,
            mailbox: mailbox.clone(),
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
        let fault = self.world.with(|state| {
            state.note(Event::Submitted { token: token.0, request });
            if let Some(number) = request.descriptor() {
                state.hold(number, true);
            }
            state.ask(Site::of(request))
        });
        // SAFETY: handed on.
        self.pending.push(unsafe { Pending::new(token, *request, fault) });
    }

    pub(super) fn cancel(&mut self, token: Token) {
        self.world.with(|state| state.note(Event::Cancelled { token: token.0 }));
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

    /// # Panics
    ///
    /// When it shall wait without a deadline and nothing can ever happen.
    pub(super) fn turn(&mut self, waiting: Waiting, completions: &mut Vec<Completion>) {
        self.counters.enters += 1;
        loop {
            self.step(completions);
            if !completions.is_empty() || waiting == Waiting::No {
                return;
            }
            if self.is_settled() {
                assert!(
                    waiting != Waiting::Until(None),
                    "nothing can ever happen: the program waits for what nobody does; in flight: \
                     {:?}",
                    self.pending
                );
                return;
            }
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn wants_turn(&self) -> bool {
        self.pending.iter().any(Pending::has_answers)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.mailbox.doorbell().as_fd()
    }

    pub(super) fn counters(&self) -> RingCounters {
        self.counters
    }

    /// How long it takes until something may happen here; `None` if nothing does by itself.
    pub(super) fn pace(&mut self) -> Option<u64> {
        (!self.is_settled()).then(|| self.chance.up_to(STEP_MAX) as u64)
    }

    fn is_settled(&self) -> bool {
        self.settled_at == Some(self.world.trace())
    }

    /// The network goes on, and so do some of the requests, in some order.
    fn step(&mut self, completions: &mut Vec<Completion>) {
        self.world.with(|state| {
            state.step();
            let mut kernel =
                Kernel { state, chance: &mut self.chance, provided: &mut self.provided };
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
            let settled = quiet && !kernel.state.is_moving();
            self.settled_at = settled.then(|| kernel.state.trace());
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
                    state.note(Event::Completed { token, result, flags });
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
