//! Halves of a stream, and the native operations that stream and halves share.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::futures::{Recv, SendBuffer};
use super::handle::{Bound, Place, StreamHandle};
use super::tcp_stream::{TcpStream, as_uninit, poll_read, read};
use crate::io::buffer::{BufError, IoBuf, IoBufMut};
use crate::io::mailbox::Wait;
use crate::io::request::call;

/// The reading half of [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(super) &'a TcpStream);

/// The writing half of [`TcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(super) &'a TcpStream);

impl std::ops::Deref for ReadHalf<'_> {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.0
    }
}

impl std::ops::Deref for WriteHalf<'_> {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.0
    }
}

/// The reading half of [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    pub(super) handle: Arc<StreamHandle>,
}

/// The writing half of [`TcpStream::into_split`]. Dropping it sends what is committed, then FIN.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    pub(super) handle: Arc<StreamHandle>,
    forgotten: bool,
}

/// Two halves were not of one stream; they come back.
#[derive(Debug)]
pub struct ReuniteError(
    /// The reading half.
    pub OwnedReadHalf,
    /// The writing half.
    pub OwnedWriteHalf,
);

impl std::fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the halves belong to different streams")
    }
}

impl std::error::Error for ReuniteError {}

pub(super) fn into_split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let TcpStream { handle } = stream;
    (OwnedReadHalf { handle: handle.clone() }, OwnedWriteHalf { handle, forgotten: false })
}

impl OwnedReadHalf {
    /// As [`TcpStream::recv`].
    pub fn recv(&self) -> Recv<'_> {
        Recv::new(&self.handle)
    }

    /// As [`TcpStream::recv_into`].
    ///
    /// # Errors
    ///
    /// As recv(2), together with the buffer.
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::recv_into`].
    pub async fn recv_into<B: IoBufMut>(&self, mut buffer: B) -> Result<(usize, B), BufError<B>> {
        let (address, room) = (buffer.stable_mut_ptr(), buffer.bytes_total());
        // SAFETY: `IoBufMut` promises that many writable bytes there, ours while we hold the
        // buffer.
        let into = unsafe { std::slice::from_raw_parts_mut(address.cast(), room) };
        match read(&self.handle, into).await {
            Ok(count) => {
                // SAFETY: the read has initialised that many bytes, from the start.
                unsafe { buffer.set_init(count) };
                Ok((count, buffer))
            }
            Err(error) => Err(BufError::new(error, Some(buffer))),
        }
    }

    /// As [`TcpStream::read`].
    ///
    /// # Errors
    ///
    /// As recv(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        read(&self.handle, as_uninit(into)).await
    }

    /// As [`TcpStream::read_exact`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::read_exact`].
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::read_exact`].
    pub async fn read_exact(&self, into: &mut [u8]) -> io::Result<usize> {
        read_exact(&self.handle, into).await
    }

    /// As [`TcpStream::read_until`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::read_until`].
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::read_until`].
    pub async fn read_until(
        &self,
        delimiter: u8,
        into: &mut Vec<u8>,
        limit: usize,
    ) -> io::Result<usize> {
        read_until(&self.handle, delimiter, into, limit).await
    }

    /// As [`TcpStream::peek`].
    ///
    /// # Errors
    ///
    /// As recv(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses nothing.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        peek(&self.handle, into).await
    }

    /// Joins the halves again.
    ///
    /// # Errors
    ///
    /// The halves come back when they are not of one stream.
    pub fn reunite(self, mut writer: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.handle, &writer.handle) {
            return Err(ReuniteError(self, writer));
        }
        writer.forgotten = true;
        drop(writer);
        Ok(TcpStream { handle: self.handle })
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// As getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        call::peer_address(self.handle.number())
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        call::local_address(self.handle.number())
    }
}

impl OwnedWriteHalf {
    /// As [`TcpStream::send`].
    pub fn send<B: IoBuf>(&self, buffer: B) -> SendBuffer<'_, B> {
        SendBuffer::new(&self.handle, buffer)
    }

    /// As [`TcpStream::send_all`].
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::send`].
    pub async fn send_all<B: IoBuf>(&self, buffer: B) -> io::Result<()> {
        self.send(buffer).await?;
        Ok(())
    }

    /// As [`TcpStream::write`].
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing of the slice was sent.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        write(&self.handle, &[IoSlice::new(bytes)]).await
    }

    /// As [`TcpStream::write_vectored`].
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing was sent.
    pub async fn write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        write(&self.handle, parts).await
    }

    /// As [`TcpStream::write_all`].
    ///
    /// # Errors
    ///
    /// As send(2).
    ///
    /// # Cancel safety
    ///
    /// As [`TcpStream::write_all`].
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.handle, bytes).await
    }

    /// As [`TcpStream::flush`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::flush`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    pub async fn flush(&self) -> io::Result<()> {
        flush(&self.handle).await
    }

    /// As [`TcpStream::shutdown`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::shutdown`].
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for committed bytes, nothing is ended.
    pub async fn shutdown(&self) -> io::Result<()> {
        shut_down(&self.handle).await
    }

    /// Joins the halves again.
    ///
    /// # Errors
    ///
    /// The halves come back when they are not of one stream.
    pub fn reunite(self, reader: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        reader.reunite(self)
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if !self.forgotten {
            self.handle.finish();
        }
    }
}

/// Fills a slice, staying first in line; what it had read goes back when it is dropped half-way.
struct ReadExact<'a> {
    handle: &'a StreamHandle,
    place: Place,
    into: &'a mut [u8],
    filled: usize,
}

pub(super) async fn read_exact(handle: &StreamHandle, into: &mut [u8]) -> io::Result<usize> {
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

pub(super) async fn read_until(
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

pub(super) async fn shut_down(handle: &StreamHandle) -> io::Result<()> {
    flush(handle).await?;
    end_writing(handle)
}

/// Sends FIN. A connection that is down has no direction left to end: that is no error, as a second
/// call is none; what was lost with it, flush and reads tell.
pub(super) fn end_writing(handle: &StreamHandle) -> io::Result<()> {
    match call::shutdown(handle.number(), Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Ends what is in flight and takes the stream off its core.
pub(super) async fn detach(handle: &StreamHandle) -> io::Result<()> {
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
