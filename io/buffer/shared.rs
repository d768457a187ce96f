//! The part of a pool that its leases point to: where they return, and who frees it in the end.
//!
//! ```text
//!   Lease dropped ── on its own core ──► home.returned      a plain push, no atomics
//!                 └─ anywhere else ────► remote, doorbell if starved, tally - 1
//!
//!   BufferPool dropped: home.closed (from now on every return is remote), tally + leases still out
//!   whoever brings the tally to zero after that frees the shared part and unmaps the buffers
//! ```
//!
//! Leases may outlive their core, and yet the usual lease pays for no reference count: the core
//! knows how many it has lent and how many came home, so only those that return from elsewhere are
//! counted, and the two are compared once, when the core dies (see [`Tally`]).

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam_queue::SegQueue;

use super::region::Region;
use crate::io::mailbox::{CoreId, Doorbell, Mailbox, current_core};
use crate::io::planted::{self, Bug};
use crate::io::sync::{AtomicI64, AtomicU32, Ordering, fence};

/// Made by a pool, freed by the last of the pool and its leases.
pub(super) struct Shared {
    core: CoreId,
    /// Only for the thread that is the core, or owns the pool (the same one), and never borrowed
    /// beyond one of the functions here, none of which runs foreign code meanwhile.
    home: UnsafeCell<Home>,
    /// Buffers returned from elsewhere. Each stands in it at most once, which is its limit.
    remote: SegQueue<u16>,
    starved: AtomicU32,
    doorbell: Arc<Doorbell>,
    tally: Tally,
    /// How many leases share each buffer; means something only while it was split.
    shares: Box<[AtomicU32]>,
}

struct Home {
    /// Buffers returned on the core. Each stands in it at most once, so it never grows.
    returned: Vec<u16>,
    closed: bool,
    regions: Vec<Region>,
}

impl Shared {
    /// Makes the shared part for at most `limit` buffers.
    pub(super) fn create(limit: u16, mailbox: &Mailbox) -> NonNull<Self> {
        let limit = usize::from(limit);
        let returned = Vec::with_capacity(limit);
        let shared = Box::new(Self {
            core: mailbox.core(),
            home: UnsafeCell::new(Home { returned, closed: false, regions: Vec::new() }),
            remote: SegQueue::new(),
            starved: AtomicU32::new(0),
            doorbell: mailbox.doorbell().clone(),
            tally: Tally::new(),
            shares: (0..limit).map(|_| AtomicU32::new(0)).collect(),
        });
        NonNull::from(Box::leak(shared))
    }

    pub(super) fn core(&self) -> CoreId {
        self.core
    }

    /// Keeps the memory of a chunk until the shared part is freed.
    ///
    /// # Safety
    ///
    /// Called by the owner of the pool.
    pub(super) unsafe fn keep(&self, region: Region) {
        // SAFETY: the owner, and no borrow of `home` outlives a function of this file.
        unsafe { &mut *self.home.get() }.regions.push(region);
    }

    /// Moves what has returned on the core to `out`.
    ///
    /// # Safety
    ///
    /// Called by the owner of the pool.
    #[inline]
    pub(super) unsafe fn take_home(&self, out: &mut Vec<u16>) {
        // SAFETY: as in `keep`.
        out.append(&mut unsafe { &mut *self.home.get() }.returned);
    }

    /// How many have returned on the core.
    ///
    /// # Safety
    ///
    /// Called by the owner of the pool.
    #[inline]
    pub(super) unsafe fn count_home(&self) -> usize {
        // SAFETY: as in `keep`.
        unsafe { &*self.home.get() }.returned.len()
    }

    #[inline]
    pub(super) fn take_remote(&self) -> Option<u16> {
        self.remote.pop()
    }

    #[inline]
    pub(super) fn has_remote(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Remote returns that nobody has taken yet.
    pub(super) fn count_remote(&self) -> usize {
        self.remote.len()
    }

    /// Whether a remote return rings the doorbell.
    pub(super) fn set_starved(&self, starved: bool) {
        self.starved.store(u32::from(starved), Ordering::Relaxed);
        // Pairs with the fence in `return_remotely`: either they see that we starve, or we see what
        // they returned when we look once more.
        fence(Ordering::SeqCst);
    }

    /// Makes a second lease of a buffer possible: each of the two is returned by itself.
    pub(super) fn share(&self, id: u16, is_shared: bool) {
        let shares = &self.shares[usize::from(id)];
        // Relaxed: who gets the second lease gets it from us, and that orders this before its
        // return.
        if is_shared {
            shares.fetch_add(1, Ordering::Relaxed);
        } else {
            shares.store(2, Ordering::Relaxed);
        }
    }

    /// Ends one of the leases that share a buffer. The last one returns it.
    ///
    /// # Safety
    ///
    /// As for `give_back`; and `share` was called for this lease.
    pub(super) unsafe fn give_back_shared(this: NonNull<Self>, id: u16) {
        // SAFETY: our lease is not returned yet, so the shared part is not freed.
        let shares = &unsafe { this.as_ref() }.shares[usize::from(id)];
        // Unless it is the last, this is our last access: another share may free everything next.
        // AcqRel: what each share did to its bytes comes before the buffer is lent again.
        let last = if planted::is(Bug::BufferFreedEarly) { 2 } else { 1 };
        if shares.fetch_sub(1, Ordering::AcqRel) == last {
            // SAFETY: we were the last share, so the lease of the buffer is ours to end.
            unsafe { Self::give_back(this, id) }
        }
    }

    /// Ends the lease of a buffer, on any thread.
    ///
    /// # Safety
    ///
    /// The buffer is lent, nobody uses it, and this lease of it is not ended again.
    #[inline]
    pub(super) unsafe fn give_back(this: NonNull<Self>, id: u16) {
        // SAFETY: this lease is not returned yet, so the shared part is not freed.
        let shared = unsafe { this.as_ref() };
        if current_core() == shared.core {
            // SAFETY: this thread is the core, and no borrow of `home` outlives a function of this
            // file.
            let home = unsafe { &mut *shared.home.get() };
            if !home.closed {
                home.returned.push(id);
                return;
            }
        }
        // SAFETY: handed on.
        unsafe { Self::return_remotely(this, id) }
    }

    /// The return from another thread, from another core on this thread, or to a core that is gone.
    ///
    /// # Safety
    ///
    /// As for `give_back`.
    #[inline(never)]
    unsafe fn return_remotely(this: NonNull<Self>, id: u16) {
        // SAFETY: not freed before the tally is told.
        let shared = unsafe { this.as_ref() };
        shared.remote.push(id);
        // Pairs with the fence in `set_starved`.
        fence(Ordering::SeqCst);
        if shared.starved.load(Ordering::Relaxed) != 0 {
            shared.doorbell.ring();
        }
        // The last access, unless it says that we are the last of all.
        if shared.tally.count_return() {
            // SAFETY: the tally answers so once, after everybody's last access.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }

    /// The core dies while `lent` leases have not returned on it. Frees the shared part, now or
    /// with the last of them.
    ///
    /// # Safety
    ///
    /// Called once, by the owner of the pool, who does not use it again. Nobody writes to the
    /// buffers any more, except through leases.
    pub(super) unsafe fn close(this: NonNull<Self>, lent: u64) {
        // SAFETY: not freed before the tally is told.
        unsafe { Self::close_home(this) };
        // SAFETY: as above.
        if unsafe { this.as_ref() }.tally.settle(lent) {
            // SAFETY: the tally answers so once, after everybody's last access.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }

    /// Sends every later return the remote way. Without the settlement of `close` the tally stays
    /// below zero and nothing is ever freed.
    ///
    /// # Safety
    ///
    /// Called by the owner of the pool.
    pub(super) unsafe fn close_home(this: NonNull<Self>) {
        // SAFETY: the pool is not closed, so the shared part is not freed.
        let shared = unsafe { this.as_ref() };
        shared.starved.store(0, Ordering::Relaxed);
        // SAFETY: as in `keep`.
        unsafe { &mut *shared.home.get() }.closed = true;
    }
}

/// Decides who frees the shared part: a reference count that is written only by remote returns.
///
/// *Each frees at most once, and after everybody else.* Let `D` be the leases that have not
/// returned on the core when it settles; from then on all of them return remotely, so each of these
/// `D` calls `count_return` exactly once in its life, some `R` of them before the settlement. (A
/// lease that returned remotely and was lent anew counts as two, in both numbers.)
///
/// * Before `settle` the value is minus the returns so far, so no `count_return` sees 1.
/// * `settle` adds `D` to `-R`. If that makes 0, none is left, and the core frees.
/// * Otherwise `D - R > 0` returns follow and count down to 0. Only the last sees 1, and it frees.
///
/// A caller's other accesses are sequenced before its call. The calls form one release sequence, as
/// all are read-modify-writes, so the last one, which acquires, comes after all of them.
struct Tally(AtomicI64);

impl Tally {
    fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Counts a remote return. Answers whether it was the last of a dead core.
    #[must_use]
    fn count_return(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Settles the account of a dying core. Answers whether every lease has returned already.
    #[must_use]
    fn settle(&self, lent: u64) -> bool {
        let lent = i64::try_from(lent).expect("no core lends 2^63 leases");
        self.0.fetch_add(lent, Ordering::AcqRel) == -lent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_return_or_the_core_frees_but_never_both() {
        // (leases out, of which returned before the settlement)
        for (lent, early) in [(0, 0), (1, 0), (1, 1), (5, 0), (5, 3), (5, 5)] {
            let tally = Tally::new();
            for _ in 0..early {
                assert!(!tally.count_return(), "freed while the core lives");
            }
            assert_eq!(tally.settle(lent), lent == early);
            for left in (early..lent).rev() {
                assert_eq!(tally.count_return(), left == early, "{lent} lent, {early} early");
            }
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Stands for the shared part. Loom fails when the free is not ordered after each use.
    struct Memory {
        tally: Tally,
        freed: UnsafeCell<u32>,
    }

    impl Memory {
        fn new() -> Arc<Self> {
            Arc::new(Self { tally: Tally::new(), freed: UnsafeCell::new(0) })
        }

        fn use_and_return(&self) {
            self.freed.with(|freed| {
                // SAFETY: loom checks that nobody writes meanwhile.
                assert_eq!(unsafe { *freed }, 0, "used after it was freed");
            });
            if self.tally.count_return() {
                self.free();
            }
        }

        fn settle(&self, lent: u64) {
            self.freed.with(|freed| {
                // SAFETY: as above.
                assert_eq!(unsafe { *freed }, 0, "freed while the core lives");
            });
            if self.tally.settle(lent) {
                self.free();
            }
        }

        fn free(&self) {
            self.freed.with_mut(|freed| {
                // SAFETY: loom checks that nobody reads or writes meanwhile.
                unsafe { *freed += 1 }
            });
        }

        fn frees(&self) -> u32 {
            // SAFETY: all threads are joined.
            self.freed.with(|freed| unsafe { *freed })
        }
    }

    #[test]
    fn loom_tally_frees_once_and_last() {
        loom::model(|| {
            let memory = Memory::new();
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let memory = memory.clone();
                    thread::spawn(move || memory.use_and_return())
                })
                .collect();
            // Two are out elsewhere; a third came back remotely before and was lent again.
            memory.use_and_return();
            memory.settle(3);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(memory.frees(), 1);
        });
    }

    #[test]
    fn loom_tally_of_a_pool_without_leases() {
        loom::model(|| {
            let memory = Memory::new();
            memory.settle(0);
            assert_eq!(memory.frees(), 1);
        });
    }
}
