//! Observe: `readable` and `writable` tell, and take nothing. However many wait, whether they look
//! again or not, they hold up nobody, and nothing is told to only one of them.

use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use quoit::net::{TcpListener, TcpStream};

use crate::common::*;

/// Both ends are ours, so that the simulated ring can take part.
async fn ends() -> (TcpStream, Rc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, other) = futures::join!(TcpStream::connect(address), async {
        loop {
            // The simulated kernel may be short of descriptors; the connection stays queued.
            if let Ok((stream, _)) = listener.accept().await {
                break stream;
            }
        }
    });
    (one.unwrap(), Rc::new(other))
}

/// Sends it, beside what follows: the connection may have room for a byte only.
fn say(stream: &Rc<TcpStream>, text: &'static str) {
    let stream = stream.clone();
    drop(quoit::spawn(async move { stream.send_all(text).await.unwrap() }));
}

/// What can be had without waiting.
fn read_all(stream: &TcpStream) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 1024]);
    loop {
        match stream.try_read(&mut some) {
            Ok(count) if count > 0 => all.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            end => panic!("{end:?} after {all:?}"),
        }
    }
}

/// Waits and reads until `length` bytes are there.
async fn read_by_readiness(stream: &TcpStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        within("readable", stream.readable()).await.unwrap();
        all.extend(read_all(stream));
    }
    all
}

/// Fills the connection.
async fn fill(stream: &TcpStream) -> usize {
    let (chunk, mut written, mut full) = (vec![7; 64 * 1024], 0, 0);
    while full < 3 {
        match stream.try_write(&chunk) {
            Ok(count) => (written, full) = (written + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full += 1;
                some_turns().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    written
}

async fn drain(stream: &TcpStream, mut length: usize) {
    while length > 0 {
        length -= within("recv", stream.recv()).await.unwrap().len();
    }
}

#[quoit::test(seeds = 100)]
async fn a_readable_that_is_not_polled_again_holds_up_no_other() {
    let (stream, peer) = ends().await;
    let wakes = Wakes::new();
    let mut left = pin!(stream.readable());
    assert!(wakes.poll(left.as_mut()).is_pending());
    say(&peer, "ping");
    until("it is told", || wakes.count() == 1).await;
    assert_eq!(read_by_readiness(&stream, 4).await, b"ping");
    for _ in 0..3 {
        say(&peer, "more");
        assert_eq!(read_by_readiness(&stream, 4).await, b"more");
    }
    assert_eq!(wakes.count(), 1, "once, until it is polled again");
    assert!(wakes.poll(left.as_mut()).is_pending(), "nothing is there any more");
    say(&peer, "last");
    until("it is told again", || wakes.count() > 1).await;
    within("the one that was left", left).await.unwrap();
    assert_eq!(read_by_readiness(&stream, 4).await, b"last");
}

#[quoit::test(seeds = 100)]
async fn everybody_who_waits_for_bytes_is_told() {
    let (stream, peer) = ends().await;
    let wakes: [_; 3] = std::array::from_fn(|_| Wakes::new());
    let mut all: Vec<_> = wakes.iter().map(|_| Box::pin(stream.readable())).collect();
    for (wakes, readable) in wakes.iter().zip(&mut all) {
        assert!(wakes.poll(readable.as_mut()).is_pending());
    }
    // One that goes takes no one else's word with it.
    let gone = all.remove(0);
    drop(gone);
    say(&peer, "ping");
    until("both are told", || wakes[1..].iter().all(|wakes| wakes.count() == 1)).await;
    assert_eq!(wakes[0].count(), 0);
    // The simulated kernel may tell them for nothing first.
    for readable in all {
        within("readable", readable).await.unwrap();
    }
    assert_eq!(read_by_readiness(&stream, 4).await, b"ping");
}

#[quoit::test(seeds = 100)]
async fn a_read_goes_before_those_who_look_later() {
    let (stream, peer) = ends().await;
    let (looks, reads) = (Wakes::new(), Wakes::new());
    let mut into = [0; 2];
    let mut read = Box::pin(stream.read(&mut into));
    assert!(reads.poll(read.as_mut()).is_pending());
    let mut readable = pin!(stream.readable());
    assert!(looks.poll(readable.as_mut()).is_pending());
    say(&peer, "four");
    until("the read is told", || reads.count() > 0).await;
    // Its turn may have come for nothing yet.
    let mut done = None;
    for _ in 0..1000 {
        assert!(looks.poll(readable.as_mut()).is_pending(), "a read stands before it");
        assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        if let Poll::Ready(count) = reads.poll(read.as_mut()) {
            done = Some(count.unwrap());
            break;
        }
        some_turns().await;
    }
    drop(read);
    let count = done.expect("bytes were there");
    assert_eq!(into[..count], b"four"[..count]);
    within("what is left", readable).await.unwrap();
    assert!(looks.count() > 0, "told when nobody stood before it any more");
    assert_eq!(read_by_readiness(&stream, 4 - count).await, b"four"[count..]);
}

#[quoit::test(seeds = 100)]
async fn who_looked_first_is_told_although_a_read_waits() {
    let (stream, peer) = ends().await;
    let (looks, reads) = (Wakes::new(), Wakes::new());
    let mut readable = pin!(stream.readable());
    assert!(looks.poll(readable.as_mut()).is_pending());
    let mut read = pin!(stream.recv());
    assert!(reads.poll(read.as_mut()).is_pending());
    say(&peer, "x");
    until("both are told", || looks.count() > 0 && reads.count() > 0).await;
    within("readable", readable).await.unwrap();
    // It took nothing, and whoever looks now comes behind the read.
    assert!(looks.poll(pin!(stream.readable())).is_pending());
    assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(within("recv", read).await.unwrap(), b"x");
}

#[quoit::test(seeds = 100)]
async fn a_read_that_gives_up_leaves_the_others_told() {
    let (stream, peer) = ends().await;
    let (looks, reads) = (Wakes::new(), Wakes::new());
    let mut read = Box::pin(stream.recv());
    assert!(reads.poll(read.as_mut()).is_pending());
    let mut readable = pin!(stream.readable());
    assert!(looks.poll(readable.as_mut()).is_pending());
    say(&peer, "ping");
    until("the read is told", || reads.count() > 0).await;
    drop(read);
    until("then the other", || looks.count() > 0).await;
    within("readable", readable).await.unwrap();
    assert_eq!(read_by_readiness(&stream, 4).await, b"ping");
}

#[quoit::test(seeds = 2)]
async fn a_writable_that_is_not_polled_again_holds_up_no_other() {
    let (stream, peer) = ends().await;
    let mut written = fill(&stream).await;
    let (left, other) = (Wakes::new(), Wakes::new());
    let mut one = pin!(stream.writable());
    let mut two = pin!(stream.writable());
    assert!(left.poll(one.as_mut()).is_pending());
    assert!(other.poll(two.as_mut()).is_pending());
    drain(&peer, written).await;
    until("both are told", || left.count() > 0 && other.count() > 0).await;
    within("writable", two).await.unwrap();
    for _ in 0..3 {
        within("writable", stream.writable()).await.unwrap();
        written = fill(&stream).await;
        drain(&peer, written).await;
    }
    assert_eq!(within("write", stream.write(b"x")).await.unwrap(), 1);
    assert_eq!(left.count(), 1, "once, until it is polled again");
    within("the one that was left", one).await.unwrap();
}

#[quoit::test(seeds = 20)]
async fn an_owned_half_peeks_what_it_reads_next() {
    let (stream, peer) = ends().await;
    let (reader, _writer) = stream.into_split();
    say(&peer, "ping");
    let mut seen = [0; 4];
    let count = within("peek", reader.peek(&mut seen)).await.unwrap();
    assert_eq!(seen[..count], b"ping"[..count]);
    let mut all = [0; 4];
    within("read", reader.read_exact(&mut all)).await.unwrap();
    assert_eq!(&all, b"ping", "it took nothing");
}
