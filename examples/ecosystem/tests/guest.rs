//! quoit inside tokio, on one thread: both go on, no wake is missed either way, and neither spins.

use std::cell::Cell;
use std::env;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use ecosystem::{guest, hello};
use quoit::net::TcpListener;
use quoit::{RingChoice, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const SOON: Duration = Duration::from_secs(20);

/// Runs the body on tokio with a guest of each ring beside it.
fn on_both(body: impl AsyncFn(&Runtime)) {
    let required = env::var("QUOIT_REQUIRE_RINGS").unwrap_or_default();
    for (name, ring) in [("uring", RingChoice::Uring), ("readiness", RingChoice::Readiness)] {
        let runtime = match Runtime::builder().ring(ring).build() {
            Ok(runtime) => runtime,
            Err(error) => {
                assert!(!required.contains(name), "the {name} ring is required: {error}");
                eprintln!("the {name} ring is NOT TESTED here: {error}");
                continue;
            }
        };
        println!("on the {name} ring");
        let mut tokio = tokio::runtime::Builder::new_current_thread();
        let tokio = tokio.enable_all().build().unwrap();
        tokio.block_on(async {
            let host = tokio::time::timeout(SOON, body(&runtime));
            guest::run(&runtime, host).await.unwrap().expect("it hangs");
        });
        assert!(runtime.shutdown(SOON).is_clean());
    }
}

#[test]
fn quoits_server_and_tokios_clients_share_a_thread() {
    const CLIENTS: usize = 8;
    const MESSAGES: usize = 200;
    on_both(async |quoit| {
        let (tell, told) = oneshot::channel();
        drop(quoit.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            hello::echo(listener).await
        }));
        let address = told.await.unwrap();
        let before = quoit.metrics().turns;
        let clients = (0..CLIENTS).map(async |client| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for message in 0..MESSAGES {
                let sent = format!("{client}: {message:>60}");
                stream.write_all(sent.as_bytes()).await.unwrap();
                let mut got = vec![0; sent.len()];
                stream.read_exact(&mut got).await.unwrap();
                assert_eq!(got, sent.as_bytes());
            }
        });
        futures::future::join_all(clients).await;
        let turns = quoit.metrics().turns - before;
        let limit = (CLIENTS * (MESSAGES + 10) * 5) as u64;
        assert!(turns < limit, "{turns} turns, it spins");
    });
}

/// With nothing to do there is no turn, whatever tokio does meanwhile.
#[test]
fn an_idle_guest_stands_still() {
    on_both(async |quoit| {
        drop(quoit.spawn(std::future::pending::<()>()));
        drop(quoit.spawn(quoit::time::sleep(Duration::from_secs(3600))));
        // What there is to begin with.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = quoit.metrics().turns;
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let turns = quoit.metrics().turns - before;
        // The wheel of timers may ask for a look at itself.
        assert!(turns < 10, "{turns} turns with nothing to do");
    });
}

#[test]
fn wakes_go_both_ways_and_come_from_other_threads() {
    const ROUNDS: u32 = 2000;
    on_both(async |quoit| {
        let (to_quoit, mut from_tokio) = mpsc::channel::<u32>(1);
        let (to_tokio, mut from_quoit) = mpsc::channel::<u32>(1);
        let task = quoit.spawn(async move {
            while let Some(number) = from_tokio.recv().await {
                to_tokio.send(number + 1).await.unwrap();
            }
        });
        for round in 0..ROUNDS {
            to_quoit.send(round).await.unwrap();
            assert_eq!(from_quoit.recv().await, Some(round + 1));
        }
        drop(to_quoit);
        // Its handle is a future of tokio's program like any other.
        task.await.unwrap();

        // From a thread that is neither's, at any moment of the loop.
        let (to_quoit, mut from_thread) = mpsc::channel::<u32>(1);
        let other = thread::spawn(move || {
            for number in 0..ROUNDS {
                to_quoit.blocking_send(number).unwrap();
            }
        });
        let task = quoit.spawn(async move {
            let mut sum = 0;
            while let Some(number) = from_thread.recv().await {
                sum += number;
            }
            sum
        });
        assert_eq!(task.await.unwrap(), ROUNDS * (ROUNDS - 1) / 2);
        other.join().unwrap();
    });
}

#[test]
fn timers_of_both_run_in_the_guests_tasks() {
    on_both(async |quoit| {
        let limit = Duration::from_millis(40);
        let task = quoit.spawn(async move {
            let start = Instant::now();
            quoit::time::sleep(limit).await;
            assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
            tokio::time::sleep(limit).await;
            assert!(start.elapsed() >= 2 * limit, "{:?}", start.elapsed());
            let never = tokio::time::timeout(limit, std::future::pending::<()>()).await;
            assert!(never.is_err());
        });
        task.await.unwrap();
    });
}

/// The pool's threads answer, and a file is read through the ring.
#[test]
fn files_and_blocking_work_answer() {
    on_both(async |quoit| {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let read = quoit.spawn(async move { quoit::fs::read(file).await.unwrap() });
        let blocking = quoit.spawn_blocking(move || std::fs::read(file).unwrap());
        assert_eq!(read.await.unwrap(), blocking.await.unwrap());
    });
}

/// Neither starves the other, however busy it is.
#[test]
fn a_busy_guest_lets_tokio_go_on_and_is_let() {
    on_both(async |quoit| {
        let polls = Rc::new(Cell::new(0_u64));
        let count = polls.clone();
        drop(quoit.spawn(async move {
            loop {
                count.set(count.get() + 1);
                quoit::task::yield_now().await;
            }
        }));
        for _ in 0..100 {
            let before = polls.get();
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(polls.get() > before, "the guest goes on");
        }
        let busy = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        let before = polls.get();
        let _ = tokio::time::timeout(Duration::from_millis(50), busy).await;
        assert!(polls.get() > before + 10, "a busy host lets it");
    });
}

/// Left and taken up again, the guest has lost nothing.
#[test]
fn a_guest_goes_on_in_the_next_run() {
    on_both(async |_| {});
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let quoit = Runtime::new().unwrap();
    let (send, receive) = oneshot::channel();
    let task = quoit.spawn(async move { receive.await.unwrap() });
    tokio.block_on(guest::run(&quoit, async { tokio::task::yield_now().await })).unwrap();
    send.send(7).unwrap();
    let host = async { tokio::time::timeout(SOON, task).await };
    let result = tokio.block_on(guest::run(&quoit, host));
    assert_eq!(result.unwrap().unwrap().unwrap(), 7);
}
