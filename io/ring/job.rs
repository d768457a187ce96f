//! A request on its way through the pool.
//!
//! Whatever becomes of a job, it answers exactly once, when it goes: with the result if it was run,
//! with `ECANCELED` if it was dropped before (cancelled while the pool had no room, or left behind
//! by a pool that shut down). So no request is left without its terminal completion, and what it
//! has opened is closed with the answer if nobody reads that any more.

use std::sync::Arc;

use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{Mailbox, Message};
use crate::io::request::{Request, Token};

/// The answer when no thread is to be had, now and for as long as the machine gives us none. It is
/// not `EAGAIN`, which says that it is worth while to ask again.
pub(super) const NO_THREAD: i32 = libc::EBUSY;

pub(super) struct Job {
    request: Request,
    token: Token,
    result: i32,
    mailbox: Arc<Mailbox>,
}

// SAFETY: a request is plain data. What it points to is lent until the terminal completion (the
// contract of `Ring::submit`), is touched by this job alone meanwhile, and the completion is posted
// after the last touch: `Drop` runs when `perform` has returned.
unsafe impl Send for Job {}

impl Job {
    /// A job that answers with the error `unless_run` if nobody runs it.
    ///
    /// # Safety
    ///
    /// What the request names stays valid until the job has answered.
    pub(super) unsafe fn new(
        token: Token,
        request: Request,
        mailbox: &Arc<Mailbox>,
        unless_run: i32,
    ) -> Self {
        Self { request, token, result: -unless_run, mailbox: mailbox.clone() }
    }

    /// Does the work, on a thread that may block.
    pub(super) fn run(mut self) {
        // SAFETY: the maker of the job vouches for everything until the answer, which is yet to
        // come.
        self.result = unsafe { self.request.perform() };
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let opened = self.request.opens() && self.result >= 0;
        // SAFETY: the kernel has just opened it, and the answer owns it.
        let opened = opened.then(|| unsafe { Descriptor::from_raw(self.result) });
        self.mailbox.push(Message::Complete { token: self.token.0, result: self.result, opened });
    }
}
