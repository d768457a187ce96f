//! The calls that every poll-based trait comes down to; those of buffered readers are in `lend`.
//!
//! All share one place in each direction's line, and so one waker: that of the latest poll, as the
//! traits have it. Futures of native calls go before it. Reads and writes do not know of each
//! other.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use super::super::futures::{flatten, unflatten};
use super::super::handle::StreamHandle;
use crate::io::request::call;
use crate::io::waiters::{Caller, POLLER};

/// Reads what is there, at least a byte; 0 is the end, or a slice without room. Nothing of the
/// slice is written but what was read.
pub(super) fn read(
    handle: &StreamHandle,
    into: &mut [MaybeUninit<u8>],
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    if into.is_empty() {
        return Poll::Ready(Ok(0));
    }
    let polled = Caller::run(cx.waker(), |caller| {
        handle.with(|tables, key| {
            let entry = tables.streams.get_mut(key)?;
            let (number, services) = (entry.number(), &mut tables.services);
            let place = (&mut Some(POLLER), false);
            Some(unflatten(entry.receive.poll_slice(key, number, place, into, caller, services)))
        })
    });
    flatten(polled)
}

/// Writes as much as the socket takes at once. What is reported taken, the kernel has.
pub(super) fn write(
    handle: &StreamHandle,
    parts: &[IoSlice<'_>],
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    if parts.iter().all(|part| part.is_empty()) {
        return Poll::Ready(Ok(0));
    }
    let polled = Caller::run(cx.waker(), |caller| {
        handle.with(|tables, key| {
            let entry = tables.streams.get_mut(key)?;
            let (place, services) = ((key, entry.number()), &mut tables.services);
            Some(unflatten(entry.send.poll_write(
                place,
                &mut Some(POLLER),
                parts,
                caller,
                services,
            )))
        })
    });
    flatten(polled)
}

/// Waits until the kernel has what native sends have committed; slices never wait.
pub(super) fn flush(handle: &StreamHandle, cx: &Context<'_>) -> Poll<io::Result<()>> {
    if !handle.is_bound() {
        return Poll::Ready(Ok(()));
    }
    let polled = Caller::run(cx.waker(), |caller| {
        handle.with(|tables, key| {
            let entry = tables.streams.get_mut(key)?;
            let services = &mut tables.services;
            Some(unflatten(entry.send.poll_flush(&mut Some(POLLER), caller, services)))
        })
    });
    flatten(polled)
}

/// Sends FIN behind all that is committed. A connection that is down has no direction left to end:
/// that is no error, as a second call is none; what was lost with it, flush and reads tell.
pub(super) fn shut_down(handle: &StreamHandle, cx: &Context<'_>) -> Poll<io::Result<()>> {
    ready!(flush(handle, cx))?;
    match call::shutdown(handle.number(), Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
        result => Poll::Ready(result),
    }
}
