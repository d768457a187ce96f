//! The load generator must notice what it is there to notice, so it is loaded on servers that fail.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use quoit::__private::trace;

use crate::cells::{self, Cell, Work};
use crate::cli::{Driver, Options};
use crate::control::TurnKind;
use crate::load::{self, Load, Mode, Outcome, Phase};
use crate::{echo as quoit_echo, server};

/// Serves every connection on a thread of its own. `twist` may change what was read before it goes
/// back; it is given the number of bytes echoed before, and says whether to go on.
fn serve(twist: fn(u64, &mut Vec<u8>) -> bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream, twist));
        }
    });
    address
}

fn echo(mut stream: TcpStream, twist: fn(u64, &mut Vec<u8>) -> bool) -> io::Result<()> {
    let (mut buffer, mut echoed) = (vec![0; 50_000], 0);
    loop {
        let count = stream.read(&mut buffer)?;
        let mut bytes = buffer[..count].to_vec();
        if count == 0 || !twist(echoed, &mut bytes) {
            return Ok(());
        }
        stream.write_all(&bytes)?;
        echoed += count as u64;
    }
}

fn short(address: SocketAddr) -> Load {
    let (duration, warmup) = (Duration::from_secs(5), Duration::ZERO);
    Load { connections: 3, limit: Some(600), duration, warmup, ..Load::new(address) }
}

fn refused(load: &Load) -> String {
    load::run(load).expect_err("the server is broken").to_string()
}

#[test]
fn an_honest_echo_is_counted_to_the_last_message() {
    let address = serve(|_, _| true);
    for (length, depth, mode) in
        [(64, 1, Mode::PingPong), (1, 7, Mode::Stream), (300_001, 2, Mode::Stream)]
    {
        let load = Load { length, depth, mode, ..short(address) };
        let mut marks = Vec::new();
        let mark = &mut |phase| {
            marks.push(phase);
            Ok(())
        };
        let Outcome { messages, bytes, histogram, errors, .. } =
            load::run_with(&load, mark).expect("echoed");
        assert!(errors.is_empty(), "{errors:?}");
        // The limit is looked at once per wait, with all in flight still to come.
        assert!((600..2000).contains(&messages), "{messages} messages");
        assert_eq!(bytes, messages * length as u64);
        assert_eq!(histogram.len(), messages);
        assert_eq!(marks, [Phase::Ready, Phase::Finished]);
    }
}

#[test]
fn churn_opens_a_connection_per_message() {
    let address = serve(|echoed, _| {
        assert_eq!(echoed, 0, "one message per connection");
        true
    });
    let outcome = load::run(&Load { mode: Mode::Churn, ..short(address) }).expect("echoed");
    assert!(outcome.messages >= 600 && outcome.errors.is_empty(), "{outcome:?}");
}

#[test]
fn a_changed_byte_is_an_error_that_names_its_place() {
    let address = serve(|echoed, bytes| {
        if echoed == 64 * 9 {
            bytes[5] ^= 1;
        }
        true
    });
    let cause = refused(&short(address));
    assert!(cause.contains("byte 5: sent"), "{cause}");
}

#[test]
fn a_doubled_chunk_and_a_swallowed_byte_are_errors() {
    let doubled = serve(|echoed, bytes| {
        if echoed == 64 * 9 {
            bytes.extend_from_within(..);
        }
        true
    });
    assert!(refused(&short(doubled)).contains("the echo is wrong"));
    let swallowed = serve(|echoed, bytes| {
        if echoed >= 64 * 36 {
            bytes.remove(0);
        }
        true
    });
    let stream = Load { mode: Mode::Stream, depth: 4, ..short(swallowed) };
    assert!(refused(&stream).contains("the echo is wrong"));
}

#[test]
fn a_lost_connection_is_counted_and_the_others_go_on() {
    static HUNG_UP: AtomicBool = AtomicBool::new(false);
    let address = serve(|echoed, _| echoed < 64 * 20 || HUNG_UP.swap(true, Ordering::Relaxed));
    let outcome = load::run(&short(address)).expect("two are left");
    assert_eq!(outcome.errors.iter().map(|failure| failure.count).sum::<u64>(), 1);
    assert!(outcome.per_connection_min < 20 && outcome.messages >= 600, "{outcome:?}");
}

#[test]
fn no_server_and_no_connection_left_are_errors() {
    let address = serve(|echoed, _| echoed < 64 * 20);
    let cause = refused(&short(address));
    assert!(cause.contains("all connections were lost"), "{cause}");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port");
    assert!(refused(&short(nobody)).contains("refused"));
}

#[test]
fn an_open_loop_charges_a_stall_to_every_message_that_had_to_wait() {
    let address = serve(|echoed, _| {
        if echoed == 64 * 101 {
            thread::sleep(Duration::from_millis(200));
        }
        true
    });
    let duration = Duration::from_secs(1);
    let warmup = Duration::ZERO;
    let load = Load { duration, warmup, rate: Some(1000), ..Load::new(address) };
    let outcome = load::run(&load).expect("echoed");
    // 200 ms at 1,000 a second: about a hundred messages waited over 100 ms, more where the machine
    // stalls too; a closed loop sees one.
    let waited = outcome.histogram.count_between(100_000_000, u64::MAX);
    assert!((80..=500).contains(&waited), "{waited} messages waited");
    assert!(outcome.messages + outcome.unsent >= 990, "{outcome:?}");
}

fn plan(arguments: &str) -> io::Result<Vec<Cell>> {
    let options = Options::parse_from(arguments.split(' '));
    cells::plan(&options, &[1], 20_000)
}

#[test]
fn a_foreign_server_gets_its_cells_even_from_a_client_with_one_core() {
    for arguments in ["", " --mode stream", " --reps 1 -t 2s"] {
        let text = format!("duel -a 127.0.0.1:7777 -c 64 -l 16384 -p 16{arguments}");
        let cells = plan(&text).expect("there is something to run");
        let [cell] = cells.as_slice() else { panic!("{cells:?}") };
        assert_eq!((cell.work, cell.depth, cell.cores), (Work::Stream, 16, None));
    }
    let pinned = plan("duel -a 127.0.0.1:7777 --pin 0:0").expect("pinning is allowed");
    assert!(pinned.len() == 3 && pinned.iter().all(|cell| cell.cores == Some((0, 0))));
}

#[test]
fn a_plan_without_cells_is_an_error_with_its_reason() {
    let reason = |arguments| plan(arguments).expect_err("nothing to run").to_string();
    assert!(reason("duel -c 4096 -l 16384 -p 16").contains("256 MiB in flight"));
    assert!(reason("duel -a 127.0.0.1:7777 --mode file,idle").contains("--address"));
    assert_eq!(plan("duel -c 1,4096 -l 16384 -p 16").expect("one is left").len(), 1);
}

/// The timeline shows real turns: one echo between two tasks, and what each ring asked for it.
#[test]
fn the_record_shows_what_each_ring_asks_of_the_kernel() {
    for (driver, receives) in [(Driver::Readiness, 2), (Driver::Uring, 0)] {
        let runtime = match server::runtime(driver, 0) {
            Err(error) if driver == Driver::Uring => {
                eprintln!("not looked at, io_uring is not available: {error}");
                continue;
            }
            runtime => runtime.expect("epoll is always there"),
        };
        trace::start(10_000);
        runtime.block_on(async {
            let listener = quoit::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            drop(quoit::spawn(quoit_echo::serve(listener)));
            let stream = quoit::net::TcpStream::connect(address).await.expect("it listens");
            stream.send_all(vec![7; 64]).await.expect("sent");
            assert_eq!(*stream.recv().await.expect("echoed"), [7; 64]);
        });
        let events = server::recorded();
        trace::start(0);
        let count = |kind, n| events.iter().filter(|e| e.kind == kind && e.n == n).count();
        assert_eq!(count(TurnKind::Recv, 64), receives, "{driver:?}: {events:?}");
        assert_eq!(count(TurnKind::Send, 64), 2, "{driver:?}: {events:?}");
        assert!(events.iter().any(|event| event.kind == TurnKind::Enter && event.n > 0));
        assert!(events.iter().any(|event| event.kind == TurnKind::Task));
        assert!(events.is_sorted_by_key(|event| event.t_ns));
    }
}
