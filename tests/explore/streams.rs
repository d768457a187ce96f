//! Streams of connections, leases and ticks: what a dropped one, or a dropped `next`, did not return
//! goes to whoever asks next; and one that is kept and not polled holds up nobody.

use std::rc::Rc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::explore::{Explore, Explorer};
use quoit::time::{Instant, interval};

use crate::bytes::{MOST, Sink, feed};
use crate::{cancel, check, dawdle, pair};

/// A client for each number, which it sends.
async fn clients(numbers: std::ops::Range<u8>, address: std::net::SocketAddr, explore: Explore) {
    for number in numbers {
        dawdle(&explore).await;
        let stream = TcpStream::connect(address).await.unwrap();
        stream.send_all(vec![number]).await.unwrap();
        stream.close().await.unwrap();
    }
}

async fn number_of(stream: &TcpStream) -> u8 {
    stream.recv().await.unwrap()[0]
}

#[test]
fn connections_of_a_stream() {
    cancel("a stream of connections", 6, |explore| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = quoit::spawn(clients(0..6, address, explore.clone()));
        let mut numbers = Vec::new();
        // Polled once in a while, or dropped.
        let mut kept = listener.incoming();
        while numbers.len() < 6 {
            let next = match explore.below(4) {
                0 => explore.cancellable("next of a new one", listener.incoming().next()).await,
                1 => {
                    let accepting = explore.cancellable("accept", listener.accept()).await;
                    accepting.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
                }
                2 => kept.next().now_or_never(),
                _ => explore.cancellable("next", kept.next()).await,
            };
            if let Some(next) = next {
                numbers.push(number_of(&next.unwrap().unwrap()).await);
            } else if explore.below(3) == 0 {
                kept = listener.incoming();
            }
            dawdle(&explore).await;
        }
        clients.await.unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        drop(kept);
        assert!(listener.close().await.unwrap().is_empty());
    });
}

/// Each has told its task that there is something, and not all tasks come to take it.
#[test]
fn connections_of_several_streams() {
    cancel("several streams of connections", 6, |explore| async move {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let clients = quoit::spawn(clients(0..5, address, explore.clone()));
        let mut takers = Vec::new();
        for kind in 0..3 {
            let (listener, explore) = (listener.clone(), explore.clone());
            takers.push(quoit::spawn(async move {
                let mut kept = listener.incoming();
                // Asks, and is then kept without being polled, until others have had theirs.
                let first = kept.next().now_or_never();
                let taken = match (first, kind) {
                    (Some(stream), _) => Some(stream.unwrap().unwrap()),
                    (None, 0) => Some(listener.accept().await.unwrap().0),
                    (None, _) => {
                        let next = explore.cancellable("next", kept.next()).await;
                        next.map(|next| next.unwrap().unwrap())
                    }
                };
                let number = match taken {
                    Some(stream) => Some(number_of(&stream).await),
                    None => None,
                };
                (number, listener.clone())
            }));
        }
        let mut numbers = Vec::new();
        for taker in takers {
            numbers.extend(taker.await.unwrap().0);
        }
        let mut rest = Rc::into_inner(listener).unwrap().into_incoming();
        while numbers.len() < 5 {
            let stream = rest.next().await.unwrap().unwrap();
            numbers.push(number_of(&stream).await);
        }
        clients.await.unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert!(rest.into_inner().close().await.unwrap().is_empty());
    });
}

#[test]
fn leases_of_a_stream() {
    cancel("a stream of leases", 6, |explore| async move {
        let (stream, other) = pair().await;
        let length = 60 + explore.below(MOST - 60);
        let feeder = feed(other, length, &explore);
        let mut sink = Sink::default();
        let (mut kept, idle) = (stream.leases(), &mut stream.leases());
        let _ = idle.next().now_or_never().map(|first| sink.take(&first.unwrap().unwrap()));
        while sink.got < length {
            let mut into = vec![0; 1 + explore.below(20)];
            match explore.below(5) {
                0 => {
                    let mut leases = stream.leases();
                    let next = explore.cancellable("next of a new one", leases.next());
                    if let Some(next) = next.await {
                        sink.take(&next.unwrap().unwrap());
                    }
                }
                1 => {
                    let room = into.len().min(length - sink.got);
                    let exact = stream.read_exact(&mut into[..room]);
                    if let Some(count) = explore.cancellable("read_exact", exact).await {
                        sink.take(&into[..count.unwrap()]);
                    }
                }
                2 => {
                    if let Some(next) = kept.next().now_or_never() {
                        sink.take(&next.unwrap().unwrap());
                    }
                }
                3 => {
                    if let Some(lease) = explore.cancellable("recv", stream.recv()).await {
                        sink.take(&lease.unwrap());
                    }
                }
                _ => {
                    if let Some(next) = explore.cancellable("next", kept.next()).await {
                        sink.take(&next.unwrap().unwrap());
                    }
                }
            }
        }
        assert!(kept.next().await.is_none() && kept.next().await.is_none(), "the end stays");
        drop(kept);
        drop(stream);
        feeder.await.unwrap();
    });
}

#[test]
fn leases_of_an_owned_half() {
    cancel("a stream of leases of a half", 6, |explore| async move {
        let (stream, other) = pair().await;
        let length = 40 + explore.below(MOST - 40);
        let feeder = feed(other, length, &explore);
        let mut sink = Sink::default();
        let (mut reader, writer) = stream.into_split();
        while sink.got < length {
            // Moved into a stream and back: it continues at the exact byte.
            let mut leases = reader.into_leases();
            while let Some(Some(next)) = explore.cancellable("next", leases.next()).await {
                sink.take(&next.unwrap());
            }
            reader = leases.into_inner();
        }
        assert!(reader.into_leases().next().await.is_none());
        drop(writer);
        feeder.await.unwrap();
    });
}

#[test]
fn ticks_of_an_interval() {
    // Only cancelled: it asks a kernel for nothing that could be hindered.
    let explorer = Explorer::new("a stream of ticks").seeds(6);
    check(&explorer.cancel(|explore: Explore| async move {
        let period = Duration::from_micros(200);
        let start = Instant::now();
        let mut ticks = interval(period);
        let mut count = 0;
        while count < 5 {
            dawdle(&explore).await;
            if let Some(tick) = explore.cancellable("a tick", ticks.next()).await {
                assert_eq!(tick, Some(start + period * count), "none is lost");
                count += 1;
            }
        }
    }));
}
