//! A core's pool of equal buffers, lent to the kernel and on to users.
//!
//! ```text
//!    grow ──► provided ──── the ring lends it, bytes come ────► lease ──► Lease
//!                ▲                                                          │ dropped, anywhere
//!                └──────────────── take_returned ◄──────────────────────────┘
//! ```
//!
//! It starts small, since few buffers stay in the cache (2 MiB in all measured best), and
//! grows by as many again each time the proactor finds it exhausted, up to a limit. Beyond that,
//! receives go to private memory, so that a user who keeps leases slows streams down but never
//! stops them. It does not shrink.

use std::fmt;
use std::io;
use std::ptr::NonNull;

use super::lease::Lease;
use super::region::Region;
use super::shared::Shared;
use crate::io::mailbox::Mailbox;
use crate::io::ring::Provided;

/// How large a pool is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolConfig {
    /// Buffers at the start, and in each growth.
    pub(crate) count: u16,
    /// Bytes of each.
    pub(crate) size: u32,
    /// Buffers in the end.
    pub(crate) limit: u16,
}

/// The buffers of one core. Dropped with it; the memory lives on while leases do.
pub(crate) struct BufferPool {
    config: PoolConfig,
    slots: Vec<Slot>,
    /// Leases made in all, and those that were taken back: returned on the core, and from
    /// elsewhere.
    lent: u64,
    home: u64,
    remote: u64,
    /// The most that were outstanding at once.
    peak: u64,
    growths: u64,
    growths_refused: u64,
    shared: NonNull<Shared>,
}

/// The pool of a core: what it has, and what it has gone through. [`ResourceCounters`] tells how
/// often receives found no buffer.
///
/// [`ResourceCounters`]: crate::ResourceCounters
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferCounters {
    /// Bytes of each buffer.
    pub size: usize,
    /// How many there may be in the end.
    pub limit: usize,
    /// How many there are.
    pub total: usize,
    /// How many the program has, or has given back since the last turn.
    pub in_use: usize,
    /// The most that it had at once.
    pub in_use_peak: usize,
    /// Times that the pool was enlarged, the first buffers included.
    pub growths: u64,
    /// Times that the system gave no memory to enlarge it.
    pub growths_refused: u64,
}

struct Slot {
    start: NonNull<u8>,
    /// A user has it. Asserted, as a buffer lent twice would be memory shared in silence.
    is_lent: bool,
}

impl BufferPool {
    /// Makes the pool of the core of `mailbox`. It has no buffers before the first `grow`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the numbers cannot be those of a buffer ring.
    pub(crate) fn new(config: PoolConfig, mailbox: &Mailbox) -> io::Result<Self> {
        config.check()?;
        let shared = Shared::create(config.limit, mailbox);
        let (lent, home, remote, peak) = (0, 0, 0, 0);
        let (growths, growths_refused) = (0, 0);
        let slots = Vec::new();
        Ok(Self { config, slots, lent, home, remote, peak, growths, growths_refused, shared })
    }

    /// Adds a chunk of buffers and answers them, to be given to the ring. Answers none at the
    /// limit.
    ///
    /// # Errors
    ///
    /// What `mmap` says (`ENOMEM`). The pool is as before.
    pub(crate) fn grow(&mut self) -> io::Result<impl Iterator<Item = Provided>> {
        let first = self.slots.len();
        let count = usize::from(self.config.limit).saturating_sub(first);
        let count = count.min(usize::from(self.config.count));
        if count > 0 {
            let size = self.config.size as usize;
            let region = Region::map(count * size).inspect_err(|_| self.growths_refused += 1)?;
            self.growths += 1;
            let start = region.start();
            // SAFETY: buffer `index` of `count` lies within the region.
            let slot = |index| Slot { start: unsafe { start.add(index * size) }, is_lent: false };
            self.slots.extend((0..count).map(slot));
            // SAFETY: we own the pool.
            unsafe { self.shared().keep(region) };
        }
        let pool = &*self;
        Ok((first..first + count).map(move |id| pool.provided(id as u16)))
    }

    /// What the ring needs to lend a buffer.
    #[inline]
    pub(crate) fn provided(&self, id: u16) -> Provided {
        let slot = &self.slots[usize::from(id)];
        assert!(!slot.is_lent, "a user still has buffer {id}");
        Provided { id, address: slot.start.as_ptr(), length: self.config.size }
    }

    /// Turns a buffer that the kernel has filled into a lease of its first `length` bytes. No bytes
    /// are the end of the stream: the buffer counts as returned at once.
    ///
    /// # Safety
    ///
    /// A completion has just named this buffer, so the kernel has put `length` bytes into it and
    /// will not touch it again before it is provided again.
    #[inline]
    pub(crate) unsafe fn lease(&mut self, id: u16, length: u32) -> Lease {
        let slot = &mut self.slots[usize::from(id)];
        assert!(!slot.is_lent, "the ring lent buffer {id} twice");
        assert!(length <= self.config.size, "the ring filled buffer {id} beyond its end");
        slot.is_lent = true;
        self.lent += 1;
        self.peak = self.peak.max(self.lent - self.home - self.remote);
        // SAFETY: the start of this buffer, which is long enough; marked just now, and the kernel
        // is done with it, says the caller.
        let lease = unsafe { Lease::pooled(slot.start, length, id, self.shared) };
        if length == 0 {
            drop(lease);
            return Lease::empty();
        }
        lease
    }

    /// Whether `take_returned` would find a buffer.
    #[inline]
    pub(crate) fn has_returned(&self) -> bool {
        let shared = self.shared();
        // SAFETY: we own the pool.
        unsafe { shared.count_home() > 0 || shared.has_remote() }
    }

    /// Appends the buffers whose leases have ended, to be provided again.
    #[inline]
    pub(crate) fn take_returned(&mut self, out: &mut Vec<u16>) {
        if self.has_returned() {
            self.collect(out);
        }
    }

    /// Leases that were made and not taken back yet.
    pub(crate) fn outstanding(&self) -> usize {
        (self.lent - self.home - self.remote) as usize
    }

    pub(crate) fn counters(&self) -> BufferCounters {
        BufferCounters {
            size: self.config.size as usize,
            limit: usize::from(self.config.limit),
            total: self.slots.len(),
            in_use: self.outstanding(),
            in_use_peak: self.peak as usize,
            growths: self.growths,
            growths_refused: self.growths_refused,
        }
    }

    /// Buffers that the ring may lend.
    pub(crate) fn free(&self) -> usize {
        self.slots.len() - self.outstanding()
    }

    /// Leases that are alive.
    pub(crate) fn leases(&self) -> usize {
        let shared = self.shared();
        // SAFETY: we own the pool.
        let returned = unsafe { shared.count_home() } + shared.count_remote();
        self.outstanding() - returned
    }

    /// Buffers that there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether `grow` would add none.
    #[cfg(test)]
    fn at_limit(&self) -> bool {
        self.slots.len() >= usize::from(self.config.limit)
    }

    /// Says whether a stream waits for a buffer. Only then does a return from another thread ring
    /// the doorbell. Ask `has_returned` once more after setting it and before sleeping: what
    /// returned just before has not rung.
    pub(crate) fn set_starved(&mut self, is_starved: bool) {
        self.shared().set_starved(is_starved);
    }

    fn shared(&self) -> &Shared {
        // SAFETY: freed by `close` in our drop at the earliest.
        unsafe { self.shared.as_ref() }
    }

    #[inline(never)]
    fn collect(&mut self, out: &mut Vec<u16>) {
        let first = out.len();
        // SAFETY: we own the pool.
        unsafe { self.shared().take_home(out) };
        let from_home = out.len() - first;
        while let Some(id) = self.shared().take_remote() {
            out.push(id);
        }
        for &id in &out[first..] {
            let slot = &mut self.slots[usize::from(id)];
            assert!(slot.is_lent, "buffer {id} returned twice");
            slot.is_lent = false;
        }
        self.home += from_home as u64;
        self.remote += (out.len() - first - from_home) as u64;
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: we own the pool; its kernel requests have ended, or the proactor would have
        // leaked it; and this is the end of it.
        unsafe {
            let home = self.home + self.shared().count_home() as u64;
            Shared::close(self.shared, self.lent - home);
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("core", &self.shared().core())
            .field("config", &self.config)
            .field("len", &self.len())
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}

impl PoolConfig {
    fn check(self) -> io::Result<()> {
        let problem = if self.count == 0 || self.size == 0 {
            "a buffer pool needs buffers, and buffers need bytes"
        } else if self.size > i32::MAX as u32 {
            "a buffer holds less than 2 GiB, since a receive counts in an i32"
        } else if self.limit > RING_ENTRIES_MAX {
            "a core has at most 32768 buffers, the most that a buffer ring can hold"
        } else if self.limit < self.count {
            "a buffer pool cannot start above its limit"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }
}

/// `IORING_REGISTER_PBUF_RING` takes no more; io_uring_register_buf_ring(3).
const RING_ENTRIES_MAX: u16 = 1 << 15;

#[cfg(all(test, loom))]
mod model;
#[cfg(test)]
mod tests;
