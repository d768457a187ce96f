//! Echo on epoll by hand: level-triggered, one shared read buffer, no runtime.
//!
//! A connection reads while it can write. What a send did not take is kept, and the connection
//! then waits for room only, so that a peer that does not read is not read from either.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

const EVENTS: usize = 1024;
/// Full reads of one connection in a row before the others get their turn.
const READS: usize = 16;
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: OwnedFd,
    /// Read and not yet sent.
    unsent: Vec<u8>,
}

enum Progress {
    Waiting,
    Blocked,
    Ended,
}

/// Echoes until an error of the listener or of epoll.
pub fn serve(listener: TcpListener, buffer: usize) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: a plain call; the number it returns is ours alone.
    let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
    control(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
    let mut buffer = vec![0; buffer];
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: the kernel writes at most EVENTS entries into a vector of that length.
        let count =
            unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, -1) };
        for event in &events[..check(count)? as usize] {
            let index = event.u64 as usize;
            if event.u64 == LISTENER {
                accept_all(&listener, &epoll, &mut connections, &mut free)?;
                continue;
            }
            let connection = connections[index].as_mut().expect("closed ones leave epoll");
            let was_blocked = !connection.unsent.is_empty();
            let fd = connection.socket.as_raw_fd();
            let interest = match echo(connection, &mut buffer) {
                Progress::Waiting if was_blocked => libc::EPOLLIN,
                Progress::Blocked if !was_blocked => libc::EPOLLOUT,
                Progress::Ended => {
                    connections[index] = None;
                    free.push(index);
                    continue;
                }
                _ => continue,
            };
            control(&epoll, libc::EPOLL_CTL_MOD, fd, interest, index as u64)?;
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no address is asked for, so nothing is written.
        let fd =
            unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
        let fd = match check(fd) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
            Err(error) => return Err(error),
        };
        let index = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        control(epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, index as u64)?;
        // SAFETY: accept4 has just returned this number to us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        connections[index] = Some(Connection { socket, unsent: Vec::new() });
    }
}

fn echo(connection: &mut Connection, buffer: &mut [u8]) -> Progress {
    let fd = connection.socket.as_raw_fd();
    if !connection.unsent.is_empty() {
        match send(fd, &connection.unsent) {
            Ok(sent) => drop(connection.unsent.drain(..sent)),
            Err(_) => return Progress::Ended,
        }
        if !connection.unsent.is_empty() {
            return Progress::Blocked;
        }
        connection.unsent = Vec::new();
    }
    for _ in 0..READS {
        // SAFETY: the kernel writes at most the buffer's length.
        let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let read = match check(read as i32) {
            Ok(0) => return Progress::Ended,
            Ok(read) => read as usize,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Waiting,
            Err(_) => return Progress::Ended,
        };
        match send(fd, &buffer[..read]) {
            Ok(sent) if sent == read => {}
            Ok(sent) => {
                connection.unsent.extend_from_slice(&buffer[sent..read]);
                return Progress::Blocked;
            }
            Err(_) => return Progress::Ended,
        }
        // A short read emptied the socket: asking again would cost a call to hear "no".
        if read < buffer.len() {
            return Progress::Waiting;
        }
    }
    Progress::Waiting
}

/// How much of `bytes` the kernel took; 0 when it has no room.
fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads within the slice.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    match check(sent as i32) {
        Ok(sent) => Ok(sent as usize),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}

fn control(epoll: &OwnedFd, what: i32, fd: RawFd, interest: i32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interest as u32, u64: data };
    // SAFETY: the kernel only reads the event.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), what, fd, &mut event) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
