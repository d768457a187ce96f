//! A core driven by a loop that is not ours: it turns, and waits on the descriptor and the deadline
//! that the runtime names. Whatever happens meanwhile has to show there.
//!
//! The loop waits by epoll's edges, as mio does, so that a descriptor which only *stays* readable
//! does not pass.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use quoit::net::{TcpListener, TcpStream};
use quoit::{Builder, Runtime, time};

use crate::common::on_each_ring;

/// Nothing here takes so long.
const LIMIT: Duration = Duration::from_secs(10);

/// A loop of somebody else's.
struct Host {
    runtime: Runtime,
    epoll: OwnedFd,
    turns: u32,
}

impl Host {
    fn new(builder: Builder) -> Self {
        let runtime = builder.build().unwrap();
        // SAFETY: a new descriptor, or a negative number, which is looked at first.
        let epoll = unsafe {
            let number = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            assert!(number >= 0);
            OwnedFd::from_raw_fd(number)
        };
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        let ring = runtime.as_fd().as_raw_fd();
        // SAFETY: two descriptors of ours and a valid event.
        let added =
            unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring, &mut event) };
        assert_eq!(added, 0);
        Self { runtime, epoll, turns: 0 }
    }

    fn turn(&mut self) {
        loop {
            self.turns += 1;
            assert!(self.turns < 100_000, "it spins");
            if !self.runtime.turn(Some(Duration::ZERO)) {
                return;
            }
        }
    }

    /// Waits as the documentation says. False: nothing came in `LIMIT`.
    fn wait(&self) -> bool {
        let limit = self.runtime.next_deadline().unwrap_or(LIMIT).min(LIMIT);
        let milliseconds = limit.as_nanos().div_ceil(1_000_000) as i32;
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        loop {
            // SAFETY: room for one event.
            let count =
                unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, milliseconds) };
            // The kernel interrupts the first wait on a ring's descriptor.
            let kind = std::io::Error::last_os_error().kind();
            if count >= 0 || kind != std::io::ErrorKind::Interrupted {
                return count > 0 || limit < LIMIT;
            }
        }
    }

    fn run_until(&mut self, mut done: impl FnMut() -> bool) {
        self.turn();
        while !done() {
            assert!(self.wait(), "a wake was missed");
            self.turn();
        }
    }
}

fn on_both(body: impl Fn(Host)) {
    on_each_ring(|builder| body(Host::new(builder)));
}

/// A wake that comes while the host waits, and one that comes between the turn and the wait.
#[test]
fn a_wake_of_another_thread_shows() {
    on_both(|mut host| {
        for pause in [Duration::ZERO, Duration::from_millis(30)] {
            let (send, receive) = futures::channel::oneshot::channel();
            let task = host.runtime.spawn(async { receive.await.unwrap() });
            host.turn();
            let other = thread::spawn(move || {
                thread::sleep(pause);
                send.send(7).unwrap();
            });
            if pause.is_zero() {
                other.join().unwrap();
            }
            host.run_until(|| task.is_finished());
        }
    });
}

/// The host's own code is on the same thread, and not inside the runtime.
#[test]
fn what_the_host_does_itself_shows() {
    on_both(|mut host| {
        host.turn();
        let task = host.runtime.spawn(async { 1 });
        assert!(host.wait(), "a task was spawned");
        host.run_until(|| task.is_finished());

        let (send, receive) = futures::channel::oneshot::channel();
        let task = host.runtime.spawn(async { receive.await.unwrap() });
        host.run_until(|| true);
        send.send(1).unwrap();
        assert!(host.wait(), "a task was woken");
        host.run_until(|| task.is_finished());

        let task = host.runtime.spawn_blocking(|| 1);
        assert!(host.wait(), "a job has to be waited for");
        host.run_until(|| task.is_finished());

        let task = host.runtime.handle().spawn(async { 1 });
        assert!(host.wait(), "a task was sent");
        host.run_until(|| task.is_finished());

        let task = host.runtime.spawn(std::future::pending::<()>());
        host.turn();
        task.abort();
        assert!(host.wait(), "a task was aborted");
        host.run_until(|| task.is_finished());
    });
}

/// What a root future has left behind is not work.
#[test]
fn a_root_that_was_woken_at_its_end_does_not_keep_the_core_busy() {
    on_both(|mut host| {
        let mut kept = None;
        host.runtime.block_on(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            kept = Some(cx.waker().clone());
            std::task::Poll::Ready(())
        }));
        host.turn();
        kept.unwrap().wake();
        host.turn();
        assert!(host.turns < 20, "{} turns", host.turns);
        // A bell that was rung before may end a wait early, but not each.
        let (start, mut waits) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(50) {
            host.runtime.turn(Some(Duration::from_millis(50)));
            waits += 1;
        }
        assert!(waits < 10, "{waits} waits: it spins when nothing is there");
    });
}

#[test]
fn timers_are_on_time() {
    on_both(|mut host| {
        let start = Instant::now();
        let task = host.runtime.spawn(async { time::sleep(Duration::from_millis(60)).await });
        host.run_until(|| task.is_finished());
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(host.turns < 200, "{} turns", host.turns);
    });
}

/// The bytes are there before the first receive is, and the pool has no buffer yet: the receive
/// comes back with nothing, and has to be tried again without anything else happening.
#[test]
fn a_receive_that_finds_no_buffer_is_tried_again() {
    on_both(|mut host| {
        let (send, receive) = std::sync::mpsc::channel();
        let task = host.runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            stream.recv().await.unwrap().len()
        });
        host.turn();
        let address = receive.recv_timeout(LIMIT).unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"word").unwrap();
        host.run_until(|| task.is_finished());
        assert_eq!(host.runtime.block_on(task).unwrap(), 4);
    });
}

/// Hundreds of connections at once: more than one wait of the ring reports.
#[test]
fn sockets_show() {
    const CLIENTS: usize = 300;
    on_both(|mut host| {
        let (send, receive) = std::sync::mpsc::channel();
        let task = host.runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let mut streams: Vec<TcpStream> = Vec::new();
            for _ in 0..CLIENTS {
                streams.push(listener.accept().await.unwrap().0);
            }
            let echoes = streams.into_iter().map(|stream| {
                quoit::spawn(async move {
                    let mut bytes = Vec::new();
                    loop {
                        let lease = stream.recv().await.unwrap();
                        if lease.is_empty() {
                            return bytes.len();
                        }
                        bytes.extend_from_slice(&lease);
                    }
                })
            });
            let mut sum = 0;
            for echo in echoes.collect::<Vec<_>>() {
                sum += echo.await.unwrap();
            }
            sum
        });
        host.turn();
        let address = receive.recv_timeout(LIMIT).unwrap();
        let clients = thread::spawn(move || {
            let connect = |_| std::net::TcpStream::connect(address).unwrap();
            let mut streams: Vec<_> = (0..CLIENTS).map(connect).collect();
            for _ in 0..3 {
                streams.iter_mut().for_each(|stream| stream.write_all(b"word").unwrap());
                thread::sleep(Duration::from_millis(20));
            }
        });
        host.run_until(|| task.is_finished());
        clients.join().unwrap();
        assert_eq!(host.runtime.block_on(task).unwrap(), CLIENTS * 12);
    });
}
