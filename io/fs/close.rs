//! Closing through the ring, to hear what the file system had kept for this moment.

use std::future::poll_fn;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};
use std::task::Poll;

use crate::io::descriptor::Descriptor;
use crate::io::operation::{Pending, outcome_to_result};
use crate::io::payload::Payload;
use crate::io::proactor::{Proactor, outside};
use crate::io::request::{self, Request};

/// A descriptor on its way to be closed by the kernel, which from then on owns the number.
struct Closing {
    descriptor: Option<Descriptor>,
    number: RawFd,
}

impl Closing {
    /// The number is free, whatever close(2) says of the file; cancelled, the request did nothing.
    fn over(&mut self, outcome: i64) -> io::Result<()> {
        match outcome_to_result(outcome) {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                // SAFETY: nothing has closed the number, and nobody else owns it.
                self.descriptor = Some(unsafe { Descriptor::from_raw(self.number) });
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Payload for Closing {
    fn abandoned(mut self, outcome: i64) {
        // Nobody is left to tell.
        let _ = self.over(outcome);
    }
}

/// Closes a descriptor through the ring. Unlike other requests it is never repeated: after EINTR
/// the number may be somebody else's.
pub(super) async fn close(descriptor: Descriptor) -> io::Result<()> {
    let number = descriptor.number();
    let mut closing = Some(Closing { descriptor: Some(descriptor), number });
    let mut pending = None;
    let (outcome, mut closing) = poll_fn(|cx| {
        if let Some(payload) = closing.take() {
            pending = Proactor::with_current(|proactor| {
                let request = |closing: &mut Closing| {
                    let descriptor = closing.descriptor.take().expect("closed once");
                    Request::Close(request::Close { descriptor: descriptor.into_raw_fd() })
                };
                // SAFETY: the request names no memory, and with it the kernel owns the number.
                unsafe { Pending::submit(proactor, payload, cx.waker(), request) }
            });
        }
        match &mut pending {
            Some(pending) => pending.poll(cx),
            None => Poll::Ready(Err(outside("a close"))),
        }
    })
    .await?;
    closing.over(outcome)
}
