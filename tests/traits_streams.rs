//! What keeps coming as `futures_core::Stream`, on all rings: connections, leases, ticks. A stream
//! that is kept and not polled is in nobody's way, and none goes on after its end.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::time::Duration;

use futures::stream::FusedStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, poll};
use quoit::__private::books_here;
use quoit::net::{TcpListener, TcpStream};
use quoit::time::{self, Instant, interval};

use crate::common::{check, pair, pattern, soon};

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[quoit::test(seeds = 8)]
async fn connections_come_one_after_another() {
    let (listener, address) = listen().await;
    let clients = quoit::spawn(async move {
        for number in 0..5_u8 {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.send_all(vec![number]).await.unwrap();
            stream.close().await.unwrap();
        }
    });
    let mut numbers = Vec::new();
    let mut incoming = listener.incoming();
    while numbers.len() < 5 {
        let stream = soon("a connection", incoming.next()).await.unwrap().unwrap();
        assert!(stream.nodelay().unwrap(), "as accept has it");
        assert_eq!(stream.local_addr().unwrap(), address);
        numbers.push(stream.recv().await.unwrap()[0]);
    }
    clients.await.unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert!(!incoming.is_terminated() && incoming.size_hint() == (0, None));
}

/// One that waits for a connection and is not polled again takes it from nobody.
#[quoit::test(seeds = 8)]
async fn a_stream_that_nobody_polls_is_in_nobodys_way() {
    let (listener, address) = listen().await;
    let (mut idle, mut other) = (listener.incoming(), listener.incoming());
    assert!(poll!(idle.next()).is_pending());
    let first = TcpStream::connect(address).await.unwrap();
    soon("accept", listener.accept()).await.unwrap();
    assert!(poll!(idle.next()).is_pending(), "it was told, and too late");
    let second = TcpStream::connect(address).await.unwrap();
    soon("another stream", other.next()).await.unwrap().unwrap();
    let third = TcpStream::connect(address).await.unwrap();
    soon("it is polled again", idle.next()).await.unwrap().unwrap();
    drop((first, second, third));

    let (ours, theirs) = pair().await;
    let (mut idle, mut other) = (ours.leases(), ours.leases());
    assert!(poll!(idle.next()).is_pending());
    theirs.send_all("1").await.unwrap();
    assert_eq!(soon("recv", ours.recv()).await.unwrap(), "1");
    theirs.send_all("2").await.unwrap();
    assert_eq!(soon("another stream", other.next()).await.unwrap().unwrap(), "2");
    theirs.send_all("3").await.unwrap();
    assert_eq!(soon("it is polled again", idle.next()).await.unwrap().unwrap(), "3");
}

/// Whoever asked before a stream did goes before it.
#[quoit::test(seeds = 8)]
async fn reads_and_accepts_keep_their_order() {
    let (listener, address) = listen().await;
    let mut accepting = listener.accept();
    let mut incoming = listener.incoming();
    assert!(poll!(&mut accepting).is_pending() && poll!(incoming.next()).is_pending());
    let one = TcpStream::connect(address).await.unwrap();
    while listener_has_none_waiting() {
        time::sleep(Duration::from_micros(50)).await;
        assert!(poll!(incoming.next()).is_pending(), "it asked later");
    }
    soon("accept", accepting).await.unwrap();
    let two = TcpStream::connect(address).await.unwrap();
    soon("the next", incoming.next()).await.unwrap().unwrap();
    drop((one, two));

    let (ours, theirs) = pair().await;
    let mut leases = ours.leases();
    assert!(poll!(leases.next()).is_pending());
    let mut receiving = ours.recv();
    assert!(poll!(&mut receiving).is_pending());
    theirs.send_all("1").await.unwrap();
    assert_eq!(soon("it asked first", leases.next()).await.unwrap().unwrap(), "1");
    theirs.send_all("2").await.unwrap();
    assert_eq!(soon("recv", receiving).await.unwrap(), "2");
}

fn listener_has_none_waiting() -> bool {
    let books = books_here().resources;
    books.connections_accepted == books.connections_delivered
}

#[quoit::test(seeds = 8)]
async fn a_dropped_stream_leaves_its_connections_to_the_listener() {
    let (listener, address) = listen().await;
    let mut incoming = listener.into_incoming();
    assert!(poll!(incoming.next()).is_pending());
    let client = TcpStream::connect(address).await.unwrap();
    while listener_has_none_waiting() {
        time::sleep(Duration::from_micros(50)).await;
    }
    let listener = incoming.into_inner();
    soon("accept", listener.accept()).await.unwrap();
    drop(client);
    let client = TcpStream::connect(address).await.unwrap();
    while listener_has_none_waiting() {
        time::sleep(Duration::from_micros(50)).await;
    }
    assert_eq!(listener.close().await.unwrap().len(), 1);
    drop(client);
}

#[quoit::test(seeds = 8)]
async fn leases_come_up_to_the_end() {
    let (ours, theirs) = pair().await;
    let sender = quoit::spawn(async move {
        theirs.send_all(pattern(0, 300)).await.unwrap();
        theirs.close().await.unwrap();
    });
    let (reader, _writer) = ours.into_split();
    let mut leases = reader.into_leases();
    let mut count = 0;
    while let Some(lease) = soon("a lease", leases.try_next()).await.unwrap() {
        check(&lease, count);
        count += lease.len();
        assert!(!lease.is_empty() && !leases.is_terminated());
    }
    assert_eq!(count, 300);
    assert!(leases.is_terminated() && leases.size_hint() == (0, Some(0)));
    assert!(leases.next().now_or_never().unwrap().is_none(), "the end stays the end");
    sender.await.unwrap();
    assert!(leases.into_inner().recv().await.unwrap().is_empty());
}

#[quoit::test]
async fn an_error_is_the_last() {
    let (ours, theirs) = pair().await;
    theirs.abort();
    let mut leases = ours.leases();
    let error = soon("the reset", leases.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(leases.is_terminated() && leases.next().await.is_none());
}

/// Elsewhere a stream ends after it has said whose it is: a loop that goes on after errors would
/// spin. Nothing is lost: a new one, where it belongs, continues.
#[quoit::test]
async fn on_another_core_it_names_the_owner_and_ends() {
    let (listener, address) = listen().await;
    assert!(poll!(listener.incoming().next()).is_pending());
    let elsewhere = std::thread::spawn(move || {
        quoit::block_on(async move {
            let mut incoming = listener.into_incoming();
            let error = incoming.next().await.unwrap().unwrap_err();
            assert!(error.to_string().contains("belongs to core"), "{error}");
            assert!(incoming.is_terminated() && incoming.next().await.is_none());
            incoming.into_inner()
        })
    });
    let listener = elsewhere.join().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    soon("a connection", listener.incoming().next()).await.unwrap().unwrap();
    drop(client);
}

/// For what takes a stream for good: it crosses threads, and needs no pinning.
#[quoit::test(seeds = 4)]
async fn a_stream_can_be_sent_to_a_task_and_joined_with_others() {
    let (listener, address) = listen().await;
    let server = quoit::spawn(listener.into_incoming().take(3).try_for_each_concurrent(
        None,
        |stream| async move {
            while let Some(lease) = stream.leases().try_next().await? {
                stream.send_all(lease).await?;
            }
            Ok(())
        },
    ));
    for _ in 0..3 {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.send_all("1").await.unwrap();
        assert_eq!(soon("the echo", stream.recv()).await.unwrap(), "1");
    }
    soon("the server", server).await.unwrap().unwrap();
    fn crosses_threads<T: Send + Sync + Unpin + 'static>() {}
    crosses_threads::<quoit::net::IntoIncoming>();
    crosses_threads::<quoit::net::IntoLeases<TcpStream>>();
}

#[quoit::test(start_paused = true)]
async fn an_interval_is_a_stream_of_its_ticks() {
    let start = Instant::now();
    let period = Duration::from_secs(10);
    let mut ticks = interval(period);
    assert_eq!(ticks.next().await, Some(start));
    assert!(poll!(ticks.next()).is_pending(), "dropped, it loses no tick");
    time::advance(period).await;
    assert_eq!(ticks.next().await, Some(start + period));
    assert_eq!(ticks.tick().await, start + 2 * period);
    assert!(!ticks.is_terminated() && ticks.size_hint() == (usize::MAX, None));
}
