//! Halves of a stream, borrowed and owned.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use super::futures::{Recv, SendBuffer};
use super::handle::StreamHandle;
use super::native;
use super::tcp_stream::TcpStream;
use crate::io::buffer::{BufError, IoBuf, IoBufMut};
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
        match native::read(&self.handle, into).await {
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
        native::read(&self.handle, native::as_uninit(into)).await
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
        native::read_exact(&self.handle, into).await
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
        native::read_until(&self.handle, delimiter, into, limit).await
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
        native::peek(&self.handle, into).await
    }

    /// As [`TcpStream::readable`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::readable`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::block_on(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (reader, _writer) = server.into_split();
    /// let mut room = [0; 16];
    /// let too_soon = reader.try_read(&mut room).unwrap_err();
    /// assert_eq!(too_soon.kind(), std::io::ErrorKind::WouldBlock);
    /// client.send_all("hello").await?;
    /// reader.readable().await?;
    /// assert_eq!(reader.try_read(&mut room)?, 5);
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub async fn readable(&self) -> io::Result<()> {
        native::readable(&self.handle).await
    }

    /// As [`TcpStream::try_read`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::try_read`].
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        native::try_read(&self.handle, into)
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
        native::write(&self.handle, &[IoSlice::new(bytes)]).await
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
        native::write(&self.handle, parts).await
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
        native::write_all(&self.handle, bytes).await
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
        native::flush(&self.handle).await
    }

    /// As [`TcpStream::writable`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::writable`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::block_on(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (_reader, writer) = client.into_split();
    /// writer.writable().await?;
    /// assert_eq!(writer.try_write(b"hello")?, 5);
    /// assert_eq!(&server.recv().await?[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub async fn writable(&self) -> io::Result<()> {
        native::writable(&self.handle).await
    }

    /// As [`TcpStream::try_write`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::try_write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// As [`TcpStream::try_write_vectored`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::try_write`].
    pub fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        native::try_write(&self.handle, parts)
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
        native::shut_down(&self.handle).await
    }

    /// Joins the halves again.
    ///
    /// # Errors
    ///
    /// The halves come back when they are not of one stream.
    pub fn reunite(self, reader: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        reader.reunite(self)
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

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if !self.forgotten {
            self.handle.finish();
        }
    }
}
