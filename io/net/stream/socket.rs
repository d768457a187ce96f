//! What the handle and the table's entry of a connection share: the descriptor, and what outlives
//! the entry.
//!
//! ```text
//!   entry on core A ── detach: leave ──► Kept ── bind: take ──► entry on core B
//!                                         ▲ ▲
//!   a read dropped on any thread ─────────┘ └──── a read that is half-way: held
//! ```
//!
//! A read that has taken a part may outlive the entry that it was polled on, and be dropped
//! anywhere. Bytes that it gives back stand before all others, so nothing is read from a stream
//! that is held. Whoever gives back leaves the bytes here and then tells the core that he sees;
//! whoever moves the stream changes the binding and then looks here. So one of them finds the
//! bytes, whichever comes second.

use std::mem;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::buffer::Lease;
use crate::io::descriptor::Descriptor;
use crate::io::request::call;
use crate::io::services::LINGER;

/// What handle and table share of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) descriptor: Descriptor,
    linger_ms: AtomicU32,
    /// `None` as long as nothing is kept, which is the rule.
    kept: Mutex<Option<Box<Kept>>>,
}

#[derive(Debug, Default)]
struct Kept {
    remains: Remains,
    /// A read that has taken a part is alive.
    held: bool,
    /// Lent by `poll_fill` when the core ended, for whoever still looks at it.
    lent: Option<Lease>,
}

/// What a stream that is on no core has of its last one.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Received bytes that nobody has taken, or that a dropped read has given back.
    pub(crate) unread: Vec<u8>,
    /// How receiving failed. The kernel tells an error once.
    pub(crate) received: Option<Failure>,
    /// How sending failed; 0: it did not.
    pub(crate) sent: i32,
}

/// The error that has ended receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) number: i32,
    /// Somebody has heard of it.
    pub(crate) told: bool,
}

impl Socket {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        let linger_ms = AtomicU32::new(LINGER.as_millis() as u32);
        Self { descriptor, linger_ms, kept: Mutex::default() }
    }

    #[inline]
    pub(crate) fn number(&self) -> RawFd {
        self.descriptor.number()
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms.load(Ordering::Relaxed).into())
    }

    pub(crate) fn set_linger(&self, linger: Duration) {
        let milliseconds = u32::try_from(linger.as_millis()).unwrap_or(u32::MAX);
        self.linger_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// Whether whoever took the descriptor alone would miss something.
    pub(crate) fn has_unread(&self) -> bool {
        self.lock().as_ref().is_some_and(|kept| {
            let untold = kept.remains.received.is_some_and(|failure| !failure.told);
            kept.held || untold || !kept.remains.unread.is_empty()
        })
    }

    /// Whether input waits, here or with the kernel. Closing resets the connection then.
    pub(crate) fn has_input(&self) -> bool {
        let here =
            self.lock().as_ref().is_some_and(|kept| kept.held || !kept.remains.unread.is_empty());
        here || call::unread(self.number()) > 0
    }

    pub(super) fn is_held(&self) -> bool {
        self.lock().as_ref().is_some_and(|kept| kept.held)
    }

    /// A read has taken a part and waits for more: until it is over, nothing else is read.
    pub(crate) fn hold(&self) {
        self.lock().get_or_insert_default().held = true;
    }

    /// That read is over, and these bytes go back in front.
    pub(crate) fn give_back(&self, bytes: Vec<u8>) {
        let mut kept = self.lock();
        let entry = kept.get_or_insert_default();
        entry.held = false;
        let behind = mem::replace(&mut entry.remains.unread, bytes);
        entry.remains.unread.extend(behind);
        tidy(&mut kept);
    }

    /// The stream leaves its core; `unbind` says so to the others. What was given back meanwhile
    /// stands before what the core had.
    pub(crate) fn leave(&self, remains: Remains, unbind: impl FnOnce()) {
        let mut kept = self.lock();
        let entry = kept.get_or_insert_default();
        entry.remains.unread.extend(remains.unread);
        entry.remains.received = remains.received;
        entry.remains.sent = remains.sent;
        unbind();
        tidy(&mut kept);
    }

    /// What a core takes over, and whether a read elsewhere comes first.
    pub(super) fn take(&self) -> (Remains, bool) {
        let mut kept = self.lock();
        let Some(entry) = kept.as_mut() else { return (Remains::default(), false) };
        let taken = (mem::take(&mut entry.remains), entry.held);
        tidy(&mut kept);
        taken
    }

    pub(super) fn keep_lent(&self, lease: Lease) {
        self.lock().get_or_insert_default().lent = Some(lease);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection where no core is: FIN, and the input that is there is discarded. What
    /// comes later finds the socket closed, and is answered by a reset.
    fn end(&self) {
        let mut room = [mem::MaybeUninit::uninit(); 16 * 1024];
        // A connection that is down has nobody to tell.
        let _ = call::shutdown(self.number(), Shutdown::Write);
        for _ in 0..DISCARD_MAX / room.len() {
            if call::receive(self.number(), &mut room, false) <= 0 {
                break;
            }
        }
    }
}

/// How much input is discarded where no core is: more than a receive buffer holds by default
/// (tcp(7), `tcp_rmem`), and bounded, since the peer may never stop.
const DISCARD_MAX: usize = 8 << 20;

/// Nothing is kept any more: no memory for it.
fn tidy(slot: &mut Option<Box<Kept>>) {
    let is_empty = |kept: &mut Box<Kept>| {
        let Remains { unread, received, sent } = &kept.remains;
        let remains = !unread.is_empty() || received.is_some() || *sent != 0;
        !remains && !kept.held && kept.lent.is_none()
    };
    slot.take_if(is_empty);
}

/// A stream whose last handle is gone while no core served it, on its way to a core that ends it in
/// peace. If it gets to none, it ends where it is.
#[derive(Debug)]
pub(crate) struct Farewell(Option<Arc<Socket>>);

impl Farewell {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self(Some(socket))
    }

    pub(crate) fn take(mut self) -> Arc<Socket> {
        self.0.take().expect("taken once")
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.end();
        }
    }
}
