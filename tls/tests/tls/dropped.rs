//! Futures dropped at every await, and the simulation.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::Sim;
use quoit::time::sleep;
use quoit_tls::{TlsAcceptor, TlsConnector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tools::{Identity, name, pair, pattern, soon, tcp};

/// Polls so often, and gives up; `None` if it did not end by then.
async fn for_polls<F: Future>(future: F, mut polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// After each number of polls, until one is enough; the other side sees an end, and nothing is
/// left.
#[quoit::test]
async fn a_handshake_that_is_dropped_leaves_nothing() {
    let identity = Identity::of("test");
    let connector = TlsConnector::from(Arc::new(identity.client()));
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let before = quoit::__private::books_here();
    for is_client in [true, false] {
        let mut cut = 0;
        for polls in 0.. {
            let (client, server) = tcp().await;
            let connect = connector.connect(name("test"), client);
            let accept = acceptor.accept(server);
            let is_over = if is_client {
                let (one, two) =
                    soon(futures::future::join(for_polls(connect, polls), accept)).await;
                assert!(one.is_some() || two.is_err());
                one.is_some()
            } else {
                let (one, two) =
                    soon(futures::future::join(for_polls(accept, polls), connect)).await;
                // A client of TLS 1.3 is done when it has sent its last message.
                drop(two);
                one.is_some()
            };
            if is_over {
                break;
            }
            cut += 1;
        }
        assert!(cut >= 2, "a handshake waits at least once");
    }
    let books = async {
        loop {
            let now = quoit::__private::books_here();
            let open = |books: &quoit::Metrics| (books.streams_open, books.tasks_alive);
            if open(&now) == open(&before) && now.leases_out == 0 {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(books).await;
}

/// Each read is dropped after its first poll, and each write: no byte is lost or comes twice.
#[quoit::test]
async fn reads_and_writes_that_are_dropped_lose_nothing() {
    let data = pattern(3 << 20);
    let (mut client, mut server) = pair().await;
    let sent = data.clone();
    let writer = quoit::spawn(async move {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(50_000)];
            match for_polls(client.write(part), 1).await {
                Some(count) => rest = &rest[count.unwrap()..],
                None => soon(client.flush()).await.unwrap(),
            }
        }
        while for_polls(client.shutdown(), 1).await.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        client
    });
    let (mut back, mut buffer, mut dropped) = (Vec::new(), vec![0; 7001], 0);
    loop {
        match for_polls(server.read(&mut buffer), 1).await {
            Some(Ok(0)) => break,
            Some(count) => back.extend_from_slice(&buffer[..count.unwrap()]),
            None => {
                dropped += 1;
                quoit::task::yield_now().await;
            }
        }
    }
    assert!(back == data, "{} of {}", back.len(), data.len());
    assert!(dropped > 0);
    drop(writer.await.unwrap());
}

/// On simulated hosts: short sends, late completions, small buffers, latency. The randomness of the
/// cryptography is not the seed's, so it is not asked that two runs are alike.
#[test]
fn it_runs_on_simulated_hosts() {
    for seed in 0..10 {
        let identity = Identity::of("server");
        let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
        let connector = TlsConnector::from(Arc::new(identity.client()));
        let mut sim = Sim::new(seed);
        sim.socket_buffers(4096 << (seed % 4));
        sim.host("server", move || {
            let acceptor = acceptor.clone();
            async move {
                let listener = TcpListener::bind("0.0.0.0:443").await.unwrap();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let acceptor = acceptor.clone();
                    quoit::spawn(async move {
                        let (mut read, mut write) = acceptor.accept(stream).await?.into_split();
                        tokio::io::copy(&mut read, &mut write).await?;
                        write.shutdown().await
                    });
                }
            }
        });
        for number in 0..2 {
            let connector = connector.clone();
            sim.client(&format!("client{number}"), async move {
                let stream = TcpStream::connect("server:443").await?;
                let (mut read, mut write) =
                    connector.connect(name("server"), stream).await?.into_split();
                let data = pattern(100_000 + number);
                let sent = data.clone();
                let writer = quoit::spawn(async move {
                    write.write_all(&sent).await?;
                    write.shutdown().await
                });
                let mut back = Vec::new();
                read.read_to_end(&mut back).await?;
                writer.await.unwrap()?;
                assert!(back == data, "something else came back");
                io::Result::Ok(())
            });
        }
        sim.run().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}
