//! The calls that every poll-based trait comes down to; those of buffered readers are in `lend`.
//!
//! All share one place in each direction's line, and so one waker: that of the latest poll, as the
//! traits have it. Futures of native calls go before it. Reads and writes do not know of each
//! other.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use super::super::handle::{Bound, StreamHandle};
use super::super::native::end::end_writing;
use crate::io::allowance;
use crate::io::waiters::POLLER;

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
    handle.poll(cx, |tables, key, caller| {
        let entry = tables.streams.get_mut(key)?;
        let (number, services) = (entry.number(), &mut tables.services);
        let place = (&mut Some(POLLER), false);
        Some(entry.receive.poll_slice(key, number, place, into, caller, services))
    })
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
    handle.poll(cx, |tables, key, caller| {
        let entry = tables.streams.get_mut(key)?;
        let (place, services) = ((key, entry.number()), &mut tables.services);
        Some(entry.send.poll_write(place, &mut Some(POLLER), parts, caller, services))
    })
}

/// Waits until the kernel has what native sends have committed; slices never wait.
///
/// A write that waits has the same place, and keeps it: this is no answer to it.
pub(super) fn flush(handle: &StreamHandle, cx: &Context<'_>) -> Poll<io::Result<()>> {
    if !handle.is_bound() {
        return Poll::Ready(Ok(()));
    }
    let sent = handle.with(|tables, key| Some(tables.streams.get_mut(key)?.send.is_flushed()));
    if !matches!(sent, Ok(false)) {
        return flushed(sent.map(drop), cx);
    }
    handle.poll(cx, |tables, key, caller| {
        let entry = tables.streams.get_mut(key)?;
        Some(match entry.send.is_flushed() {
            Ok(false) => entry.send.wait(&mut Some(POLLER), caller, &mut tables.services),
            flushed => Poll::Ready(flushed.map(drop)),
        })
    })
}

/// There is nothing to wait for.
fn flushed(result: io::Result<()>, cx: &Context<'_>) -> Poll<io::Result<()>> {
    if !allowance::take_flush() {
        if !allowance::is_left() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        allowance::spend();
        allowance::take_flush();
    }
    Poll::Ready(result)
}

/// Sends FIN behind all that is committed.
pub(super) fn shut_down(handle: &StreamHandle, cx: &Context<'_>) -> Poll<io::Result<()>> {
    ready!(flush(handle, cx))?;
    Poll::Ready(end_writing(handle))
}
