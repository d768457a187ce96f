//! Direct calls: what never blocks and is answered at once.
//!
//! They stand beside the requests because they too are things asked of a kernel: nobody above this
//! folder makes a system call of their own. A simulated descriptor's go to its world.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::slice;

use super::answer;
use super::net::SocketAddress;
use crate::io::descriptor::Descriptor;
use crate::io::ring::simulated::world;
use crate::io::trace::{self, SpanKind};

fn check(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

/// A call that the timeline shows, if somebody records one.
#[inline]
fn recorded(kind: SpanKind, call: impl FnOnce() -> i32) -> i32 {
    let began = trace::begin();
    let answer = call();
    trace::end(began, kind, || i64::from(answer));
    answer
}

/// The answer of a simulated call.
fn told(answer: i32) -> io::Result<()> {
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(()) }
}

/// Copies what a simulated call has received.
fn received(into: &mut [MaybeUninit<u8>], received: Result<Vec<u8>, i32>) -> i32 {
    match received {
        Ok(bytes) => {
            for (into, byte) in into.iter_mut().zip(&bytes) {
                into.write(*byte);
            }
            bytes.len() as i32
        }
        Err(error) => error,
    }
}

/// A non-blocking, close-on-exec TCP socket of the address's family.
pub(crate) fn tcp_socket(v4: bool) -> io::Result<Descriptor> {
    if let Some(world) = world::current() {
        let number = world.tcp_socket(v4);
        told(number)?;
        // SAFETY: the number is new and ours.
        return Ok(unsafe { Descriptor::from_raw(number) });
    }
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the number is new and ours.
    unsafe {
        let number = check(libc::socket(family, kind, 0) as isize)?;
        Ok(Descriptor::from_raw(number as RawFd))
    }
}

pub(crate) fn bind(descriptor: RawFd, address: &SocketAddr) -> io::Result<()> {
    if let Some(world) = world::of(descriptor) {
        return told(world.bind(descriptor, *address));
    }
    let address = SocketAddress::new(address);
    // SAFETY: a valid address of the stated length.
    check(unsafe { libc::bind(descriptor, address.as_ptr(), address.len()) } as isize)?;
    Ok(())
}

pub(crate) fn listen(descriptor: RawFd, backlog: i32) -> io::Result<()> {
    if let Some(world) = world::of(descriptor) {
        return told(world.listen(descriptor, backlog));
    }
    // SAFETY: no pointers.
    check(unsafe { libc::listen(descriptor, backlog) } as isize)?;
    Ok(())
}

pub(crate) fn local_address(descriptor: RawFd) -> io::Result<SocketAddr> {
    if let Some(world) = world::of(descriptor) {
        let address = world.local_address(descriptor);
        return address.map_err(|error| io::Error::from_raw_os_error(-error));
    }
    // SAFETY: getsockname fills at most the stated length.
    address(|pointer, length| unsafe { libc::getsockname(descriptor, pointer, length) })
}

pub(crate) fn peer_address(descriptor: RawFd) -> io::Result<SocketAddr> {
    if let Some(world) = world::of(descriptor) {
        let address = world.peer_address(descriptor);
        return address.map_err(|error| io::Error::from_raw_os_error(-error));
    }
    // SAFETY: getpeername fills at most the stated length.
    address(|pointer, length| unsafe { libc::getpeername(descriptor, pointer, length) })
}

fn address(
    ask: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> i32,
) -> io::Result<SocketAddr> {
    let mut address = SocketAddress::empty();
    let mut length = size_of::<SocketAddress>() as libc::socklen_t;
    check(ask(address.as_mut_ptr(), &raw mut length) as isize)?;
    address.to_std().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the socket's address is not an IP address")
    })
}

/// Plain values that a socket option may have.
pub(crate) trait OptionValue: Copy {}
impl OptionValue for i32 {}
impl OptionValue for u32 {}
impl OptionValue for libc::linger {}

pub(crate) fn set_option<T: OptionValue>(
    descriptor: RawFd,
    level: i32,
    name: i32,
    value: T,
) -> io::Result<()> {
    if let Some(world) = world::of(descriptor) {
        // SAFETY: every `OptionValue` is plain integers without a gap.
        let bytes =
            unsafe { slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        return told(world.set_option(descriptor, level, name, bytes));
    }
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is plain data of the stated length.
    let result =
        unsafe { libc::setsockopt(descriptor, level, name, (&raw const value).cast(), length) };
    check(result as isize)?;
    Ok(())
}

pub(crate) fn option<T: OptionValue>(descriptor: RawFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    if let Some(world) = world::of(descriptor) {
        // SAFETY: zeroed, so initialised; and every `OptionValue` is valid with any bytes.
        return unsafe {
            let into = slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>());
            told(world.option(descriptor, level, name, into))?;
            Ok(value.assume_init())
        };
    }
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: room for the stated length; every `OptionValue` is valid when zeroed or filled.
    unsafe {
        let result =
            libc::getsockopt(descriptor, level, name, value.as_mut_ptr().cast(), &raw mut length);
        check(result as isize)?;
        Ok(value.assume_init())
    }
}

/// Ends a direction of a connection.
pub(crate) fn shutdown(descriptor: RawFd, how: std::net::Shutdown) -> io::Result<()> {
    if let Some(world) = world::of(descriptor) {
        return told(world.shut_down(descriptor, how));
    }
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(descriptor, how) } as isize)?;
    Ok(())
}

/// Resets a connection without closing its number (connect(2): `AF_UNSPEC` dissolves it).
pub(crate) fn disconnect(descriptor: RawFd) -> io::Result<()> {
    if let Some(world) = world::of(descriptor) {
        return told(world.disconnect(descriptor));
    }
    // SAFETY: zeroes are a valid address, of the family `AF_UNSPEC`.
    check(unsafe {
        let nowhere: libc::sockaddr = std::mem::zeroed();
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        libc::connect(descriptor, &raw const nowhere, length)
    } as isize)?;
    Ok(())
}

/// Makes the coming close a reset.
pub(crate) fn reset_on_close(descriptor: RawFd) -> io::Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(descriptor, libc::SOL_SOCKET, libc::SO_LINGER, now)
}

/// Bytes that wait in the socket, unread.
pub(crate) fn unread(descriptor: RawFd) -> usize {
    if let Some(world) = world::of(descriptor) {
        return world.unread(descriptor);
    }
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD fills one int.
    let result = unsafe { libc::ioctl(descriptor, libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { usize::try_from(count).unwrap_or(0) }
}

/// A duplicate of a descriptor, to be polled. `EPERM` with a reason for one whose readiness says
/// nothing: io_uring would call it ready at all times, so it is epoll that is asked on every ring.
pub(crate) fn watchable(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let number = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize)? as RawFd;
    // SAFETY: the kernel has just made it for us.
    let probe = unsafe { OwnedFd::from_raw_fd(number) };
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let (add, number) = (libc::EPOLL_CTL_ADD, descriptor.as_raw_fd());
    // SAFETY: one valid event, which the call only reads.
    let added = unsafe { libc::epoll_ctl(probe.as_raw_fd(), add, number, &raw mut event) };
    if let Err(error) = check(added as isize) {
        return Err(if error.raw_os_error() == Some(libc::EPERM) {
            io::Error::new(
                error.kind(),
                "a regular file or a directory is always ready, so it cannot be waited for \
                 (epoll_ctl(2), EPERM); use quoit::fs for files",
            )
        } else {
            error
        });
    }
    descriptor.try_clone_to_owned()
}

/// Receives what is there into a slice, or answers `-EAGAIN`.
pub(crate) fn receive(descriptor: RawFd, into: &mut [MaybeUninit<u8>], peek: bool) -> i32 {
    if let Some(world) = world::of(descriptor) {
        let room = into.len();
        return received(into, world.receive(descriptor, room, peek));
    }
    let flags = libc::MSG_DONTWAIT | if peek { libc::MSG_PEEK } else { 0 };
    recorded(SpanKind::Receive, || {
        // SAFETY: the slice is writable for its length.
        answer(unsafe { libc::recv(descriptor, into.as_mut_ptr().cast(), into.len(), flags) })
    })
}

/// Sends what the socket takes at once, or answers `-EAGAIN`.
pub(crate) fn send(descriptor: RawFd, bytes: &[u8]) -> i32 {
    if let Some(world) = world::of(descriptor) {
        return world.send(descriptor, bytes);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    recorded(SpanKind::Send, || {
        // SAFETY: the slice is readable for its length.
        answer(unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), flags) })
    })
}

/// The most parts of one vectored write (`IOV_MAX`).
const PARTS_MAX: usize = 1024;

/// Parts that are no longer than this together are sent as one slice: the copy costs less than what
/// the kernel does to read a list of parts.
const GATHERED_MAX: usize = 512;

/// Sends several slices as one, as far as the socket takes them at once.
pub(crate) fn send_vectored(descriptor: RawFd, parts: &[IoSlice<'_>]) -> i32 {
    let parts = &parts[..parts.len().min(PARTS_MAX)];
    if let Some(world) = world::of(descriptor) {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        return world.send(descriptor, &bytes);
    }
    let add = |sum: usize, part: &IoSlice<'_>| {
        Some(sum.saturating_add(part.len())).filter(|sum| *sum <= GATHERED_MAX)
    };
    if let Some(length) = parts.iter().try_fold(0, add) {
        let mut gathered = [const { MaybeUninit::<u8>::uninit() }; GATHERED_MAX];
        let mut room = &mut gathered[..length];
        for part in parts {
            // SAFETY: bytes that are there may be taken for bytes that may not be.
            let part = unsafe { slice::from_raw_parts(part.as_ptr().cast(), part.len()) };
            let (place, rest) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
            room = rest;
        }
        // SAFETY: the parts are so many bytes together, all of which were written.
        return send(descriptor, unsafe {
            slice::from_raw_parts(gathered.as_ptr().cast(), length)
        });
    }
    recorded(SpanKind::Send, || {
        // SAFETY: zeroes are a valid msghdr; IoSlice is ABI-compatible with iovec, and sendmsg only
        // reads.
        answer(unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = parts.as_ptr().cast_mut().cast();
            message.msg_iovlen = parts.len();
            libc::sendmsg(descriptor, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        })
    })
}
