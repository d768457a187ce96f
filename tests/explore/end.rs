//! Ends: a shutdown that is dropped has ended nothing, and a close that is dropped closes all the
//! same; what was committed arrives before the end.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use crate::bytes::{Sink, counter};
use crate::{cancel, dawdle, pair};

#[test]
fn shutdown() {
    cancel("shutdown", 25, |explore| async move {
        let (client, server) = pair().await;
        let length = 1 + explore.below(100);
        let reader = explore.clone();
        let reading = quoit::spawn(async move {
            let mut sink = Sink::default();
            loop {
                dawdle(&reader).await;
                let lease = server.recv().await.unwrap();
                if lease.is_empty() {
                    return (sink.got, server);
                }
                sink.take(&lease);
            }
        });
        // Committed, and not awaited: it is what the shutdown waits for.
        let half = length / 2;
        let mut sending = Box::pin(client.send(counter(0..half)));
        poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
        drop(sending);
        let mut rest = Some(counter(half..length));
        loop {
            let ending = client.shutdown();
            match explore.cancellable("shutdown", ending).await {
                Some(ended) => {
                    ended.unwrap();
                    break;
                }
                // Nothing is ended: there is room for more.
                None => {
                    if let Some(rest) = rest.take() {
                        client.send_all(rest).await.unwrap();
                    }
                }
            }
        }
        let expected = if rest.is_none() { length } else { half };
        assert!(client.send("late").await.is_err());
        // The other direction goes on.
        let (got, server) = reading.await.unwrap();
        assert_eq!(got, expected);
        let talking = quoit::spawn(async move { server.send_all("still").await });
        let mut still = [0; 5];
        client.read_exact(&mut still).await.unwrap();
        assert_eq!(&still, b"still");
        talking.await.unwrap().unwrap();
    });
}

#[test]
fn close() {
    cancel("close", 25, |explore| async move {
        let (client, peer) = pair().await;
        let (length, chats) = (explore.below(100), explore.below(2) == 0);
        let peer = Rc::new(peer);
        let (talker, reader) = (peer.clone(), explore.clone());
        // Unread input would make the close a reset, if it did not linger.
        let talking = quoit::spawn(async move {
            if chats {
                talker.send_all("unread").await.unwrap();
            }
        });
        if chats {
            client.readable().await.unwrap();
        }
        let reading = quoit::spawn(async move {
            let mut sink = Sink::default();
            loop {
                dawdle(&reader).await;
                let lease = peer.recv().await.unwrap();
                if lease.is_empty() {
                    return sink.got;
                }
                sink.take(&lease);
            }
        });
        let mut sending = Box::pin(client.send(counter(0..length)));
        poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
        drop(sending);
        if let Some(closed) = explore.cancellable("close", client.close()).await {
            closed.unwrap();
        }
        assert_eq!(reading.await.unwrap(), length);
        talking.await.unwrap();
    });
}
