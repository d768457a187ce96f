//! Streams and listeners: what is received, sent, accepted, cancelled and forgotten.

use super::*;

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
        assert_eq!(bench.sleep(), [(7, 10, MORE)]);
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
fn who_waits_on_one_side_is_not_told_of_the_other() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(2);
    bench.receive(1, &ours);
    assert!(bench.next_is_idle(), "that it may write ends no wait");
    // Until somebody waits for that.
    let bytes = vec![7; 1 << 20];
    bench.submit(2, send_bytes(&ours, &bytes));
    let [(2, first, LAST)] = bench.next()[..] else { panic!("a part is taken at once") };
    bench.submit(3, send_bytes(&ours, &bytes[first as usize..]));
    assert!(bench.next_is_idle());
    theirs.write_all(b"x").unwrap();
    assert_eq!(bench.next(), [(1, 1, MORE)], "one side's events leave the other as it was");
    bench.bytes();
    theirs.read_exact(&mut vec![0; first as usize]).unwrap();
    let [(3, more, LAST)] = bench.next()[..] else { panic!("{:?}", bench.found) };
    assert!(more > 0);
    assert_eq!(bench.ring.counters().registrations, 2);
}

#[test]
fn a_run_of_buffers_comes_in_one_turn_and_a_short_one_waits() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(16);
    theirs.write_all(&[1; LENGTH + 3]).unwrap();
    bench.receive(1, &ours);
    assert_eq!(bench.turn(), [(1, LENGTH as i32, MORE), (1, 3, MORE)]);
    bench.bytes();
    assert!(!bench.ring.wants_turn());
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

/// Who waits to write is not told of the peer's end. So the answer that drains the socket comes
/// before any event that says so, and the watch that the reader then begins has to bring it.
#[test]
fn the_end_is_found_behind_a_short_answer_though_only_writing_was_watched() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(4);
    bench.poll(1, &ours, Interest::Writable, true);
    assert_eq!(bench.next(), [(1, i32::from(libc::POLLOUT), MORE)]);
    theirs.write_all(&[1; 9]).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    // It may be told once more that it may write.
    bench.turn();
    bench.receive(2, &ours);
    let mut found = bench.next();
    while !found.contains(&(2, 0, LAST)) {
        found.extend(bench.next());
    }
    let received: Vec<_> = found.into_iter().filter(|(token, ..)| *token == 2).collect();
    assert_eq!(received, [(2, 9, MORE), (2, 0, LAST)]);
    assert_eq!(bench.ring.counters().registrations, 2);
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
    set_option(theirs.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, reset).unwrap();
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
    assert_eq!(bench.sleep(), [(1, -libc::ECANCELED, LAST), (2, -libc::ECANCELED, LAST)]);
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

/// It was watched on both sides, and comes back for one: the other's events are over.
#[test]
fn who_comes_back_for_one_side_is_watched_on_that_alone() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(4);
    let bytes = vec![7; 1 << 20];
    bench.receive(1, &ours);
    bench.submit(2, send_bytes(&ours, &bytes));
    let [(2, sent, LAST)] = bench.next()[..] else { panic!("{:?}", bench.found) };
    bench.submit(3, send_bytes(&ours, &bytes));
    assert!(bench.next_is_idle());
    for token in [1, 3] {
        bench.ring.cancel(Token(token));
    }
    bench.turn();
    bench.ring.forget(ours.as_raw_fd());

    bench.receive(4, &ours);
    assert!(bench.next_is_idle());
    // There is room to write now, and something to read.
    theirs.read_exact(&mut vec![0; sent as usize]).unwrap();
    assert!(bench.ring.sources[ours.as_raw_fd() as u32].is_watched(Side::Read));
    assert_eq!(bench.ring.epoll.wait(Waiting::No).unwrap(), 0, "nobody waits to write");
    theirs.write_all(b"more").unwrap();
    assert_eq!(bench.next(), [(4, 4, MORE)]);
    // And is watched on the other again when somebody waits there.
    bench.submit(5, send_bytes(&ours, &bytes));
    let [(5, sent, LAST)] = bench.next()[..] else { panic!("{:?}", bench.found) };
    bench.submit(6, send_bytes(&ours, &bytes));
    assert!(bench.next_is_idle());
    theirs.read_exact(&mut vec![0; sent as usize]).unwrap();
    assert!(matches!(bench.next()[..], [(6, 1.., LAST)]));
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
fn a_send_waits_for_room() {
    let (ours, mut theirs) = pair();
    let mut bench = Bench::new(0);
    let bytes = vec![5_u8; 1 << 20];
    let request = send_bytes(&ours, &bytes);
    let taken = (&ours).write(&bytes).unwrap();
    bench.submit(1, request);
    assert_eq!(bench.turn(), []);
    let mut got = vec![0; taken];
    theirs.read_exact(&mut got).unwrap();
    let found = bench.next();
    assert!(matches!(found[..], [(1, result, LAST)] if result > 0), "{found:?}");
    assert!(bench.next_is_idle());
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
fn few_buffers_are_shared_out() {
    let mut bench = Bench::new(16);
    let mut pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    for (token, (ours, theirs)) in pairs.iter_mut().enumerate() {
        theirs.write_all(&[1; 20 * LENGTH]).unwrap();
        bench.receive(token as u64, ours);
    }
    let found = bench.turn();
    let of = |token| found.iter().filter(|found| found.0 == token).count();
    assert_eq!([of(0), of(1), of(2), of(3)], [2, 1, 1, 1]);
}

#[test]
fn who_goes_on_leaves_the_last_buffer_to_who_has_had_none() {
    let mut bench = Bench::new(1);
    let [mut busy, mut other] = [pair(), pair()];
    for (_, theirs) in [&mut busy, &mut other] {
        theirs.write_all(&[1; 4 * LENGTH]).unwrap();
    }
    bench.receive(1, &busy.0);
    assert_eq!(bench.turn(), [(1, LENGTH as i32, MORE)]);
    bench.bytes();
    bench.receive(2, &other.0);
    assert_eq!(bench.turn(), [(2, LENGTH as i32, MORE), (1, -libc::ENOBUFS, LAST)]);
}

#[test]
fn a_busy_stream_gets_no_more_than_the_others() {
    let mut bench = Bench::new(256);
    let mut pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    for (token, (ours, theirs)) in pairs.iter_mut().enumerate() {
        let length = if token == 0 { 50 * LENGTH } else { 10 * LENGTH };
        theirs.write_all(&vec![1; length]).unwrap();
        bench.receive(token as u64, ours);
    }
    for expected in [[16, 10, 10, 10], [16, 0, 0, 0], [16, 0, 0, 0], [2, 0, 0, 0]] {
        let found = bench.turn();
        let of = |token| found.iter().filter(|found| found.0 == token).count();
        assert_eq!([of(0), of(1), of(2), of(3)], expected);
        bench.bytes();
    }
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
        let descriptor = socket.number();
        bench.submit(1, Request::Connect(Connect { descriptor, address: &raw const address }));
        assert_eq!(bench.next(), [(1, result, LAST)]);
        bench.ring.forget(descriptor);
    }
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
        bench.sleep();
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
    // Each at most once; a stream whose bytes were always there already needed none.
    assert!(bench.ring.counters().registrations <= STREAMS as u64);
}
