//! What other threads send to a core's executor: tasks to wake, to abort, or to adopt.
//!
//! ```text
//!   sender                                     core, once per turn
//!   task.state: MAILED was clear ──► push ──►  pop, clear MAILED, queue the task
//!   doorbell.ring()                            (after announcing its sleep: look once more)
//! ```
//!
//! Bounded by what exists: a task is in it at most once, because MAILED is set while it is; so
//! there are never more entries than living tasks plus calls of `Handle::spawn_with` that the core
//! has not read yet. Sending never blocks and never fails.
//!
//! **The end.** A core that shuts down closes its inbox, then empties it; a sender pushes, then
//! looks whether it is closed, and if so empties it as well. Whichever comes second finds the
//! entry, so none is stranded, and a task mailed to a dead core ends as cancelled instead of
//! hanging its joiner.
//!
//! **Its life.** Every task cell points here and outlives its core (a waker may be kept anywhere),
//! but an atomic count per spawn would cost as much as the queue. So the core counts its own cells
//! in a plain integer, `Tasks::cells`, and only what other threads make or free is counted here.
//! All cells together own one strong reference of the `Arc`, which goes when the two counts, added
//! up at the core's end, reach zero. (A cell made for a dead core may start over from zero:
//! `add_cell`.)

use crate::runtime::sync::{Arc, AtomicBool, AtomicIsize, Ordering, Queue, fence};
use crate::runtime::task::Reference;

/// Keeps the count of foreign cells away from zero while the core lives and counts for itself.
const CORE_LIVES: isize = isize::MAX / 2;

/// One entry.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Queue the task, or abort it if its state says so.
    Wake(Reference),
    /// A new task, made by another thread. The core's reference comes with it, besides this one.
    Adopt(Reference),
}

/// What wakes a sleeping core: the doorbell of its mailbox (in the models, one that loom can
/// watch).
pub(crate) trait Bell: std::fmt::Debug + Send + Sync {
    /// Rings, after what the core shall find was published.
    fn ring(&self);
}

/// The inbox as its core, its handles and (together) its cells share it.
pub(crate) type SharedInbox = Arc<Inbox>;

#[derive(Debug)]
pub(crate) struct Inbox {
    mail: Queue<Mail>,
    doorbell: Box<dyn Bell>,
    closed: AtomicBool,
    cells: AtomicIsize,
}

impl Inbox {
    pub(crate) fn new(doorbell: Box<dyn Bell>) -> Arc<Self> {
        let inbox = Arc::new(Self {
            mail: Queue::new(),
            doorbell,
            closed: AtomicBool::new(false),
            cells: AtomicIsize::new(CORE_LIVES),
        });
        // The one strong reference of all cells together; `settle` or `forget_cell` ends it.
        let _ = Arc::into_raw(inbox.clone());
        inbox
    }

    /// Sends, from any thread. The caller keeps a hold on the inbox that is not inside `mail`: the
    /// core may read the mail, drop it and end while we are still in here.
    pub(crate) fn send(&self, mail: Mail) {
        self.mail.push(mail);
        // Pairs with the fence in `close`: either we see that it is closed, or the core, emptying
        // the queue after it closed it, sees our entry.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.refuse_all();
        } else {
            self.ring();
        }
    }

    /// Wakes the core if it sleeps. Whatever it shall find was published before.
    pub(crate) fn ring(&self) {
        self.doorbell.ring();
    }

    #[inline]
    pub(crate) fn receive(&self) -> Option<Mail> {
        // Asked first, because popping from an empty queue costs a full fence. Whoever must not
        // miss an entry has fenced before: the doorbell's sleep, `close`, `send`.
        if self.mail.is_empty() { None } else { self.mail.pop() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> usize {
        self.mail.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The core's last act: everything that was sent, and will be, is refused.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.refuse_all();
    }

    fn refuse_all(&self) {
        while let Some(mail) = self.receive() {
            match mail {
                // The task is complete, like all tasks of a core that has closed its inbox: only
                // the reference is left.
                Mail::Wake(task) => drop(task),
                Mail::Adopt(task) => crate::runtime::tasks::refuse(task),
            }
        }
    }

    /// A thread that is not the core makes a cell.
    pub(crate) fn add_cell(inbox: &SharedInbox) {
        if inbox.cells.fetch_add(1, Ordering::Relaxed) == 0 {
            // The core is gone, and the cells' strong reference with it: this is the first cell of
            // a new round. The round cannot end before this cell is freed, hence not before this
            // line.
            let _ = Arc::into_raw(inbox.clone());
        }
    }

    /// A thread that is not the core freed a cell.
    ///
    /// # Safety
    ///
    /// `inbox` is the one that the freed cell was counted in, and the caller does not use it again.
    pub(crate) unsafe fn forget_cell(inbox: *const Self) {
        // SAFETY: the cells' strong reference keeps it until the count is settled.
        unsafe { Self::change_cells(inbox, -1) };
    }

    /// The core is gone: from now on its cells are counted here, like everybody's.
    ///
    /// # Safety
    ///
    /// Once, with the core's own count of its cells.
    pub(crate) unsafe fn settle(inbox: *const Self, cells: isize) {
        // SAFETY: the cells' strong reference is still there, since CORE_LIVES is.
        unsafe { Self::change_cells(inbox, cells - CORE_LIVES) };
    }

    /// # Safety
    ///
    /// As the two above.
    unsafe fn change_cells(inbox: *const Self, change: isize) {
        // SAFETY: alive, because the count includes the caller's share.
        let before = unsafe { &*inbox }.cells.fetch_add(change, Ordering::AcqRel);
        if before + change == 0 {
            // SAFETY: `new` leaked this reference for the cells, and the last of them is gone.
            drop(unsafe { Arc::from_raw(inbox) });
        }
    }
}
