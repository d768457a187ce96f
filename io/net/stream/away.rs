//! The lines of a stream that has left its core.
//!
//! ```text
//!   detach ──► everyone is told, nobody's place is lost ──► bound here again: the lines go on
//!                           │
//!                           └── bound elsewhere: who is polled here is told so, and leaves
//! ```
//!
//! Who waits is told that the stream leaves, and asks anew. Were the places lost by that, whoever
//! runs first would go first: a later send before an earlier one. So the lines stay on the core
//! under the name of the stream's entry, which the waiting futures know.
//!
//! What is left when the stream never comes back are the places of futures that are neither polled
//! nor dropped: they cost what such a future costs anyway.

use super::receive::Receiving;
use super::send::Sending;
use crate::io::mailbox::{Wait, WaiterId};
use crate::io::services::Services;
use crate::io::waiters::Waiters;

#[derive(Debug)]
pub(crate) struct Away {
    reads: Waiters,
    writes: Waiters,
    /// The first of the readers has taken a part.
    holder_stands: bool,
}

impl Away {
    pub(super) fn of(
        receive: &mut Receiving,
        send: &mut Sending,
        is_held: bool,
        services: &mut Services,
    ) -> Self {
        let holder_stands = is_held && receive.is_led();
        let (reads, writes) = (receive.take_places(services), send.take_places(services));
        Self { reads, writes, holder_stands }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }

    /// A future that waits is dropped, or told that the stream is elsewhere.
    pub(crate) fn withdraw(&mut self, wait: Wait, waiter: WaiterId) {
        let line = match wait {
            Wait::Read => &mut self.reads,
            Wait::Write => &mut self.writes,
            // Those stand in no line that is kept.
            Wait::Accept | Wait::Incoming | Wait::Readable | Wait::Writable | Wait::Idle => return,
        };
        let (waker, _) = line.strike(waiter);
        debug_assert!(waker.is_none(), "nobody waits for a stream that is away");
    }

    /// The stream is back. Answers whether a read that is half-way stands first.
    pub(super) fn end(self, receive: &mut Receiving, send: &mut Sending) -> bool {
        receive.restore_places(self.reads);
        send.restore_places(self.writes);
        self.holder_stands
    }
}
