//! Write: bytes go out in call order as one prefix. What is committed goes out whole, what is not
//! committed does not go at all, and a failure is told to everyone from then on.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quoit::buffer::IoBuf;
use quoit::net::TcpStream;
use quoit::{task, time};

use crate::common::*;

/// A buffer that counts how many of its kind are alive.
pub(crate) struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    pub(crate) fn new(bytes: Vec<u8>, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self { bytes, alive: alive.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A use after free shows.
        self.bytes.fill(0xdd);
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

// SAFETY: the bytes are a vector's, which nobody changes before it is dropped.
unsafe impl IoBuf for Counted {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len()
    }
}

/// Numbered messages, so that one which is cut, lost or out of order shows.
fn message(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = Vec::from(number.to_be_bytes());
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(bytes_of(number.into(), 0, length));
    bytes
}

/// The numbers of the messages in `bytes`, each of which must be whole.
fn numbers_of(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (number, rest) = bytes.split_first_chunk().expect("a whole message");
        let (length, rest) = rest.split_first_chunk().expect("a whole message");
        let (number, length) = (u32::from_be_bytes(*number), u32::from_be_bytes(*length) as usize);
        assert!(length <= rest.len(), "message {number} is cut off");
        check_bytes(number.into(), 0, &rest[..length]);
        bytes = &rest[length..];
        numbers.push(number);
    }
    numbers
}

/// Reads all, with pauses, so that the connection is full most of the time.
fn slow_reader(mut peer: Peer) -> Aside<Vec<u8>> {
    aside(async move {
        let mut random = Random(99);
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 100_000]);
        loop {
            match peer.read(&mut chunk).await.expect("an orderly end") {
                0 => return bytes,
                count => bytes.extend_from_slice(&chunk[..count]),
            }
            if random.below(2) == 0 {
                pause(Duration::from_micros(1_500)).await;
            }
        }
    })
}

#[test]
fn sends_dropped_at_every_moment_arrive_whole_or_not_at_all() {
    for inline in [true, false] {
        on_all_rings(
            6,
            |builder| builder.send_inline(inline).send_ahead(40_000),
            async |_| {
                dropped_sends().await;
            },
        );
    }
}

async fn dropped_sends() {
    let messages = fewer(3_000, 30) as u32;
    let alive = Arc::default();
    let (stream, peer) = narrow_pair().await;
    let reader = slow_reader(peer);
    let mut random = Random(21);
    let (mut certain, mut maybe, mut dropped) = (Vec::new(), Vec::new(), [0; 4]);
    for number in 0..messages {
        let moment = Moment::any(&mut random);
        let buffer = Counted::new(message(number, random.below(30_000)), &alive);
        let length = buffer.bytes.len();
        match within("send", dropped_at(moment, stream.send(buffer))).await {
            Some(sent) => {
                let (count, buffer) = sent.unwrap();
                assert_eq!((count, buffer.bytes_init()), (length, length));
                certain.push(number);
            }
            None => {
                dropped[moment as usize] += 1;
                if moment != Moment::Unpolled {
                    maybe.push(number);
                }
            }
        }
        if random.below(8) == 0 {
            task::yield_now().await;
        }
    }
    within("flush", stream.flush()).await.unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0, "each buffer is dropped, once");
    drop(stream);
    let numbers = numbers_of(&reader.join().await);
    assert!(numbers.is_sorted(), "in call order");
    assert!(numbers.windows(2).all(|two| two[0] != two[1]), "none twice");
    assert!(certain.iter().all(|number| numbers.binary_search(number).is_ok()));
    let allowed = |number| certain.contains(number) || maybe.contains(number);
    assert!(numbers.iter().all(allowed), "what was never polled is not sent");
    assert!(dropped[..3].iter().all(|count| *count > 0), "each moment came: {dropped:?}");
}

/// Fills the connection and the stream's budget: the next send has to wait. A buffer is committed
/// whole where there is any room, and this one is larger than the budget (256 KiB) and all that the
/// kernel takes.
async fn fill(stream: &TcpStream) -> usize {
    const LENGTH: usize = 1_000_000;
    assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(4, 0, LENGTH))).await.is_none());
    LENGTH
}

#[quoit::test(seeds = 12)]
async fn a_send_beyond_the_budget_waits_and_is_not_sent_when_dropped() {
    let (stream, mut peer) = narrow_pair().await;
    let sent = fill(&stream).await;
    assert!(dropped_at(Moment::Waiting, stream.send("never")).await.is_none());
    let error = stream.try_write(b"never").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let late = stream.send("never").timeout(Duration::from_millis(5)).await.unwrap_err();
    assert_eq!(late.error().kind(), ErrorKind::TimedOut);
    assert_eq!(late.into_parts().1, Some("never"), "nothing went out, and the buffer is back");
    assert!(time::timeout(Duration::from_millis(5), stream.write(b"never")).await.is_err());

    let wakes = Wakes::new();
    let mut last = Box::pin(stream.send("last"));
    assert!(wakes.poll(last.as_mut()).is_pending());
    let reader = aside(async move {
        let (bytes, error) = read_to_end(&mut peer).await;
        assert!(error.is_none(), "{error:?}");
        bytes
    });
    until("there is room", || wakes.count() > 0).await;
    within("last", last).await.unwrap();
    within("close", stream.close()).await.unwrap();
    let bytes = reader.join().await;
    check_bytes(4, 0, &bytes[..sent]);
    assert_eq!(&bytes[sent..], b"last");
}

#[quoit::test(seeds = 12)]
async fn a_waiting_send_is_not_overtaken() {
    let (stream, mut peer) = narrow_pair().await;
    let sent = fill(&stream).await;
    let wakes = Wakes::new();
    let mut first = Box::pin(stream.send("first"));
    assert!(wakes.poll(first.as_mut()).is_pending());
    let reader = aside(async move { read_to_end(&mut peer).await.0 });
    until("there is room", || wakes.count() > 0).await;
    some_turns().await;
    assert_eq!(stream.try_write(b"second").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(wakes.poll(pin!(stream.writable())).is_pending(), "or the two together would spin");
    let mut second = Box::pin(stream.write_all(b"second"));
    assert!(wakes.poll(second.as_mut()).is_pending());
    within("first", first).await.unwrap();
    within("second", second).await.unwrap();
    drop(stream);
    assert_eq!(&reader.join().await[sent..], b"firstsecond");
}

#[quoit::test(seeds = 12)]
async fn a_stopped_send_tells_the_exact_count_and_returns_the_buffer() {
    const LENGTH: usize = 3_000_000;
    let (stream, mut peer) = narrow_pair().await;
    let (mut place, mut random) = (0, Random(31));
    let mut received = Vec::new();
    for _ in 0..10 {
        let limit = Duration::from_micros(random.below(3_000) as u64);
        let sending = stream.send(bytes_of(9, place, LENGTH)).timeout(limit);
        let (count, buffer) = match within("send", sending).await {
            Ok(stopped) => stopped,
            Err(failed) => {
                let (error, buffer) = failed.into_parts();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                (0, buffer.expect("the buffer comes back"))
            }
        };
        assert_eq!(buffer.len(), LENGTH);
        assert!(count < LENGTH, "a connection that is full takes no more");
        place += count;
        // Make room, so that the next one moves on.
        let mut chunk = vec![0; 1 + random.below(60_000)];
        while let Ok(count) = peer.try_read(&mut chunk) {
            received.extend_from_slice(&chunk[..count]);
            if random.below(4) == 0 {
                break;
            }
        }
    }
    let reader = aside(async move {
        received.extend(read_to_end(&mut peer).await.0);
        received
    });
    within("close", stream.close()).await.unwrap();
    let received = reader.join().await;
    assert_eq!(received.len(), place, "what was counted is what came");
    check_bytes(9, 0, &received);
}

#[quoit::test(seeds = 12)]
async fn a_queued_send_is_stopped_before_its_first_byte() {
    let (stream, mut peer) = narrow_pair().await;
    let front = stream.send(bytes_of(1, 0, 2_000_000));
    assert!(dropped_at(Moment::Waiting, front).await.is_none());
    // Committed behind it, or waiting for room: either way none of it goes out.
    let late = stream.send("never").timeout(Duration::from_millis(3)).await.unwrap_err();
    assert_eq!(late.error().kind(), ErrorKind::TimedOut);
    let reader = aside(async move { read_to_end(&mut peer).await.0 });
    within("behind", stream.send("behind")).await.unwrap();
    drop(stream);
    let bytes = reader.join().await;
    check_bytes(1, 0, &bytes[..2_000_000]);
    assert_eq!(&bytes[2_000_000..], b"behind");
}

#[quoit::test(seeds = 12)]
async fn owned_and_slice_writes_mixed_keep_their_order() {
    let (stream, peer) = narrow_pair().await;
    let reader = slow_reader(peer);
    let (mut random, mut place) = (Random(41), 0);
    for _ in 0..fewer(400, 4) {
        let bytes = bytes_of(2, place, 1 + random.below(20_000));
        let length = bytes.len();
        place += match random.below(6) {
            0 => within("send", stream.send(bytes)).await.unwrap().0,
            1 => {
                // Committed or sent at the first poll, since there is always room for one.
                within("room", stream.flush()).await.unwrap();
                dropped_at(Moment::Waiting, stream.send(bytes)).await;
                length
            }
            2 => within("write", stream.write(&bytes)).await.unwrap(),
            3 => within("write_all", stream.write_all(&bytes)).await.map(|()| length).unwrap(),
            4 => {
                let (head, tail) = bytes.split_at(length / 3);
                let parts = [head, &[], tail].map(std::io::IoSlice::new);
                within("write_vectored", stream.write_vectored(&parts)).await.unwrap()
            }
            _ => match stream.try_write(&bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    within("writable", stream.writable()).await.unwrap();
                    0
                }
                written => written.unwrap(),
            },
        };
    }
    within("shutdown", stream.shutdown()).await.unwrap();
    let bytes = reader.join().await;
    assert_eq!(bytes.len(), place);
    check_bytes(2, 0, &bytes);
}

/// The same failure for each call of `write`.
async fn fails<T, E>(what: &str, write: impl Future<Output = Result<T, E>>)
where
    std::io::Error: From<E>,
{
    let Err(error) = within(what, write).await else { panic!("{what} succeeded after a failure") };
    let error = std::io::Error::from(error);
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{what}: {error}");
}

#[quoit::test(seeds = 12)]
async fn after_a_failure_every_write_says_so_and_reads_go_on_to_the_end() {
    let (stream, mut peer) = pair().await;
    // The peer sent something, then resets since it has not read what we wrote.
    stream.send_all("unread").await.unwrap();
    peer.write_all(b"from the peer").await.unwrap();
    within("readable", stream.readable()).await.unwrap();
    some_turns().await;
    assert_eq!(received(&stream, 13).await, b"from the peer");
    drop(peer);
    some_turns().await;
    fails("the first send", async {
        loop {
            stream.send("more").await?;
            task::yield_now().await;
        }
        #[allow(unreachable_code, reason = "names the type of the result")]
        Ok::<(), quoit::buffer::BufError<&str>>(())
    })
    .await;
    fails("send", stream.send("x")).await;
    fails("send_all", stream.send_all("x")).await;
    fails("write", stream.write(b"x")).await;
    fails("write_all", stream.write_all(b"x")).await;
    fails("flush", stream.flush()).await;
    fails("try_write", async { stream.try_write(b"x") }).await;
    fails("shutdown", stream.shutdown()).await;
    // The kernel's own end: the reset, or the end if the write has been told of the reset.
    match within("recv", stream.recv()).await {
        Ok(lease) => assert!(lease.is_empty()),
        Err(error) => assert!(is_reset(&error), "{error}"),
    }
    fails("close", stream.close()).await;
}

#[quoit::test(seeds = 12)]
async fn committed_sends_fail_with_the_stream_and_drop_their_buffers() {
    let alive: Arc<AtomicUsize> = Arc::default();
    let (stream, peer) = narrow_pair().await;
    let big = || Counted::new(vec![1; 600_000], &alive);
    let wakes = Wakes::new();
    let mut first = Box::pin(stream.send(big()));
    let mut waiting = Box::pin(stream.send(big()));
    let mut flush = Box::pin(stream.flush());
    assert!(wakes.poll(first.as_mut()).is_pending());
    assert!(wakes.poll(waiting.as_mut()).is_pending());
    assert!(wakes.poll(flush.as_mut()).is_pending());
    peer.reset();
    for failed in [within("first", first).await, within("waiting", waiting).await] {
        let (error, buffer) = failed.err().expect("the peer is gone").into_parts();
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        assert_eq!(buffer.expect("it comes back").bytes.len(), 600_000);
    }
    fails("flush", flush).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[quoit::test(seeds = 12)]
async fn a_wake_that_meets_a_dropped_send_passes_on() {
    let (stream, mut peer) = narrow_pair().await;
    let sent = fill(&stream).await;
    let (one, two) = (Wakes::new(), Wakes::new());
    let mut first = Box::pin(stream.send("never"));
    let mut second = Box::pin(stream.send("second"));
    assert!(one.poll(first.as_mut()).is_pending());
    assert!(two.poll(second.as_mut()).is_pending());
    let reader = aside(async move { read_to_end(&mut peer).await.0 });
    until("the first in line is told", || one.count() == 1).await;
    drop(first);
    assert_eq!(two.count(), 1, "the wake passes on");
    within("second", second).await.unwrap();
    drop(stream);
    assert_eq!(&reader.join().await[sent..], b"second");
}

#[quoit::test(seeds = 12)]
async fn zero_length_writes_return_at_once() {
    let (stream, _peer) = narrow_pair().await;
    assert_eq!(within("send", stream.send(Vec::new())).await.unwrap().0, 0);
    within("send_all", stream.send_all("")).await.unwrap();
    within("write_all", stream.write_all(b"")).await.unwrap();
    assert_eq!(within("write", stream.write(b"")).await.unwrap(), 0);
    assert_eq!(within("vectored", stream.write_vectored(&[])).await.unwrap(), 0);
    within("flush", stream.flush()).await.unwrap();
}

#[quoit::test(seeds = 12)]
async fn a_dropped_write_half_sends_what_is_committed_then_fin() {
    let (stream, mut peer) = narrow_pair().await;
    let (reader, writer) = stream.into_split();
    let send = writer.send(bytes_of(5, 0, 1_000_000));
    assert!(dropped_at(Moment::Waiting, send).await.is_none());
    drop(writer);
    let thread = aside(async move {
        let (bytes, error) = read_to_end(&mut peer).await;
        assert!(error.is_none(), "{error:?}");
        peer.write_all(b"seen").await.unwrap();
        bytes
    });
    let mut seen = [0; 4];
    within("the other half", reader.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"seen");
    let bytes = thread.join().await;
    assert_eq!(bytes.len(), 1_000_000);
    check_bytes(5, 0, &bytes);
    assert!(matches!(within("the end", reader.recv()).await, Ok(lease) if lease.is_empty()));
}
