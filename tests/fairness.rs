//! I/O that is always ready, in one task, leaves the others their turns: the other tasks, the
//! timers, the ring.
//!
//! Nothing is timed here. A busy loop runs until a timer stops it, which would never come, and a
//! second task counts how many answers the loop had between two of its own turns.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream};
use quoit::task::yield_now;
use quoit::time::{sleep, timeout};

/// What the documentation of `Builder::task_budget` says.
const ANSWERS_PER_POLL: u64 = 128;

/// A loop that had so many answers without an end is not going to be stopped.
const ENDLESS: u64 = 5_000_000;

async fn with_std() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (ours, peer)
}

/// A stream whose reads have an answer at once, for ever: the end.
async fn ended() -> TcpStream {
    let (stream, peer) = with_std().await;
    drop(peer);
    assert!(stream.recv().await.unwrap().is_empty());
    stream
}

/// A stream with a byte that nobody takes.
async fn with_a_byte() -> (TcpStream, std::net::TcpStream) {
    let (stream, mut peer) = with_std().await;
    peer.write_all(b"x").unwrap();
    assert_eq!(stream.peek(&mut [0; 4]).await.unwrap(), 1);
    (stream, peer)
}

/// Turns that the loop has at least, however slow the machine is against the timer.
const TURNS_MIN: u64 = 8;

/// Repeats an operation until a timer says stop. Answers how many there were.
async fn busy(what: &str, mut operation: impl AsyncFnMut()) -> u64 {
    let stop = Rc::new(Cell::new(false));
    let answers = Rc::new(Cell::new(0_u64));
    let turns = Rc::new(Cell::new(0_u64));
    let timer = quoit::spawn({
        let (stop, turns) = (stop.clone(), turns.clone());
        async move {
            sleep(Duration::from_millis(2)).await;
            while turns.get() < TURNS_MIN {
                yield_now().await;
            }
            stop.set(true);
        }
    });
    let watcher = quoit::spawn({
        let (stop, answers) = (stop.clone(), answers.clone());
        async move {
            let mut longest = 0;
            while !stop.get() {
                let before = answers.get();
                yield_now().await;
                turns.set(turns.get() + 1);
                longest = longest.max(answers.get() - before);
            }
            longest
        }
    });
    while !stop.get() {
        operation().await;
        answers.set(answers.get() + 1);
        assert!(answers.get() < ENDLESS, "{what}: nobody else has a turn");
    }
    timer.await.unwrap();
    let longest = watcher.await.unwrap();
    assert!(longest <= ANSWERS_PER_POLL, "{what}: {longest} answers in a row");
    answers.get()
}

async fn reads_at_the_end() {
    let mut stream = ended().await;
    busy("recv", async || assert!(stream.recv().await.unwrap().is_empty())).await;
    busy("recv_into", async || {
        let (count, _) = stream.recv_into(vec![0; 4]).await.unwrap();
        assert_eq!(count, 0);
    })
    .await;
    busy("read", async || assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0)).await;
    busy("read_exact", async || {
        let error = stream.read_exact(&mut [0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    })
    .await;
    busy("readable", async || stream.readable().await.unwrap()).await;
    busy("tokio's read", async || {
        assert_eq!(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4]).await.unwrap(), 0);
    })
    .await;
    busy("futures' read", async || {
        assert_eq!(futures::AsyncReadExt::read(&mut stream, &mut [0; 4]).await.unwrap(), 0);
    })
    .await;
    busy("tokio's fill_buf", async || {
        let bytes = tokio::io::AsyncBufReadExt::fill_buf(&mut stream).await.unwrap();
        assert!(bytes.is_empty());
    })
    .await;
    busy("hyper's read", async || {
        let mut room = [std::mem::MaybeUninit::uninit(); 4];
        let mut buffer = hyper::rt::ReadBuf::uninit(&mut room);
        poll_fn(|cx| hyper::rt::Read::poll_read(Pin::new(&mut stream), cx, buffer.unfilled()))
            .await
            .unwrap();
    })
    .await;
}

async fn calls_that_take_nothing() {
    let (mut stream, _peer) = with_a_byte().await;
    busy("peek", async || assert_eq!(stream.peek(&mut [0; 4]).await.unwrap(), 1)).await;
    busy("flush", async || stream.flush().await.unwrap()).await;
    busy("writable", async || stream.writable().await.unwrap()).await;
    busy("tokio's flush", async || {
        tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
    })
    .await;
}

async fn writes_that_fail() {
    let (mut stream, peer) = with_a_byte().await;
    drop(peer);
    while stream.write(&[0; 1000]).await.is_ok() {
        yield_now().await;
    }
    busy("write", async || drop(stream.write(b"x").await.unwrap_err())).await;
    busy("send", async || drop(stream.send("x").await.unwrap_err())).await;
    busy("tokio's write", async || {
        tokio::io::AsyncWriteExt::write(&mut stream, b"x").await.unwrap_err();
    })
    .await;
}

/// What proxies and servers do all day, with a peer that is always faster.
async fn a_stream_that_is_never_empty() {
    let (stream, mut peer) = with_std().await;
    let mut reader = peer.try_clone().unwrap();
    let feeder = std::thread::spawn(move || while peer.write_all(&[7; 1 << 16]).is_ok() {});
    let drain = std::thread::spawn(move || {
        let mut room = [0; 1 << 16];
        while reader.read(&mut room).is_ok_and(|count| count > 0) {}
    });
    busy("recv and send", async || {
        let lease = stream.recv().await.unwrap();
        stream.send_all(lease).await.unwrap();
    })
    .await;
    let mut byte = [0];
    busy("read and write", async || {
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1);
        stream.write_all(&byte).await.unwrap();
    })
    .await;
    stream.abort();
    // Off the core, whose next turn closes the connection.
    let both = quoit::task::spawn_blocking(|| feeder.join().and(drain.join()));
    both.await.unwrap().unwrap();
}

async fn reads_of_a_cached_file() {
    let file = File::open(std::env::current_exe().unwrap()).await.unwrap();
    let mut buffer = Some(vec![0; 64]);
    busy("read_at", async || {
        let (count, back) = file.read_at(buffer.take().unwrap(), 0).await.unwrap();
        assert_eq!(count, 64);
        buffer = Some(back);
    })
    .await;
    file.close().await.unwrap();
}

#[quoit::test]
async fn a_task_that_always_has_an_answer_starves_nobody() {
    quoit::spawn(reads_at_the_end()).await.unwrap();
    quoit::spawn(calls_that_take_nothing()).await.unwrap();
    quoit::spawn(writes_that_fail()).await.unwrap();
    quoit::spawn(a_stream_that_is_never_empty()).await.unwrap();
    quoit::spawn(reads_of_a_cached_file()).await.unwrap();
}

#[quoit::test]
async fn nor_does_the_root_future() {
    reads_at_the_end().await;
    calls_that_take_nothing().await;
    writes_that_fail().await;
    a_stream_that_is_never_empty().await;
    reads_of_a_cached_file().await;
}

/// The count is of the task, not of each future in it, whatever waker it is polled with.
#[quoit::test]
async fn futures_with_wakers_of_their_own_share_the_allowance() {
    let stream = ended().await;
    let mut many: FuturesUnordered<_> = (0..50).map(|_| stream.readable()).collect();
    let answers = busy("many at once", async || {
        many.next().await.unwrap().unwrap();
        many.push(stream.readable());
    })
    .await;
    assert!(answers > 2 * ANSWERS_PER_POLL, "{answers}: and they went on");
    busy("whichever is first", async || {
        futures::future::select(pin!(stream.readable()), pin!(stream.flush())).await;
    })
    .await;
}

/// Each is ready in the first poll or never is asked: what waits has spent nothing.
#[quoit::test]
async fn who_waits_does_not_use_it_up() {
    let (quiet, _peer) = with_std().await;
    let ready = ended().await;
    let mut waiting: Vec<_> = (0..1000).map(|_| Box::pin(quiet.recv())).collect();
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        for read in &mut waiting {
            assert!(read.as_mut().poll(cx).is_pending());
        }
        pin!(ready.readable()).poll(cx)
    })
    .await
    .unwrap();
    assert_eq!(polls, 1);
}

/// An executor that blocks inside of a task never lets the task return. What needs no waiting
/// still goes on.
#[quoit::test]
async fn a_foreign_executor_inside_of_a_task_gets_on() {
    let stream = ended().await;
    futures::executor::block_on(async {
        for _ in 0..5 * ANSWERS_PER_POLL {
            stream.readable().await.unwrap();
        }
    });
}

/// Uses up what this poll has.
fn use_up(stream: &TcpStream, cx: &mut Context<'_>) {
    let mut answers = 0;
    while pin!(stream.readable()).poll(cx).is_ready() {
        answers += 1;
        assert!(answers <= ANSWERS_PER_POLL);
    }
}

#[quoit::test]
async fn who_was_refused_keeps_his_place_in_line() {
    let (stream, mut peer) = with_std().await;
    let ready = ended().await;
    {
        let (mut first, mut second) = (pin!(stream.send("first ")), pin!(stream.send("second")));
        let mut refused = false;
        poll_fn(|cx| {
            if !refused {
                use_up(&ready, cx);
                refused = true;
                assert!(first.as_mut().poll(cx).is_pending());
                assert!(second.as_mut().poll(cx).is_pending());
                return Poll::Pending;
            }
            assert!(second.as_mut().poll(cx).is_pending(), "the first was there before");
            first.as_mut().poll(cx)
        })
        .await
        .unwrap();
        second.await.unwrap();
    }
    let mut received = [0; 12];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"first second");

    // And one that is refused and then dropped holds nobody up.
    peer.write_all(b"bytes").unwrap();
    stream.readable().await.unwrap();
    let mut refused = Some(Box::pin(stream.recv()));
    poll_fn(|cx| {
        use_up(&ready, cx);
        if let Some(mut read) = refused.take() {
            assert!(read.as_mut().poll(cx).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(&stream.recv().await.unwrap()[..], b"bytes");
}

/// A time limit of zero asks whether there is an answer. That it was not asked is none.
#[quoit::test]
async fn a_time_limit_tells_the_truth_to_who_was_refused() {
    let (stream, mut peer) = with_a_byte().await;
    let ready = ended().await;
    let asked = async |limited: Pin<&mut dyn Future<Output = io::Result<()>>>| {
        let mut limited = limited;
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            // Each time there is nothing left for it, as when a busy future stands before it.
            use_up(&ready, cx);
            limited.as_mut().poll(cx)
        })
        .await
        .unwrap();
        assert_eq!(polls, 2, "put off once, and only once");
    };
    asked(pin!(async { timeout(Duration::ZERO, stream.peek(&mut [0; 4])).await?.map(drop) })).await;
    // The first receive of all has to ask the ring; from then on it is ahead of its reader.
    assert_eq!(&stream.recv().await.unwrap()[..], b"x");
    peer.write_all(b"y").unwrap();
    stream.readable().await.unwrap();
    asked(pin!(async { stream.recv().timeout(Duration::ZERO).await.map(drop) })).await;
}

#[quoit::test]
async fn a_loop_of_time_limits_starves_nobody() {
    let stream = ended().await;
    busy("timeout", async || {
        timeout(Duration::ZERO, stream.readable()).await.unwrap().unwrap();
    })
    .await;
    busy("recv().timeout", async || {
        assert!(stream.recv().timeout(Duration::ZERO).await.unwrap().is_empty());
    })
    .await;
}

#[quoit::test]
async fn a_busy_future_does_not_outlive_its_time_limit() {
    let stream = ended().await;
    let busy = async {
        loop {
            stream.readable().await.unwrap();
        }
    };
    assert!(timeout(Duration::from_millis(2), busy).await.is_err());
}
