//! Writers: what several tasks send goes out in the order of their first polls, each buffer whole;
//! and once sending has failed, every later write says so.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use quoit::net::{TcpListener, TcpStream};
use quoit::time;

use crate::dice::Dice;
use crate::listen::accept;
use crate::under_seeds;

/// Sends one buffer of `length` times `id`. Its place in the order is that of its first poll; when
/// it is dropped it may or may not have gone out.
async fn send_one(
    stream: &TcpStream,
    id: u8,
    order: &RefCell<Vec<u8>>,
    must: &RefCell<Vec<u8>>,
    dice: &Dice,
) {
    let mut sending = pin!(stream.send(vec![id; 3]));
    let mut is_first = true;
    let mut left = if dice.one_in(2) { dice.up_to(5) } else { usize::MAX };
    let sent = poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            order.borrow_mut().push(id);
        }
        let polled = sending.as_mut().poll(cx).map(Some);
        left -= 1;
        if polled.is_pending() && left == 0 { Poll::Ready(None) } else { polled }
    });
    if let Some(sent) = sent.await {
        assert_eq!(sent.unwrap().0, 3);
        must.borrow_mut().push(id);
    }
}

#[test]
fn buffers_go_out_whole_and_in_the_order_of_their_first_polls() {
    under_seeds(1500, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = accept(&listener, &dice).await;
        let client = Rc::new(client);
        let (order, must) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
        let mut senders = Vec::new();
        for task in 0..dice.up_to(4) as u8 {
            let (client, dice) = (client.clone(), dice.clone());
            let (order, must) = (order.clone(), must.clone());
            senders.push(quoit::spawn(async move {
                for id in 0..dice.below(6) as u8 {
                    dice.dawdle().await;
                    send_one(&client, task * 10 + id, &order, &must, &dice).await;
                }
            }));
        }
        let reading = quoit::spawn(async move {
            let mut got = Vec::new();
            loop {
                let lease = server.recv().await.unwrap();
                if lease.is_empty() {
                    return got;
                }
                got.extend_from_slice(&lease);
            }
        });
        for sender in senders {
            sender.await.unwrap();
        }
        client.shutdown().await.unwrap();
        let got = reading.await.unwrap();
        let whole = got.chunks(3).all(|part| part == [part[0]; 3]);
        assert!(whole, "a buffer was cut or torn: {got:?}");
        let ids: Vec<u8> = got.chunks(3).map(|part| part[0]).collect();
        let places = ids.iter().map(|id| order.borrow().iter().position(|of| of == id));
        assert!(places.is_sorted(), "{ids:?} went out, first polled {order:?}");
        assert!(
            must.borrow().iter().all(|id| ids.contains(id)),
            "{must:?} were sent, {ids:?} came"
        );
    });
}

#[test]
fn after_a_failure_every_write_says_so_and_reads_go_on_to_the_end() {
    under_seeds(1500, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = accept(&listener, &dice).await;
        let words: Vec<u8> = (0..dice.below(30) as u8).collect();
        let talking = {
            let (words, dice) = (words.clone(), dice.clone());
            quoit::spawn(async move {
                // Never to the end: nobody reads, so it may stand behind a full pipe.
                drop(dice.cut(server.send_all(words)).await);
                time::sleep(dice.moment()).await;
                server.abort();
            })
        };
        let error = loop {
            let bytes = vec![0; dice.up_to(50)];
            let written = match dice.below(3) {
                0 => client.send(bytes).await.map_err(io::Error::from).map(drop),
                1 => client.write(&bytes).await.map(drop),
                _ => match dice.maybe(client.send(bytes)).await {
                    Some(sent) => sent.map_err(io::Error::from).map(drop),
                    None => Ok(()),
                },
            };
            if let Err(error) = written {
                break error;
            }
            dice.dawdle().await;
        };
        let is_down = |error: &io::Error| {
            [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind())
        };
        assert!(is_down(&error), "{error}");
        assert!(is_down(&client.write(b"more").await.unwrap_err()));
        assert!(is_down(&client.send("more").await.unwrap_err().into()));
        assert!(is_down(&client.flush().await.unwrap_err()));
        let mut got = Vec::new();
        loop {
            match client.recv().await {
                Ok(lease) if lease.is_empty() => break,
                Ok(lease) => got.extend_from_slice(&lease),
                Err(error) => {
                    assert!(is_down(&error), "{error}");
                    break;
                }
            }
        }
        assert!(words.starts_with(&got), "{got:?} is not the start of {words:?}");
        assert!(is_down(&client.close().await.unwrap_err()));
        talking.await.unwrap();
    });
}
