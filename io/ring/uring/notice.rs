//! What shows, to who waits elsewhere, that the ring has something to do.
//!
//! ```text
//!   completion work ──► registered event ──┐
//!                                          ├─► epoll instance, watched by somebody else's loop
//!   other threads ────► doorbell ──────────┘
//! ```
//!
//! The ring's own descriptor does not show it: with deferred completions, what has happened waits
//! for the thread to enter, and until then poll(2) and epoll hear nothing of it. An event that is
//! registered (`IORING_REGISTER_EVENTFD`) is raised for that, too; but not reliably by work that
//! another event has led to, as the doorbell does, so the doorbell is watched beside it. (Both seen
//! on Linux 6.18.)
//!
//! Edges only, so nobody has to read a counter down. It costs each completion something, so it is
//! there only once somebody has asked.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::IoUring;

use crate::io::mailbox::Mailbox;
use crate::io::ring::Waiting;
use crate::io::ring::readiness::epoll::{EDGES_OF_DOORBELL, Epoll};
use crate::io::system;

pub(super) struct Notice {
    epoll: Epoll,
    /// Kept open for the ring, and for the epoll instance.
    _event: OwnedFd,
}

impl Notice {
    pub(super) fn register(ring: &IoUring, mailbox: &Mailbox) -> io::Result<Self> {
        let event = system::event()?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let epoll = Epoll::new()?;
        for watched in [event.as_fd(), mailbox.doorbell().as_fd()] {
            let result = epoll.register(watched.as_raw_fd(), EDGES_OF_DOORBELL, 0);
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
        }
        // Work that waits already has raised nothing, nor would more of it.
        system::raise(&event);
        Ok(Self { epoll, _event: event })
    }

    /// Before the ring is looked at for the last time: what comes after that look shows again.
    pub(super) fn lower(&mut self) {
        // An error would leave it readable, which costs the other loop turns and loses nothing.
        let _ = self.epoll.wait(Waiting::No);
    }
}

impl AsFd for Notice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
