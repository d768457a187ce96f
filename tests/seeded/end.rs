//! Ends: streams dropped, closed, aborted and shut down at any time, and runtimes that stop in the
//! middle of everything. Only a prefix may arrive then, but never anything else.

use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use quoit::{task, time};

use crate::dice::Dice;
use crate::listen::accept;
use crate::under_seeds;

/// Byte `at` of what one side sends.
fn byte(at: usize) -> u8 {
    (at * 7 + at / 256) as u8
}

/// Sends, and leaves at some time in some way. Answers what was reported taken.
async fn leave(stream: TcpStream, dice: &Dice) -> usize {
    let mut sent = 0;
    for _ in 0..dice.below(6) {
        dice.dawdle().await;
        let bytes: Vec<u8> = (sent..sent + dice.up_to(80)).map(byte).collect();
        let length = bytes.len();
        match dice.below(3) {
            0 => match stream.send(bytes).await {
                Ok((count, _)) => sent += count,
                Err(_) => break,
            },
            1 => match stream.write(&bytes).await {
                Ok(count) => sent += count,
                Err(_) => break,
            },
            // Committed or not: nothing can follow it.
            _ => {
                let outcome = dice.cut(stream.send(bytes)).await;
                sent += outcome.map_or(0, |sent| sent.map_or(0, |_| length));
                break;
            }
        }
        if dice.one_in(4) {
            drop(dice.cut(stream.recv()).await);
        }
    }
    match dice.below(4) {
        0 => drop(stream),
        1 => drop(dice.maybe(stream.close()).await),
        2 => stream.abort(),
        _ => {
            let (reader, writer) = stream.into_split();
            if dice.one_in(2) {
                drop(writer);
                dice.dawdle().await;
                drop(dice.maybe(reader.recv()).await);
            } else {
                drop(reader);
                dice.dawdle().await;
                drop(writer);
            }
        }
    }
    sent
}

/// Reads until something ends it.
async fn listen_on(stream: &TcpStream, dice: &Dice) -> Vec<u8> {
    let mut got = Vec::new();
    while let Ok(lease) = stream.recv().await {
        dice.dawdle().await;
        if lease.is_empty() {
            break;
        }
        got.extend_from_slice(&lease);
    }
    got
}

#[test]
fn whatever_ends_a_stream_only_a_prefix_of_it_arrives() {
    under_seeds(3000, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leaving = {
            let dice = dice.clone();
            quoit::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                leave(stream, &dice).await
            })
        };
        let stream = Rc::new(accept(&listener, &dice).await);
        // The other side talks too, so that there is unread input about.
        let chatter = {
            let (stream, dice) = (stream.clone(), dice.clone());
            quoit::spawn(async move {
                for _ in 0..dice.below(4) {
                    if stream.send_all(vec![0; dice.up_to(100)]).await.is_err() {
                        break;
                    }
                }
            })
        };
        let got = listen_on(&stream, &dice).await;
        assert!(got.iter().copied().eq((0..got.len()).map(byte)), "no prefix: {got:?}");
        chatter.abort();
        let _ = chatter.await;
        drop(stream);
        let sent = leaving.await.unwrap();
        (sent, got)
    });
}

#[test]
fn a_drop_sends_what_is_committed() {
    under_seeds(2000, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Input that nobody reads makes the close a reset, unless it lingers.
        let (length, chats) = (dice.below(200), dice.one_in(2));
        let leaving = {
            let dice = dice.clone();
            quoit::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let mut sending = Box::pin(stream.send((0..length).map(byte).collect::<Vec<_>>()));
                // One poll commits it: nothing stands before it.
                let polled = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(sending.as_mut().poll(cx).is_ready())
                });
                polled.await;
                drop(sending);
                if chats {
                    stream.readable().await.unwrap();
                }
                match dice.below(3) {
                    0 => drop(stream),
                    1 => stream.close().await.unwrap(),
                    _ => drop(dice.cut(stream.close()).await),
                }
            })
        };
        let stream = Rc::new(accept(&listener, &dice).await);
        let (chatter, words) = (stream.clone(), dice.up_to(30));
        let chatting = quoit::spawn(async move {
            if chats {
                chatter.send_all(vec![1; words]).await.unwrap();
            }
        });
        let got = listen_on(&stream, &dice).await;
        assert!(got.iter().copied().eq((0..length).map(byte)), "{} of {length}", got.len());
        chatting.await.unwrap();
        drop(stream);
        leaving.await.unwrap();
    });
}

#[test]
fn a_runtime_that_stops_in_the_middle_leaves_nothing() {
    under_seeds(3000, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = Vec::new();
        for _ in 0..dice.up_to(3) {
            let dice = dice.clone();
            tasks.push(quoit::spawn(async move {
                let limit = dice.moment();
                if let Ok(Ok(stream)) = time::timeout(limit, TcpStream::connect(address)).await {
                    leave(stream, &dice).await;
                }
            }));
        }
        let server = {
            let dice = dice.clone();
            quoit::spawn(async move {
                loop {
                    let stream = accept(&listener, &dice).await;
                    let dice = dice.clone();
                    quoit::spawn(async move { listen_on(&stream, &dice).await });
                }
            })
        };
        time::sleep(dice.moment()).await;
        for _ in 0..dice.below(20) {
            task::yield_now().await;
        }
        if dice.one_in(2) {
            server.abort();
        }
        for task in tasks {
            if dice.one_in(3) {
                task.abort();
            }
        }
    });
}
