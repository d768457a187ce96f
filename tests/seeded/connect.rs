//! Connects: dropped or out of time, they leave nothing open, and what they made the listener sees.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpSocket, TcpStream};
use quoit::time;

use crate::dice::Dice;
use crate::{under_seeds, under_seeds_and};

async fn try_to_connect(address: std::net::SocketAddr, dice: &Dice) -> Option<TcpStream> {
    if dice.one_in(3) {
        return match TcpStream::connect_timeout(&address, dice.moment()).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                None
            }
        };
    }
    dice.maybe(TcpStream::connect(address)).await.map(Result::unwrap)
}

#[test]
fn a_dropped_connect_closes_what_it_opened() {
    under_seeds(2000, |dice| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // A queue of one: further handshakes wait.
        let listener = socket.listen(dice.below(2) as u32).unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..dice.up_to(5) {
            let dice = dice.clone();
            clients.push(quoit::spawn(async move {
                dice.dawdle().await;
                let Some(stream) = try_to_connect(address, &dice).await else { return 0 };
                stream.send_all("x").await.unwrap();
                // Answered by the server's end.
                assert!(stream.recv().await.unwrap().is_empty());
                1
            }));
        }
        // Those that were dropped bring nothing, the others one byte.
        let served = Rc::new(Cell::new(0));
        let serving = {
            let served = served.clone();
            quoit::spawn(async move {
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        let count = stream.recv().await.map_or(0, |lease| lease.len());
                        served.set(served.get() + count);
                    }
                }
            })
        };
        let mut connected = 0;
        for client in clients {
            connected += client.await.unwrap();
        }
        assert_eq!(served.get(), connected);
        serving.abort();
        connected
    });
}

/// Only the runtime's end would otherwise retire them.
#[test]
fn a_dropped_connect_that_hangs_is_cancelled() {
    let scenario = |dice: Dice| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        for _ in 0..dice.up_to(3) {
            assert!(dice.cut(TcpStream::connect(address)).await.is_none());
        }
        time::sleep(Duration::from_secs(1)).await;
    };
    under_seeds_and(300, scenario, |run| assert_eq!(run.metrics.operations_open, 0));
}

#[test]
fn nobody_listens() {
    under_seeds(300, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        if let Some(refused) = dice.maybe(TcpStream::connect(address)).await {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}
