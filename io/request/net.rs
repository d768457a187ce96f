//! What is asked of sockets.
//!
//! Sockets are created non-blocking once, for both models: io_uring waits on a non-blocking socket
//! just as on a blocking one (only `MSG_DONTWAIT` makes it answer `EAGAIN`), so nothing has to be
//! switched when the model changes.

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use io_uring::{opcode, squeue, types};

use super::{Attempt, Buffers, Features, Interest, answer, would_block};

/// Takes connections from a listening socket. Each answer is the descriptor of one connection,
/// non-blocking and close-on-exec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accept {
    pub(crate) descriptor: i32,
}

impl Accept {
    const FLAGS: i32 = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

    /// One submission for the life of the listener, where the kernel can; else one per connection.
    pub(crate) fn encode(self, features: &Features) -> squeue::Entry {
        let descriptor = types::Fd(self.descriptor);
        if features.multishot_accept {
            opcode::AcceptMulti::new(descriptor).flags(Self::FLAGS).build()
        } else {
            let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
            opcode::Accept::new(descriptor, address, length).flags(Self::FLAGS).build()
        }
    }

    /// # Safety
    ///
    /// The descriptor number is one that the caller keeps open.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: null address and length mean that the peer's address is not wanted.
        let result = answer(
            unsafe { libc::accept4(self.descriptor, address, length, Self::FLAGS) } as isize,
        );
        if would_block(result) {
            Attempt::WouldBlock(Interest::Readable)
        } else if result < 0 {
            Attempt::Done { result }
        } else {
            Attempt::More { result, buffer: None, drained: false }
        }
    }
}

/// Connects a socket. The address stays where it is until the terminal completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect {
    pub(crate) descriptor: i32,
    pub(crate) address: *const SocketAddress,
}

impl Connect {
    pub(crate) fn encode(self) -> squeue::Entry {
        // SAFETY: the requester keeps `address` until the terminal completion.
        let address = unsafe { &*self.address };
        opcode::Connect::new(types::Fd(self.descriptor), address.as_ptr(), address.len()).build()
    }

    /// # Safety
    ///
    /// The descriptor is open and `address` valid.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        // SAFETY: the caller keeps `address` valid.
        let address = unsafe { &*self.address };
        // SAFETY: the pointer and length describe one valid socket address. A second call on a
        // socket whose handshake has ended answers EISCONN or the handshake's error, exactly once.
        // An interrupted handshake goes on.
        let result = answer(unsafe {
            libc::connect(self.descriptor, address.as_ptr(), address.len()) as isize
        });
        match -result {
            libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN | libc::EINTR => {
                Attempt::WouldBlock(Interest::Writable)
            }
            libc::EISCONN => Attempt::Done { result: 0 },
            _ => Attempt::Done { result },
        }
    }
}

/// Receives from a stream into provided buffers, again and again, until it is cancelled, the stream
/// ends, an error comes, or no buffer is left (`ENOBUFS`; no byte is lost then).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveMany {
    pub(crate) descriptor: i32,
}

impl ReceiveMany {
    pub(crate) fn encode(self, features: &Features) -> squeue::Entry {
        let descriptor = types::Fd(self.descriptor);
        if features.multishot_receive {
            opcode::RecvMulti::new(descriptor, features.buffer_group).build()
        } else {
            opcode::Recv::new(descriptor, std::ptr::null_mut(), 0)
                .buf_group(features.buffer_group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        }
    }

    /// # Safety
    ///
    /// The descriptor number is one that the caller keeps open.
    pub(crate) unsafe fn attempt(self, buffers: &mut dyn Buffers) -> Attempt {
        let Some((buffer, address, length)) = buffers.take() else {
            return Attempt::Done { result: -libc::ENOBUFS };
        };
        // SAFETY: a buffer that was just taken is `length` writable bytes, and nobody else's.
        let result = answer(unsafe {
            libc::recv(self.descriptor, address.cast(), length as usize, libc::MSG_DONTWAIT)
        });
        if result > 0 {
            // A full buffer means that more may wait; a short one, that the socket was emptied.
            let drained = result.unsigned_abs() < length;
            return Attempt::More { result, buffer: Some(buffer), drained };
        }
        buffers.put_back(buffer);
        if would_block(result) {
            Attempt::WouldBlock(Interest::Readable)
        } else {
            Attempt::Done { result }
        }
    }
}

/// Sends bytes on a stream. The result counts what the kernel has taken, which may be less than was
/// offered: the completion form tries on until all is taken, an error comes or it is cancelled
/// (`MSG_WAITALL`); the readiness form answers after the first bite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendBytes {
    pub(crate) descriptor: i32,
    pub(crate) address: *const u8,
    pub(crate) length: u32,
}

impl SendBytes {
    const FLAGS: i32 = libc::MSG_NOSIGNAL;

    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Send::new(types::Fd(self.descriptor), self.address, self.length)
            .flags(Self::FLAGS | libc::MSG_WAITALL)
            .build()
    }

    /// # Safety
    ///
    /// The descriptor is open and the bytes are readable.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        // SAFETY: the caller keeps the bytes readable.
        let result = answer(unsafe {
            let flags = Self::FLAGS | libc::MSG_DONTWAIT;
            libc::send(self.descriptor, self.address.cast(), self.length as usize, flags)
        });
        if would_block(result) {
            Attempt::WouldBlock(Interest::Writable)
        } else {
            Attempt::Done { result }
        }
    }
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union SocketAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    any: libc::sockaddr_storage,
}

impl SocketAddress {
    pub(crate) fn new(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(address) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                },
            },
        }
    }

    /// Room for the kernel to fill in any address.
    pub(crate) fn empty() -> Self {
        // SAFETY: all zeroes is a valid value of each variant: they are plain integers.
        unsafe { mem::zeroed() }
    }

    fn family(&self) -> i32 {
        // SAFETY: every variant begins with the family, and all are plain integers.
        i32::from(unsafe { self.v4.sin_family })
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        std::ptr::from_ref(self).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        std::ptr::from_mut(self).cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        let bytes = match self.family() {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => size_of::<Self>(),
        };
        bytes as libc::socklen_t
    }

    /// The address in `std`'s form; `None` for a family that is not IP.
    pub(crate) fn to_std(self) -> Option<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the family says which variant was written.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the family says which variant was written.
                let v6 = unsafe { self.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_std().fmt(f)
    }
}
