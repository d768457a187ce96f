//! Waiting: for readiness itself, for threads, for time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn every_poller_is_told() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.poll(1, &ours, Interest::Readable, false);
    bench.poll(2, &ours, Interest::Readable, true);
    bench.poll(3, &ours, Interest::Readable, false);
    bench.poll(4, &ours, Interest::Writable, false);
    let writable = (4, i32::from(libc::POLLOUT), LAST);
    assert_eq!(bench.sleep(), [writable], "the present state, at once");
    assert_eq!(bench.turn(), []);
    let calls = bench.calls();
    theirs.write_all(b"x").unwrap();
    let input = i32::from(libc::POLLIN);
    assert_eq!(bench.next(), [(1, input, LAST), (2, input, MORE), (3, input, LAST)]);
    assert_eq!(bench.turn(), [], "still readable, which is no news");
    theirs.write_all(b"y").unwrap();
    assert_eq!(bench.next(), [(2, input, MORE)]);
    assert_eq!(bench.calls(), calls, "events alone have told");
    bench.poll(5, &ours, Interest::Readable, false);
    assert_eq!(bench.next(), [(5, input, LAST)], "a new poller learns what stands");
    drop(theirs);
    let ended = input | i32::from(libc::POLLRDHUP | libc::POLLHUP);
    assert_eq!(bench.next(), [(2, ended, MORE)]);
}

#[test]
fn pollers_and_a_receive_share_a_side() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(256);
    bench.receive(1, &ours);
    bench.poll(2, &ours, Interest::Readable, true);
    assert_eq!(bench.turn(), []);
    // A full run queues the side for the next turn; the event of that turn must reach the poller.
    theirs.write_all(&[1; 16 * LENGTH]).unwrap();
    let input = i32::from(libc::POLLIN);
    let full = (1, LENGTH as i32, MORE);
    let mut run = vec![(2, input, MORE)];
    run.extend([full; 16]);
    assert_eq!(bench.next(), run);
    bench.bytes();
    theirs.write_all(&[1; 18 * LENGTH]).unwrap();
    let mut run = vec![full; 16];
    run.push((2, input, MORE));
    assert_eq!(bench.next(), run);
    assert_eq!(bench.next(), [full, full]);
    assert_eq!(bench.turn(), []);
    assert!(!bench.ring.wants_turn());
    // After a drained receive a new poller waits, unless an end stands that no event repeats.
    bench.poll(3, &ours, Interest::Readable, false);
    assert_eq!(bench.turn(), []);
    theirs.shutdown(Shutdown::Write).unwrap();
    let ended = input | i32::from(libc::POLLRDHUP);
    assert_eq!(bench.next(), [(2, ended, MORE), (3, ended, LAST), (1, 0, LAST)]);
    bench.poll(4, &ours, Interest::Readable, false);
    assert_eq!(bench.next(), [(4, ended, LAST)]);
}

/// A socket whose datagrams go to a closed port; each refusal stays in its error queue (ip(7)).
fn refused() -> (UdpSocket, SocketAddr) {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(closed).unwrap();
    set_option(ours.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1_i32).unwrap();
    (ours, closed)
}

#[test]
fn a_poller_learns_of_an_error_that_stands_where_nothing_can_be_received() {
    let (ours, _) = refused();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    assert_eq!(bench.turn(), []);
    ours.send(b"anyone?").unwrap();
    assert_eq!(bench.next(), [(1, -libc::ECONNREFUSED, LAST)]);
    bench.receive(2, &ours);
    assert_eq!(bench.turn(), []);
    bench.poll(3, &ours, Interest::Readable, false);
    assert_eq!(bench.next(), [(3, i32::from(libc::POLLERR), LAST)]);
    assert_eq!(bench.turn(), [], "and the receive does not spin on it");
    assert!(!bench.ring.wants_turn());
}

/// An error is told to both sides, and is no answer to who is not watched yet.
#[test]
fn an_error_before_the_watch_does_not_take_its_place() {
    let (ours, closed) = refused();
    let mut bench = Bench::new(2);
    bench.poll(1, &ours, Interest::Writable, true);
    assert_eq!(bench.next(), [(1, i32::from(libc::POLLOUT), MORE)]);
    // So many that the last has to wait for the next turn.
    let idle: Vec<_> = (0..EVENTS_MAX).map(|_| pair()).collect();
    for (token, (ours, _)) in idle.iter().enumerate() {
        bench.poll(100 + token as u64, ours, Interest::Readable, true);
    }
    bench.poll(2, &ours, Interest::Readable, true);
    ours.send(b"anyone?").unwrap();
    let mut told = bench.turn();
    told.extend(bench.turn());
    assert!(told.contains(&(2, i32::from(libc::POLLERR), MORE)), "{told:?}");
    assert!(ours.recv(&mut [0]).is_err());
    let peer = UdpSocket::bind(closed).unwrap();
    peer.send_to(b"here", ours.local_addr().unwrap()).unwrap();
    let told = bench.next();
    let is_told = |told: &(u64, i32, bool)| told.0 == 2 && told.1 & i32::from(libc::POLLIN) != 0;
    assert!(told.iter().any(is_told), "{told:?}");
}

#[test]
fn a_regular_file_is_always_ready() {
    let file = temporary_file();
    let mut bench = Bench::new(0);
    let directory = File::open("/").unwrap();
    bench.poll(1, &directory, Interest::Readable, false);
    bench.poll(2, &directory, Interest::Writable, true);
    let both = [(1, i32::from(libc::POLLIN), LAST), (2, i32::from(libc::POLLOUT), LAST)];
    assert_eq!(bench.turn(), both);
    drop(file);
}

#[test]
fn the_doorbell_ends_a_wait() {
    let mut bench = Bench::new(0);
    for _ in 0..3 {
        bench.mailbox.doorbell().sleep();
        let bell = bench.mailbox.doorbell().clone();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            bell.ring();
        });
        assert_eq!(bench.wait(Waiting::Until(None)), []);
        bench.mailbox.doorbell().awake();
        ringer.join().unwrap();
        assert_eq!(bench.ring.epoll.wait(Waiting::No).unwrap(), 0, "one ring, one waking");
    }
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let mut bench = Bench::new(0);
    let start = system::now();
    let deadline = start + 2_300_000;
    assert_eq!(bench.wait(Waiting::Until(Some(deadline))), []);
    let late = system::now().checked_sub(deadline).expect("not before the deadline");
    assert!(late < 500_000_000, "{late} ns late");
    assert_eq!(bench.ring.counters().enters, 1);
    assert_eq!(bench.wait(Waiting::Until(Some(start))), [], "a deadline in the past");
}

#[test]
fn files_are_done_by_the_pool() {
    let file = temporary_file();
    let descriptor = file.as_raw_fd();
    let mut bench = Bench::new(0);
    let text = b"to the disk";
    let (address, length) = (text.as_ptr(), text.len() as u32);
    let whence = Whence::Cache;
    let write = WriteAt { descriptor, address, length, offset: 3, whence };
    bench.submit(1, Request::WriteAt(write));
    assert_eq!(bench.turn(), []);
    bench.ring.cancel(Token(1));
    assert_eq!(bench.pool_answer(), Completion::done(Token(1), text.len() as i32));
    bench.submit(2, Request::Synchronize(Synchronize { descriptor, data_only: true }));
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.ring.in_flight(), 1);
    assert_eq!(bench.pool_answer(), Completion::done(Token(2), 0));
    assert_eq!(bench.ring.in_flight(), 0);
    assert_eq!(bench.ring.counters().pool_jobs, 2);

    let mut back = [0_u8; 14];
    let (address, length) = (back.as_mut_ptr(), back.len() as u32);
    bench.submit(3, Request::ReadAt(ReadAt { descriptor, address, length, offset: 0, whence }));
    // From the page cache at once where the file system can, else through the pool.
    match bench.turn()[..] {
        [found] => assert_eq!(found, (3, 14, LAST)),
        _ => assert_eq!(bench.pool_answer(), Completion::done(Token(3), 14)),
    }
    assert_eq!(&back[3..], text);
}

#[test]
fn a_pool_without_room_is_asked_again_and_what_it_refused_can_be_cancelled() {
    let mut bench = Bench::new(0);
    // A closed pool takes no more than a full one.
    bench.ring.pool.shutdown(0);
    let file = temporary_file();
    for token in 0..8 {
        let request = Synchronize { descriptor: file.as_raw_fd(), data_only: false };
        bench.submit(token, Request::Synchronize(request));
    }
    assert_eq!(bench.sleep(), [], "nothing else would wake this core");
    assert!(!bench.ring.wants_turn(), "asking a full pool again at once would be a spin");
    assert_eq!(bench.ring.counters().pool_jobs, 0);
    bench.ring.cancel(Token(5));
    assert_eq!(bench.pool_answer(), Completion::done(Token(5), -libc::ECANCELED));

    bench.ring.pool = pool();
    assert_eq!(bench.turn(), []);
    let mut answers: Vec<_> = (0..7).map(|_| bench.pool_answer()).collect();
    answers.sort_by_key(|completion| completion.token.0);
    let expected = [0, 1, 2, 3, 4, 6, 7].map(|token| Completion::done(Token(token), 0));
    assert_eq!(answers, expected);
    assert_eq!((bench.ring.in_flight(), bench.ring.counters().pool_jobs), (0, 7));
}

/// Has a signal that no one else uses interrupt system calls, and do nothing else.
fn catch_signal() -> i32 {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: a handler that does nothing, without SA_RESTART, for a signal that no one else uses.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGRTMAX(), &raw const action, std::ptr::null_mut()), 0);
    }
    libc::SIGRTMAX()
}

#[test]
fn signals_are_no_readiness() {
    let (ours, _theirs) = pair();
    let poll = Poll { descriptor: ours.as_raw_fd(), interest: Interest::Readable, multishot: true };
    let signal = catch_signal();
    // SAFETY: no arguments.
    let target = unsafe { libc::pthread_self() };
    let left = AtomicU32::new(2_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while left.load(Ordering::Relaxed) > 0 {
                // SAFETY: the target waits for this thread, so it lives.
                unsafe { libc::pthread_kill(target, signal) };
                // Without a pause no call would ever come to its end.
                std::thread::sleep(Duration::from_micros(10));
                let _ =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            }
        });
        while left.load(Ordering::Relaxed) > 0 {
            // SAFETY: the socket is open.
            let attempt = unsafe { poll.attempt() };
            if attempt != Attempt::WouldBlock(Interest::Readable) {
                left.store(0, Ordering::Relaxed);
                panic!("{attempt:?}");
            }
        }
    });
}

#[test]
fn a_signal_ends_a_wait_quietly() {
    let mut bench = Bench::new(0);
    let signal = catch_signal();
    // SAFETY: no arguments.
    let waiter = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        // SAFETY: the waiting thread joins this one, so it lives.
        unsafe { libc::pthread_kill(waiter, signal) }
    });
    let far = system::now() + 20_000_000_000;
    assert_eq!(bench.wait(Waiting::Until(Some(far))), []);
    assert!(system::now() < far);
    assert_eq!(sender.join().unwrap(), 0);
}

#[test]
fn a_foreign_core_may_be_rung_through_as_fd() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    bench.turn();
    let readable = |ring: &Readiness| {
        let descriptor = ring.as_fd().as_raw_fd();
        let mut entry = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut entry, 1, 0) == 1 }
    };
    bench.turn();
    assert!(!readable(&bench.ring));
    theirs.write_all(b"x").unwrap();
    assert!(readable(&bench.ring));
    assert_eq!(bench.turn(), [(1, 1, MORE)]);
    assert!(!readable(&bench.ring));
}

#[test]
fn a_poll_that_is_withdrawn_is_over_at_once() {
    let mut bench = Bench::new(0);
    let (reader, mut writer) = UnixStream::pair().unwrap();
    for multishot in [true, false] {
        bench.poll(1, &reader, Interest::Readable, multishot);
        assert_eq!(bench.turn(), []);
        assert!(bench.ring.withdraw(Token(1)));
        assert_eq!(bench.ring.in_flight(), 0);
        assert!(!bench.ring.withdraw(Token(1)), "it is over");
    }
    writer.write_all(b"x").unwrap();
    assert_eq!(bench.turn(), [], "nobody asks");
}
