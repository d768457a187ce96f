//! Everything the runtime can ask of a kernel, as plain data.
//!
//! Each operation stands in one place with its two forms side by side, and that pair *is* the
//! difference between the two models:
//!
//! ```text
//!             completion (io_uring)                 readiness (epoll)
//!             encode: "do it and tell me"           attempt: "I do it, when I may"
//!
//!   request ──encode──► submission entry            request ──attempt──► done ──► Completion
//!                        │ the kernel waits,                   │
//!                        │ does it, and posts                  └► would block: wait for readiness,
//!                        ▼                                        then attempt again
//!                       Completion
//! ```
//!
//! A request holds numbers and pointers, never owners. Who lends the memory and the descriptor
//! keeps them until the *terminal* completion: the first one without `MORE`. That rule pays for the
//! `unsafe` in every `encode` and `attempt`, and `Ring::submit` states it as its contract.

mod basic;
pub(crate) mod call;
mod file;
mod net;
mod stat;

use io_uring::squeue;

use crate::io::trace::{self, SpanKind};

pub(crate) use self::basic::{HANG_UP, Nop, Poll};
pub(crate) use self::file::{
    Allocate, Close, LENGTH_MAX, Open, ReadAt, SetLength, Synchronize, Whence, WriteAt,
    has_positions, status_flags,
};
pub(crate) use self::net::{Accept, Connect, ReceiveMany, SendBytes, SocketAddress};
pub(crate) use self::stat::{Metadata, Stat, StatBuffer, direct_alignment};

/// Names who waits for a request. The ring carries it and never looks inside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Token(pub(crate) u64);

/// One answer. It means the same on every ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// What the system call would return, or the negated error number.
    pub(crate) result: i32,
    pub(crate) flags: Flags,
}

impl Completion {
    pub(crate) fn done(token: Token, result: i32) -> Self {
        Self { token, result, flags: Flags::NONE }
    }

    /// Whether this is the last completion of its request: only then is what was lent free again.
    #[inline]
    pub(crate) fn is_terminal(self) -> bool {
        !self.flags.more()
    }
}

/// The flags of a completion, laid out as the kernel lays out those of a completion entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    const BUFFER: u32 = 1;
    const MORE: u32 = 1 << 1;
    const BUFFER_SHIFT: u32 = 16;

    /// Further completions of the same request will follow.
    #[inline]
    pub(crate) fn more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// The provided buffer that this completion lends us. It is ours to give back even when nobody
    /// waits for the bytes.
    #[inline]
    pub(crate) fn buffer(self) -> Option<u16> {
        (self.0 & Self::BUFFER != 0).then_some((self.0 >> Self::BUFFER_SHIFT) as u16)
    }

    #[must_use]
    pub(crate) fn with_more(self) -> Self {
        Self(self.0 | Self::MORE)
    }

    #[must_use]
    pub(crate) fn with_buffer(self, buffer: u16) -> Self {
        Self(self.0 | Self::BUFFER | u32::from(buffer) << Self::BUFFER_SHIFT)
    }
}

/// Which readiness to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// What one non-blocking try came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// The request is over.
    Done { result: i32 },
    /// A multishot request has one answer and goes on. `drained`: the descriptor had no more to
    /// give just now, so trying again before the next readiness event would be a wasted system
    /// call.
    More { result: i32, buffer: Option<u16>, drained: bool },
    /// Nothing yet: wait for this readiness, then attempt again.
    WouldBlock(Interest),
    /// No non-blocking form exists: perform it on a pool thread.
    Blocking,
}

impl Attempt {
    /// What the system call answered, for the timeline.
    fn answer(self) -> i64 {
        match self {
            Self::Done { result } | Self::More { result, .. } => i64::from(result),
            Self::WouldBlock(_) => -i64::from(libc::EAGAIN),
            Self::Blocking => 0,
        }
    }
}

/// Provided buffers, as far as an attempt needs them.
pub(crate) trait Buffers {
    /// Takes a buffer out: its id, address and length. `None` when all are lent.
    fn take(&mut self) -> Option<(u16, *mut u8, u32)>;
    /// Puts an unused buffer back.
    fn put_back(&mut self, buffer: u16);
}

/// What an encoding may use: probed once when the ring is set up, never guessed from the release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// The group id of the provided buffer ring.
    pub(crate) buffer_group: u16,
    /// Receive with multishot and provided buffers (Linux 6.0).
    pub(crate) multishot_receive: bool,
    /// Accept with multishot (Linux 5.19).
    pub(crate) multishot_accept: bool,
    /// `IORING_OP_FTRUNCATE` (Linux 6.9).
    pub(crate) truncate: bool,
}

/// Everything the runtime can ask of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Nop(Nop),
    Poll(Poll),
    Accept(Accept),
    Connect(Connect),
    ReceiveMany(ReceiveMany),
    SendBytes(SendBytes),
    Open(Open),
    ReadAt(ReadAt),
    WriteAt(WriteAt),
    Synchronize(Synchronize),
    SetLength(SetLength),
    Allocate(Allocate),
    Metadata(Metadata),
    Close(Close),
}

impl Request {
    /// The completion form. `None` when the probed kernel has no such operation: the engine then
    /// performs the request on the pool.
    #[inline]
    pub(crate) fn encode(&self, features: &Features) -> Option<squeue::Entry> {
        match self {
            Self::Nop(request) => Some(request.encode()),
            Self::Poll(request) => Some(request.encode()),
            Self::Accept(request) => Some(request.encode(features)),
            Self::Connect(request) => Some(request.encode()),
            Self::ReceiveMany(request) => Some(request.encode(features)),
            Self::SendBytes(request) => Some(request.encode()),
            Self::Open(request) => Some(request.encode()),
            Self::ReadAt(request) => Some(request.encode()),
            Self::WriteAt(request) => Some(request.encode()),
            Self::Synchronize(request) => Some(request.encode()),
            Self::SetLength(request) => request.encode(features),
            Self::Allocate(request) => Some(request.encode()),
            Self::Metadata(request) => Some(request.encode()),
            Self::Close(request) => Some(request.encode()),
        }
    }

    /// The readiness form: one non-blocking try.
    ///
    /// # Safety
    ///
    /// Every pointer and descriptor number in the request is valid for this call.
    #[inline]
    pub(crate) unsafe fn attempt(&self, buffers: &mut dyn Buffers) -> Attempt {
        let began = trace::begin();
        // SAFETY: handed on to the caller, for every arm.
        let attempt = unsafe {
            match self {
                Self::Nop(request) => request.attempt(),
                Self::Poll(request) => request.attempt(),
                Self::Accept(request) => request.attempt(),
                Self::Connect(request) => request.attempt(),
                Self::ReceiveMany(request) => request.attempt(buffers),
                Self::SendBytes(request) => request.attempt(),
                Self::ReadAt(request) => request.attempt(),
                Self::Open(_)
                | Self::WriteAt(_)
                | Self::Synchronize(_)
                | Self::SetLength(_)
                | Self::Allocate(_)
                | Self::Metadata(_)
                | Self::Close(_) => Attempt::Blocking,
            }
        };
        trace::end(began, self.span_kind(), || attempt.answer());
        attempt
    }

    #[inline]
    fn span_kind(&self) -> SpanKind {
        match self {
            Self::ReceiveMany(_) => SpanKind::Receive,
            Self::SendBytes(_) => SpanKind::Send,
            _ => SpanKind::Call,
        }
    }

    /// The blocking form, for a pool thread: the result as a completion would carry it.
    ///
    /// # Safety
    ///
    /// Every pointer and descriptor number in the request is valid until this returns.
    pub(crate) unsafe fn perform(&self) -> i32 {
        // SAFETY: handed on to the caller, for every arm.
        unsafe {
            match self {
                Self::Open(request) => request.perform(),
                Self::ReadAt(request) => request.perform(),
                Self::WriteAt(request) => request.perform(),
                Self::Synchronize(request) => request.perform(),
                Self::SetLength(request) => request.perform(),
                Self::Allocate(request) => request.perform(),
                Self::Metadata(request) => request.perform(),
                Self::Close(request) => request.perform(),
                Self::Nop(_)
                | Self::Poll(_)
                | Self::Accept(_)
                | Self::Connect(_)
                | Self::ReceiveMany(_)
                | Self::SendBytes(_) => panic!("{self:?} never answers `Blocking`"),
            }
        }
    }

    /// The descriptor whose readiness the request waits for, if any.
    #[inline]
    pub(crate) fn descriptor(&self) -> Option<i32> {
        match self {
            Self::Poll(Poll { descriptor, .. })
            | Self::Accept(Accept { descriptor, .. })
            | Self::Connect(Connect { descriptor, .. })
            | Self::ReceiveMany(ReceiveMany { descriptor, .. })
            | Self::SendBytes(SendBytes { descriptor, .. }) => Some(*descriptor),
            _ => None,
        }
    }

    /// Whether a device will most likely work on the request while this core goes on, so that time
    /// is lost as long as it is only queued. It is a guess of who submits.
    #[inline]
    pub(crate) fn is_for_device(&self) -> bool {
        match self {
            Self::ReadAt(read) => read.whence != Whence::Cache,
            Self::WriteAt(write) => write.whence != Whence::Cache,
            _ => false,
        }
    }

    /// Whether a request for a file may wait there: nobody has asked for `O_NONBLOCK`. If it may,
    /// `EAGAIN` is no answer. File systems and devices give it to io_uring all the same, when a
    /// part of a request finds no room (XFS; a direct read of which the block device takes only
    /// some).
    pub(crate) fn may_wait(&self) -> bool {
        let flags = match self {
            Self::Open(request) => request.flags,
            Self::ReadAt(ReadAt { descriptor, .. })
            | Self::WriteAt(WriteAt { descriptor, .. })
            | Self::Synchronize(Synchronize { descriptor, .. })
            | Self::SetLength(SetLength { descriptor, .. })
            | Self::Allocate(Allocate { descriptor, .. }) => status_flags(*descriptor),
            _ => 0,
        };
        flags & libc::O_NONBLOCK == 0
    }

    /// Whether its result, unless it is an error, is a new descriptor.
    pub(crate) fn opens(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Accept(_))
    }

    /// Which readiness the request waits for; the two directions of a descriptor are independent.
    #[inline]
    pub(crate) fn interest(&self) -> Interest {
        match self {
            Self::Poll(poll) => poll.interest,
            Self::Connect(_) | Self::SendBytes(_) => Interest::Writable,
            _ => Interest::Readable,
        }
    }
}

/// The answer of a system call as a completion carries it: the value, or the negated error number.
#[inline]
pub(crate) fn answer(value: isize) -> i32 {
    if value >= 0 {
        i32::try_from(value).unwrap_or(i32::MAX)
    } else {
        -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
    }
}

/// Whether a system call's answer says "not now".
#[inline]
pub(crate) fn would_block(answer: i32) -> bool {
    answer == -libc::EAGAIN
}
