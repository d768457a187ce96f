//! What a user holds of a foreign descriptor: our duplicate of it, and the binding to a core.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::foreign::Foreign;
use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{self, Key, Message};
use crate::io::net::binding::{Binding, Entry};
use crate::io::net::handle::Bound;
use crate::io::proactor::Proactor;
use crate::io::request::call;
use crate::io::tables::Tables;

#[derive(Debug)]
pub(crate) enum ForeignEntry {}

impl Entry for ForeignEntry {
    const HAS_DETACH: bool = true;

    fn message(key: Key) -> Message {
        Message::ReleaseForeign(key)
    }

    fn release(tables: &mut Tables, key: Key) {
        tables.release_foreign(key);
    }
}

/// Shared by nobody but the core's table.
#[derive(Debug)]
pub(super) struct ForeignHandle {
    // Before the descriptor: the core lets go first, and has epoll forget an open number.
    binding: Binding<ForeignEntry>,
    descriptor: Arc<Descriptor>,
}

impl ForeignHandle {
    pub(super) fn new(of: BorrowedFd<'_>) -> io::Result<Self> {
        let descriptor = Arc::new(Descriptor::from(call::watchable(of)?));
        Ok(Self { binding: Binding::new(), descriptor })
    }

    pub(super) fn is_bound(&self) -> bool {
        self.binding.core() != 0
    }

    pub(super) fn is_here(&self) -> bool {
        let owner = self.binding.core();
        owner != 0 && owner == mailbox::current_core()
    }

    /// Takes it off its core: nothing is in flight any more.
    pub(super) fn unbind(&self) {
        self.binding.unbind();
    }
}

impl Bound for ForeignHandle {
    const NAME: &'static str = "AsyncFd";

    type Entry = ForeignEntry;

    #[inline]
    fn binding(&self) -> &Binding<ForeignEntry> {
        &self.binding
    }

    #[cold]
    fn bind(&self, proactor: &Proactor) -> io::Result<Key> {
        if proactor.is_simulated() {
            return Err(in_simulation());
        }
        self.binding.bind(Self::NAME, proactor, |tables, _| {
            tables.foreign.insert(Foreign::new(self.descriptor.clone()))
        })
    }
}

#[cold]
pub(super) fn in_simulation() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "an AsyncFd is of the operating system, which a simulation does not have; use quoit's own \
         sockets and files there",
    )
}
