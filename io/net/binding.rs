//! To which core a handle is bound, and to which entry of its table.
//!
//! ```text
//!   unbound ──first I/O poll, by compare-exchange──► BINDING ──► bound to (core, entry)
//!      ▲                                                                   │
//!      └────────────────────────────── detach ─────────────────────────────┘
//! ```
//!
//! BINDING lasts until the entry is there: who saw the core before would speak of a stranger's.
//!
//! Two words: every connection has them. Without a core the first one tells where the last one was.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::mailbox::{self, CoreId, Key, Message};
use crate::io::proactor::{Proactor, off_core};
use crate::io::tables::Tables;

/// Set while no core serves it: the rest is its home, the core that had it last or on which it was
/// made. Ids of cores are counted, and do not come so far.
const UNBOUND: CoreId = 1 << 63;

/// In place of a core: one of them is making the entry.
const BINDING: CoreId = CoreId::MAX;

/// In place of a core: it has none, and shall not linger on its last one.
const HOMELESS: CoreId = CoreId::MAX - 1;

/// In place of a key: no core had it yet.
const NOTHING: u64 = u64::MAX;

/// To which core, and which entry of its table.
#[derive(Debug)]
pub(crate) struct Binding<E: Entry> {
    core: AtomicU64,
    key: AtomicU64,
    entry: PhantomData<E>,
}

/// What kind of entry: how its core is told that the last handle is gone.
pub(crate) trait Entry {
    /// Whether its handle has a `detach`.
    const HAS_DETACH: bool;

    /// Elsewhere.
    fn message(key: Key) -> Message;

    /// On that core.
    fn release(tables: &mut Tables, key: Key);
}

#[derive(Debug)]
pub(crate) enum StreamEntry {}

#[derive(Debug)]
pub(crate) enum ListenerEntry {}

impl Entry for StreamEntry {
    const HAS_DETACH: bool = true;

    fn message(key: Key) -> Message {
        Message::ReleaseStream(key)
    }

    fn release(tables: &mut Tables, key: Key) {
        tables.release_stream(key);
    }
}

impl Entry for ListenerEntry {
    const HAS_DETACH: bool = false;

    fn message(key: Key) -> Message {
        Message::ReleaseListener(key)
    }

    fn release(tables: &mut Tables, key: Key) {
        tables.release_listener(key);
    }
}

impl<E: Entry> Binding<E> {
    pub(crate) fn new() -> Self {
        let unbound = UNBOUND | mailbox::current_core();
        Self { core: AtomicU64::new(unbound), key: AtomicU64::new(NOTHING), entry: PhantomData }
    }

    /// The entry on this core, making one at the first use. `insert` is told what the entry was
    /// called, if this core had it last.
    #[inline]
    pub(crate) fn bind(
        &self,
        what: &str,
        proactor: &Proactor,
        insert: impl FnOnce(&mut Tables, Option<Key>) -> Key,
    ) -> io::Result<Key> {
        let here = proactor.id();
        if let Some(key) = self.key_on(here) {
            return Ok(key);
        }
        let free = self.core.load(Ordering::Acquire);
        let found = if free == BINDING || free & UNBOUND == 0 {
            Err(free)
        } else {
            self.core.compare_exchange(free, BINDING, Ordering::AcqRel, Ordering::Acquire)
        };
        match found {
            Ok(_) => {
                // Should the insert panic, nothing is bound.
                let mut bound = Settled(&self.core, free);
                let before = (free == UNBOUND | here).then(|| self.key());
                let key = proactor.with_tables(|tables| insert(tables, before));
                let packed = u64::from(key.index) | u64::from(key.generation) << 32;
                self.key.store(packed, Ordering::Relaxed);
                bound.1 = here;
                Ok(key)
            }
            Err(owner) if owner & UNBOUND == 0 => {
                Err(off_core(&format!("this {what}"), owner, E::HAS_DETACH))
            }
            Err(_) => Err(io::Error::other(format!(
                "this {what} is being bound to another core at this moment"
            ))),
        }
    }

    /// The entry, if it is on this core, the current one.
    #[inline]
    pub(crate) fn key_on(&self, here: CoreId) -> Option<Key> {
        (self.core.load(Ordering::Relaxed) == here).then(|| self.key())
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        let packed = self.key.load(Ordering::Relaxed);
        Key { index: packed as u32, generation: (packed >> 32) as u32 }
    }

    /// The owner; zero while there is none, or none yet.
    pub(crate) fn core(&self) -> CoreId {
        let core = self.core.load(Ordering::Acquire);
        if core & UNBOUND == 0 { core } else { 0 }
    }

    /// Where it lingers when it is dropped without a core. `None`: nowhere.
    pub(crate) fn home(&self) -> Option<CoreId> {
        let core = self.core.load(Ordering::Acquire);
        (core != HOMELESS).then_some(core & !UNBOUND)
    }

    /// Its core lets go of it.
    pub(crate) fn unbind(&self) {
        self.core.fetch_or(UNBOUND, Ordering::Release);
    }

    /// What has no core shall have no home either.
    pub(crate) fn forget_home(&self) {
        self.core.store(HOMELESS, Ordering::Relaxed);
    }
}

/// Ends BINDING, with the core that is named by then.
struct Settled<'a>(&'a AtomicU64, CoreId);

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        // Release: the entry is written before.
        self.0.store(self.1, Ordering::Release);
    }
}

/// The last handle is gone: the owner lets go.
impl<E: Entry> Drop for Binding<E> {
    fn drop(&mut self) {
        let (owner, key) = (self.core(), self.key());
        if owner == 0 {
            return;
        }
        if mailbox::current_core() == owner {
            Proactor::with_current(|proactor| {
                proactor.with_tables(|tables| E::release(tables, key));
            });
        } else {
            // A core that is gone has closed its side already.
            let _ = mailbox::post(owner, E::message(key));
        }
    }
}
