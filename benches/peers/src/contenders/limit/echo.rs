//! The limit: an echo server written by hand on the `io-uring` crate, with no runtime at all.
//!
//! ```text
//!  accept (multishot) ──> connection ──> receive (multishot, kernel picks a provided buffer)
//!                                            │ chunk = (buffer, offset, length)
//!             buffer ring <── give back ── send: inline send(2), else a SEND submission
//! ```
//!
//! A connection sends one chunk at a time, so its bytes leave in the order they came. A receive
//! that finds the buffer ring empty ends with ENOBUFS; its connection waits in `starved` until a
//! send gives a buffer back. There is always such a send: every lent buffer stands in the queue of
//! a connection that is sending.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, ptr};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Few buffers stay in the cache, and large ones take in one receive what a busy peer has sent.
const BUFFERS: u16 = 32;
const BUFFER_SIZE: usize = 64 * 1024 + 256;
const GROUP: u16 = 0;
const ENTRIES: u32 = 4096;

/// What separates the variants of the limit.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Try `send(2)` first and submit only what it did not take.
    pub inline_send: bool,
    /// Wait in the kernel; without it the server watches the queues and never sleeps.
    pub sleep: bool,
}

/// Received bytes that still have to be sent: a part of one provided buffer.
struct Chunk {
    buffer: u16,
    offset: u32,
    length: u32,
}

#[derive(Default)]
struct Connection {
    fd: RawFd,
    /// Oldest first; the first one is being sent whenever `sending` holds.
    queue: VecDeque<Chunk>,
    receiving: bool,
    sending: bool,
    /// The peer's end, or an error: nothing more is received.
    ended: bool,
}

#[derive(Clone, Copy)]
#[repr(u64)]
enum Kind {
    Accept,
    Receive,
    Send,
}

struct Server {
    variant: Variant,
    listener: TcpListener,
    /// Declared before `buffers`: the ring must be gone before its memory is.
    ring: IoUring,
    buffers: Buffers,
    connections: Vec<Connection>,
    free: Vec<u32>,
    starved: VecDeque<u32>,
}

/// Echoes until an error of the listener or of the ring.
pub fn serve(listener: TcpListener, variant: Variant) -> io::Result<()> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(4 * ENTRIES)
        .build(ENTRIES)?;
    let buffers = Buffers::new(&ring)?;
    let mut server = Server {
        variant,
        listener,
        ring,
        buffers,
        connections: Vec::new(),
        free: Vec::new(),
        starved: VecDeque::new(),
    };
    server.accept()?;
    server.run()
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let mut completions: Vec<(u64, i32, u32)> = Vec::with_capacity(4 * ENTRIES as usize);
        loop {
            self.turn()?;
            let queue = self.ring.completion();
            completions.extend(queue.map(|c| (c.user_data(), c.result(), c.flags())));
            for (user_data, result, flags) in completions.drain(..) {
                let index = user_data as u32;
                match user_data >> 32 {
                    kind if kind == Kind::Accept as u64 => self.accepted(result, flags)?,
                    kind if kind == Kind::Receive as u64 => self.received(index, result, flags)?,
                    _ => self.sent(index, result)?,
                }
            }
            self.buffers.publish();
            for _ in 0..self.starved.len().min(self.buffers.available()) {
                let index = self.starved.pop_front().expect("counted above");
                self.receive(index)?;
            }
        }
    }

    /// Submits, and waits for a completion unless the variant never sleeps.
    fn turn(&mut self) -> io::Result<()> {
        if self.variant.sleep {
            self.ring.submit_and_wait(1)?;
            return Ok(());
        }
        while self.ring.completion().is_empty() {
            let submissions = self.ring.submission();
            // Deferred work shows only as a flag and is run by the enter.
            let enter = submissions.taskrun() || !submissions.is_empty();
            drop(submissions);
            if enter {
                self.ring.submit_and_wait(0)?;
            } else {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry, kind: Kind, index: u32) -> io::Result<()> {
        let entry = entry.user_data((kind as u64) << 32 | u64::from(index));
        // SAFETY: what the entry points to (a provided buffer, a socket) stays until its terminal
        // completion: a buffer is given back, and a socket closed, only after it.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry, Kind::Accept, 0)
    }

    fn accepted(&mut self, result: i32, flags: u32) -> io::Result<()> {
        match result {
            fd if fd >= 0 => {
                let connection = Connection { fd, ..Connection::default() };
                let index = match self.free.pop() {
                    Some(index) => {
                        self.connections[index as usize] = connection;
                        index
                    }
                    None => {
                        self.connections.push(connection);
                        self.connections.len() as u32 - 1
                    }
                };
                self.receive(index)?;
            }
            error if error == -libc::ECONNABORTED => {}
            error => return Err(io::Error::from_raw_os_error(-error)),
        }
        if cqueue::more(flags) { Ok(()) } else { self.accept() }
    }

    fn receive(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.receiving = true;
        let entry = opcode::RecvMulti::new(Fd(connection.fd), GROUP).build();
        self.push(entry, Kind::Receive, index)
    }

    fn received(&mut self, index: u32, result: i32, flags: u32) -> io::Result<()> {
        let more = cqueue::more(flags);
        self.connections[index as usize].receiving = more;
        if result > 0 {
            let buffer = cqueue::buffer_select(flags).expect("data comes in a provided buffer");
            self.buffers.lent += 1;
            self.forward(index, Chunk { buffer, offset: 0, length: result as u32 })?;
            if !more {
                self.receive(index)?;
            }
        } else if result == -libc::ENOBUFS {
            self.starved.push_back(index);
        } else {
            self.connections[index as usize].ended = true;
            self.close_if_done(index);
        }
        Ok(())
    }

    fn forward(&mut self, index: u32, mut chunk: Chunk) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if self.variant.inline_send && !connection.sending {
            let (pointer, length) = self.buffers.bytes(&chunk);
            // SAFETY: the chunk's buffer is ours until it is given back.
            let sent = unsafe {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                libc::send(connection.fd, pointer.cast(), length as usize, flags)
            };
            if sent == length as isize {
                self.buffers.give_back(chunk.buffer);
                return Ok(());
            }
            // An error, "would block" included, is left to the submission to wait for or to tell.
            let sent = sent.max(0) as u32;
            chunk.offset += sent;
            chunk.length -= sent;
        }
        connection.queue.push_back(chunk);
        if connection.sending { Ok(()) } else { self.send(index) }
    }

    fn send(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = true;
        let chunk = connection.queue.front().expect("only called with something to send");
        let (pointer, length) = self.buffers.bytes(chunk);
        // WAITALL: the kernel itself waits for room and goes on after a short send.
        let entry = opcode::Send::new(Fd(connection.fd), pointer, length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(entry, Kind::Send, index)
    }

    fn sent(&mut self, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        if result < 0 {
            for chunk in connection.queue.drain(..) {
                self.buffers.give_back(chunk.buffer);
            }
            // SAFETY: a plain call on a socket we own. It makes the receive end, if it has not.
            unsafe { libc::shutdown(connection.fd, libc::SHUT_RDWR) };
        } else {
            let chunk = connection.queue.front_mut().expect("the chunk that was being sent");
            chunk.offset += result as u32;
            chunk.length -= result as u32;
            if chunk.length == 0 {
                self.buffers.give_back(chunk.buffer);
                connection.queue.pop_front();
            }
        }
        if !self.connections[index as usize].queue.is_empty() {
            return self.send(index);
        }
        self.close_if_done(index);
        Ok(())
    }

    /// A slot is free only when the kernel holds nothing of it, so no completion can name another.
    fn close_if_done(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.ended && !connection.receiving && !connection.sending {
            // SAFETY: ours, open, and named by no request any more.
            unsafe { libc::close(connection.fd) };
            self.free.push(index);
        }
    }
}

/// The provided buffers and the ring through which the kernel is given them.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    /// Written here, shown to the kernel by `publish`: one store for a batch.
    tail: u16,
    /// Chosen by the kernel and not given back.
    lent: u16,
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = map(usize::from(BUFFERS) * BUFFER_SIZE)?;
        // SAFETY: the mapping is as large as the entries and is never unmapped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)?;
        }
        let mut buffers = Self { entries: entries.cast(), memory, tail: 0, lent: BUFFERS };
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn available(&self) -> usize {
        usize::from(BUFFERS - self.lent)
    }

    fn bytes(&self, chunk: &Chunk) -> (*const u8, u32) {
        let start = usize::from(chunk.buffer) * BUFFER_SIZE + chunk.offset as usize;
        // SAFETY: within the mapping: the kernel named the buffer and never fills past its size.
        (unsafe { self.memory.add(start) }, chunk.length)
    }

    fn give_back(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the slot is inside the ring, and the kernel does not read it before `publish`.
        unsafe {
            let entry = &mut *self.entries.add(slot);
            entry.set_addr(self.memory.add(usize::from(buffer) * BUFFER_SIZE) as u64);
            entry.set_len(BUFFER_SIZE as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        self.lent -= 1;
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the ring's first entry, aligned, and the kernel only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Zeroed memory at a page's start, for the life of the process.
fn map(length: usize) -> io::Result<*mut u8> {
    // SAFETY: a private anonymous mapping at an address of the kernel's choice touches nothing.
    let address = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0)
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.cast())
}
