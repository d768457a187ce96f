//! Read: a dropped, timed out or concurrent read never loses, repeats or moves a byte.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::{task, time};

use crate::common::*;

/// In the simulation a connection holds a few bytes only, so that few are enough.
fn length() -> usize {
    fewer(15_000_000, 1_000)
}

#[quoit::test(seeds = 12)]
async fn receives_dropped_at_every_moment_keep_every_byte() {
    let (stream, peer) = pair().await;
    let writer = write_aside(peer, 1, length());
    let (mut random, mut place, mut dropped) = (Random(3), 0, [0; 4]);
    loop {
        let moment = Moment::any(&mut random);
        let Some(lease) = within("recv", dropped_at(moment, stream.recv())).await else {
            dropped[moment as usize] += 1;
            if random.below(3) == 0 {
                task::yield_now().await;
            }
            continue;
        };
        let lease = lease.unwrap();
        if lease.is_empty() {
            break;
        }
        check_bytes(1, place, &lease);
        place += lease.len();
        // Every third lease is dropped on another thread.
        if random.below(3) == 0 {
            outside(|| drop(lease));
        }
    }
    assert_eq!(place, length());
    assert!(dropped[..3].iter().all(|count| *count > 0), "each moment came: {dropped:?}");
    assert!(within("the end again", stream.recv()).await.unwrap().is_empty(), "the end stays");
    writer.join().await;
}

/// One read by whichever tier, dropped at a random moment; the bytes that it returned.
async fn any_read(stream: &TcpStream, random: &mut Random) -> io::Result<Option<Vec<u8>>> {
    let (moment, tier, size) = (Moment::any(random), random.below(9), 1 + random.below(40_000));
    let mut slice = vec![0; size];
    let read = match tier {
        0 | 1 => dropped_at(moment, stream.recv()).await.transpose()?.map(|lease| lease.to_vec()),
        2 => {
            let buffer = Vec::with_capacity(size);
            let read = dropped_at(moment, stream.recv_into(buffer)).await.transpose()?;
            read.map(|(count, buffer)| {
                assert_eq!(count, buffer.len());
                buffer
            })
        }
        3 | 4 => {
            let read = dropped_at(moment, stream.read(&mut slice)).await.transpose()?;
            read.map(|count| slice[..count].to_vec())
        }
        5 => match dropped_at(moment, stream.read_exact(&mut slice)).await.transpose() {
            // Near the end: what there is stays for the others.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
            read => read?.map(|_| slice),
        },
        6 => {
            let (mut line, delimiter) = (Vec::new(), random.next() as u8);
            let read = dropped_at(moment, stream.read_until(delimiter, &mut line, 1 << 20)).await;
            if let Some(count) = read.transpose()? {
                assert_eq!(count, line.len());
                let found = line.iter().position(|byte| *byte == delimiter);
                assert!(found.is_none_or(|at| at == count - 1), "not beyond the delimiter");
                Some(line)
            } else {
                assert!(line.is_empty(), "a dropped read_until leaves the vector alone");
                None
            }
        }
        7 => match stream.try_read(&mut slice) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                dropped_at(moment, stream.readable()).await.transpose()?;
                None
            }
            read => Some(slice[..read?].to_vec()),
        },
        _ => {
            // What was peeked must come again.
            let peeked = dropped_at(moment, stream.peek(&mut slice)).await.transpose()?;
            let Some(count) = peeked else { return Ok(None) };
            let mut again = vec![0; count];
            stream.read_exact(&mut again).await?;
            assert_eq!(again, slice[..count]);
            Some(again)
        }
    };
    Ok(read)
}

#[quoit::test(seeds = 12)]
async fn all_tiers_mixed_and_dropped_read_one_stream() {
    for seed in 10..13 {
        let (stream, peer) = pair().await;
        let writer = write_aside(peer, seed, length() / 2);
        let (mut random, mut place) = (Random(seed), 0);
        while place < length() / 2 {
            let read = within("a read", any_read(&stream, &mut random)).await.unwrap();
            let Some(bytes) = read else {
                task::yield_now().await;
                continue;
            };
            check_bytes(seed, place, &bytes);
            place += bytes.len();
        }
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(stream.recv().await.unwrap().is_empty());
        writer.join().await;
    }
}

#[quoit::test(seeds = 12)]
async fn timeouts_around_reads_lose_nothing() {
    let (stream, mut peer) = pair().await;
    let total = fewer(60_000, 10);
    let writer = aside(async move {
        let mut random = Random(5);
        let mut place = 0;
        while place < total {
            let size = 1 + random.below(400);
            peer.write_all(&bytes_of(5, place, size)).await.unwrap();
            place += size;
            pause(Duration::from_micros(random.below(300) as u64)).await;
        }
        place
    });
    let (mut random, mut place, mut late) = (Random(6), 0, 0);
    let mut slice = [0; 300];
    loop {
        let limit = Duration::from_micros(random.below(400) as u64);
        let read = match random.below(4) {
            0 => time::timeout(limit, stream.recv())
                .await
                .ok()
                .map(|lease| lease.map(|l| l.to_vec())),
            1 => match stream.recv().timeout(limit).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => None,
                read => Some(read.map(|lease| lease.to_vec())),
            },
            2 => {
                let read = time::timeout(limit, stream.read(&mut slice)).await.ok();
                read.map(|count| count.map(|count| slice[..count].to_vec()))
            }
            _ => match time::timeout(limit, stream.read_exact(&mut slice)).await.ok() {
                Some(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => None,
                read => read.map(|done| done.map(|_| slice.to_vec())),
            },
        };
        let Some(bytes) = read else {
            late += 1;
            continue;
        };
        let bytes = bytes.unwrap();
        if bytes.is_empty() {
            break;
        }
        check_bytes(5, place, &bytes);
        place += bytes.len();
    }
    assert_eq!(place, writer.join().await);
    assert!(late > 10, "time ran out often enough: {late}");
}

#[quoit::test(seeds = 12)]
async fn a_timeout_that_has_passed_still_returns_what_is_there() {
    let (stream, mut peer) = pair().await;
    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
    peer.write_all(b"l").await.unwrap();
    some_turns().await;
    assert_eq!(time::timeout(Duration::ZERO, stream.recv()).await.unwrap().unwrap(), b"l");
    peer.write_all(b"a").await.unwrap();
    some_turns().await;
    assert_eq!(stream.recv().timeout(Duration::ZERO).await.unwrap(), b"a");
    let error = stream.recv().timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

fn written_for(reader: u8) -> [u8; 3] {
    let reader = reader + 1;
    match reader % 3 {
        1 => [reader; 3],
        2 => [reader, reader, 99 + reader],
        _ => [reader, 0, 0],
    }
}

#[quoit::test(seeds = 12)]
async fn concurrent_reads_are_served_in_the_order_of_their_first_poll() {
    let (stream, mut peer) = pair().await;
    let stream = Rc::new(stream);
    let started = Rc::new(Cell::new(0));
    let mut readers = Vec::new();
    for reader in 0..20_u8 {
        let (stream, begins) = (stream.clone(), started.clone());
        readers.push(quoit::spawn(async move {
            begins.set(begins.get() + 1);
            let mut bytes = vec![0; 3];
            match reader % 3 {
                0 => assert_eq!(stream.read_exact(&mut bytes).await.unwrap(), 3),
                1 => {
                    bytes.clear();
                    stream.read_until(100 + reader, &mut bytes, 10).await.unwrap();
                }
                _ => assert_eq!(stream.read_exact(&mut bytes[..1]).await.unwrap(), 1),
            }
            assert_eq!(bytes, written_for(reader));
        }));
        // Who is spawned first need not be polled first.
        until("its first poll", || started.get() > reader).await;
    }
    for reader in 0..20 {
        for byte in written_for(reader).into_iter().filter(|byte| *byte != 0) {
            peer.write_all(&[byte]).await.unwrap();
            task::yield_now().await;
        }
    }
    for reader in readers {
        within("a reader", reader).await.unwrap();
    }
}

#[quoit::test(seeds = 12)]
async fn a_wake_that_meets_a_dropped_read_passes_on() {
    let (stream, mut peer) = pair().await;
    let (one, two) = (Wakes::new(), Wakes::new());
    let mut first = Box::pin(stream.recv());
    let mut second = pin!(stream.recv());
    assert!(one.poll(first.as_mut()).is_pending());
    assert!(two.poll(second.as_mut()).is_pending());
    peer.write_all(b"x").await.unwrap();
    until("the first in line is told", || one.count() == 1).await;
    drop(first);
    assert_eq!(two.count(), 1, "the wake passes on");
    let Poll::Ready(lease) = two.poll(second.as_mut()) else { panic!("it is there") };
    assert_eq!(lease.unwrap(), b"x");
}

#[quoit::test(seeds = 12)]
async fn a_half_done_read_exact_keeps_its_bytes_from_those_who_do_not_wait() {
    let (stream, mut peer) = pair().await;
    let mut into = [0; 4];
    let wakes = Wakes::new();
    let mut exact = Box::pin(stream.read_exact(&mut into));
    assert!(wakes.poll(exact.as_mut()).is_pending());
    peer.write_all(b"ab").await.unwrap();
    until("the first bytes", || wakes.count() > 0).await;
    assert!(wakes.poll(exact.as_mut()).is_pending());
    peer.write_all(b"c").await.unwrap();
    some_turns().await;
    // Were `c` given out now, `ab` could only come back behind it.
    let mut byte = [0];
    let error = stream.try_read(&mut byte).expect_err("somebody stands in line");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(wakes.poll(pin!(stream.readable())).is_pending(), "or the two together would spin");
    drop(exact);
    assert_eq!(received(&stream, 3).await, b"abc");
}

#[quoit::test(seeds = 12)]
async fn a_dropped_read_until_gives_back_what_it_had() {
    let (stream, mut peer) = pair().await;
    let mut line = Vec::from("kept ");
    peer.write_all(b"half a li").await.unwrap();
    let waiting = time::timeout(Duration::from_millis(20), stream.read_until(b'\n', &mut line, 99));
    assert!(waiting.await.is_err());
    assert_eq!(line, b"kept ");
    peer.write_all(b"ne\nrest").await.unwrap();
    assert_eq!(within("a line", stream.read_until(b'\n', &mut line, 99)).await.unwrap(), 12);
    assert_eq!(line, b"kept half a line\n");
    let error = stream.read_until(b'\n', &mut line, 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut rest = [0; 4];
    within("the rest", stream.read_exact(&mut rest)).await.unwrap();
    assert_eq!(&rest, b"rest", "an error takes nothing either");
}

#[quoit::test(seeds = 12)]
async fn a_read_exact_dropped_where_no_core_is_gives_back_what_it_had() {
    let (stream, mut peer) = pair().await;
    let (mut into, wakes) = ([0; 10], Wakes::new());
    let mut exact = Box::pin(stream.read_exact(&mut into));
    peer.write_all(b"12345").await.unwrap();
    some_turns().await;
    assert!(wakes.poll(exact.as_mut()).is_pending());
    outside(|| drop(exact));
    peer.write_all(b"67").await.unwrap();
    let mut all = [0; 7];
    within("all", stream.read_exact(&mut all)).await.unwrap();
    assert_eq!(&all, b"1234567");
}

#[quoit::test(seeds = 12)]
async fn an_unread_stream_stops_at_its_budget_and_goes_on() {
    let (stream, mut peer) = pair().await;
    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
    let mut written = 0;
    let mut stuck = 0;
    while stuck < 10 {
        match peer.try_write(&bytes_of(8, written, 30_000)) {
            Ok(count) => (written, stuck) = (written + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                some_turns().await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < 64 << 20, "nobody reads, so the peer must be stopped");
    }
    let mut place = 0;
    while place < written {
        let lease = within("recv", stream.recv()).await.unwrap();
        check_bytes(8, place, &lease);
        place += lease.len();
    }
    peer.write_all(b"more").await.unwrap();
    assert_eq!(received(&stream, 4).await, b"more");
}

#[quoit::test(seeds = 12)]
async fn a_polled_peek_waits_and_takes_nothing() {
    let (stream, mut peer) = pair().await;
    let mut first = [0; 2];
    let peek = async || {
        let mut seen = [0; 2];
        let count = within("peek", poll_fn(|cx| stream.poll_peek(cx, &mut seen))).await.unwrap();
        (count, seen[0])
    };
    assert!(poll_fn(|cx| Poll::Ready(stream.poll_peek(cx, &mut first))).await.is_pending());
    let (peeked, ()) = futures::join!(peek(), async {
        some_turns().await;
        peer.write_all(b"x").await.unwrap();
    });
    assert_eq!((peeked, peek().await), ((1, b'x'), (1, b'x')));
    assert_eq!(received(&stream, 1).await, b"x");
    drop(peer);
    assert_eq!(peek().await, (0, 0), "the end");
}

#[quoit::test(seeds = 12)]
async fn zero_length_reads_return_at_once() {
    let (stream, _peer) = pair().await;
    assert_eq!(within("read", stream.read(&mut [])).await.unwrap(), 0);
    within("read_exact", stream.read_exact(&mut [])).await.unwrap();
    assert_eq!(within("recv_into", stream.recv_into(Vec::new())).await.unwrap().0, 0);
    assert_eq!(within("peek", stream.peek(&mut [])).await.unwrap(), 0);
    assert_eq!(stream.try_read(&mut []).unwrap(), 0);
    let polled = poll_fn(|cx| stream.poll_peek(cx, &mut []));
    assert_eq!(within("poll_peek", polled).await.unwrap(), 0);
}

#[quoit::test(seeds = 12)]
async fn bytes_before_a_reset_come_first_and_the_reset_stays() {
    let (stream, mut peer) = pair().await;
    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
    peer.write_all(b"last words").await.unwrap();
    some_turns().await;
    peer.reset();
    some_turns().await;
    assert_eq!(received(&stream, 10).await, b"last words");
    for _ in 0..2 {
        let error = within("recv", stream.recv()).await.unwrap_err();
        assert!(is_reset(&error), "{error}");
        let error = within("read", stream.read(&mut [0])).await.unwrap_err();
        assert!(is_reset(&error), "{error}");
    }
}
