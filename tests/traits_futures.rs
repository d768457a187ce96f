//! The traits of futures-io on our streams, on both rings.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::pin::Pin;

use futures_io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::common::{pair, pattern, soon, with_std};

/// `futures::io::copy` in small: what such a loop asks of both traits, the reader's buffer
/// included.
async fn copy<R, W>(mut reader: R, mut writer: W) -> std::io::Result<u64>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut total = 0;
    loop {
        let count = poll_fn(|cx| {
            let lent = std::task::ready!(Pin::new(&mut reader).poll_fill_buf(cx))?;
            if lent.is_empty() {
                return std::task::Poll::Ready(Ok(0));
            }
            Pin::new(&mut writer).poll_write(cx, lent)
        })
        .await?;
        if count == 0 {
            poll_fn(|cx| Pin::new(&mut writer).poll_close(cx)).await?;
            return Ok(total);
        }
        Pin::new(&mut reader).consume(count);
        total += count as u64;
    }
}

async fn read_to_end(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut received, mut buffer) = (Vec::new(), [0; 5000]);
    loop {
        let count = poll_fn(|cx| Pin::new(&mut reader).poll_read(cx, &mut buffer)).await.unwrap();
        if count == 0 {
            return received;
        }
        received.extend_from_slice(&buffer[..count]);
    }
}

async fn write_all(mut writer: impl AsyncWrite + Unpin, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| Pin::new(&mut writer).poll_write(cx, bytes)).await.unwrap();
        bytes = &bytes[count..];
    }
    poll_fn(|cx| Pin::new(&mut writer).poll_flush(cx)).await.unwrap();
    poll_fn(|cx| Pin::new(&mut writer).poll_close(cx)).await.unwrap();
}

#[quoit::test]
async fn copies_whole_streams_and_closes_with_fin() {
    const TOTAL: usize = 1_500_000;
    let (client, server) = pair().await;
    let echo = quoit::spawn(async move {
        let (reader, writer) = server.into_split();
        copy(reader, writer).await.unwrap()
    });
    let bytes = pattern(0, TOTAL);
    let both = async { futures::join!(write_all(&client, &bytes), read_to_end(&client)) };
    let ((), received) = soon("the echo", both).await;
    assert!(received == bytes, "{} bytes came back, or others", received.len());
    assert_eq!(echo.await.unwrap(), TOTAL as u64);
}

#[quoit::test]
async fn vectored_calls_are_real() {
    let (mut stream, mut peer) = with_std().await;
    let parts = [&b"one"[..], b"", b"call"].map(IoSlice::new);
    let write = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &parts));
    assert_eq!(soon("the write", write).await.unwrap(), 7);
    let mut received = [0; 7];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"onecall");

    peer.write_all(b"answer").unwrap();
    let (mut none, mut some) = ([0; 0], [0; 16]);
    let mut into = [IoSliceMut::new(&mut none), IoSliceMut::new(&mut some)];
    let read = poll_fn(|cx| Pin::new(&mut stream).poll_read_vectored(cx, &mut into));
    assert_eq!(soon("the read", read).await.unwrap(), 6, "the first slice with room is filled");
    assert_eq!(&some[..6], b"answer");
}
