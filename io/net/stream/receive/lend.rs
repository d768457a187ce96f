//! Received bytes lent in place, for buffered readers: no copy, and no buffer of the handle's.
//!
//! ```text
//!   poll_fill ──► the first lease stays in the queue, marked as lent
//!                   │ consume: taken from its front
//!                   │ any other read: takes it as it is, the mark goes
//!                   └ the core ends: the lease moves to the socket, which the handle shares
//! ```
//!
//! The slice is bound to a mutable borrow of the only handle that reads, so no other read can come
//! while it is looked at; and what a dropped read gives back comes only while that read stands in
//! line, where it keeps `poll_fill` waiting.

use std::io;
use std::os::fd::RawFd;
use std::task::Poll;

use super::Receiving;
use crate::io::mailbox::Key;
use crate::io::services::Services;
use crate::io::waiters::{Caller, POLLER};

impl Receiving {
    /// Lends the first of what came, and leaves it where it is; empty at the end of the stream.
    ///
    /// The bytes stay until somebody reads, or else as long as the handle.
    pub(crate) fn poll_fill(
        &mut self,
        key: Key,
        number: RawFd,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<*const [u8]>> {
        let mut poller = Some(POLLER);
        if self.waiters.may_go(poller) {
            self.ahead = true;
            if self.end.is_none() && self.bytes <= services.limits.receive_ahead / 2 {
                self.arm(key, number, services);
            }
            if let Some(first) = &self.first {
                self.lent = true;
                let lent = std::ptr::from_ref::<[u8]>(first);
                self.served(&mut poller, services);
                return Poll::Ready(Ok(lent));
            }
            if let Some(end) = self.end {
                self.served(&mut poller, services);
                return Poll::Ready(self.tell(end).map(|()| std::ptr::from_ref::<[u8]>(&[])));
            }
        }
        self.wait(&mut poller, caller, services)
    }

    /// Takes what was lent, as far as it was used.
    pub(crate) fn consume(&mut self, count: usize) {
        let Some(first) = self.first.as_mut().filter(|_| self.lent) else { return };
        if count < first.len() {
            first.advance(count);
            self.bytes -= count;
        } else {
            self.pop();
        }
    }
}
