//! Connects: one that is dropped closes what it opened, and brings no byte.

use std::net::SocketAddr;
use std::time::Duration;

use quoit::net::{TcpListener, TcpSocket, TcpStream};
use quoit::sim::explore::Explore;
use quoit::time::{self, Instant};

use crate::{cancel, moment};

/// Serves until a client has brought its byte. Answers how many connections brought none.
async fn serve(listener: TcpListener) -> usize {
    let mut empty = 0;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A connect that was cancelled when its handshake was over ends, or resets, at once.
        match stream.recv().await {
            Ok(lease) if lease[..] == [7] => break,
            Ok(lease) => assert!(lease.is_empty(), "{:?}", &lease[..]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        empty += 1;
    }
    empty
}

async fn try_to_connect(address: SocketAddr, explore: &Explore) -> Option<TcpStream> {
    if explore.below(3) == 0 {
        let limit = moment(explore);
        let connecting = TcpStream::connect_timeout(&address, limit);
        let connected = explore.cancellable("connect with a limit", connecting).await?;
        return connected.ok();
    }
    explore.cancellable("connect", TcpStream::connect(address)).await.map(Result::unwrap)
}

#[test]
fn connect() {
    cancel("connect", 40, |explore| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // A queue of one: a further handshake waits.
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // They stand before ours, so that it has to wait.
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(quoit::spawn(async move {
                // Refused, when the listener ends before its turn comes.
                drop(TcpStream::connect(address).await);
            }));
        }
        let serving = quoit::spawn(serve(listener));
        let mut tries = 1;
        let stream = loop {
            if let Some(stream) = try_to_connect(address, &explore).await {
                break stream;
            }
            tries += 1;
        };
        stream.send_all(vec![7]).await.unwrap();
        let empty = serving.await.unwrap();
        assert!(empty < others.len() + tries, "{empty} empty connections of {tries} tries");
        drop(stream);
        for other in others {
            other.await.unwrap();
        }
    });
}

/// The queue is full until long after the connect was dropped: then it must not come through any
/// more.
#[test]
fn connect_that_hangs() {
    // The handshake is tried again after 1 s and 3 s (`tcp_syn_retries`).
    const FULL: Duration = Duration::from_secs(2);
    cancel("connect that hangs", 40, |explore| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let first = TcpStream::connect(address).await.unwrap();
        let start = Instant::now();
        let accepting = quoit::spawn(async move {
            time::sleep(FULL).await;
            let mut accepted = Vec::new();
            while let Ok(Ok((stream, _))) = time::timeout(FULL, listener.accept()).await {
                accepted.push(stream);
            }
            accepted.len()
        });
        let second = explore.cancellable("connect", TcpStream::connect(address)).await;
        let is_early = second.is_none() && start.elapsed() < FULL / 2;
        let accepted = accepting.await.unwrap();
        match second {
            Some(stream) => assert_eq!((accepted, stream.is_ok()), (2, true)),
            None if is_early => assert_eq!(accepted, 1, "a dropped connect came through"),
            // Both may have happened: the handshake, and then the drop.
            None => assert!((1..=2).contains(&accepted)),
        }
        drop(first);
    });
}
