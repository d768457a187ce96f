//! Leases for streams of them, which are kept while nobody polls them.
//!
//! A future that waits keeps its place until it is polled or dropped. A stream may be kept for long
//! and not polled, and in the line it would hold up all others. So it waits as an observer does:
//! a wake goes to all of them, and whoever asks first takes what there is; but a read that has asked
//! before it goes first.

use std::io;
use std::os::fd::RawFd;
use std::task::Poll;

use super::Receiving;
use crate::io::buffer::Lease;
use crate::io::mailbox::{Key, WaiterId};
use crate::io::services::Services;
use crate::io::waiters::Caller;

impl Receiving {
    /// The next lease, for who has no place in line; empty at the end of the stream.
    pub(crate) fn poll_flow(
        &mut self,
        key: Key,
        number: RawFd,
        observer: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<Lease>> {
        if self.waiters.may_look(*observer) {
            if let Some(next) = self.next_lease(key, number, services) {
                if let Some(observer) = observer.take() {
                    self.overlook(observer, services);
                }
                return Poll::Ready(next);
            }
        }
        services.look_out(&mut self.waiters, observer, caller)
    }
}
