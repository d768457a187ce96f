//! Mistakes that are planted in scenarios: an explorer that did not find them would prove nothing.

use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::explore::{Explorer, Found};

use crate::bytes::{Sink, feed};
use crate::pair;

#[track_caller]
fn assert_found(found: &Found, what: &str) {
    let failures = found.failures();
    assert!(!failures.is_empty(), "not found: {what}");
    assert!(failures.iter().all(|failure| failure.what().contains(what)), "{found}");
    // It shows only where the explorer disturbs.
    assert!(failures.iter().all(|failure| failure.point().is_some()), "{found}");
}

/// Two reads in one future: dropped after the first, that one's bytes are gone.
#[test]
fn a_loop_that_loses_what_it_has_read() {
    let found = Explorer::new("a lossy loop").cancel(|explore| async move {
        let (client, server) = pair().await;
        let feeding = feed(client, 40, &explore);
        let mut sink = Sink::default();
        while sink.got < 40 {
            let reading = async {
                let mut bytes = [0; 2];
                for byte in &mut bytes {
                    server.read(std::slice::from_mut(byte)).await.unwrap();
                }
                bytes
            };
            if let Some(bytes) = explore.cancellable("two reads", reading).await {
                sink.take(&bytes);
            }
        }
        drop(server);
        feeding.await.unwrap();
    });
    assert_found(&found, "from byte");
    let first = &found.failures()[0];
    assert!(first.disturbed().contains("`two reads` was cancelled"), "{first}");
    assert!(first.to_string().contains("QUOIT_SEED="), "{first}");
}

/// A guard that is forgotten when its future is dropped.
#[test]
fn a_drop_that_leaks() {
    struct Forgets(Option<Rc<TcpListener>>);
    impl Drop for Forgets {
        fn drop(&mut self) {
            std::mem::forget(self.0.take());
        }
    }
    let found = Explorer::new("a leak").cancel(|explore| async move {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = quoit::spawn(async move { drop(client.await) });
        let accepting = async {
            let mut held = Forgets(Some(listener.clone()));
            listener.accept().await.unwrap();
            held.0 = None;
        };
        explore.cancellable("accept", accepting).await;
        drop(listener);
        client.await.unwrap();
    });
    assert_found(&found, "left: ");
}

/// It waits for a task that it has dropped the work of.
#[test]
fn a_wait_for_nobody() {
    let found = Explorer::new("a hang").cancel(|explore| async move {
        let (client, server) = pair().await;
        let reading = explore.cancellable("recv", server.recv());
        let sending = quoit::spawn(async move { client.send_all("one").await.map(|()| client) });
        let taken = reading.await;
        let client = sending.await.unwrap().unwrap();
        if taken.is_none() {
            // The three bytes are all that there will ever be.
            server.read_exact(&mut [0; 4]).await.unwrap();
        }
        drop(client);
    });
    assert_found(&found, "nothing can ever happen");
}

/// It asks again and again whether somebody is there.
#[test]
fn a_wait_that_comes_to_no_end() {
    let found = Explorer::new("a spin").seeds(1).drop_root(|_| async {
        loop {
            quoit::task::yield_now().await;
        }
    });
    assert!(!found.failures().is_empty(), "not found");
    assert!(found.failures()[0].what().contains("comes to no end"), "{found}");
}

/// Each call is made to fail, and this one does not expect it.
#[test]
fn an_error_that_nobody_expects() {
    let found = Explorer::new("an unwrap").seeds(2).fail(|_| async {
        if let Ok(listener) = TcpListener::bind("127.0.0.1:0").await {
            let address = listener.local_addr().unwrap();
            drop(TcpStream::connect(address).await.unwrap());
        }
    });
    assert_found(&found, "panicked");
    assert!(found.failures().iter().any(|failure| failure.disturbed().contains("Connect")));
}

/// A task whose handle nobody asks.
#[test]
fn a_panic_that_nobody_hears_of() {
    let found = Explorer::new("an unheard panic").cancel(|explore| async move {
        let (client, server) = pair().await;
        quoit::spawn(async move { client.send_all("one").await });
        let is_lost = explore.cancellable("recv", server.recv()).await.is_none();
        quoit::spawn(async move { assert!(!is_lost) });
        quoit::task::yield_now().await;
    });
    assert_found(&found, "tasks that panicked: 1, not 0");
}

/// A short write is taken for a whole one.
#[test]
fn a_write_whose_count_nobody_looks_at() {
    let found = Explorer::new("a short write").seeds(8).builder(|_| quoit::Runtime::builder());
    let found = found.hinder(|_| async {
        let (client, server) = pair().await;
        client.write(b"ab").await.unwrap();
        drop(client);
        let mut got = Vec::new();
        while let Ok(lease) = server.recv().await {
            if lease.is_empty() {
                break;
            }
            got.extend_from_slice(&lease);
        }
        // A world of one byte cuts it by itself.
        assert!(got.len() != 1, "half of it");
    });
    assert!(!found.failures().is_empty(), "not found");
}

/// The name of what is left out changes from run to run.
#[test]
fn a_scenario_that_is_not_the_same_twice() {
    let runs = std::cell::Cell::new(0);
    let found = Explorer::new("a dice").seeds(1).drop_root(|_| {
        runs.set(runs.get() + 1);
        let run = runs.get();
        async move {
            for _ in 0..run {
                TcpListener::bind("127.0.0.1:0").await.unwrap();
            }
        }
    });
    assert!(found.to_string().contains("another way"), "{found}");
}

#[test]
#[should_panic(expected = "nothing was explored")]
fn nothing_to_explore_is_no_success() {
    Explorer::new("nothing").seeds(3).cancel(|_| async {}).assert_clean();
}
