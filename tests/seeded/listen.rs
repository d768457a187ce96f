//! Listeners: `accept` dropped at any poll, and what a close gives back.

use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use quoit::time;

use crate::dice::Dice;
use crate::under_seeds;

/// The next connection, with some accepts dropped on the way. Now and then the simulated kernel is
/// out of descriptors; the next call goes on.
pub(crate) async fn accept(listener: &TcpListener, dice: &Dice) -> TcpStream {
    loop {
        match dice.maybe(listener.accept()).await {
            Some(Ok((stream, _))) => return stream,
            Some(Err(error)) => assert!(error.to_string().contains("stays queued"), "{error}"),
            None => {}
        }
    }
}

#[test]
fn no_dropped_accept_loses_a_connection() {
    under_seeds(2000, accepts);
}

/// Clients connect, accepts are dropped on the way, and everyone is served.
pub(crate) async fn accepts(dice: Dice) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = dice.up_to(12);
    let mut sent = Vec::new();
    for id in 0..clients as u8 {
        let dice = dice.clone();
        sent.push(quoit::spawn(async move {
            dice.dawdle().await;
            let stream = TcpStream::connect(address).await.unwrap();
            stream.send_all(vec![id]).await.unwrap();
            // Wait to be accepted, so that what the listener's close does is not ours.
            assert_eq!(stream.recv().await.unwrap()[..], [id]);
        }));
    }
    let listener = Rc::new(listener);
    let taken = dice.below(clients + 1);
    let mut ids = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..taken {
        streams.push(accept(&listener, &dice).await);
    }
    for stream in &streams {
        ids.push(echo_one(stream).await);
    }
    // Two tasks take the rest between them.
    let other = {
        let (listener, dice) = (listener.clone(), dice.clone());
        let count = dice.below(clients - taken + 1);
        quoit::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..count {
                ids.push(echo_one(&accept(&listener, &dice).await).await);
            }
            ids
        })
    };
    let others = {
        let mut own = Vec::new();
        let others = other.await.unwrap();
        while ids.len() + own.len() + others.len() < clients {
            own.push(echo_one(&accept(&listener, &dice).await).await);
        }
        own.extend(others);
        own
    };
    ids.extend(others);
    ids.sort_unstable();
    assert_eq!(ids, (0..clients as u8).collect::<Vec<_>>());
    for client in sent {
        client.await.unwrap();
    }
    let listener = Rc::into_inner(listener).expect("the other task is done");
    assert!(listener.close().await.unwrap().is_empty());
}

/// Gives back the one byte that a client sends.
async fn echo_one(stream: &TcpStream) -> u8 {
    let lease = stream.recv().await.unwrap();
    let [id] = lease[..] else { panic!("one byte, not {:?}", &lease[..]) };
    stream.send_all(lease).await.unwrap();
    id
}

#[test]
fn closing_a_listener_gives_back_what_was_taken() {
    under_seeds(2000, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = dice.up_to(8);
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(quoit::spawn(async move {
                let stream = TcpStream::connect(address).await.ok()?;
                // Bytes of the server's, its end, or a reset: each is an answer.
                Some(stream.recv().await.is_ok_and(|lease| lease[..] == [1]))
            }));
        }
        let mut served = 0;
        for _ in 0..dice.below(clients.min(4)) {
            match dice.maybe(listener.accept()).await {
                Some(Ok((stream, _))) => {
                    stream.send_all(vec![1]).await.unwrap();
                    served += 1;
                }
                Some(Err(error)) => assert!(error.to_string().contains("stays queued")),
                None => {}
            }
        }
        if dice.one_in(3) {
            drop(listener);
        } else {
            let closing = listener.close();
            let left = if dice.one_in(4) { dice.cut(closing).await } else { Some(closing.await) };
            for stream in left.into_iter().flat_map(Result::unwrap) {
                stream.send_all(vec![1]).await.unwrap();
                served += 1;
            }
        }
        let mut answered = 0;
        for client in connected {
            answered += usize::from(client.await.unwrap() == Some(true));
        }
        assert_eq!(answered, served);
    });
}

#[test]
fn an_acceptor_that_gives_up_passes_its_wake_on() {
    under_seeds(1500, |dice| async move {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let stay = dice.up_to(3);
        let mut acceptors = Vec::new();
        for place in 0..stay + dice.up_to(3) {
            let (listener, dice) = (listener.clone(), dice.clone());
            let stays = place >= 2 && place - 2 < stay;
            acceptors.push(quoit::spawn(async move {
                if stays {
                    return accept(&listener, &dice).await.peer_addr().is_ok();
                }
                let accepted = time::timeout(dice.moment(), listener.accept()).await;
                accepted.is_ok_and(|accepted| accepted.is_ok())
            }));
        }
        // One connection each, for those who give up, too: they may not.
        let mut clients = Vec::new();
        for _ in 0..acceptors.len() {
            dice.dawdle().await;
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut taken = 0;
        for acceptor in acceptors {
            taken += usize::from(acceptor.await.unwrap());
        }
        let left = Rc::into_inner(listener).expect("all are done").close().await.unwrap().len();
        (taken, left)
    });
}
