//! Accepts: every connection is handed out once, whatever was dropped before.

use std::cell::RefCell;
use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::explore::Explore;
use quoit::task::JoinHandle;

use crate::{cancel, dawdle, moment};

/// Clients that send their number and want it back.
fn clients(count: u8, address: std::net::SocketAddr, explore: &Explore) -> Vec<JoinHandle<()>> {
    let client = |id| {
        let explore = explore.clone();
        quoit::spawn(async move {
            dawdle(&explore).await;
            let stream = TcpStream::connect(address).await.unwrap();
            stream.send_all(vec![id]).await.unwrap();
            assert_eq!(stream.recv().await.unwrap()[..], [id]);
        })
    };
    (0..count).map(client).collect()
}

async fn answer(stream: &TcpStream) -> u8 {
    let lease = stream.recv().await.unwrap();
    let id = lease[0];
    stream.send_all(lease).await.unwrap();
    id
}

#[test]
fn accept() {
    cancel("accept", 12, |explore| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = clients(4, listener.local_addr().unwrap(), &explore);
        let mut ids = Vec::new();
        while ids.len() < clients.len() {
            let accepted = match explore.below(3) {
                0 => {
                    let accepting = listener.accept().timeout(moment(&explore));
                    explore.cancellable("accept with a limit", accepting).await
                }
                _ => explore.cancellable("accept", listener.accept()).await,
            };
            if let Some(Ok((stream, _))) = accepted {
                ids.push(answer(&stream).await);
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert!(listener.close().await.unwrap().is_empty());
    });
}

/// One that is dropped when it was woken passes the wake on.
#[test]
fn accept_by_several_at_once() {
    cancel("accept by several", 12, |explore| async move {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let clients = clients(5, listener.local_addr().unwrap(), &explore);
        let ids = Rc::new(RefCell::new(Vec::new()));
        let mut acceptors = Vec::new();
        for _ in 0..3 {
            let (listener, ids, explore) = (listener.clone(), ids.clone(), explore.clone());
            acceptors.push(quoit::spawn(async move {
                // Cancelled, it leaves the line to the others.
                let accepting = explore.cancellable("accept", listener.accept());
                if let Some(accepted) = accepting.await {
                    let id = answer(&accepted.unwrap().0).await;
                    ids.borrow_mut().push(id);
                }
            }));
        }
        while ids.borrow().len() < clients.len() {
            // The rest, when the others have had theirs.
            if acceptors.iter().all(JoinHandle::is_finished) {
                let (stream, _) = listener.accept().await.unwrap();
                let id = answer(&stream).await;
                ids.borrow_mut().push(id);
            } else {
                for acceptor in &mut acceptors {
                    if !acceptor.is_finished() {
                        acceptor.await.unwrap();
                    }
                }
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        let mut ids = ids.take();
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
    });
}

/// What a close that was dropped would have given back is closed and counted.
#[test]
fn close_of_a_listener() {
    cancel("close of a listener", 15, |explore| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(quoit::spawn(async move {
                let Ok(stream) = TcpStream::connect(address).await else { return false };
                stream.recv().await.is_ok_and(|lease| lease[..] == [1])
            }));
        }
        let mut served = 0;
        let (stream, _) = listener.accept().await.unwrap();
        stream.send_all("\u{1}").await.unwrap();
        served += 1;
        dawdle(&explore).await;
        let left = explore.cancellable("close", listener.close()).await;
        for stream in left.into_iter().flat_map(Result::unwrap) {
            stream.send_all("\u{1}").await.unwrap();
            served += 1;
        }
        let mut answered = 0;
        for client in clients {
            answered += usize::from(client.await.unwrap());
        }
        assert_eq!(answered, served);
    });
}
