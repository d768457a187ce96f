//! Reads that take several receives: `read_exact` and `read_until`.
//!
//! From its first byte on such a read stays first in line, so that nothing comes between its parts;
//! dropped half-way, or failed, it gives back what it took.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{as_uninit, poll_read};
use crate::io::mailbox::Wait;
use crate::io::net::handle::{Place, StreamHandle};

/// Fills a slice, staying first in line; what it had read goes back when it is dropped half-way.
struct ReadExact<'a> {
    handle: &'a StreamHandle,
    place: Place,
    into: &'a mut [u8],
    filled: usize,
}

pub(in crate::io::net) async fn read_exact(
    handle: &StreamHandle,
    into: &mut [u8],
) -> io::Result<usize> {
    ReadExact { handle, place: Place::new(Wait::Read), into, filled: 0 }.await
}

impl Future for ReadExact<'_> {
    type Output = io::Result<usize>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while this.filled < this.into.len() {
            let rest = as_uninit(&mut this.into[this.filled..]);
            let count = match poll_read(this.handle, &mut this.place, true, rest, cx) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if this.filled > 0 {
                        this.handle.hold(&mut this.place);
                    }
                    return Poll::Pending;
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.filled += count;
        }
        this.filled = 0;
        this.handle.give_back(&mut this.place, Vec::new());
        Poll::Ready(Ok(this.into.len()))
    }
}

impl Drop for ReadExact<'_> {
    fn drop(&mut self) {
        self.handle.give_back(&mut self.place, self.into[..self.filled].to_vec());
    }
}

/// Reads up to a delimiter; what it had read goes back when it is dropped half-way.
struct ReadUntil<'a> {
    handle: &'a StreamHandle,
    place: Place,
    delimiter: u8,
    limit: usize,
    taken: Vec<u8>,
}

/// Bytes that `read_until` asks for at a time.
const CHUNK: usize = 4096;

pub(in crate::io::net) async fn read_until(
    handle: &StreamHandle,
    delimiter: u8,
    into: &mut Vec<u8>,
    limit: usize,
) -> io::Result<usize> {
    let place = Place::new(Wait::Read);
    let line = ReadUntil { handle, place, delimiter, limit, taken: Vec::new() }.await?;
    into.extend_from_slice(&line);
    Ok(line.len())
}

impl Future for ReadUntil<'_> {
    type Output = io::Result<Vec<u8>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let searched = this.taken.len();
            let room = (this.limit - searched).min(CHUNK);
            if room == 0 {
                let text = "no delimiter within the limit";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            this.taken.reserve(room);
            let spare = &mut this.taken.spare_capacity_mut()[..room];
            let count = match poll_read(this.handle, &mut this.place, true, spare, cx) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if searched > 0 {
                        this.handle.hold(&mut this.place);
                    }
                    return Poll::Pending;
                }
            };
            // SAFETY: the read has initialised that many bytes.
            unsafe { this.taken.set_len(searched + count) };
            let found = this.taken[searched..].iter().position(|byte| *byte == this.delimiter);
            if found.is_none() && count > 0 {
                continue;
            }
            let end = found.map_or(this.taken.len(), |at| searched + at + 1);
            let rest = this.taken.split_off(end);
            this.handle.give_back(&mut this.place, rest);
            return Poll::Ready(Ok(std::mem::take(&mut this.taken)));
        }
    }
}

impl Drop for ReadUntil<'_> {
    fn drop(&mut self) {
        self.handle.give_back(&mut self.place, std::mem::take(&mut self.taken));
    }
}
