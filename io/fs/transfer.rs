//! One read or one write: from the buffer to the request and back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::flight::{Flight, Landing, Mark};
use super::shared::Shared;
use crate::io::buffer::{BufError, IoBuf, IoBufMut};
use crate::io::operation::{outcome_to_result, try_read};
use crate::io::payload::{AnyPayload, Payload};
use crate::io::request::{self, Attempt, Request, Whence};

/// Longer reads are not tried at once: copying them would hold up the core for more than it saves.
const AT_ONCE_MAX: u32 = 16 * 1024;

/// What a read lends to the kernel.
struct Reading<B> {
    /// Gone when the kernel is done.
    shared: Option<Arc<Shared>>,
    buffer: B,
}

impl<B: IoBufMut> Payload for Reading<B> {
    fn landed(&mut self, _: i64) -> Option<AnyPayload> {
        self.shared.take().and_then(Shared::let_go)
    }

    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(shared) = &self.shared {
            shared.strand(wakers);
        }
    }
}

/// What a write lends to the kernel.
struct Writing<B> {
    mark: Mark,
    buffer: B,
}

impl<B: IoBuf> Payload for Writing<B> {
    fn landed(&mut self, outcome: i64) -> Option<AnyPayload> {
        self.mark.landed(outcome)
    }

    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        self.mark.stranded(wakers);
    }
}

/// Reads what fits behind the first `filled` bytes of the buffer's room. Takes no note of it in the
/// buffer.
#[inline]
pub(super) async fn read<B: IoBufMut>(
    shared: &Arc<Shared>,
    mut buffer: B,
    filled: usize,
    offset: u64,
) -> Result<(usize, B), BufError<B>> {
    let room = buffer.bytes_total() - filled;
    if room == 0 {
        return Ok((0, buffer));
    }
    // SAFETY: within the room, whose start this is.
    let address = unsafe { buffer.stable_mut_ptr().add(filled) };
    let length = match shared.check(address, room, offset) {
        Ok(length) => length,
        Err(error) => return Err(BufError::new(error, Some(buffer))),
    };
    let lucky = shared.luck.is_good();
    if lucky && length <= AT_ONCE_MAX {
        let tried = poll_fn(|cx| {
            // SAFETY: within the room, whose start this is.
            let address = unsafe { buffer.stable_mut_ptr().add(filled) };
            let descriptor = shared.number();
            let whence = Whence::Cache;
            let read = request::ReadAt { descriptor, address, length, offset, whence };
            // SAFETY: descriptor and buffer are borrowed for this call, the buffer mutably.
            Poll::Ready(unsafe { try_read(cx.waker(), read) })
        });
        match tried.await {
            Some(Attempt::Done { result }) => {
                shared.luck.hit();
                return conclude(Ok((result.into(), buffer)), |buffer| buffer);
            }
            Some(_) => shared.luck.miss(),
            None => {}
        }
    }
    let whence = match (shared.is_direct(), lucky) {
        (true, _) => Whence::Direct,
        (false, true) => Whence::Cache,
        (false, false) => Whence::Device,
    };
    let reading = Reading { shared: Some(shared.clone()), buffer };
    let request = move |reading: &mut Reading<B>| {
        // SAFETY: within the room, whose start this is.
        let address = unsafe { reading.buffer.stable_mut_ptr().add(filled) };
        let descriptor = reading.shared.get_or_insert_with(|| shared.clone()).number();
        Request::ReadAt(request::ReadAt { descriptor, address, length, offset, whence })
    };
    // SAFETY: the payload owns the descriptor and the buffer, whose memory stays in place and is
    // nobody else's, as `IoBufMut` promises.
    let landing = unsafe { Flight::new(reading, request) }.await;
    conclude(landing, |reading| reading.buffer)
}

/// Writes what follows the first `written` bytes of the buffer.
#[inline]
pub(super) async fn write<B: IoBuf>(
    shared: &Arc<Shared>,
    buffer: B,
    written: usize,
    offset: u64,
) -> Result<(usize, B), BufError<B>> {
    let bytes = buffer.bytes_init() - written;
    if bytes == 0 {
        return Ok((0, buffer));
    }
    let address = buffer.stable_ptr().wrapping_add(written);
    let length = match shared.check(address, bytes, offset) {
        Ok(length) => length,
        Err(error) => return Err(BufError::new(error, Some(buffer))),
    };
    let range = shared.written(offset, length);
    if let Err(error) = shared.may_change(range.clone()).await {
        return Err(BufError::new(error, Some(buffer)));
    }
    let writing = Writing { mark: Mark::new(shared), buffer };
    let change = (&**shared, writing.mark.ticket(), range);
    // Buffered writes go to the cache; the device gets them later.
    let whence = if shared.is_direct() { Whence::Direct } else { Whence::Cache };
    let request = move |writing: &mut Writing<B>| {
        let address = writing.buffer.stable_ptr().wrapping_add(written);
        let descriptor = writing.mark.arm(shared);
        Request::WriteAt(request::WriteAt { descriptor, address, length, offset, whence })
    };
    // SAFETY: the payload owns the descriptor and the buffer, whose bytes stay in place and are
    // written by nobody, as `IoBuf` promises.
    let landing = unsafe { Flight::changing(writing, change, request) }.await;
    conclude(landing, |mut writing| {
        writing.mark.disarm();
        writing.buffer
    })
}

/// The count and the buffer of a read or write that has ended.
#[inline]
fn conclude<P, B>(
    landing: Landing<P>,
    buffer: impl FnOnce(P) -> B,
) -> Result<(usize, B), BufError<B>> {
    match landing {
        Ok((outcome, payload)) => {
            let buffer = buffer(payload);
            match outcome_to_result(outcome) {
                Ok(count) => Ok((count, buffer)),
                Err(error) => Err(BufError::new(error, Some(buffer))),
            }
        }
        Err((error, payload)) => Err(BufError::new(error, payload.map(buffer))),
    }
}
