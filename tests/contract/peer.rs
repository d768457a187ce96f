//! Peers that are not quoit, so that they neither help the code under test nor stand in its books.
//!
//! ```text
//!   ring         a peer is                                   what it does aside
//!   real         a blocking socket of the standard library   is done by a thread
//!   simulated    a socket of the simulated kernel, asked     is done by a task, which is as good
//!                directly and again until it has something   where there is but one thread
//! ```
//!
//! So one body runs on all rings. A call that waits is a future: on a real ring it blocks its
//! thread, the core's too, which is as rough a neighbour as there can be.

use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use quoit::__private::{Outsider, is_simulated};
use quoit::net::{TcpListener, TcpStream};
use quoit::time::{self, Instant};

use crate::common::*;

/// How often a peer of the simulation looks.
const AGAIN: Duration = Duration::from_micros(50);
/// How long the last part of a handshake may take in the simulation: who connects one after the
/// other arrives in that order, as on a real loopback.
const HANDSHAKE: Duration = Duration::from_micros(250);

/// What a peer of the simulation may have on the way, in bytes.
const ROOM: i32 = 256 * 1024;

#[derive(Debug)]
enum Socket {
    Blocking(std::net::TcpStream),
    Simulated(Outsider),
}

/// One end of a connection, whose other end is quoit's.
#[derive(Debug)]
pub(crate) struct Peer(Socket);

/// Looks again, as long as there is nothing; gives up rather than hang.
async fn again<T>(mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match what() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

impl Peer {
    /// A blocking connection that gives up rather than hang.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        if !is_simulated() {
            let peer = std::net::TcpStream::connect(address)?;
            peer.set_read_timeout(Some(PATIENCE))?;
            peer.set_write_timeout(Some(PATIENCE))?;
            return Ok(Self(Socket::Blocking(peer)));
        }
        let peer = Outsider::connect(address)?;
        while !peer.is_connected()? {
            time::sleep(AGAIN).await;
        }
        time::sleep(HANDSHAKE).await;
        // What a test writes without a reader fits, as it does into a kernel's default.
        peer.set_send_buffer_size(ROOM)?;
        Ok(Self(Socket::Simulated(peer)))
    }

    /// The socket itself, which only a real one has.
    pub(crate) fn into_std(self) -> std::net::TcpStream {
        match self.0 {
            Socket::Blocking(peer) => peer,
            Socket::Simulated(peer) => panic!("{peer:?} is simulated"),
        }
    }

    /// Reads what there is, or waits for some; nothing is the end.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Blocking(peer) => loop {
                match peer.read(into) {
                    // A ring that was closed on this thread is torn down by work that interrupts.
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    done => return done,
                }
            },
            Socket::Simulated(peer) => again(|| peer.read(into)).await,
        }
    }

    pub(crate) async fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.read(into).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => into = &mut into[count..],
            }
        }
        Ok(())
    }

    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Socket::Blocking(peer) => peer.write_all(bytes),
            Socket::Simulated(peer) => {
                while !bytes.is_empty() {
                    let count = again(|| peer.write(bytes)).await?;
                    bytes = &bytes[count..];
                }
                Ok(())
            }
        }
    }

    /// Without waiting.
    pub(crate) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Blocking(peer) => at_once(peer, |peer| peer.read(into)),
            Socket::Simulated(peer) => peer.read(into),
        }
    }

    /// Without waiting.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Blocking(peer) => at_once(peer, |peer| peer.write(bytes)),
            Socket::Simulated(peer) => peer.write(bytes),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Socket::Blocking(peer) => peer.shutdown(how),
            Socket::Simulated(peer) => peer.shutdown(how),
        }
    }

    /// Closes with a reset, whatever was read.
    pub(crate) fn reset(self) {
        match self.0 {
            Socket::Blocking(peer) => {
                let socket = socket2::SockRef::from(&peer);
                socket.set_linger(Some(Duration::ZERO)).expect("it is open");
            }
            Socket::Simulated(peer) => peer.reset(),
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        let address = match &self.0 {
            Socket::Blocking(peer) => peer.local_addr(),
            Socket::Simulated(peer) => peer.local_addr(),
        };
        address.expect("a connected socket has an address")
    }

    /// A small receive buffer. In the simulation the sender's is both.
    fn narrow(&self) {
        if let Socket::Blocking(peer) = &self.0 {
            let small = socket2::SockRef::from(peer);
            small.set_recv_buffer_size(64 * 1024).expect("a valid size");
        }
    }

    /// How long a blocking peer waits for the next byte.
    pub(crate) fn set_patience(&self, patience: Duration) {
        if let Socket::Blocking(peer) = &self.0 {
            peer.set_read_timeout(Some(patience)).expect("a valid time");
        }
    }
}

/// A listener that is not quoit's.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Blocking(socket2::Socket),
    Simulated(Outsider),
}

impl Acceptor {
    /// On a free port, with so long a queue, and its address.
    pub(crate) fn new(queue: i32) -> (Self, SocketAddr) {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        if is_simulated() {
            let listener = Outsider::listen(any, queue).expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            return (Self::Simulated(listener), address);
        }
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let listener = socket2::Socket::new(domain, kind, None).expect("a socket");
        listener.bind(&any.into()).expect("a free port");
        listener.listen(queue).expect("it is bound");
        let address = listener.local_addr().expect("it is bound");
        (Self::Blocking(listener), address.as_socket().expect("it has a port"))
    }

    pub(crate) async fn accept(&self) -> Peer {
        match self {
            Self::Blocking(listener) => {
                let (peer, _) = listener.accept().expect("a connection");
                Peer(Socket::Blocking(peer.into()))
            }
            Self::Simulated(listener) => {
                let peer = again(|| listener.accept()).await.expect("a connection");
                Peer(Socket::Simulated(peer))
            }
        }
    }
}

fn at_once<T>(
    peer: &mut std::net::TcpStream,
    call: impl FnOnce(&mut std::net::TcpStream) -> io::Result<T>,
) -> io::Result<T> {
    peer.set_nonblocking(true)?;
    let done = call(peer);
    peer.set_nonblocking(false)?;
    done
}

/// A connection to somebody who listens.
pub(crate) async fn connect(address: SocketAddr) -> Peer {
    Peer::connect(address).await.expect("somebody listens")
}

/// The same, so many times.
pub(crate) async fn connect_many(address: SocketAddr, count: usize) -> Vec<Peer> {
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(connect(address).await);
    }
    peers
}

/// Waits until nobody listens there any more.
pub(crate) async fn until_refused(address: SocketAddr) {
    for _ in 0..10_000 {
        if let Err(error) = Peer::connect(address).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            return;
        }
        time::sleep(Duration::from_micros(200)).await;
    }
    panic!("somebody still listens at {address}");
}

/// A connection, although the simulation runs out of descriptors now and then. That is told once,
/// and the connection stays queued.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match within("accept", listener.accept()).await {
            Err(error) if is_shortage(&error) => {}
            accepted => return accepted.expect("a connection"),
        }
    }
}

/// Whether that is one of the simulation's shortages.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    is_simulated() && error.to_string().contains("ulimit -n")
}

/// A connection of ours, and its peer.
pub(crate) async fn pair() -> (TcpStream, Peer) {
    let (listener, address) = listen().await;
    let peer = connect(address).await;
    let (stream, from) = accept(&listener).await;
    assert_eq!(from, peer.local_addr());
    if is_simulated() {
        // A few bytes fit, as everywhere.
        stream.set_send_buffer_size(4 * 1024).expect("a valid size");
    }
    (stream, peer)
}

/// Small kernel buffers on both ends, so that little data fills a connection.
pub(crate) async fn narrow_pair() -> (TcpStream, Peer) {
    let (stream, peer) = pair().await;
    stream.set_send_buffer_size(64 * 1024).expect("a valid size");
    peer.narrow();
    (stream, peer)
}

/// So many bytes, by leases, in as many parts as they come in.
pub(crate) async fn received(stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let lease = within("recv", stream.recv()).await.expect("there is more to come");
        assert!(!lease.is_empty(), "the end after {} bytes of {count}", bytes.len());
        bytes.extend_from_slice(&lease);
    }
    bytes
}

/// Reads to the end; the bytes, and the error that came instead of the end.
pub(crate) async fn read_to_end(peer: &mut Peer) -> (Vec<u8>, Option<io::Error>) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match peer.read(&mut chunk).await {
            Ok(0) => return (bytes, None),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

/// Work that goes on aside.
#[derive(Debug)]
pub(crate) enum Aside<T> {
    Thread(thread::JoinHandle<T>),
    Task(quoit::task::JoinHandle<T>),
}

/// Does something besides: in a thread of its own, or in a task of the simulation.
pub(crate) fn aside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Aside<T> {
    if is_simulated() {
        Aside::Task(quoit::spawn(work))
    } else {
        Aside::Thread(thread::spawn(|| futures::executor::block_on(work)))
    }
}

impl<T> Aside<T> {
    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Task(task) => task.is_finished(),
        }
    }

    /// What a thread has come to, where no core is.
    pub(crate) fn wait(self) -> T {
        match self {
            Self::Thread(thread) => thread.join().expect("no panic"),
            Self::Task(_) => unreachable!("a simulation has no thread to wait on"),
        }
    }

    /// What came of it. The core goes on meanwhile.
    pub(crate) async fn join(self) -> T {
        match self {
            Self::Thread(thread) => {
                until("a thread", || thread.is_finished()).await;
                thread.join().expect("no panic")
            }
            Self::Task(task) => task.await.expect("no panic"),
        }
    }
}

/// Waits, where work is done aside.
pub(crate) async fn pause(duration: Duration) {
    if is_simulated() {
        time::sleep(duration).await;
    } else {
        thread::sleep(duration);
    }
}

/// Writes aside, at whatever pace the reader takes it, then ends the stream.
pub(crate) fn write_aside(mut peer: Peer, seed: u64, length: usize) -> Aside<Peer> {
    aside(async move {
        let mut random = Random(seed ^ 0xabcd);
        let mut place = 0;
        while place < length {
            let size = (1 + random.below(20_000)).min(length - place);
            peer.write_all(&bytes_of(seed, place, size)).await.expect("the reader takes all");
            place += size;
        }
        peer.shutdown(Shutdown::Write).expect("still connected");
        peer
    })
}
