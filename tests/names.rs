//! Methods of a stream that share their name with one of an extension trait mean the same: code
//! that imports the traits of tokio or futures does not change its meaning on our streams.
//!
//! The compiler holds inherent methods and traits to the same arguments and answers, the calls to
//! the same bytes; and whoever adds a method with such a name has to come here.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::io::{self, IoSlice};

use futures::io::{AsyncReadExt as FuturesRead, AsyncWriteExt as FuturesWrite};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::common::pair;

/// The names of the extension traits, without those of single numbers (`read_u8` and so on).
const NAMES: &[&str] = &[
    // tokio::io::AsyncReadExt
    "chain",
    "read",
    "read_buf",
    "read_exact",
    "read_to_end",
    "read_to_string",
    "take",
    // tokio::io::AsyncWriteExt
    "write",
    "write_vectored",
    "write_buf",
    "write_all_buf",
    "write_all",
    "flush",
    "shutdown",
    // tokio::io::AsyncBufReadExt
    "read_until",
    "read_line",
    "split",
    "fill_buf",
    "consume",
    "lines",
    // futures::io::AsyncReadExt, AsyncWriteExt and AsyncBufReadExt
    "read_vectored",
    "compat",
    "close",
    "into_sink",
    "consume_unpin",
];

/// What stands below, or why it does not.
const HELD: &[&str] = &[
    "read",
    "read_exact",
    "read_until",
    "write",
    "write_vectored",
    "write_all",
    "flush",
    "shutdown",
    // As futures' `AsyncReadExt::split` and tokio's own `TcpStream::split`: two halves. tokio's
    // `AsyncBufReadExt::split` means parts between delimiters, and takes one.
    "split",
    // As futures' `AsyncWriteExt::close`: ends the connection behind what was written. That the
    // stream is gone afterwards is the difference.
    "close",
];

#[test]
fn no_name_of_the_extension_traits_is_taken_without_a_look() {
    let sources = [
        include_str!("../io/net/tcp_stream.rs"),
        include_str!("../io/net/split.rs"),
        include_str!("../io/net/tcp_stream/options.rs"),
    ];
    let methods: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.strip_prefix("    pub "))
        .filter_map(|line| line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn "))
        .filter_map(|line| line.split(['(', '<']).next())
        .collect();
    assert!(methods.contains("recv") && methods.contains("set_nodelay"), "{methods:?}");
    let numbers = |name: &str| name.starts_with("read_u") || name.starts_with("write_u");
    let taken: BTreeSet<&str> = methods
        .into_iter()
        .filter(|name| NAMES.contains(name) || numbers(name) && *name != "read_until")
        .collect();
    assert_eq!(taken, HELD.iter().copied().collect());
}

/// Two calls that answer with the same type, and the same thing.
async fn same<A: Debug + PartialEq>(
    ours: impl Future<Output = io::Result<A>>,
    tokios: impl Future<Output = io::Result<A>>,
) {
    assert_eq!(ours.await.unwrap(), tokios.await.unwrap());
}

#[quoit::test]
async fn reads_mean_what_they_mean_elsewhere() {
    let (mut stream, peer) = pair().await;
    peer.write_all(b"one two three\nfour\nfive\n").await.unwrap();
    let (mut ours, mut tokios, mut theirs) = ([0; 4], [0; 4], [0; 4]);

    let count = stream.read(&mut ours).await.unwrap();
    assert_eq!((count, &ours), (4, b"one "));
    let count = AsyncReadExt::read(&mut stream, &mut tokios).await.unwrap();
    assert_eq!((count, &tokios), (4, b"two "));

    // tokio's answers the count, that of futures nothing.
    let count: usize = stream.read_exact(&mut ours[..2]).await.unwrap();
    let theirs_count: usize =
        AsyncReadExt::read_exact(&mut stream, &mut tokios[..2]).await.unwrap();
    FuturesRead::read_exact(&mut stream, &mut theirs[..1]).await.unwrap();
    assert_eq!((count, theirs_count), (2, 2));
    assert_eq!((&ours[..2], &tokios[..2], &theirs[..1]), (&b"th"[..], &b"re"[..], &b"e"[..]));

    // The same two arguments first; each appends, and counts what it appended.
    let mut line = b"> ".to_vec();
    assert_eq!(stream.read_until(b'\n', &mut line, 100).await.unwrap(), 1);
    assert_eq!(AsyncBufReadExt::read_until(&mut stream, b'\n', &mut line).await.unwrap(), 5);
    let futures = futures::io::AsyncBufReadExt::read_until(&mut stream, b'\n', &mut line);
    assert_eq!(futures.await.unwrap(), 5);
    assert_eq!(line, b"> \nfour\nfive\n");

    // And the end.
    drop(peer);
    let mut rest = (Vec::new(), Vec::new());
    assert_eq!(stream.read(&mut ours).await.unwrap(), 0);
    assert_eq!(AsyncReadExt::read(&mut stream, &mut tokios).await.unwrap(), 0);
    assert_eq!(stream.read_until(0, &mut rest.0, 9).await.unwrap(), 0);
    assert_eq!(AsyncBufReadExt::read_until(&mut stream, 0, &mut rest.1).await.unwrap(), 0);
    let ends = [
        stream.read_exact(&mut ours).await.unwrap_err(),
        AsyncReadExt::read_exact(&mut stream, &mut tokios).await.unwrap_err(),
    ];
    assert_eq!(ends.map(|error| error.kind()), [io::ErrorKind::UnexpectedEof; 2]);
}

#[quoit::test]
async fn writes_mean_what_they_mean_elsewhere() {
    let (ours, peer) = pair().await;
    let (mut tokios, other_peer) = pair().await;
    let parts = [IoSlice::new(b"in "), IoSlice::new(b"parts")];
    same(ours.write(b"bytes"), AsyncWriteExt::write(&mut tokios, b"bytes")).await;
    same(ours.write_vectored(&parts), AsyncWriteExt::write_vectored(&mut tokios, &parts)).await;
    same(ours.write_all(b"all"), AsyncWriteExt::write_all(&mut tokios, b"all")).await;
    same(ours.flush(), AsyncWriteExt::flush(&mut tokios)).await;
    same(ours.shutdown(), AsyncWriteExt::shutdown(&mut tokios)).await;
    same(ours.shutdown(), AsyncWriteExt::shutdown(&mut tokios)).await;
    for peer in [peer, other_peer] {
        let mut received = Vec::new();
        while peer.read_until(b'!', &mut received, 100).await.unwrap() > 0 {}
        assert_eq!(received, b"bytesin partsall", "and then the end");
        // Only writing has ended.
        peer.write_all(b"reply").await.unwrap();
    }
    for stream in [ours, tokios] {
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"reply");
    }
}

#[quoit::test]
async fn closing_ends_the_connection_behind_what_was_written() {
    for theirs in [false, true] {
        let (mut stream, peer) = pair().await;
        stream.send("the last").await.unwrap();
        if theirs {
            FuturesWrite::close(&mut stream).await.unwrap();
        } else {
            stream.close().await.unwrap();
        }
        let mut received = Vec::new();
        while peer.read_until(b'!', &mut received, 100).await.unwrap() > 0 {}
        assert_eq!(received, b"the last");
    }
}

#[quoit::test]
async fn the_shutdown_of_std_takes_a_direction() {
    let (stream, peer) = pair().await;
    stream.shutdown_with(std::net::Shutdown::Read).await.unwrap();
    assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
    stream.send_all("goes on").await.unwrap();
    stream.shutdown_with(std::net::Shutdown::Write).await.unwrap();
    let mut received = [0; 7];
    peer.read_exact(&mut received).await.unwrap();
    assert_eq!(peer.read(&mut [0; 4]).await.unwrap(), 0);
}
