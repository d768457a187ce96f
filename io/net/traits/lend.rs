//! The two calls of buffered readers: they get to see received bytes where the kernel has put them.
//!
//! Only handles that keep all other readers away have them. `&TcpStream` and the borrowed halves do
//! not: another one could take the bytes that are being looked at.

use std::io;
use std::task::{Context, Poll};

use super::super::handle::Bound;
use super::{Handle, OwnedReadHalf, TcpStream};

/// A handle whose mutable borrow keeps every other reader of the stream away.
///
/// # Safety
///
/// While it is borrowed mutably, no other handle or future can read from the stream, detach it or
/// end its life.
pub(super) unsafe trait SoleReader: Handle {}

// SAFETY: the only handle of its stream; all that reads borrows it.
unsafe impl SoleReader for TcpStream {}
// SAFETY: the one reading half of its stream; the other half cannot read, and a stream that has
// halves ends with the last of them.
unsafe impl SoleReader for OwnedReadHalf {}

/// Lends what is there without a copy; empty is the end.
pub(super) fn fill<'a, R: SoleReader>(
    reader: &'a mut R,
    cx: &Context<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    let polled = reader.handle().poll(cx, |tables, key, caller| {
        let entry = tables.streams.get_mut(key)?;
        let (number, services) = (entry.number(), &mut tables.services);
        Some(entry.receive.poll_fill(key, number, caller, services))
    });
    // SAFETY: the bytes stay until somebody reads, and nobody can while `reader` is borrowed;
    // should the core end meanwhile, they are kept with the socket, which `reader` shares.
    polled.map_ok(|lent| unsafe { &*lent })
}

/// Takes what `fill` has lent.
#[track_caller]
pub(super) fn consume(reader: &mut impl SoleReader, count: usize) {
    let consumed = reader.handle().with(|tables, key| {
        tables.streams.get_mut(key)?.receive.consume(count);
        Some(Ok(()))
    });
    if let Err(error) = consumed {
        // With the core gone there is nothing left to take. Else nothing can be answered here, and
        // bytes that stay would be read twice.
        assert!(
            reader.handle().is_stranded(),
            "`consume` was called off the stream's core: {error}"
        );
    }
}
