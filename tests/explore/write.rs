//! Writes of every tier: a committed buffer goes out whole, a dropped slice write has sent nothing,
//! and everything in order.

use std::io;
use std::rc::Rc;

use quoit::net::TcpStream;
use quoit::sim::explore::Explore;
use quoit::task::JoinHandle;

use crate::bytes::{Fate, Parts, counter, feed};
use crate::{cancel, dawdle, moment, pair};

/// Reads everything, slowly.
fn drain(stream: TcpStream, explore: &Explore) -> JoinHandle<Vec<u8>> {
    let explore = explore.clone();
    quoit::spawn(async move {
        let mut got = Vec::new();
        loop {
            dawdle(&explore).await;
            let lease = stream.recv().await.unwrap();
            if lease.is_empty() {
                return got;
            }
            got.extend_from_slice(&lease);
        }
    })
}

/// Sends a counter in parts, each as `send` does it, and holds what arrives against its fate.
async fn in_parts(explore: &Explore, send: impl AsyncFn(&TcpStream, Vec<u8>) -> Fate) {
    let (client, server) = pair().await;
    let draining = drain(server, explore);
    let mut parts = Parts::default();
    for _ in 0..5 {
        let places = parts.next(1 + explore.below(40));
        let fate = send(&client, counter(places.clone())).await;
        parts.push(places, fate);
        dawdle(explore).await;
    }
    client.shutdown().await.unwrap();
    parts.check(&draining.await.unwrap());
}

#[test]
fn send() {
    cancel("send", 12, |explore| async move {
        let send = async |client: &TcpStream, part: Vec<u8>| {
            let length = part.len();
            match explore.cancellable("send", client.send(part)).await {
                None => Fate::Unknown,
                Some(sent) => {
                    assert_eq!(sent.unwrap().0, length);
                    Fate::Sent
                }
            }
        };
        in_parts(&explore, send).await;
    });
}

/// Its own limit tells exactly how much went out; dropped after that, it cannot.
#[test]
fn send_with_a_limit() {
    cancel("send with a limit", 12, |explore| async move {
        let send = async |client: &TcpStream, part: Vec<u8>| {
            let length = part.len();
            let sending = client.send(part).timeout(moment(&explore));
            match explore.cancellable("send with a limit", sending).await {
                None => Fate::Start,
                Some(Ok((count, _))) if count == length => Fate::Sent,
                Some(Ok((count, part))) => {
                    client.send_all(part[count..].to_vec()).await.unwrap();
                    Fate::Sent
                }
                Some(Err(error)) => {
                    assert_eq!(error.error().kind(), io::ErrorKind::TimedOut);
                    Fate::NotSent
                }
            }
        };
        in_parts(&explore, send).await;
    });
}

/// Dropped half-way, a start of the slice has gone; nothing of it comes later.
#[test]
fn write_all() {
    cancel("write_all", 12, |explore| async move {
        let send = async |client: &TcpStream, part: Vec<u8>| match explore
            .cancellable("write_all", client.write_all(&part))
            .await
        {
            None => Fate::Start,
            Some(written) => {
                written.unwrap();
                Fate::Sent
            }
        };
        in_parts(&explore, send).await;
    });
}

/// A dropped `write` has taken nothing, so it can be tried again.
#[test]
fn write() {
    cancel("write", 12, |explore| async move {
        let send = async |client: &TcpStream, part: Vec<u8>| {
            let mut sent = 0;
            while sent < part.len() {
                let written = if explore.below(4) == 0 {
                    let ready = client.writable();
                    drop(explore.cancellable("writable", ready).await);
                    match client.try_write(&part[sent..]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                        written => Some(written),
                    }
                } else {
                    explore.cancellable("write", client.write(&part[sent..])).await
                };
                sent += written.map_or(0, Result::unwrap);
            }
            Fate::Sent
        };
        in_parts(&explore, send).await;
    });
}

/// Owned and slice writes one after the other: what is committed stands before what follows.
#[test]
fn writes_of_both_kinds() {
    cancel("writes of both kinds", 10, |explore| async move {
        let send = async |client: &TcpStream, part: Vec<u8>| match explore.below(3) {
            0 => match explore.cancellable("send", client.send(part)).await {
                None => Fate::Unknown,
                Some(sent) => sent.map(|_| Fate::Sent).unwrap(),
            },
            1 => match explore.cancellable("write_all", client.write_all(&part)).await {
                None => Fate::Start,
                Some(written) => written.map(|()| Fate::Sent).unwrap(),
            },
            _ => {
                if let Some(flushed) = explore.cancellable("flush", client.flush()).await {
                    flushed.unwrap();
                }
                client.send_all(part).await.unwrap();
                Fate::Sent
            }
        };
        in_parts(&explore, send).await;
    });
}

/// What was received is sent on as it is.
#[test]
fn send_of_a_lease() {
    cancel("send of a lease", 10, |explore| async move {
        let (source, inlet) = pair().await;
        let (outlet, sink) = pair().await;
        let length = 30 + explore.below(60);
        let feeding = feed(source, length, &explore);
        let draining = drain(sink, &explore);
        let mut parts = Parts::default();
        loop {
            let lease = inlet.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            let places = parts.next(lease.len());
            assert_eq!(lease[..], counter(places.clone()));
            let fate = match explore.cancellable("send", outlet.send(lease)).await {
                None => Fate::Unknown,
                Some(sent) => sent.map(|_| Fate::Sent).unwrap(),
            };
            parts.push(places, fate);
        }
        assert_eq!(parts.next(0).start, length);
        drop(inlet);
        outlet.close().await.unwrap();
        parts.check(&draining.await.unwrap());
        feeding.await.unwrap();
    });
}

/// Several write at once; one that is dropped when it was woken passes the wake on.
#[test]
fn writes_at_once() {
    cancel("writes at once", 12, |explore| async move {
        let (client, server) = pair().await;
        let draining = drain(server, &explore);
        let client = Rc::new(client);
        let mut writers = Vec::new();
        for id in 0..3_u8 {
            let (client, explore) = (client.clone(), explore.clone());
            writers.push(quoit::spawn(async move {
                let (mut sent, mut unknown) = (0, 0);
                for _ in 0..3 {
                    let part = vec![id; 1 + explore.below(60)];
                    let length = part.len();
                    match explore.cancellable("a writer", client.send(part)).await {
                        Some(written) => sent += written.unwrap().0,
                        None => unknown += length,
                    }
                }
                (id, sent, unknown)
            }));
        }
        let mut fates = Vec::new();
        for writer in writers {
            fates.push(writer.await.unwrap());
        }
        client.shutdown().await.unwrap();
        let got = draining.await.unwrap();
        for (id, sent, unknown) in fates {
            let count = got.iter().filter(|byte| **byte == id).count();
            assert!((sent..=sent + unknown).contains(&count), "{count} of {sent} + {unknown}");
        }
    });
}
