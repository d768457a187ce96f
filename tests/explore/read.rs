//! Reads of every tier: what a dropped one did not return comes next, at the exact byte.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::buffer::Lease;
use quoit::net::TcpStream;
use quoit::sim::explore::Explore;
use quoit::time;

use crate::bytes::{MOST, Sink, feed};
use crate::{cancel, moment, pair};

/// How to read once.
#[derive(Clone, Copy, Debug)]
enum Tier {
    Lease,
    Owned,
    Slice,
    Exact,
    Until,
    Peek,
    Limited,
    TimedOut,
    Readable,
}

use Tier::{Exact, Lease as Lent, Limited, Owned, Peek, Readable, Slice, TimedOut, Until};

const ALL: [Tier; 9] = [Lent, Owned, Slice, Exact, Until, Peek, Limited, TimedOut, Readable];

/// Bytes that were read, or `None`: nothing, and not the end either.
type Read = io::Result<Option<Vec<u8>>>;

async fn read(stream: &TcpStream, tier: Tier, explore: &Explore) -> Read {
    let mut into = vec![0; 1 + explore.below(30)];
    Ok(Some(match tier {
        Lent => stream.recv().await?.to_vec(),
        Owned => stream.recv_into(Vec::with_capacity(into.len())).await?.1,
        Slice => {
            let count = stream.read(&mut into).await?;
            into.truncate(count);
            into
        }
        Exact => match stream.read_exact(&mut into).await {
            // What it had read went back.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map(|_| into)?,
        },
        Until => {
            let mut line = Vec::new();
            let delimiter = explore.below(MOST) as u8;
            match stream.read_until(delimiter, &mut line, into.len()).await {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
                read => read.map(|_| line)?,
            }
        }
        Peek => {
            stream.peek(&mut into).await?;
            return Ok(None);
        }
        Limited => match stream.recv().timeout(moment(explore)).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
            lease => lease?.to_vec(),
        },
        TimedOut => match time::timeout(moment(explore), stream.read(&mut into)).await {
            Err(_) => return Ok(None),
            Ok(count) => {
                let count = count?;
                into.truncate(count);
                into
            }
        },
        Readable => {
            stream.readable().await?;
            return Ok(None);
        }
    }))
}

/// Reads a counter to its end by one tier, cancelled at every poll of it. What follows a cancel is
/// read by any.
fn tier(name: &'static str, seeds: u64, tier: Tier) {
    cancel(name, seeds, |explore| async move {
        let (client, server) = pair().await;
        let length = explore.below(80);
        let feeding = feed(client, length, &explore);
        let (mut sink, mut next) = (Sink::default(), tier);
        loop {
            let reading = read(&server, next, &explore);
            let read = explore.cancellable(name, reading).await;
            let any = ALL[explore.below(ALL.len())];
            next = match read {
                None => any,
                Some(Ok(None)) => Lent,
                Some(_) => tier,
            };
            if let Some(Some(bytes)) = read.map(Result::unwrap) {
                if bytes.is_empty() {
                    break;
                }
                sink.take(&bytes);
            }
        }
        assert_eq!(sink.got, length);
        drop(server);
        feeding.await.unwrap();
    });
}

#[test]
fn recv() {
    tier("recv", 12, Lent);
}

#[test]
fn recv_into() {
    tier("recv_into", 12, Owned);
}

#[test]
fn read_slice() {
    tier("read", 12, Slice);
}

#[test]
fn read_exact() {
    tier("read_exact", 12, Exact);
}

#[test]
fn read_until() {
    tier("read_until", 12, Until);
}

#[test]
fn peek_and_readable() {
    tier("peek", 6, Peek);
    tier("readable", 6, Readable);
}

#[test]
fn timeouts() {
    tier("a method's timeout", 8, Limited);
    tier("time::timeout", 8, TimedOut);
}

/// The pool runs dry, and fills again when they go.
#[test]
fn recv_with_leases_kept() {
    cancel("recv with leases kept", 10, |explore| async move {
        let (client, server) = pair().await;
        let length = 40 + explore.below(60);
        let feeding = feed(client, length, &explore);
        let (mut sink, mut kept) = (Sink::default(), VecDeque::<(usize, Lease)>::new());
        loop {
            let Some(lease) = explore.cancellable("recv", server.recv()).await else { continue };
            let lease = lease.unwrap();
            if lease.is_empty() {
                break;
            }
            let at = sink.got;
            sink.take(&lease);
            kept.push_back((at, lease));
            if kept.len() > 8 {
                let (at, lease) = kept.pop_front().unwrap();
                Sink { got: at }.take(&lease);
            }
        }
        for (at, lease) in kept {
            Sink { got: at }.take(&lease);
        }
        assert_eq!(sink.got, length);
        drop(server);
        feeding.await.unwrap();
    });
}

/// Several read at once, in the order of their first poll; one that is dropped passes on what woke
/// it.
#[test]
fn reads_at_once() {
    cancel("reads at once", 12, |explore| async move {
        let (client, server) = pair().await;
        let length = explore.below(60);
        let feeding = feed(client, length, &explore);
        let (server, sink) = (Rc::new(server), Rc::new(RefCell::new(Sink::default())));
        let mut readers = Vec::new();
        for tier in [Lent, Slice, Owned] {
            let (server, sink, explore) = (server.clone(), sink.clone(), explore.clone());
            readers.push(quoit::spawn(async move {
                let mut is_over = false;
                while !is_over {
                    // Whoever is served first takes it first: both happen in one poll.
                    let reading = async {
                        let bytes = read(&server, tier, &explore).await.unwrap().unwrap();
                        sink.borrow_mut().take(&bytes);
                        bytes.is_empty()
                    };
                    is_over = explore.cancellable("a reader", reading).await == Some(true);
                }
            }));
        }
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(sink.borrow().got, length);
        drop(server);
        feeding.await.unwrap();
    });
}

/// A detach that is dropped half-way leaves the stream usable where it was; one that ends keeps
/// what was received.
#[test]
fn detach() {
    cancel("detach", 15, |explore| async move {
        let (client, server) = pair().await;
        let length = 1 + explore.below(60);
        let feeding = feed(client, length, &explore);
        let mut sink = Sink::default();
        loop {
            let tier = [Lent, Slice, Owned][explore.below(3)];
            if explore.below(2) == 0 {
                // Something is in flight that it has to end.
                let reading = time::timeout(Duration::ZERO, server.recv());
                if let Ok(lease) = reading.await {
                    sink.take(&lease.unwrap());
                }
            }
            if let Some(detached) = explore.cancellable("detach", server.detach()).await {
                detached.unwrap();
            }
            let bytes = read(&server, tier, &explore).await.unwrap().unwrap();
            if bytes.is_empty() {
                break;
            }
            sink.take(&bytes);
        }
        assert_eq!(sink.got, length);
        drop(server);
        feeding.await.unwrap();
    });
}
