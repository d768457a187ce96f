//! What other threads tell a core, and the doorbell that wakes it.
//!
//! A message is pushed first, then the bell is rung; the bell costs a system call only when the
//! core sleeps. The protocol is a Dekker pair, so neither side can miss the other:
//!
//! ```text
//!  sender                         core
//!  push(message)                  state = SLEEPING
//!  fence(SeqCst)                  fence(SeqCst)
//!  state == SLEEPING?             queues still empty?
//!    yes: state = RUNG, signal      yes: wait in the kernel   no: do not sleep
//! ```
//!
//! The queue is bounded by what exists: a handle posts one release in its life, a waiter one
//! withdrawal, a timer one removal, a pool job one completion. Nothing can post without owning one
//! of those, so there is no further limit to state and a post never blocks or fails while the core
//! lives.

#[cfg(all(test, loom))]
mod models;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
// Not loom's: statics, and no part of the protocol.
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use crossbeam_queue::SegQueue;

use crate::io::descriptor::Descriptor;
use crate::io::net::stream::Farewell;
use crate::io::sync::{AtomicU32, Ordering, fence};
use crate::io::system;
use crate::io::timers::TimerKey;

/// Names a core for ever: ids are never used again, so a message can meet a dead core but never the
/// wrong one. Zero is no core.
pub(crate) type CoreId = u64;

/// One entry of a core's table: where it is, and which of those that were there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names one future that waits at a resource. Numbers are per core and never reused.
pub(crate) type WaiterId = NonZeroU64;

/// Which list of a resource a future waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    Accept,
    /// For a connection, as a stream of them.
    #[cfg_attr(not(feature = "futures-core"), allow(dead_code, reason = "who waits so"))]
    Incoming,
    Read,
    Write,
    Readable,
    Writable,
    /// Nothing is in flight.
    Idle,
    /// The same three, of a foreign descriptor.
    ForeignReadable,
    ForeignWritable,
    ForeignIdle,
}

/// What another thread may tell a core.
#[derive(Debug)]
pub(crate) enum Message {
    /// The last handle of a stream was dropped elsewhere.
    ReleaseStream(Key),
    /// The writing half of a stream was dropped elsewhere.
    FinishStream(Key),
    /// The last handle of a listener was dropped elsewhere.
    ReleaseListener(Key),
    /// A foreign descriptor is not watched any more: that was dropped elsewhere.
    ReleaseForeign(Key),
    /// A future that waited was dropped elsewhere.
    Withdraw { key: Key, wait: Wait, waiter: WaiterId },
    /// A read that had taken bytes was dropped elsewhere: they are with the socket.
    GivenBack { key: Key, waiter: Option<WaiterId> },
    /// A stream shall be reset now.
    AbortStream(Key),
    /// The last handle of a stream that no core served was dropped elsewhere.
    Linger(Farewell),
    /// The future of an operation was dropped elsewhere.
    ReleaseOperation(Key),
    /// A timer was dropped elsewhere, or moved to another core.
    RemoveTimer(TimerKey),
    /// A pool thread finished a request, which may have opened a descriptor: that of the result.
    Complete { token: u64, result: i32, opened: Option<Descriptor> },
}

/// The part of a core that any thread may touch.
pub(crate) struct Mailbox {
    core: CoreId,
    messages: SegQueue<Message>,
    closed: AtomicBool,
    doorbell: Arc<Doorbell>,
}

impl Mailbox {
    /// Opens the mailbox of a new core and lists it, so that `post` finds it.
    pub(crate) fn open() -> io::Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let core = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self::list(core, Doorbell::new()?))
    }

    /// The mailbox of a simulated core, whose id the simulation gives. Its bell is a flag.
    pub(crate) fn simulated(core: CoreId, rung: Arc<AtomicBool>) -> Arc<Self> {
        Self::list(core, Doorbell::simulated(rung))
    }

    fn list(core: CoreId, doorbell: Doorbell) -> Arc<Self> {
        let doorbell = Arc::new(doorbell);
        let mailbox = Arc::new(Self {
            core,
            messages: SegQueue::new(),
            closed: AtomicBool::new(false),
            doorbell,
        });
        cores().insert(core, mailbox.clone());
        mailbox
    }

    /// Strikes the core from the list: later posts answer that it is gone. A message that nobody
    /// will read is dropped, by whoever comes second of sender and core: it may own something.
    pub(crate) fn close(&self) {
        let listed = cores().remove(&self.core);
        drop(listed);
        self.closed.store(true, Ordering::Relaxed);
        // Pairs with the fence of the bell, between a sender's push and its look at `closed`.
        fence(Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while let Some(message) = self.messages.pop() {
            drop(message);
        }
    }

    pub(crate) fn core(&self) -> CoreId {
        self.core
    }

    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    pub(crate) fn push(&self, message: Message) {
        self.messages.push(message);
        self.doorbell.ring();
        if self.closed.load(Ordering::Relaxed) {
            self.discard();
        }
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Message> {
        // Popping starts with a fence, which a turn without mail need not pay. What is missed here
        // is found by the look after the sleep was announced.
        if self.messages.is_empty() { None } else { self.messages.pop() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("core", &self.core).finish_non_exhaustive()
    }
}

/// A tree, since a hash map asks the machine for random numbers.
static CORES: LazyLock<RwLock<BTreeMap<CoreId, Arc<Mailbox>>>> = LazyLock::new(RwLock::default);

fn cores() -> std::sync::RwLockWriteGuard<'static, BTreeMap<CoreId, Arc<Mailbox>>> {
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

/// The mailbox of a core, while it lives.
pub(crate) fn find(core: CoreId) -> Option<Arc<Mailbox>> {
    CORES.read().unwrap_or_else(PoisonError::into_inner).get(&core).cloned()
}

/// Posts to a core from any thread. The message comes back when the core is gone.
pub(crate) fn post(core: CoreId, message: Message) -> Result<(), Message> {
    match find(core) {
        Some(mailbox) => {
            mailbox.push(message);
            Ok(())
        }
        None => Err(message),
    }
}

thread_local! {
    static CURRENT: Cell<CoreId> = const { Cell::new(0) };
}

/// The core whose program runs on this thread right now; zero outside.
#[inline]
pub(crate) fn current_core() -> CoreId {
    CURRENT.get()
}

/// Makes `core` the current one and answers the one before. Only the proactor's entry guard calls
/// it: that a core is current proves that this thread owns its tables.
pub(crate) fn set_current_core(core: CoreId) -> CoreId {
    CURRENT.replace(core)
}

/// Wakes one core.
pub(crate) struct Doorbell {
    state: AtomicU32,
    bell: Bell,
}

/// What wakes a core that sleeps.
enum Bell {
    Event(OwnedFd),
    /// No simulated core sleeps: whoever drives it looks at this.
    Simulated(Arc<AtomicBool>),
}

const AWAKE: u32 = 0;
const SLEEPING: u32 = 1;
const RUNG: u32 = 2;

impl Doorbell {
    fn new() -> io::Result<Self> {
        Ok(Self { state: AtomicU32::new(AWAKE), bell: Bell::Event(system::event()?) })
    }

    fn simulated(rung: Arc<AtomicBool>) -> Self {
        Self { state: AtomicU32::new(AWAKE), bell: Bell::Simulated(rung) }
    }

    /// Wakes the core if it sleeps. Push what it shall find before calling.
    pub(crate) fn ring(&self) {
        let event = match &self.bell {
            Bell::Event(event) => event,
            Bell::Simulated(rung) => return rung.store(true, Ordering::Relaxed),
        };
        // Pairs with the fence in `sleep`: either we see SLEEPING, or the core sees what was
        // pushed.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == SLEEPING
            && self
                .state
                .compare_exchange(SLEEPING, RUNG, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            system::raise(event);
        }
    }

    /// Announces that the core is about to wait. Look at every queue after this, then wait.
    pub(crate) fn sleep(&self) {
        self.state.store(SLEEPING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core is awake again; rings cost nothing until the next `sleep`.
    pub(crate) fn awake(&self) {
        // A core that skips the wait may leave the counter raised: one wait returns early, no more,
        // since both engines watch the eventfd for edges.
        self.state.store(AWAKE, Ordering::Relaxed);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.bell {
            Bell::Event(event) => event.as_fd(),
            Bell::Simulated(_) => panic!("a simulated core has no descriptor"),
        }
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}
