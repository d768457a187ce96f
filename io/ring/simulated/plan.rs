//! What shall go wrong in a simulation: one fault at one place, chosen by who explores.
//!
//! ```text
//!   request submitted ─┐
//!   direct call ───────┴─ ask(site) ──► the site gets the next number ── planned here? ──► Fault
//! ```
//!
//! Sites are numbered in the order in which the program comes to them. Until the fault, a run is
//! the same as without it; so the sites of a run without a fault say what can be planned for the
//! next one of the same seed.

use std::fmt;
use std::io;

use super::random::Chance;
use crate::io::request::Request;

/// How many times a late request is passed over.
pub(super) const LATE_TURNS: u32 = 60;

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It answers this error number, and has done nothing.
    Fails(i32),
    /// It takes much longer than anything else.
    Late,
    /// One byte, or one answer, and no more.
    Short,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails(error) => write!(f, "fails: {}", io::Error::from_raw_os_error(*error)),
            Self::Late => f.write_str("is late"),
            Self::Short => f.write_str("is cut short"),
        }
    }
}

/// Where a fault can be: a kind of request, or of direct call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Site {
    /// socket(2).
    Socket,
    /// bind(2).
    Bind,
    /// listen(2).
    Listen,
    /// recv(2), tried at once.
    ReceiveNow,
    /// send(2), tried at once.
    SendNow,
    /// preadv2(2) with `RWF_NOWAIT`.
    ReadNow,
    /// A request that does nothing.
    Nop,
    /// A watch for readiness.
    Poll,
    /// A request for connections.
    Accept,
    /// A request for a connection to somewhere.
    Connect,
    /// A request for bytes.
    Receive,
    /// A request to take bytes.
    Send,
    /// A request to open a file.
    Open,
    /// A request to read from a file.
    Read,
    /// A request to write to a file.
    Write,
    /// A request that ends when the bytes are on the disk.
    Synchronize,
    /// A request for another length of a file, or for room on the disk.
    Allocate,
    /// A request for what is known of a file.
    Metadata,
    /// A request to close a file.
    Close,
}

impl Site {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Nop(_) => Self::Nop,
            Request::Poll(_) => Self::Poll,
            Request::Accept(_) => Self::Accept,
            Request::Connect(_) => Self::Connect,
            Request::ReceiveMany(_) => Self::Receive,
            Request::SendBytes(_) => Self::Send,
            Request::Open(_) => Self::Open,
            Request::ReadAt(_) => Self::Read,
            Request::WriteAt(_) => Self::Write,
            Request::Synchronize(_) => Self::Synchronize,
            Request::SetLength(_) | Request::Allocate(_) => Self::Allocate,
            Request::Metadata(_) => Self::Metadata,
            Request::Close(_) => Self::Close,
        }
    }

    /// Whether it is a request, which may take its time. A direct call is answered at once.
    fn is_request(self) -> bool {
        !matches!(
            self,
            Self::Socket
                | Self::Bind
                | Self::Listen
                | Self::ReceiveNow
                | Self::SendNow
                | Self::ReadNow
        )
    }

    /// Whether less than was asked for is a plausible answer. Not to a receive that is tried at
    /// once: a short one has emptied the socket (epoll(7), question 9).
    fn may_be_short(self) -> bool {
        matches!(
            self,
            Self::SendNow
                | Self::ReadNow
                | Self::Accept
                | Self::Receive
                | Self::Send
                | Self::Read
                | Self::Write
        )
    }

    /// What the manual pages name, and io_uring adds (no memory for a request): the program hears
    /// of it.
    fn errors(self) -> &'static [i32] {
        use libc::{
            EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EDQUOT, EHOSTUNREACH, EIO,
            EMFILE, ENETUNREACH, ENFILE, ENOBUFS, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP, EPERM, EPIPE,
            ETIMEDOUT,
        };
        match self {
            Self::Nop => &[],
            Self::Socket => &[EMFILE, ENFILE, ENOMEM, EACCES],
            Self::Bind => &[EADDRINUSE, EADDRNOTAVAIL, EACCES],
            Self::Listen => &[EADDRINUSE],
            Self::ReceiveNow => &[ECONNRESET, ETIMEDOUT, ENOMEM],
            Self::SendNow | Self::Send => &[EPIPE, ECONNRESET, ETIMEDOUT, ENOBUFS, EHOSTUNREACH],
            Self::Poll => &[ENOMEM],
            Self::Accept => &[EMFILE, ENFILE, ENOBUFS, ENOMEM],
            Self::Connect => &[ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL, EPERM],
            Self::Receive => &[ECONNRESET, ETIMEDOUT, ENOMEM],
            Self::Open => &[ENOENT, EACCES, EMFILE, ENFILE, ENOSPC, ENOMEM],
            Self::ReadNow | Self::Read => &[EIO, ENOMEM],
            Self::Write => &[EIO, ENOSPC, EDQUOT],
            Self::Synchronize => &[EIO, ENOSPC],
            Self::Allocate => &[ENOSPC, EIO, EOPNOTSUPP],
            Self::Metadata => &[EIO, ENOMEM],
            Self::Close => &[EIO],
        }
    }

    /// What the runtime bears, and asks again: the connection was gone before it was accepted, no
    /// buffer was left; and what a request has come to in a worker of the kernel's. There a socket
    /// that does not block answers `EAGAIN`, and a connect that has begun `EALREADY`: the ring
    /// could not watch it for want of memory, or was woken in vain too often (`APOLL_MAX_RETRY`). A
    /// wait is interrupted. A file system answers `EAGAIN` though it was allowed to wait: XFS, and
    /// devices that have no room for the request. One in user space answers what it likes.
    fn hiccups(self) -> &'static [i32] {
        use libc::{EAGAIN, EALREADY, ECANCELED, ECONNABORTED, EINTR, ENOBUFS, EPERM, EPROTO};
        match self {
            Self::Poll => &[ECANCELED],
            Self::ReadNow => &[EAGAIN],
            Self::Accept => &[ECONNABORTED, EPROTO, EPERM, EINTR, EAGAIN, ECANCELED],
            Self::Connect => &[EINTR, EALREADY],
            Self::Receive => &[ENOBUFS, EINTR, EAGAIN, ECANCELED],
            Self::Send => &[EINTR, EAGAIN, ECANCELED],
            Self::Read | Self::Write => &[EINTR, EAGAIN],
            Self::Open | Self::Synchronize | Self::Allocate | Self::Metadata | Self::Close => {
                &[EINTR]
            }
            _ => &[],
        }
    }

    /// One of those errors that cost time at most, if there is any here.
    pub(super) fn hiccup(self, chance: &mut Chance) -> Option<Fault> {
        let hiccups = self.hiccups();
        (!hiccups.is_empty()).then(|| Fault::Fails(hiccups[chance.below(hiccups.len())]))
    }

    /// Every fault here that the program hears of.
    pub(crate) fn failures(self) -> impl Iterator<Item = Fault> {
        self.errors().iter().map(|error| Fault::Fails(*error))
    }

    /// Every fault here that costs time at most.
    pub(crate) fn hindrances(self) -> impl Iterator<Item = Fault> {
        let late = self.is_request().then_some(Fault::Late);
        let short = self.may_be_short().then_some(Fault::Short);
        self.hiccups().iter().map(|error| Fault::Fails(*error)).chain(late).chain(short)
    }
}

/// Whether a connection is gone when one of its calls has answered this.
pub(super) fn breaks_connection(error: i32) -> bool {
    [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT].contains(&error)
}

/// What shall go wrong, and the sites that a run has come to.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    at: Option<(usize, Fault)>,
    /// Now and then, by chance, the world is out of descriptors.
    pub(super) has_shortages: bool,
    pub(crate) sites: Vec<Site>,
}

impl FaultPlan {
    /// Nothing goes wrong but what a seed decides.
    pub(crate) fn none() -> Self {
        Self { at: None, has_shortages: true, sites: Vec::new() }
    }

    /// This fault at the site of this number, and none that a seed decides.
    pub(crate) fn only(at: Option<(usize, Fault)>) -> Self {
        Self { at, has_shortages: false, ..Self::none() }
    }

    /// The program has come to a site: what goes wrong there?
    pub(super) fn ask(&mut self, site: Site) -> Option<Fault> {
        let number = self.sites.len();
        self.sites.push(site);
        self.at.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
    }
}
