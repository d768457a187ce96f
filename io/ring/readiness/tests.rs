//! The engine against real sockets, pipes, files and threads.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::io::mailbox::Message;
use crate::io::request::{
    Accept, Connect, Interest, Nop, Poll, ReadAt, ReceiveMany, SendBytes, SocketAddress,
    Synchronize, WriteAt,
};

const LENGTH: usize = 64;
const MORE: bool = true;
const LAST: bool = false;

/// A ring, and memory for its buffers that outlives it.
struct Bench {
    ring: Readiness,
    mailbox: Arc<Mailbox>,
    memory: Box<[[u8; LENGTH]]>,
    found: Vec<Completion>,
}

impl Bench {
    fn new(buffers: u16) -> Self {
        Self::with_pool(buffers, &Pool::new(4, Duration::from_secs(1)))
    }

    fn with_pool(buffers: u16, pool: &Arc<Pool>) -> Self {
        let mailbox = Mailbox::open().unwrap();
        let ring = Readiness::new(&mailbox, pool, 16).unwrap();
        let memory = vec![[0; LENGTH]; usize::from(buffers)].into_boxed_slice();
        let mut bench = Self { ring, mailbox, memory, found: Vec::new() };
        for id in 0..buffers {
            bench.give_back(id);
        }
        bench
    }

    fn give_back(&mut self, id: u16) {
        let address = self.memory[usize::from(id)].as_mut_ptr();
        self.ring.provide([Provided { id, address, length: LENGTH as u32 }].into_iter());
    }

    fn submit(&mut self, token: u64, request: Request) {
        // SAFETY: each test keeps its descriptors and memory until it has seen the end of the
        // request, or drops the ring, which touches nothing.
        unsafe { self.ring.submit(Token(token), &request) };
    }

    fn receive(&mut self, token: u64, from: &impl AsRawFd) {
        self.submit(token, receive_many(from));
    }

    fn poll(&mut self, token: u64, of: &impl AsRawFd, interest: Interest, multishot: bool) {
        let poll = Poll { descriptor: of.as_raw_fd(), interest, multishot };
        self.submit(token, Request::Poll(poll));
    }

    /// One turn that does not wait: token, result and whether more follows.
    fn turn(&mut self) -> Vec<(u64, i32, bool)> {
        self.wait(Waiting::No)
    }

    fn wait(&mut self, waiting: Waiting) -> Vec<(u64, i32, bool)> {
        self.found.clear();
        self.ring.turn(waiting, &mut self.found).unwrap();
        self.found.iter().map(|c| (c.token.0, c.result, c.flags.more())).collect()
    }

    /// Waits until something completes.
    fn next(&mut self) -> Vec<(u64, i32, bool)> {
        loop {
            let found = self.wait(Waiting::Until(None));
            if !found.is_empty() {
                return found;
            }
        }
    }

    /// What the last turn received, and the buffers given back.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for completion in self.found.clone() {
            if let Some(id) = completion.flags.buffer() {
                let length = usize::try_from(completion.result).unwrap();
                bytes.extend_from_slice(&self.memory[usize::from(id)][..length]);
                self.give_back(id);
            }
        }
        bytes
    }

    /// Waits for the answer of a pool job.
    fn pool_answer(&mut self) -> Completion {
        loop {
            self.mailbox.doorbell().sleep();
            let message = self.mailbox.pop();
            if message.is_none() {
                assert_eq!(self.wait(Waiting::Until(None)), []);
            }
            self.mailbox.doorbell().awake();
            match message {
                Some(Message::Complete { token, result }) => {
                    return self.ring.complete_from_pool(Token(token), result);
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }

    fn calls(&self) -> u64 {
        self.ring.counters().direct_calls
    }
}

fn receive_many(from: &impl AsRawFd) -> Request {
    Request::ReceiveMany(ReceiveMany { descriptor: from.as_raw_fd() })
}

fn send_bytes(to: &impl AsRawFd, bytes: &[u8]) -> Request {
    let (address, length) = (bytes.as_ptr(), bytes.len() as u32);
    Request::SendBytes(SendBytes { descriptor: to.as_raw_fd(), address, length })
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn temporary_file() -> File {
    // SAFETY: a valid name; the number is new and ours.
    let file = unsafe {
        let number = libc::memfd_create(c"quoit".as_ptr(), libc::MFD_CLOEXEC);
        OwnedFd::from_raw_fd(number)
    };
    File::from(file)
}

#[test]
fn a_message_costs_one_wait_and_one_receive() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(7, &ours);
    assert!(bench.ring.wants_turn(), "the first attempt comes with the turn, not before");
    assert_eq!(bench.calls(), 0);
    assert_eq!(bench.turn(), []);
    assert!(!bench.ring.wants_turn());
    let before = bench.ring.counters();
    for round in 0..100_u8 {
        theirs.write_all(&[round; 10]).unwrap();
        assert_eq!(bench.wait(Waiting::Until(None)), [(7, 10, MORE)]);
        assert_eq!(bench.bytes(), [round; 10]);
    }
    let after = bench.ring.counters();
    assert_eq!(after.enters - before.enters, 100);
    assert_eq!(after.direct_calls - before.direct_calls, 100);
    assert_eq!(after.registrations, 1);
    assert_eq!((after.submissions, after.completions), (1, 100));
    assert_eq!(bench.ring.in_flight(), 1);
}

#[test]
fn a_full_buffer_goes_on_next_turn_and_a_short_one_waits() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(4);
    theirs.write_all(&[1; LENGTH + 3]).unwrap();
    bench.receive(1, &ours);
    assert_eq!(bench.turn(), [(1, LENGTH as i32, MORE)], "one buffer in one turn");
    assert!(bench.ring.wants_turn());
    assert_eq!(bench.wait(Waiting::Until(None)), [(1, 3, MORE)], "does not sleep");
    bench.bytes();
    let calls = bench.calls();
    bench.turn();
    theirs.write_all(&[2; 5]).unwrap();
    assert_eq!(bench.next(), [(1, 5, MORE)]);
    assert_eq!(bench.calls(), calls + 1, "drained: nothing was tried in between");
}

#[test]
fn the_end_is_found_behind_a_short_answer() {
    #[derive(PartialEq, PartialOrd)]
    enum End {
        BeforeTheFirstTry,
        BeforeTheEvent,
        AfterTheAnswer,
    }
    for end in [End::BeforeTheFirstTry, End::BeforeTheEvent, End::AfterTheAnswer] {
        let (ours, mut theirs) = pair();
        let mut bench = Bench::new(4);
        if end > End::BeforeTheFirstTry {
            bench.receive(1, &ours);
            assert_eq!(bench.turn(), []);
        }
        theirs.write_all(&[1; 9]).unwrap();
        let mut found = Vec::new();
        if end == End::AfterTheAnswer {
            found.extend(bench.next());
        }
        theirs.shutdown(Shutdown::Write).unwrap();
        if end == End::BeforeTheFirstTry {
            bench.receive(1, &ours);
        }
        while found.len() < 2 {
            found.extend(bench.next());
        }
        assert_eq!(found, [(1, 9, MORE), (1, 0, LAST)]);
        assert_eq!(bench.ring.in_flight(), 0);
    }
}

#[test]
fn a_reset_ends_a_receive_with_its_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let mut bench = Bench::new(4);
    bench.receive(1, &ours);
    assert_eq!(bench.turn(), []);
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    crate::io::request::call::set_option(
        theirs.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        reset,
    )
    .unwrap();
    drop(theirs);
    assert_eq!(bench.next(), [(1, -libc::ECONNRESET, LAST)]);
}

#[test]
fn without_buffers_a_receive_ends_and_loses_nothing() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(1);
    bench.receive(1, &ours);
    bench.turn();
    theirs.write_all(&[3; LENGTH + 1]).unwrap();
    assert_eq!(bench.next(), [(1, LENGTH as i32, MORE)]);
    assert_eq!(bench.next(), [(1, -libc::ENOBUFS, LAST)]);
    assert_eq!(bench.ring.in_flight(), 0);
    bench.give_back(0);
    bench.receive(2, &ours);
    assert_eq!(bench.next(), [(2, 1, MORE)], "what was not received is there, without a new event");
}

#[test]
fn cancel_ends_a_request_once_wherever_it_waits() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    // Before its first attempt.
    bench.receive(1, &ours);
    bench.submit(2, Request::Nop(Nop));
    bench.ring.cancel(Token(1));
    bench.ring.cancel(Token(1));
    bench.ring.cancel(Token(2));
    bench.ring.cancel(Token(99));
    assert_eq!(bench.ring.in_flight(), 2, "the terminal completion is yet to come");
    assert!(bench.ring.wants_turn());
    assert_eq!(
        bench.wait(Waiting::Until(None)),
        [(1, -libc::ECANCELED, LAST), (2, -libc::ECANCELED, LAST)]
    );
    assert_eq!((bench.ring.in_flight(), bench.calls()), (0, 0));

    // While it waits, with bytes arriving: they stay for the next.
    bench.receive(3, &ours);
    assert_eq!(bench.turn(), []);
    theirs.write_all(b"kept").unwrap();
    bench.ring.cancel(Token(3));
    assert_eq!(bench.turn(), [(3, -libc::ECANCELED, LAST)]);
    assert_eq!(bench.turn(), []);
    bench.receive(4, &ours);
    assert_eq!(bench.next(), [(4, 4, MORE)]);
    assert_eq!(bench.bytes(), b"kept");
    assert_eq!(bench.ring.counters().registrations, 1);
}

#[test]
fn a_number_used_again_is_served_anew() {
    let mut bench = Bench::new(4);
    // High enough that no other test is given it meanwhile.
    let number = 777;
    for round in 0..3 {
        let (ours, mut theirs) = pair();
        // SAFETY: nobody else has the number.
        let ours = unsafe {
            assert_eq!(libc::dup3(ours.as_raw_fd(), number, libc::O_CLOEXEC), number);
            OwnedFd::from_raw_fd(number)
        };
        bench.receive(round, &ours);
        assert_eq!(bench.turn(), []);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(bench.next(), [(round, 5, MORE)]);
        bench.bytes();
        // An event is on its way when the number goes: it must not touch who gets it next.
        theirs.write_all(b"late").unwrap();
        bench.ring.cancel(Token(round));
        assert_eq!(bench.ring.epoll.wait(Waiting::No).unwrap(), 1);
        let stale = bench.ring.epoll.event(0);
        bench.found.clear();
        bench.ring.end_cancelled(&mut bench.found);
        bench.ring.forget(number);
        drop(ours);
        bench.ring.dispatch(stale, &mut bench.found);
        assert_eq!(bench.found, [Completion::done(Token(round), -libc::ECANCELED)]);
        assert_eq!(bench.ring.sources[number as u32].generation(), round as u32 + 1);
    }
    assert_eq!(bench.ring.counters().registrations, 3);
}

#[test]
fn a_descriptor_that_was_forgotten_but_not_closed_may_come_back() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    bench.turn();
    bench.ring.cancel(Token(1));
    bench.turn();
    bench.ring.forget(ours.as_raw_fd());
    // Its events wake us once, and never again.
    for waking in [1, 0] {
        theirs.write_all(b"x").unwrap();
        assert_eq!(bench.ring.epoll.wait(Waiting::No).unwrap(), waking);
        if waking == 1 {
            let event = bench.ring.epoll.event(0);
            bench.ring.dispatch(event, &mut Vec::new());
        }
    }
    bench.receive(2, &ours);
    assert_eq!(bench.next(), [(2, 2, MORE)]);
    bench.bytes();
    theirs.write_all(b"more").unwrap();
    assert_eq!(bench.next(), [(2, 4, MORE)]);

    // And back before any event: it is still watched, under the old generation.
    bench.ring.cancel(Token(2));
    bench.turn();
    bench.ring.forget(ours.as_raw_fd());
    bench.receive(3, &ours);
    assert_eq!(bench.turn(), []);
    theirs.write_all(b"again").unwrap();
    assert_eq!(bench.next(), [(3, 5, MORE)]);
}

#[test]
#[should_panic(expected = "requests end before their descriptor goes")]
fn forgetting_under_a_request_is_a_bug() {
    let (ours, _theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    bench.ring.forget(ours.as_raw_fd());
}

#[test]
fn every_poller_is_told() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.poll(1, &ours, Interest::Readable, false);
    bench.poll(2, &ours, Interest::Readable, true);
    bench.poll(3, &ours, Interest::Readable, false);
    bench.poll(4, &ours, Interest::Writable, false);
    let writable = (4, i32::from(libc::POLLOUT), LAST);
    assert_eq!(bench.wait(Waiting::Until(None)), [writable], "the present state, at once");
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
    let mut bench = Bench::new(4);
    bench.receive(1, &ours);
    bench.poll(2, &ours, Interest::Readable, true);
    assert_eq!(bench.turn(), []);
    // A full buffer queues the side for the next turn; the event of that turn must reach the
    // poller.
    theirs.write_all(&[1; LENGTH]).unwrap();
    let input = i32::from(libc::POLLIN);
    assert_eq!(bench.next(), [(2, input, MORE), (1, LENGTH as i32, MORE)]);
    theirs.write_all(&[1; 2 * LENGTH]).unwrap();
    assert_eq!(bench.next(), [(1, LENGTH as i32, MORE), (2, input, MORE)]);
    assert_eq!(bench.next(), [(1, LENGTH as i32, MORE)]);
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
fn a_send_waits_for_room() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(0);
    let bytes = vec![5_u8; 1 << 20];
    let request = send_bytes(&ours, &bytes);
    // SAFETY: the socket is open and the bytes outlive the call.
    let taken = match unsafe { bench.ring.attempt(&request) } {
        Attempt::Done { result } => usize::try_from(result).unwrap(),
        other => panic!("{other:?}"),
    };
    bench.submit(1, request);
    assert_eq!(bench.turn(), []);
    let calls = bench.calls();
    // SAFETY: as above.
    assert_eq!(unsafe { bench.ring.attempt(&request) }, Attempt::WouldBlock(Interest::Writable));
    assert_eq!(bench.calls(), calls + 1);
    let mut got = vec![0; taken];
    theirs.read_exact(&mut got).unwrap();
    let found = bench.next();
    assert!(matches!(found[..], [(1, result, LAST)] if result > 0), "{found:?}");
    assert!(bench.next_is_idle());
}

impl Bench {
    fn next_is_idle(&mut self) -> bool {
        let soon = system::now() + 1_000_000;
        self.wait(Waiting::Until(Some(soon))).is_empty() && system::now() >= soon
    }
}

#[test]
fn a_side_known_to_be_blocked_is_not_tried_again() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    bench.turn();
    bench.ring.cancel(Token(1));
    bench.turn();
    let calls = bench.calls();
    bench.receive(2, &ours);
    assert!(!bench.ring.wants_turn());
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.calls(), calls);
    theirs.write_all(b"x").unwrap();
    assert_eq!(bench.next(), [(2, 1, MORE)]);
}

#[test]
fn a_busy_stream_gets_no_more_than_the_others() {
    let mut bench = Bench::new(16);
    let mut pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    for (token, (ours, theirs)) in pairs.iter_mut().enumerate() {
        let length = if token == 0 { 50 * LENGTH } else { 10 * LENGTH };
        theirs.write_all(&vec![1; length]).unwrap();
        bench.receive(token as u64, ours);
    }
    for turn in 0..10 {
        let mut tokens: Vec<_> = bench.turn().iter().map(|found| found.0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2, 3], "turn {turn}");
        bench.bytes();
    }
    assert_eq!(bench.turn(), [(0, LENGTH as i32, MORE)]);
}

#[test]
fn accept_goes_on_until_none_is_left_but_not_without_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let mut bench = Bench::new(0);
    bench.submit(1, Request::Accept(Accept { descriptor: listener.as_raw_fd() }));
    assert_eq!(bench.turn(), []);
    let clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    for expected in [16, 4, 0] {
        let found = bench.turn();
        assert_eq!(found.len(), expected);
        for (_, number, more) in found {
            assert!(more);
            // SAFETY: the kernel just gave us this number.
            accepted.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    assert!(!bench.ring.wants_turn());
    drop(clients);
}

#[test]
fn connect_answers_success_and_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut bench = Bench::new(0);
    for (to, result) in [(open, 0), (closed, -libc::ECONNREFUSED)] {
        let socket = crate::io::request::call::tcp_socket(true).unwrap();
        let address = SocketAddress::new(&to);
        let descriptor = socket.as_raw_fd();
        bench.submit(1, Request::Connect(Connect { descriptor, address: &raw const address }));
        assert_eq!(bench.next(), [(1, result, LAST)]);
        bench.ring.forget(descriptor);
    }
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
    bench.submit(1, Request::WriteAt(WriteAt { descriptor, address, length, offset: 3 }));
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
    bench.submit(3, Request::ReadAt(ReadAt { descriptor, address, length, offset: 0 }));
    // From the page cache at once where the file system can, else through the pool.
    match bench.turn()[..] {
        [found] => assert_eq!(found, (3, 14, LAST)),
        _ => assert_eq!(bench.pool_answer(), Completion::done(Token(3), 14)),
    }
    assert_eq!(&back[3..], text);
}

#[test]
fn a_pool_without_room_is_asked_again_and_its_jobs_can_be_cancelled() {
    let mut bench = Bench::with_pool(0, &Pool::new(1, Duration::from_secs(1)));
    let mut pipe = [0_i32; 2];
    // SAFETY: room for two numbers, which are new and ours.
    let (reader, writer) = unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(pipe[0]), OwnedFd::from_raw_fd(pipe[1]))
    };
    let file = temporary_file();
    let sync = |of: &dyn AsRawFd| {
        Request::Synchronize(Synchronize { descriptor: of.as_raw_fd(), data_only: false })
    };
    for token in 0..8 {
        bench.submit(token, sync(&file));
    }
    // A pipe has nothing to bring to the disk.
    bench.submit(8, sync(&writer));
    bench.submit(9, sync(&reader));
    assert_eq!(bench.turn(), []);
    assert!(!bench.ring.refused.is_empty());
    assert!(!bench.ring.wants_turn(), "asking a full pool again at once would be a spin");
    bench.ring.cancel(Token(9));
    let mut answers: Vec<_> = (0..10).map(|_| bench.pool_answer()).collect();
    answers.sort_by_key(|completion| completion.token.0);
    let mut expected = vec![0; 8];
    expected.extend([-libc::EINVAL, -libc::ECANCELED]);
    assert_eq!(answers.iter().map(|found| found.result).collect::<Vec<_>>(), expected);
    assert_eq!((bench.ring.in_flight(), bench.ring.counters().pool_jobs), (0, 9));
}

#[test]
fn a_turn_with_refused_jobs_does_not_sleep_for_ever() {
    let mut bench = Bench::with_pool(0, &Pool::new(0, Duration::from_secs(1)));
    let file = temporary_file();
    let request = Synchronize { descriptor: file.as_raw_fd(), data_only: true };
    bench.submit(1, Request::Synchronize(request));
    assert_eq!(bench.wait(Waiting::Until(None)), [], "nothing else would wake this core");
    bench.ring.cancel(Token(1));
    assert_eq!(bench.pool_answer().result, -libc::ECANCELED);
}

#[test]
fn a_signal_ends_a_wait_quietly() {
    extern "C" fn nothing(_: i32) {}
    let mut bench = Bench::new(0);
    // SAFETY: a handler that does nothing, without SA_RESTART, for a signal that no one else uses.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    // SAFETY: no arguments.
    let waiter = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        // SAFETY: the waiting thread joins this one, so it lives.
        unsafe { libc::pthread_kill(waiter, libc::SIGUSR1) }
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
fn no_byte_is_lost_repeated_or_reordered() {
    const STREAMS: usize = 8;
    const BYTES: usize = 200_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..STREAMS)
        .map(|_| {
            let theirs = std::net::TcpStream::connect(address).unwrap();
            (listener.accept().unwrap().0, theirs)
        })
        .unzip();
    let writer = std::thread::spawn(move || {
        let mut seed = 7_u64;
        let mut sent = [0_usize; STREAMS];
        while sent.iter().any(|sent| *sent < BYTES) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let stream = (seed >> 33) as usize % STREAMS;
            // Around the length of one buffer, so that full and short answers mix.
            let until = (sent[stream] + 1 + (seed >> 40) as usize % (3 * LENGTH)).min(BYTES);
            let bytes: Vec<_> = (sent[stream]..until).map(|at| at as u8).collect();
            (&theirs[stream]).write_all(&bytes).unwrap();
            sent[stream] = until;
        }
        // Dropping the sockets sends the ends.
    });

    let mut bench = Bench::new(3);
    let mut got = [0_usize; STREAMS];
    let mut ended = 0;
    (0..STREAMS).for_each(|stream| bench.receive(stream as u64, &ours[stream]));
    let mut turn = 0_u64;
    while ended < STREAMS {
        turn += 1;
        bench.wait(Waiting::Until(None));
        for completion in mem::take(&mut bench.found) {
            let stream = completion.token.0 as usize;
            if let Some(id) = completion.flags.buffer() {
                let length = usize::try_from(completion.result).unwrap();
                for byte in &bench.memory[usize::from(id)][..length] {
                    assert_eq!(*byte, got[stream] as u8, "stream {stream} at {}", got[stream]);
                    got[stream] += 1;
                }
                bench.give_back(id);
            } else if completion.result == 0 {
                ended += 1;
            } else {
                assert!([-libc::ENOBUFS, -libc::ECANCELED].contains(&completion.result));
                bench.receive(completion.token.0, &ours[stream]);
            }
        }
        if turn % 5 == 0 {
            bench.ring.cancel(Token(turn / 5 % STREAMS as u64));
        }
    }
    writer.join().unwrap();
    assert_eq!(got, [BYTES; STREAMS]);
    assert_eq!(bench.ring.in_flight(), 0);
    assert_eq!(bench.ring.counters().registrations, STREAMS as u64);
}
