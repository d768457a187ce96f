//! The engine against real sockets, pipes, files and threads.

mod sockets;
mod waits;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::io::mailbox::Message;
use crate::io::request::call::set_option;
use crate::io::request::{
    Accept, Connect, Interest, Nop, Poll, ReadAt, ReceiveMany, SendBytes, SocketAddress,
    Synchronize, Whence, WriteAt,
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
        let mailbox = Mailbox::open().unwrap();
        let ring = Readiness::new(&mailbox, &pool(), 256).unwrap();
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

    /// One turn that sleeps until something happens; that nothing does is a failure, not a hang.
    fn sleep(&mut self) -> Vec<(u64, i32, bool)> {
        let limit = system::now() + 10_000_000_000;
        let found = self.wait(Waiting::Until(Some(limit)));
        assert!(system::now() < limit, "slept for ever");
        found
    }

    /// Sleeps until something completes.
    fn next(&mut self) -> Vec<(u64, i32, bool)> {
        loop {
            let found = self.sleep();
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
                assert_eq!(self.sleep(), []);
            }
            self.mailbox.doorbell().awake();
            match message {
                Some(Message::Complete { token, result, .. }) => {
                    return self.ring.complete_from_pool(Token(token), result);
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }

    /// Nothing comes for a while.
    fn next_is_idle(&mut self) -> bool {
        let soon = system::now() + 1_000_000;
        self.wait(Waiting::Until(Some(soon))).is_empty() && system::now() >= soon
    }

    fn calls(&self) -> u64 {
        self.ring.counters().direct_calls
    }
}

fn pool() -> Arc<Pool> {
    Pool::new(system::Threads::default(), 4, Duration::from_secs(1))
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
