//! The kernel's answers, as they were probed on Linux 6.18, from the simulated ring under many
//! seeds; and the rules that it makes its users keep.

use std::net::SocketAddr;

use super::*;
use crate::io::request::{Accept, Connect, Nop, ReceiveMany, SendBytes, SocketAddress};

const LENGTH: usize = 16;
const SEEDS: u64 = 300;

const LISTENER: u64 = 1;
const CONNECT: u64 = 2;
const RECEIVE: u64 = 3;
const SEND: u64 = 4;

/// A host in a world of its own, at its turn for ever, and its ring.
pub(super) fn alone(seed: u64) -> (Rc<World>, world::Entered, Simulated) {
    let link = Link::new((1, 100_000), None);
    let capacity_max = 1 << Chance::of(seed, 3).up_to(12);
    let world = World::new(seed, Weather { link, loopback: link, capacity_max });
    let entered = world.enter();
    let boot = world.with(|state| {
        let host = state.add_host("host");
        state.boot(host)
    });
    std::mem::forget(world.on(boot));
    let ring = Simulated::new(&Mailbox::simulated(world.next_core(), world.rung().clone()));
    (world, entered, ring)
}

impl Simulated {
    /// A turn, after a while.
    pub(super) fn turn_in_time(&mut self, completions: &mut Vec<Completion>) {
        let pause = self.chance.up_to(200_000) as u64;
        self.world.with(|state| state.go_on_until(state.now() + pause));
        self.turn(completions);
    }
}

/// A ring in a world of its own, and memory for its buffers that outlives it.
struct Bench {
    ring: Simulated,
    memory: Vec<[u8; LENGTH]>,
    world: Rc<World>,
    _entered: world::Entered,
}

impl Bench {
    fn new(seed: u64, buffers: u16) -> Self {
        Self::under(FaultPlan::none(), seed, buffers)
    }

    fn under(plan: FaultPlan, seed: u64, buffers: u16) -> Self {
        let (world, entered, ring) = alone(seed);
        world.set_plan(plan);
        let memory = vec![[0; LENGTH]; usize::from(buffers)];
        let mut bench = Self { ring, memory, world, _entered: entered };
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
        // SAFETY: each test keeps descriptors and memory until the ring is dropped, which touches
        // nothing.
        unsafe { self.ring.submit(Token(token), &request) };
    }

    /// Everything that happens before the ring waits for its user.
    fn settle(&mut self) -> Vec<Completion> {
        let mut found = Vec::new();
        loop {
            self.ring.turn(&mut found);
            if self.ring.is_settled() && !self.next_event() {
                return found;
            }
        }
    }

    /// What comes next over the network. `false`: nothing does.
    fn next_event(&mut self) -> bool {
        self.world.with(|state| match state.next_happening() {
            Some(at) => {
                state.go_on_until(at);
                true
            }
            None => false,
        })
    }

    fn listen(&mut self) -> (i32, SocketAddr) {
        let listener = self.world.tcp_socket(true);
        assert_eq!(self.world.bind(listener, "127.0.0.1:0".parse().unwrap()), 0);
        assert_eq!(self.world.listen(listener, 16), 0);
        (listener, self.world.local_address(listener).unwrap())
    }

    fn connect(&mut self, to: SocketAddr) -> i32 {
        let descriptor = self.world.tcp_socket(true);
        let address = SocketAddress::new(&to);
        self.submit(CONNECT, Request::Connect(Connect { descriptor, address: &raw const address }));
        let found = self.settle();
        assert!(found.iter().any(|c| c.token.0 == CONNECT && c.result == 0), "{found:?}");
        descriptor
    }

    /// Both ends of a connection. Nothing is in flight.
    fn pair(&mut self) -> (i32, i32) {
        let (listener, address) = self.listen();
        let client = self.connect(address);
        let server = self.world.with(|state| state.accept(listener)).unwrap();
        (client, server)
    }

    /// A turn or some, and now and then something from the network.
    fn some_time(&mut self, found: &mut Vec<Completion>) {
        for _ in 0..self.ring.chance.up_to(4) {
            self.ring.turn(found);
            if self.ring.chance.one_in(2) {
                self.next_event();
            }
        }
    }

    /// The bytes that completions lend, with their buffers given back.
    fn bytes(&mut self, found: &[Completion]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for completion in found {
            if let Some(id) = completion.flags.buffer() {
                let length = completion.result as usize;
                bytes.extend_from_slice(&self.memory[usize::from(id)][..length]);
                self.give_back(id);
            }
        }
        bytes
    }

    /// What arrives at a socket when everybody has had his go.
    fn drain(&mut self, number: i32) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            self.settle();
            // Room in the pipe lets what is in flight go on.
            match self.world.receive(number, usize::MAX, false) {
                Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
                _ => return got,
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| at as u8).collect()
}

#[test]
fn a_cancelled_receive_leaves_in_the_socket_what_it_has_not_brought() {
    let (mut raced, mut lost) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 8);
        let (client, server) = bench.pair();
        bench.submit(RECEIVE, Request::ReceiveMany(ReceiveMany { descriptor: server }));
        let sent = bench.world.send(client, &pattern(40));
        let mut found = Vec::new();
        bench.some_time(&mut found);
        bench.ring.cancel(Token(RECEIVE));
        found.extend(bench.settle());
        let mut got = bench.bytes(&found);
        raced += u32::from(!got.is_empty());
        lost += u32::from(got.len() < sent as usize);
        got.extend(bench.drain(server));
        assert_eq!(got, pattern(sent as usize), "seed {seed}");
        assert_eq!(bench.ring.in_flight(), 0, "seed {seed}");
    }
    assert!(raced > 0 && lost > 0, "the cancel won or lost every time");
}

#[test]
fn a_cancelled_send_tells_exactly_what_went_out() {
    let (mut clean, mut partial) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 0);
        let (client, server) = bench.pair();
        let bytes = pattern(200);
        let (address, length) = (bytes.as_ptr(), bytes.len() as u32);
        bench.submit(SEND, Request::SendBytes(SendBytes { descriptor: client, address, length }));
        let mut found = Vec::new();
        bench.some_time(&mut found);
        bench.ring.cancel(Token(SEND));
        found.extend(bench.settle());
        let [Completion { result, .. }] = found[..] else { panic!("one answer: {found:?}") };
        let count = if result == -libc::ECANCELED { 0 } else { result as usize };
        clean += u32::from(count == 0);
        partial += u32::from(count > 0 && count < bytes.len());
        assert_eq!(bench.drain(server), pattern(count), "seed {seed}");
    }
    assert!(clean > 0 && partial > 0, "{clean} clean, {partial} partial");
}

#[test]
fn a_cancelled_accept_leaves_the_others_in_the_queue() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 0);
        let (listener, address) = bench.listen();
        bench.submit(LISTENER, Request::Accept(Accept { descriptor: listener }));
        let mut clients = Vec::new();
        for _ in 0..3 {
            let descriptor = bench.world.tcp_socket(true);
            bench.world.with(|state| state.connect(descriptor, address)).unwrap();
            clients.push(descriptor);
        }
        while bench.next_event() {}
        for client in clients {
            assert_eq!(bench.world.with(|state| state.connected(client)), Some(0));
        }
        let mut found = Vec::new();
        bench.some_time(&mut found);
        bench.ring.cancel(Token(LISTENER));
        found.extend(bench.settle());
        let accepted = found.iter().filter(|completion| completion.result >= 0).count();
        let queued = bench.world.with(|state| state.listening(listener).unwrap().backlog.len());
        assert_eq!(accepted + queued, 3, "seed {seed}");
        assert!(found.last().unwrap().is_terminal());
    }
}

#[test]
fn a_receive_without_a_buffer_ends_at_once_even_when_nothing_is_there() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 0);
        let (client, server) = bench.pair();
        bench.submit(RECEIVE, Request::ReceiveMany(ReceiveMany { descriptor: server }));
        assert_eq!(bench.settle(), [Completion::done(Token(RECEIVE), -libc::ENOBUFS)]);
        let sent = bench.world.send(client, b"kept") as usize;
        assert_eq!(bench.drain(server), b"kept"[..sent]);
    }
}

#[test]
fn unread_input_makes_a_close_a_reset_and_its_absence_an_end() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 0);
        let (client, server) = bench.pair();
        let unread = seed % 2 == 0;
        if unread {
            bench.world.send(client, b"x");
            bench.settle();
        }
        bench.world.close(server);
        bench.settle();
        let end = bench.world.receive(client, 1, false);
        assert_eq!(end, if unread { Err(-libc::ECONNRESET) } else { Ok(Vec::new()) });
        if unread {
            assert_eq!(bench.world.receive(client, 1, false), Ok(Vec::new()), "told once");
            assert_eq!(bench.world.send(client, b"x"), -libc::EPIPE);
            assert_eq!(bench.world.peer_address(client), Err(-libc::ENOTCONN));
        }
    }
}

#[test]
fn the_lowest_free_number_is_the_next() {
    let bench = Bench::new(0, 0);
    let numbers: Vec<i32> = (0..3).map(|_| bench.world.tcp_socket(true)).collect();
    assert_eq!(numbers, [world::FIRST, world::FIRST + 1, world::FIRST + 2]);
    bench.world.close(numbers[1]);
    assert_eq!(bench.world.tcp_socket(true), numbers[1]);
}

#[test]
#[should_panic(expected = "is named by 1 requests in flight")]
fn a_number_in_use_must_not_be_closed() {
    let mut bench = Bench::new(0, 8);
    let (_client, server) = bench.pair();
    bench.submit(RECEIVE, Request::ReceiveMany(ReceiveMany { descriptor: server }));
    bench.world.close(server);
}

#[test]
#[should_panic(expected = "changed while it was in flight")]
fn bytes_that_are_lent_must_not_change() {
    let mut bench = Bench::new(0, 0);
    let (client, server) = bench.pair();
    let mut bytes = pattern(50);
    let (address, length) = (bytes.as_mut_ptr(), bytes.len() as u32);
    let send = SendBytes { descriptor: client, address: address.cast_const(), length };
    bench.submit(SEND, Request::SendBytes(send));
    // SAFETY: within the bytes, which nobody else looks at just now.
    unsafe { address.add(49).write(7) };
    bench.drain(server);
}

#[test]
fn answers_come_in_any_order() {
    let mut orders = std::collections::HashSet::new();
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, 0);
        for token in 0..3 {
            bench.submit(token, Request::Nop(Nop));
        }
        orders.insert(bench.settle().iter().map(|c| c.token.0).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 6, "all orders of three");
}

/// The sites of `pair`: a listener's socket, bind and listen, and a client's socket and connect.
const SITES_OF_A_PAIR: usize = 5;

#[test]
fn a_planned_error_is_told_where_it_was_planned_and_breaks_what_it_says_is_broken() {
    for seed in 0..SEEDS {
        for error in [libc::ENOBUFS, libc::ECONNRESET] {
            let plan = FaultPlan::only(Some((SITES_OF_A_PAIR + 1, Fault::Fails(error))));
            let mut bench = Bench::under(plan, seed, 0);
            let (client, server) = bench.pair();
            assert_eq!(bench.world.send(client, b"a"), 1, "seed {seed}");
            bench.settle();
            assert_eq!(bench.world.receive(server, 1, false), Err(-error), "seed {seed}");
            let expected = if error == libc::ECONNRESET { &b""[..] } else { b"a" };
            assert_eq!(bench.drain(server), expected, "seed {seed}");
            let sites = bench.world.plan().sites;
            assert_eq!(sites[SITES_OF_A_PAIR..][..2], [Site::SendNow, Site::ReceiveNow]);
        }
    }
}

#[test]
fn a_late_request_ends_all_the_same_and_a_short_one_with_one_byte() {
    for seed in 0..SEEDS {
        let mut turns = [0, 0];
        for (turns, fault) in turns.iter_mut().zip([None, Some((0, Fault::Late))]) {
            let mut bench = Bench::under(FaultPlan::only(fault), seed, 0);
            bench.submit(1, Request::Nop(Nop));
            let mut found = Vec::new();
            while found.is_empty() {
                bench.ring.turn(&mut found);
                *turns += 1;
            }
            assert_eq!(found, [Completion::done(Token(1), 0)]);
        }
        assert!(turns[1] > turns[0] + 20, "seed {seed}: {turns:?}");

        let plan = FaultPlan::only(Some((SITES_OF_A_PAIR, Fault::Short)));
        let mut bench = Bench::under(plan, seed, 0);
        let (client, server) = bench.pair();
        let bytes = pattern(50);
        let (address, length) = (bytes.as_ptr(), bytes.len() as u32);
        bench.submit(SEND, Request::SendBytes(SendBytes { descriptor: client, address, length }));
        assert_eq!(bench.settle(), [Completion::done(Token(SEND), 1)], "seed {seed}");
        assert_eq!(bench.drain(server), [0], "seed {seed}");
    }
}

/// A ring like this in a world of its own.
fn ring_like(rings: Rings, seed: u64, buffers: u16) -> Bench {
    let mut bench = Bench::new(seed, buffers);
    bench.ring.rings = rings;
    bench
}

#[test]
fn a_full_queue_is_handed_in_late_and_in_order() {
    let (mut latest, mut soon) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = ring_like(Rings::new().submissions(1), seed, 0);
        for token in 0..8 {
            bench.submit(token, Request::Nop(Nop));
        }
        assert_eq!(bench.ring.in_flight(), 8);
        let mut found = Vec::new();
        for turn in 1.. {
            let queued = |ring: &Simulated| -> Vec<u64> {
                let queued = ring.pending.iter().filter(|pending| pending.is_queued);
                queued.map(|pending| pending.token.0).collect()
            };
            let before = queued(&bench.ring);
            bench.ring.turn(&mut found);
            let after = queued(&bench.ring);
            assert!(before.ends_with(&after), "{before:?}, and then {after:?}");
            if after.is_empty() {
                latest = latest.max(turn);
                soon += u32::from(turn == 1);
                break;
            }
            assert!(bench.ring.wants_turn() && !bench.ring.is_settled());
        }
        found.extend(bench.settle());
        assert_eq!(found.len(), 8, "seed {seed}");
    }
    assert!(latest > 4 && soon > 0, "{latest} turns at most, one turn {soon} times");
}

/// The token of a request that is over is soon that of the next one.
#[test]
fn a_cancel_that_is_held_back_never_meets_the_next_request_of_its_token() {
    let mut came_late = 0;
    for seed in 0..SEEDS {
        let mut bench = ring_like(Rings::new().submissions(1), seed, 8);
        let (client, server) = bench.pair();
        let receive = Request::ReceiveMany(ReceiveMany { descriptor: server });
        bench.submit(RECEIVE, receive);
        bench.world.close(client);
        while bench.next_event() {}
        let mut found = Vec::new();
        // One turn from its end, or further away.
        while found.is_empty() && !bench.ring.pending[0].has_answers() {
            bench.ring.turn(&mut found);
        }
        if found.is_empty() {
            for token in 100..104 {
                bench.submit(token, Request::Nop(Nop));
            }
            bench.ring.cancel(Token(RECEIVE));
            while !found.iter().any(|completion: &Completion| completion.token.0 == RECEIVE) {
                bench.ring.turn(&mut found);
            }
            came_late += u32::from(!bench.ring.queue.is_empty());
            bench.submit(RECEIVE, receive);
            let found = bench.settle();
            let last = found.iter().rfind(|completion| completion.token.0 == RECEIVE);
            assert_eq!(last.map(|completion| completion.result), Some(0), "seed {seed}");
        }
    }
    assert!(came_late > 10, "{came_late}");
}

#[test]
fn a_turn_brings_what_the_completion_queue_holds_and_the_rest_comes_later() {
    let mut overflows = 0;
    for seed in 0..SEEDS {
        let mut bench = ring_like(Rings::new().completions(2), seed, 0);
        for token in 0..8 {
            bench.submit(token, Request::Nop(Nop));
        }
        let mut found = Vec::new();
        while bench.ring.in_flight() > 0 {
            let before = found.len();
            bench.ring.turn(&mut found);
            assert!(found.len() - before <= 2, "seed {seed}: {found:?}");
        }
        assert_eq!(found.len(), 8, "seed {seed}");
        overflows += bench.ring.counters().overflows;
    }
    assert!(overflows > SEEDS / 4, "{overflows}");
}

/// What is interrupted has done nothing; a handshake has begun, and goes on.
#[test]
fn interrupted_requests_say_so_and_nothing_is_lost() {
    let mut answers = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let always = Rings { interruptions: 1, ..Rings::new() };
        let mut bench = ring_like(always, seed, 8);
        let (listener, address) = bench.listen();
        let (descriptor, address) = (bench.world.tcp_socket(true), SocketAddress::new(&address));
        let connect = Connect { descriptor, address: &raw const address };
        bench.submit(CONNECT, Request::Connect(connect));
        let found = bench.settle();
        let [Completion { result: first, .. }] = found[..] else { panic!("{found:?}") };
        assert!([libc::EINTR, libc::EALREADY].contains(&-first), "seed {seed}: {first}");
        bench.ring.rings = Rings::new();
        bench.submit(CONNECT, Request::Connect(connect));
        assert_eq!(bench.settle(), [Completion::done(Token(CONNECT), -libc::EISCONN)]);
        let server = bench.world.with(|state| state.accept(listener)).expect("it has come through");

        bench.ring.rings = always;
        let bytes = pattern(1);
        let send = SendBytes { descriptor, address: bytes.as_ptr(), length: 1 };
        bench.submit(SEND, Request::SendBytes(send));
        let found = bench.settle();
        let [Completion { result: second, .. }] = found[..] else { panic!("{found:?}") };
        assert!(second < 0 && bench.drain(server).is_empty(), "seed {seed}: {second}");
        answers.extend([first, second]);
    }
    let wanted = [libc::ECANCELED, libc::EALREADY, libc::EAGAIN, libc::EINTR].map(|error| -error);
    assert_eq!(answers, std::collections::BTreeSet::from(wanted));
}
