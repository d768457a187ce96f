//! Sends that answer a batch of completions go to the kernel as one, where that is cheaper.

#![cfg(feature = "macros")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::cell::{Cell, OnceCell};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use quoit::__private::books_here;
use quoit::net::{TcpListener, TcpStream};
use quoit::task::yield_now;
use quoit::time::timeout;
use quoit::{Builder, RingChoice, Runtime};

const ROUNDS: u64 = 20;

async fn echo(stream: TcpStream) {
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() || stream.send(lease).await.is_err() {
            return;
        }
    }
}

/// The other ends of so many streams that echo on this core.
async fn peers(count: usize) -> Vec<std::net::TcpStream> {
    peers_of(count, echo).await
}

async fn peers_of<F>(count: usize, serve: impl Fn(TcpStream) -> F) -> Vec<std::net::TcpStream>
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peers = Vec::new();
    for _ in 0..count {
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nonblocking(true).unwrap();
        drop(quoit::spawn(serve(listener.accept().await.unwrap().0)));
        peers.push(peer);
    }
    peers
}

/// All ask before the ring has a turn, and all have their answers before they ask again.
async fn ask(peers: &mut [std::net::TcpStream]) {
    for round in 0..ROUNDS as u8 {
        ask_once(peers, round).await;
    }
}

async fn ask_once(peers: &mut [std::net::TcpStream], round: u8) {
    for peer in &mut *peers {
        peer.write_all(&[round]).unwrap();
    }
    for peer in &mut *peers {
        let mut answer = [0];
        while let Err(error) = peer.read_exact(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            yield_now().await;
        }
        assert_eq!(answer, [round]);
    }
}

/// What was submitted while `peers` asked: the receives stand already, so it is sends.
async fn submitted(peers: &mut [std::net::TcpStream]) -> u64 {
    ask(peers).await;
    let before = books_here().ring.submissions;
    timeout(Duration::from_secs(30), ask(peers)).await.unwrap();
    books_here().ring.submissions - before
}

// A stopped clock: however slow this machine is, the program takes no time.
#[quoit::test(ring = "uring", start_paused = true)]
async fn a_batch_is_answered_by_submissions_and_who_is_alone_at_once() {
    let mut some = peers(16).await;
    let sent = submitted(&mut some).await;
    // A turn may end between two of those who ask; but it does not for most of them.
    assert!((ROUNDS * 8..=ROUNDS * 16).contains(&sent), "{sent} of {}", ROUNDS * 16);
    assert_eq!(submitted(&mut some[..1]).await, 0);
    // So many that a second look at each would be dear.
    let mut many = peers(120).await;
    assert_eq!(submitted(&mut many).await, 0);
}

/// Each takes a millisecond to answer: the first shall not wait for the last.
#[quoit::test(ring = "uring")]
async fn who_takes_his_time_keeps_no_answer_back() {
    let first = Rc::new(OnceCell::<std::net::TcpStream>::new());
    let early = Rc::new(Cell::new(0));
    let slow = |stream: TcpStream| {
        let (first, early) = (first.clone(), early.clone());
        async move {
            while let Ok(lease) = stream.recv().await {
                std::thread::sleep(Duration::from_millis(1));
                let is_answered = first.get().unwrap().peek(&mut [0]).is_ok();
                early.set(early.get() + u64::from(is_answered));
                if lease.is_empty() || stream.send(lease).await.is_err() {
                    return;
                }
            }
        }
    };
    let mut peers = peers_of(16, slow).await;
    first.set(peers[0].try_clone().unwrap()).unwrap();
    // The first batch is still taken for one of a quick program: until the fifth of its sends.
    let before = books_here().ring.submissions;
    ask_once(&mut peers, 0).await;
    let sent = books_here().ring.submissions - before;
    assert!(sent <= 8, "{sent} of 16 were submitted");
    assert!(early.get() >= 8, "{} were still at work when the first had its answer", early.get());
    let sent = submitted(&mut peers).await;
    assert!(sent <= ROUNDS, "{sent} of {}", ROUNDS * 16);
}

/// A submission would be tried by a call, too.
#[quoit::test(ring = "readiness")]
async fn on_readiness_each_is_sent_at_once() {
    assert_eq!(submitted(&mut peers(16).await).await, 0);
}

/// What a program has chosen holds for every load: on each ring that which is not the default.
#[test]
fn who_has_chosen_gets_that() {
    for (ring, inline) in [(RingChoice::Uring, true), (RingChoice::Readiness, false)] {
        let builder = Runtime::builder().ring(ring).send_inline(inline).start_paused(true);
        let Some(runtime) = built(builder) else { continue };
        runtime.block_on(async {
            for count in [1, 16] {
                let sent = submitted(&mut peers(count).await).await;
                assert_eq!(sent, if inline { 0 } else { ROUNDS * count as u64 }, "{ring:?}");
            }
        });
    }
}

/// `None`, and said so, where the ring cannot be used; a failure where it is required.
fn built(builder: Builder) -> Option<Runtime> {
    match builder.build() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            let required = std::env::var("QUOIT_REQUIRE_RINGS").unwrap_or_default();
            assert!(!required.contains("uring"), "{error}");
            eprintln!("not looked at: {error}");
            None
        }
    }
}
