//! Readiness of descriptors that are not ours: pipes, pairs of sockets, eventfds, datagram sockets
//! of the standard library. Whatever is dropped, the next wait gets the answer, nothing is left in
//! the kernel, and no number that is used again is mistaken.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::{FutureExt, poll};
use quoit::__private::books_here;
use quoit::io::{AsyncFd, Interest};
use quoit::time;

use crate::common::soon;

fn raw_pipe() -> (File, File) {
    let mut numbers = [0; 2];
    // SAFETY: room for two numbers.
    let made = unsafe { libc::pipe2(numbers.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
    assert_eq!(made, 0);
    // SAFETY: just made, and nobody else's.
    let [reader, writer] =
        numbers.map(|number| File::from(unsafe { OwnedFd::from_raw_fd(number) }));
    (reader, writer)
}

fn pipe() -> (AsyncFd<File>, AsyncFd<File>) {
    let (reader, writer) = raw_pipe();
    (AsyncFd::new(reader).unwrap(), AsyncFd::new(writer).unwrap())
}

fn socket_pair() -> (AsyncFd<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (AsyncFd::new(ours).unwrap(), theirs)
}

fn read_byte(mut from: impl Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte).map(|()| byte[0])
}

/// Turns of the core, for what must not happen.
async fn some_turns() {
    for _ in 0..5 {
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// The core watches nothing and asks the kernel for nothing.
async fn all_is_let_go() {
    soon("everything is let go", async {
        while books_here().descriptors_watched + books_here().requests_in_flight > 0 {
            time::sleep(Duration::from_micros(100)).await;
        }
    })
    .await;
}

#[quoit::test]
async fn datagrams_are_echoed() {
    let bind = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        AsyncFd::new(socket).unwrap()
    };
    let (server, client) = (bind(), bind());
    client.get_ref().connect(server.get_ref().local_addr().unwrap()).unwrap();
    quoit::spawn(async move {
        let mut bytes = [0; 2000];
        loop {
            let receive = |socket: &UdpSocket| socket.recv_from(&mut bytes);
            let (count, from) = server.async_io(Interest::READABLE, receive).await.unwrap();
            let sent = server
                .async_io(Interest::WRITABLE, |socket| socket.send_to(&bytes[..count], from))
                .await
                .unwrap();
            assert_eq!(sent, count);
        }
    });
    for number in 0..500_u32 {
        let message = number.to_ne_bytes();
        client.async_io(Interest::WRITABLE, |socket| socket.send(&message)).await.unwrap();
        let mut back = [0; 8];
        let receive = client.async_io(Interest::READABLE, |socket| socket.recv(&mut back));
        assert_eq!(soon("the echo", receive).await.unwrap(), 4);
        assert_eq!(back[..4], message);
    }
}

#[quoit::test]
async fn a_pipe_tells_of_bytes_of_room_and_of_both_ends() {
    let (reader, writer) = pipe();
    assert!(reader.readable().now_or_never().is_none());
    let mut written = 0;
    loop {
        let mut guard = soon("room", writer.writable()).await.unwrap();
        assert!(guard.ready().is_writable() && !guard.ready().is_write_closed());
        match guard.try_io(|fd| fd.get_ref().write(&[7; 10_000])) {
            Ok(count) => written += count.unwrap(),
            Err(_full) => break,
        }
    }
    assert!(written > 0);
    let mut waiting = Box::pin(writer.writable());
    assert!(poll!(&mut waiting).is_pending());
    some_turns().await;
    assert!(poll!(&mut waiting).is_pending(), "it is full");
    let mut read = 0;
    while read < written {
        let mut bytes = [0; 30_000];
        let some = reader.async_io(Interest::READABLE, |mut pipe| pipe.read(&mut bytes));
        read += soon("bytes", some).await.unwrap();
    }
    soon("room again", waiting).await.unwrap().retain_ready();
    let (mut full, empty) = (writer, reader);
    // The end of the writer, and then of a reader.
    full.get_mut().write_all(b"end").unwrap();
    drop(full);
    let mut bytes = [0; 8];
    let read = empty.async_io(Interest::READABLE, |mut pipe| pipe.read(&mut bytes));
    assert_eq!(soon("the last bytes", read).await.unwrap(), 3);
    empty.readable().await.unwrap().clear_ready();
    assert!(soon("the end", empty.readable()).await.unwrap().ready().is_read_closed());
    assert_eq!(empty.get_ref().read(&mut bytes).unwrap(), 0);
    let (reader, writer) = pipe();
    drop(reader);
    let ready = soon("nobody reads", writer.writable()).await.unwrap().ready();
    assert!(ready.is_error() && ready.is_write_closed(), "{ready:?}");
    let error = writer.get_ref().write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[quoit::test]
async fn a_half_close_is_told_with_the_bytes_before_it() {
    let (ours, mut theirs) = socket_pair();
    assert!(ours.readable().now_or_never().is_none());
    theirs.write_all(b"last").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    soon("both", async {
        loop {
            let mut guard = ours.readable().await.unwrap();
            if guard.ready().is_read_closed() {
                return;
            }
            guard.clear_ready();
        }
    })
    .await;
    for byte in *b"last" {
        assert_eq!(read_byte(ours.get_ref()).unwrap(), byte);
    }
    let read = ours.async_io(Interest::READABLE, |mut socket| socket.read(&mut [0; 8]));
    assert_eq!(soon("the end", read).await.unwrap(), 0);
    // The other direction goes on.
    let ready = soon("room", ours.writable()).await.unwrap().ready();
    assert!(!ready.is_write_closed());
    ours.get_ref().write_all(b"!").unwrap();
    assert_eq!(read_byte(&theirs).unwrap(), b'!');
    drop(theirs);
    let ready = soon("the whole end", async {
        loop {
            let mut guard = ours.writable().await.unwrap();
            if guard.ready().is_write_closed() {
                return guard.ready();
            }
            guard.clear_ready();
            time::sleep(Duration::from_micros(100)).await;
        }
    });
    assert!(!ready.await.is_readable());
}

fn eventfd() -> AsyncFd<File> {
    // SAFETY: no pointers.
    let number = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(number >= 0);
    // SAFETY: just made, and nobody else's.
    AsyncFd::new(File::from(unsafe { OwnedFd::from_raw_fd(number) })).unwrap()
}

#[quoit::test]
async fn an_event_is_ready_until_it_is_cleared() {
    let event = eventfd();
    let take = |mut event: &File| {
        let mut count = [0; 8];
        event.read(&mut count).map(|_| u64::from_ne_bytes(count))
    };
    let error = event.try_io(Interest::READABLE, take).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "nothing is known yet");
    for round in 1..20_u64 {
        event.get_ref().write_all(&round.to_ne_bytes()).unwrap();
        let mut guard = soon("the event", event.readable()).await.unwrap();
        guard.retain_ready();
        drop(soon("again, at once", event.readable()).await.unwrap());
        assert_eq!(event.try_io(Interest::READABLE, take).unwrap(), round);
        let used_up = guard.try_io(|fd| take(fd.get_ref()));
        assert!(used_up.is_err(), "the readiness was old");
        assert!(event.readable().now_or_never().is_none());
        let error = event.try_io(Interest::READABLE, take).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    // Cleared in vain: the next wait looks again.
    event.get_ref().write_all(&1_u64.to_ne_bytes()).unwrap();
    soon("the event", event.readable()).await.unwrap().clear_ready();
    soon("it still is", event.readable()).await.unwrap().clear_ready();
}

#[quoit::test]
async fn all_who_wait_are_told_and_a_dropped_wait_takes_nothing() {
    let (reader, writer) = pipe();
    let reader = Arc::new(reader);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let reader = reader.clone();
            quoit::spawn(async move { drop(reader.readable().await.unwrap()) })
        })
        .collect();
    let mut dropped = Box::pin(reader.readable());
    assert!(poll!(&mut dropped).is_pending());
    some_turns().await;
    writer.get_ref().write_all(b"1").unwrap();
    drop(dropped);
    for task in tasks {
        soon("each is told", task).await.unwrap();
    }
}

#[quoit::test]
async fn an_error_is_told_and_left_to_the_call() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (socket, nobody) = (bind(), bind().local_addr().unwrap());
    socket.set_nonblocking(true).unwrap();
    socket.connect(nobody).unwrap();
    let socket = AsyncFd::new(socket).unwrap();
    assert!(socket.readable().now_or_never().is_none());
    socket.get_ref().send(b"x").unwrap();
    let mut guard = soon("the refusal", socket.readable()).await.unwrap();
    assert!(guard.ready().is_error(), "{guard:?}");
    let received = guard.try_io(|fd| fd.get_ref().recv(&mut [0; 8])).unwrap();
    assert_eq!(received.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// As the contract of poll functions has it.
#[quoit::test]
async fn of_those_that_poll_the_last_is_woken() {
    let (ours, mut theirs) = socket_pair();
    let (first, last) = (Arc::<Count>::default(), Arc::<Count>::default());
    for wake in [&first, &last, &last] {
        let waker = Waker::from(wake.clone());
        assert!(ours.poll_read_ready(&mut Context::from_waker(&waker)).is_pending());
    }
    let mut future = pin!(ours.readable());
    assert!(poll!(&mut future).is_pending());
    theirs.write_all(b"1").unwrap();
    soon("who awaits is told as well", future).await.unwrap().retain_ready();
    assert_eq!((first.0.load(Ordering::Relaxed), last.0.load(Ordering::Relaxed)), (0, 1));
    let ready = poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
    assert_eq!(read_byte(ready.get_inner()).unwrap(), b'1');
    drop(soon("room", poll_fn(|cx| ours.poll_write_ready(cx))).await.unwrap());
}

/// Dropped after so many polls, with so many turns in between, before and after the event.
#[quoit::test]
async fn a_wait_may_be_dropped_at_every_point() {
    for polls in 0..4 {
        for turns in 0..4 {
            for event_first in [false, true] {
                let (ours, mut theirs) = socket_pair();
                if event_first {
                    theirs.write_all(b"1").unwrap();
                }
                let mut waiting = Box::pin(ours.readable());
                for _ in 0..polls {
                    if poll!(&mut waiting).is_ready() {
                        break;
                    }
                    for _ in 0..turns {
                        time::sleep(Duration::from_micros(20)).await;
                    }
                }
                drop(waiting);
                if !event_first {
                    theirs.write_all(b"1").unwrap();
                }
                let byte = ours.async_io(Interest::READABLE, |socket| read_byte(socket));
                assert_eq!(soon("the byte", byte).await.unwrap(), b'1');
                let error =
                    ours.try_io(Interest::READABLE, |socket| read_byte(socket)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "it was the only one");
                assert!(ours.readable().now_or_never().is_none());
                // With a poll in flight: the peer sees the end all the same.
                drop(ours);
                all_is_let_go().await;
                assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
            }
        }
    }
}

/// Its number means something else at once, and the kernel's answer to the old poll is not taken
/// for one of the new.
#[quoit::test]
async fn a_number_that_is_used_again_is_not_mistaken() {
    for _ in 0..50 {
        let (old, old_writer) = raw_pipe();
        let old = AsyncFd::new(old).unwrap();
        assert!(old.readable().now_or_never().is_none());
        drop(old);
        let (ours, mut theirs) = socket_pair();
        let again = raw_pipe();
        assert!(ours.readable().now_or_never().is_none(), "nothing was sent to this one");
        drop(old_writer);
        some_polls(&ours).await;
        theirs.write_all(b"1").unwrap();
        soon("a byte", ours.readable()).await.unwrap().clear_ready();
        drop(again);
    }
    all_is_let_go().await;
}

async fn some_polls(ours: &AsyncFd<UnixStream>) {
    for _ in 0..3 {
        time::sleep(Duration::from_micros(50)).await;
        assert!(ours.readable().now_or_never().is_none(), "nothing was sent to this one");
    }
}

/// Given back with a poll in flight: usable at once, by another `AsyncFd` too, and what happens to
/// it does not wake the core that watches it no more.
#[quoit::test]
async fn what_is_within_comes_back_at_once() {
    let (ours, mut theirs) = socket_pair();
    assert!(ours.readable().now_or_never().is_none());
    some_turns().await;
    let inner = ours.into_inner();
    all_is_let_go().await;
    let before = books_here().turns;
    let writer = thread::spawn(move || {
        for _ in 0..40 {
            theirs.write_all(b"1").unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        theirs
    });
    time::sleep(Duration::from_millis(80)).await;
    let turns = books_here().turns - before;
    assert!(turns < 20, "{turns} turns: it is still watched");
    let theirs = writer.join().unwrap();
    assert_eq!(read_byte(&inner).unwrap(), b'1');
    let again = AsyncFd::new(inner).unwrap();
    let byte = again.async_io(Interest::READABLE, |socket| read_byte(socket));
    assert_eq!(soon("a byte", byte).await.unwrap(), b'1');
    drop(theirs);
}

#[quoit::test]
async fn another_core_is_told_the_owner_until_it_is_detached() {
    let (ours, mut theirs) = socket_pair();
    let ours = Arc::new(ours);
    let waiting = quoit::spawn({
        let ours = ours.clone();
        async move { ours.readable().await.map(drop) }
    });
    some_turns().await;
    let elsewhere = |ours: Arc<AsyncFd<UnixStream>>| {
        thread::spawn(move || {
            quoit::block_on(async move {
                let answer = soon("an answer", ours.readable()).await.map(drop);
                ours.detach().await.map(|()| answer)
            })
        })
    };
    let error = elsewhere(ours.clone()).join().unwrap().unwrap_err();
    assert!(error.to_string().contains("this AsyncFd belongs to core"), "{error}");
    // Dropped half-way it stays: those who wait still do.
    drop(poll!(Box::pin(ours.detach())));
    some_turns().await;
    assert!(!waiting.is_finished());
    waiting.abort();
    let _ = waiting.await;
    let mut guard = soon("room", ours.writable()).await.unwrap();
    soon("it is free", ours.detach()).await.unwrap();
    guard.clear_ready();
    assert_eq!(books_here().descriptors_watched, 0, "a guard that is left does not bind it");
    theirs.write_all(b"1").unwrap();
    elsewhere(ours.clone()).join().unwrap().unwrap().unwrap();
    assert_eq!(read_byte(ours.get_ref()).unwrap(), b'1');
    // That core has detached it, and is gone.
    assert!(poll!(pin!(ours.readable())).is_pending());
    theirs.write_all(b"2").unwrap();
    soon("here again", ours.readable()).await.unwrap().clear_ready();
}

#[quoit::test]
async fn a_wait_and_its_descriptor_may_be_dropped_on_another_thread() {
    for _ in 0..20 {
        let (ours, mut theirs) = socket_pair();
        let ours = Arc::new(ours);
        let mut waiting: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin({
            let ours = ours.clone();
            async move { drop(ours.readable().await) }
        });
        assert!(poll!(&mut waiting).is_pending());
        thread::spawn(move || drop(waiting)).join().unwrap();
        thread::spawn(move || drop(ours)).join().unwrap();
        all_is_let_go().await;
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
    }
}

#[test]
fn it_outlives_its_runtime() {
    let (ours, mut theirs) = socket_pair();
    let ours = Arc::new(ours);
    quoit::block_on(async {
        let task = ours.clone();
        quoit::spawn(async move { drop(task.readable().await) });
        some_turns().await;
    });
    quoit::block_on(async {
        let error = soon("an answer", ours.readable()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    });
    theirs.write_all(b"1").unwrap();
    let inner = Arc::into_inner(ours).unwrap().into_inner();
    quoit::block_on(async {
        let again = AsyncFd::new(inner).unwrap();
        soon("another runtime", again.readable()).await.unwrap().clear_ready();
    });
    let outside = AsyncFd::new(raw_pipe().0).unwrap();
    let error = outside.readable().now_or_never().unwrap().unwrap_err();
    assert!(error.to_string().contains("outside a quoit runtime"), "{error}");
}

#[quoit::test]
async fn what_is_always_ready_is_refused() {
    for path in ["Cargo.toml", "."] {
        let error = AsyncFd::new(File::open(path).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("cannot be waited for"), "{error}");
    }
    // SAFETY: the number is never used as one that is open.
    let closed = unsafe { std::os::fd::BorrowedFd::borrow_raw(RawFd::MAX) };
    let error = AsyncFd::new(closed).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_simulation_has_no_descriptors() {
    let outside = Arc::new(AsyncFd::new(raw_pipe().0).unwrap());
    quoit::sim::check(1, |sim| {
        let outside = outside.clone();
        sim.client("client", async move {
            let error = AsyncFd::new(raw_pipe().0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let error = outside.readable().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            io::Result::Ok(())
        });
    });
}

#[test]
fn it_crosses_threads_when_what_is_within_does() {
    fn check<T: Send + Sync>(_: T) {}
    let (ours, _theirs) = socket_pair();
    check(ours.readable());
    check(ours.async_io(Interest::WRITABLE, |socket| socket.take_error()));
    check(ours.detach());
    check(&ours);
    assert_eq!(ours.as_fd().as_raw_fd(), ours.get_ref().as_raw_fd());
}
