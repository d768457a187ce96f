//! The ways in which a stream ends, or leaves its core.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::task::Poll;

use super::flush;
use crate::io::mailbox::{Wait, current_core};
use crate::io::net::handle::{Bound, Place, StreamHandle};
use crate::io::operation::{self, Pending, outcome_to_result};
use crate::io::payload::AnyPayload;
use crate::io::request::call;

pub(in crate::io::net) async fn shut_down(handle: &StreamHandle) -> io::Result<()> {
    flush(handle).await?;
    end_writing(handle)
}

/// Sends FIN. A connection that is down has no direction left to end: that is no error, as a second
/// call is none; what was lost with it, flush and reads tell.
pub(in crate::io::net) fn end_writing(handle: &StreamHandle) -> io::Result<()> {
    match call::shutdown(handle.number(), Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Ends what is in flight and takes the stream off its core.
pub(in crate::io::net) async fn detach(handle: &StreamHandle) -> io::Result<()> {
    if !handle.is_bound() {
        return Ok(());
    }
    flush(handle).await?;
    let mut place = Place::new(Wait::Idle);
    poll_fn(|cx| {
        handle.poll_in_line(&mut place, cx, |tables, key, waiter, caller| {
            let entry = tables.streams.get_mut(key)?;
            let services = &mut tables.services;
            if entry.poll_idle(key, waiter, caller, services).is_pending() {
                return Some(Poll::Pending);
            }
            let remains = tables.part_stream(key)?;
            *waiter = None;
            // Before those who are woken by this look for it.
            handle.unbind(remains);
            Some(Poll::Ready(Ok(())))
        })
    })
    .await
}

/// Closes as dropping does, and tells what became of it.
pub(in crate::io::net) async fn close(handle: &StreamHandle) -> io::Result<()> {
    if !handle.is_bound() && !handle.socket().has_input() {
        return Ok(());
    }
    let mut closing: Option<Pending<()>> = None;
    poll_fn(|cx| {
        if let Some(closing) = &mut closing {
            return closing.poll(cx).map(|closed| {
                closed.and_then(|(outcome, ())| outcome_to_result(outcome).map(drop))
            });
        }
        let mut waker = Some(cx.waker().clone());
        let opened = handle.with(|tables, key| {
            let entry = tables.streams.get_mut(key)?;
            let operation =
                operation::open(&mut tables.operations, AnyPayload::plain(()), waker.take());
            entry.release_for(key, operation, &mut tables.services);
            tables.settle_stream(key);
            Some(Ok(operation))
        });
        match opened {
            Ok(operation) => {
                let pending = closing.insert(Pending::new(current_core(), operation));
                pending.poll(cx).map(|closed| {
                    closed.and_then(|(outcome, ())| outcome_to_result(outcome).map(drop))
                })
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    })
    .await
}
