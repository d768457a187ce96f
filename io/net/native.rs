//! The operations of a stream, as functions of its handle: the stream and its halves share them.
//!
//! ```text
//!   native      one poll each: read, write, peek, flush, ready, try
//!   whole       reads of several receives, which give back what they took
//!   end         shutdown, detach, close
//! ```

pub(super) mod end;
mod whole;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::task::{Context, Poll};

pub(super) use self::end::{close, detach, shut_down};
pub(super) use self::whole::{read_exact, read_until};
use super::handle::{Bound, Place, StreamHandle};
use crate::io::mailbox::{Key, Wait, WaiterId};
use crate::io::net::stream::Stream;
use crate::io::services::Services;
use crate::io::waiters::{Caller, POLLER};

/// One read into a slice.
pub(super) async fn read(handle: &StreamHandle, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    if into.is_empty() {
        return Ok(0);
    }
    let mut place = Place::new(Wait::Read);
    poll_fn(|cx| poll_read(handle, &mut place, false, into, cx)).await
}

#[inline]
pub(super) fn poll_read(
    handle: &StreamHandle,
    place: &mut Place,
    keep_place: bool,
    into: &mut [MaybeUninit<u8>],
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    handle.poll_in_line(place, cx, |tables, key, waiter, caller| {
        let entry = tables.streams.get_mut(key)?;
        let (number, services) = (entry.number(), &mut tables.services);
        let place = (waiter, keep_place);
        Some(entry.receive.poll_slice(key, number, place, into, caller, services))
    })
}

pub(super) async fn peek(handle: &StreamHandle, into: &mut [u8]) -> io::Result<usize> {
    if into.is_empty() {
        return Ok(0);
    }
    let mut place = Place::new(Wait::Read);
    poll_fn(|cx| {
        handle.poll_in_line(&mut place, cx, |tables, key, waiter, caller| {
            let (entry, into) = (tables.streams.get_mut(key)?, as_uninit(into));
            let (number, services) = (entry.number(), &mut tables.services);
            Some(entry.receive.poll_peek(key, number, waiter, into, caller, services))
        })
    })
    .await
}

/// As `peek`, in the place of the poll-based traits.
pub(super) fn poll_peek(
    handle: &StreamHandle,
    into: &mut [u8],
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    if into.is_empty() {
        return Poll::Ready(Ok(0));
    }
    handle.poll(cx, |tables, key, caller| {
        let (entry, into) = (tables.streams.get_mut(key)?, as_uninit(into));
        let (number, services) = (entry.number(), &mut tables.services);
        Some(entry.receive.poll_peek(key, number, &mut Some(POLLER), into, caller, services))
    })
}

pub(super) async fn write(handle: &StreamHandle, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut place = Place::new(Wait::Write);
    poll_fn(|cx| poll_write(handle, &mut place, parts, cx)).await
}

pub(super) fn poll_write(
    handle: &StreamHandle,
    place: &mut Place,
    parts: &[IoSlice<'_>],
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    handle.poll_in_line(place, cx, |tables, key, waiter, caller| {
        let entry = tables.streams.get_mut(key)?;
        let (place, services) = ((key, entry.number()), &mut tables.services);
        Some(entry.send.poll_write(place, waiter, parts, caller, services))
    })
}

pub(super) async fn write_all(handle: &StreamHandle, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = write(handle, &[IoSlice::new(bytes)]).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

pub(super) async fn flush(handle: &StreamHandle) -> io::Result<()> {
    if !handle.is_bound() {
        return Ok(());
    }
    let mut place = Place::new(Wait::Write);
    poll_fn(|cx| poll_flush(handle, &mut place, cx)).await
}

pub(super) fn poll_flush(
    handle: &StreamHandle,
    place: &mut Place,
    cx: &Context<'_>,
) -> Poll<io::Result<()>> {
    handle.poll_in_line(place, cx, |tables, key, waiter, caller| {
        let entry = tables.streams.get_mut(key)?;
        Some(entry.send.poll_flush(waiter, caller, &mut tables.services))
    })
}

/// Waits until a read would not wait.
pub(super) async fn readable(handle: &StreamHandle) -> io::Result<()> {
    ready(handle, Wait::Readable, |entry, key, waiter, caller, services| {
        let number = entry.number();
        entry.receive.poll_ready(key, number, waiter, caller, services)
    })
    .await
}

/// Waits until a write would not wait.
pub(super) async fn writable(handle: &StreamHandle) -> io::Result<()> {
    ready(handle, Wait::Writable, |entry, key, waiter, caller, services| {
        let number = entry.number();
        entry.send.poll_ready((key, number), waiter, caller, services)
    })
    .await
}

async fn ready<F>(handle: &StreamHandle, wait: Wait, poll: F) -> io::Result<()>
where
    F: Fn(&mut Stream, Key, &mut Option<WaiterId>, &mut Caller<'_>, &mut Services) -> Poll<()>,
{
    let mut place = Place::new(wait);
    poll_fn(|cx| {
        handle.poll_in_line(&mut place, cx, |tables, key, waiter, caller| {
            let entry = tables.streams.get_mut(key)?;
            Some(poll(entry, key, waiter, caller, &mut tables.services).map(Ok))
        })
    })
    .await
}

pub(super) fn try_read(handle: &StreamHandle, into: &mut [u8]) -> io::Result<usize> {
    if into.is_empty() {
        return Ok(0);
    }
    handle.with(|tables, key| {
        let entry = tables.streams.get_mut(key)?;
        let number = entry.number();
        Some(entry.receive.try_read(key, number, as_uninit(into), &mut tables.services))
    })
}

pub(super) fn try_write(handle: &StreamHandle, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    handle.with(|tables, key| {
        let entry = tables.streams.get_mut(key)?;
        let place = (key, entry.number());
        Some(entry.send.try_write(place, parts, &mut tables.services))
    })
}

/// Bytes that are there anyway, as room for new ones.
pub(super) fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the same layout. Nobody here writes anything but initialised bytes through it.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}
