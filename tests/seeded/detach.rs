//! Detaching: it comes to an end whatever others wait for, loses nothing, and may be dropped.

use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::listen::accept;
use crate::under_seeds;

#[test]
fn a_detach_ends_though_others_wait_and_the_peer_is_silent() {
    under_seeds(1500, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Rc::new(accept(&listener, &dice).await);
        let (first, second) = (dice.up_to(40), dice.up_to(40));
        let (detached, go_on) = oneshot::channel();
        let sending = quoit::spawn(async move {
            client.send_all(vec![1; first]).await.unwrap();
            go_on.await.unwrap();
            client.send_all(vec![2; second]).await.unwrap();
        });
        let mut readers = Vec::new();
        for _ in 0..dice.below(3) {
            let (stream, dice) = (stream.clone(), dice.clone());
            readers.push(quoit::spawn(async move {
                let mut got = 0;
                loop {
                    dice.dawdle().await;
                    let count = if dice.one_in(2) {
                        stream.recv().await.unwrap().len()
                    } else {
                        stream.read(&mut [0; 16]).await.unwrap()
                    };
                    if count == 0 {
                        return got;
                    }
                    got += count;
                }
            }));
        }
        for _ in 0..dice.below(3) {
            dice.dawdle().await;
            drop(dice.cut(stream.detach()).await);
        }
        // Nothing else can happen: only a detach that ends by itself lets the client go on.
        stream.detach().await.unwrap();
        detached.send(()).unwrap();
        let mut got = 0;
        for reader in readers {
            got += reader.await.unwrap();
        }
        loop {
            match stream.recv().await.unwrap().len() {
                0 => break,
                count => got += count,
            }
        }
        assert_eq!(got, first + second);
        sending.await.unwrap();
    });
}

#[test]
fn what_a_detach_keeps_is_read_next() {
    under_seeds(1500, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = accept(&listener, &dice).await;
        let sent: Vec<u8> = (0..dice.below(200)).map(|at| at as u8).collect();
        let sending = {
            let sent = sent.clone();
            quoit::spawn(async move {
                client.send_all(sent).await.unwrap();
                // Waits until the other side is done: what it left unread would be reset.
                assert!(client.recv().await.unwrap().is_empty());
            })
        };
        let mut got = Vec::new();
        while got.len() < sent.len() {
            if dice.one_in(2) {
                dice.cut(stream.recv()).await.into_iter().for_each(|lease| {
                    got.extend_from_slice(&lease.unwrap());
                });
            }
            match dice.below(3) {
                0 => stream.detach().await.unwrap(),
                1 => drop(dice.cut(stream.detach()).await),
                _ if got.len() < sent.len() => {
                    got.extend_from_slice(&stream.recv().await.unwrap());
                }
                _ => {}
            }
        }
        assert_eq!(got, sent);
        drop(stream);
        sending.await.unwrap();
    });
}
