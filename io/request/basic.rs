//! Requests that belong to no family: nothing at all, and readiness itself.

use io_uring::{opcode, squeue, types};

use super::{Attempt, Interest, answer};

/// Does nothing: one round trip through the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nop;

impl Nop {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Nop::new().build()
    }

    pub(crate) fn attempt(self) -> Attempt {
        Attempt::Done { result: 0 }
    }
}

/// Readiness as a request: answers when the descriptor is (multishot: each time it becomes)
/// readable or writable. The result is the mask of poll(2) events.
///
/// This is how slices are served on the completion ring: the kernel may never see a slice across a
/// return from `poll`, so it is asked *when*, and the bytes are moved by a direct call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    pub(crate) descriptor: i32,
    pub(crate) interest: Interest,
    pub(crate) multishot: bool,
}

/// In the result of a `Poll`: the peer's end, or an error. More may still be there to receive.
pub(crate) const HANG_UP: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

impl Poll {
    /// The events of poll(2) that are asked for.
    pub(crate) fn mask(self) -> i16 {
        match self.interest {
            Interest::Readable => libc::POLLIN | libc::POLLRDHUP,
            Interest::Writable => libc::POLLOUT,
        }
    }

    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(self.descriptor), self.mask() as u32)
            .multi(self.multishot)
            .build()
    }

    /// # Safety
    ///
    /// The descriptor number is one that the caller keeps open.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        let mut entry = libc::pollfd { fd: self.descriptor, events: self.mask(), revents: 0 };
        // A signal that comes while nothing is ready ends even a call that does not wait, and it is
        // not begun anew for a handler with `SA_RESTART` (signal(7)).
        let ready = loop {
            // SAFETY: one valid pollfd.
            let ready = answer(unsafe { libc::poll(&raw mut entry, 1, 0) } as isize);
            if ready != -libc::EINTR {
                break ready;
            }
        };
        match (ready, self.multishot) {
            (0, _) => Attempt::WouldBlock(self.interest),
            (1, true) => {
                Attempt::More { result: i32::from(entry.revents), buffer: None, drained: true }
            }
            (1, false) => Attempt::Done { result: i32::from(entry.revents) },
            (error, _) => Attempt::Done { result: error },
        }
    }
}
