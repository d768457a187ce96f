//! What the clones of a file and its requests in flight have in common.
//!
//! ```text
//!   File ─┐                    ┌─ descriptor, alignment
//!   clone ┼─► Arc<Shared> ─────┼─ ledger          (changes that nobody waits for)
//!   slots ┘                    └─ failed          (a sync failed: nothing is certain any more)
//! ```
//!
//! The number is closed by the last of them. `File::close` wants to know how that went: it leaves a
//! `Handover` behind, which the last one gives the descriptor to instead of closing it.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use super::ledger::{EVERYTHING, Ledger};
use super::operation::time_is_up;
use crate::io::descriptor::Descriptor;
use crate::io::payload::AnyPayload;
use crate::io::request::{LENGTH_MAX, direct_alignment, has_positions, status_flags};
use crate::io::timed::timed_out;

#[derive(Debug)]
pub(super) struct Shared {
    /// `None` only once it was handed over, when nobody is left to ask.
    descriptor: Option<Descriptor>,
    pub(super) ledger: Ledger,
    /// Writes go to the end of the file, whatever their offset (`O_APPEND`).
    append: bool,
    /// It is no pipe, socket or terminal.
    positions: bool,
    alignment: Option<Alignment>,
    pub(super) luck: Luck,
    /// The error number of the first sync that failed; 0: none.
    failed: AtomicI32,
    handover: OnceLock<Arc<Handover>>,
    /// A core has ended while the kernel still held a request of it.
    stranded: AtomicBool,
}

/// What direct I/O on a file needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) memory: u32,
    /// Of the offset and of the length.
    pub(super) offset: u32,
}

impl Shared {
    /// Takes over an open file, and learns from it what holds for each of its reads and writes.
    pub(super) fn new(descriptor: Descriptor) -> Self {
        let flags = status_flags(descriptor.number());
        let alignment = if flags & libc::O_DIRECT != 0 {
            let told = direct_alignment(descriptor.number());
            told.map(|(memory, offset)| Alignment { memory, offset })
        } else {
            None
        };
        Self {
            append: flags & libc::O_APPEND != 0,
            positions: has_positions(descriptor.number()),
            descriptor: Some(descriptor),
            ledger: Ledger::default(),
            alignment,
            luck: Luck::new(flags & libc::O_DIRECT == 0),
            failed: AtomicI32::new(0),
            handover: OnceLock::new(),
            stranded: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn number(&self) -> RawFd {
        self.descriptor().number()
    }

    #[inline]
    fn descriptor(&self) -> &Descriptor {
        self.descriptor.as_ref().expect("handed over by the last owner only")
    }

    /// Whether it is open for direct I/O, which goes past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.luck.is_out()
    }

    pub(super) fn alignment(&self) -> Option<Alignment> {
        self.alignment
    }

    /// Whether a read or write can be asked of this file at all. The length that is to be asked
    /// for.
    #[inline]
    pub(super) fn check(&self, address: *const u8, length: usize, offset: u64) -> io::Result<u32> {
        // The kernel takes -1 for "the current position", and refuses other negative offsets.
        if i64::try_from(offset).is_err() {
            let text = "the offset is beyond what a file can have (2^63 - 1)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !self.positions {
            return Err(io::Error::from_raw_os_error(libc::ESPIPE));
        }
        let length = length.min(LENGTH_MAX) as u32;
        match self.alignment {
            Some(alignment) => alignment.check(address, length, offset).map(|()| length),
            None => Ok(length),
        }
    }

    /// Whether a read or write can go on from here.
    pub(super) fn is_aligned(&self, offset: u64) -> bool {
        self.alignment.is_none_or(|alignment| offset % u64::from(alignment.offset) == 0)
    }

    /// The bytes that a write may change.
    #[inline]
    pub(super) fn written(&self, offset: u64, length: u32) -> Range<u64> {
        if self.append { EVERYTHING } else { offset..offset.saturating_add(length.into()) }
    }

    /// Waits until the kernel is done with every dropped change in the range.
    pub(super) async fn clear(&self, range: Range<u64>) -> io::Result<()> {
        poll_fn(|cx| match self.ledger.poll_clear(&range, cx.waker()) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(core)) => Poll::Ready(Err(io::Error::other(format!(
                "a dropped write of core {core}, which is gone, is still with the kernel"
            )))),
            Poll::Pending if time_is_up() => Poll::Ready(Err(timed_out())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The error of a file whose sync has failed.
    #[inline]
    pub(super) fn intact(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Acquire) {
            0 => Ok(()),
            number => Err(sync_failed(number)),
        }
    }

    /// Waits for dropped changes in the range. An error when a sync has failed.
    #[inline]
    pub(super) async fn may_change(&self, range: Range<u64>) -> io::Result<()> {
        self.clear(range).await?;
        self.intact()
    }

    /// Takes note of how a sync ended. The kernel tells of lost pages once: a second sync would
    /// find nothing to write and succeed, so the failure has to be remembered here.
    pub(super) fn synced(&self, outcome: i64) {
        if let libc::EIO | libc::ENOSPC | libc::EDQUOT = -outcome as i32 {
            let number = -outcome as i32;
            let _ = self.failed.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The descriptor for closing, when every request in flight is over.
    pub(super) async fn surrender(self: Arc<Self>) -> io::Result<Descriptor> {
        let shared = match Arc::try_unwrap(self) {
            Ok(mut shared) => return Ok(shared.descriptor.take().expect("not handed over")),
            Err(shared) => shared,
        };
        let handover = Arc::new(Handover::default());
        shared.handover.set(handover.clone()).expect("the last handle is closed once");
        // Pairs with the fence in `strand`: one of the two sees the other.
        fence(Ordering::SeqCst);
        if shared.stranded.load(Ordering::Relaxed) {
            handover.lock().stranded = true;
        }
        drop(shared);
        poll_fn(|cx| handover.poll(cx.waker())).await
    }

    /// A request is over. If it was the last to hold on to the file, what is left: its drop may
    /// wake who waits to close it.
    pub(super) fn let_go(self: Arc<Self>) -> Option<AnyPayload> {
        Arc::into_inner(self).map(AnyPayload::plain)
    }

    /// The core of a request has ended, and the kernel still holds it. Who waits for its end shall
    /// look again.
    pub(super) fn strand(&self, wakers: &mut Vec<Waker>) {
        self.stranded.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Some(handover) = self.handover.get() {
            let mut slot = handover.lock();
            slot.stranded = true;
            wakers.extend(slot.waker.take());
        }
        self.ledger.strand(wakers);
    }

    /// The descriptor, if nothing is in flight and no clone is left.
    pub(super) fn into_owned_fd(self: Arc<Self>) -> Result<OwnedFd, Arc<Self>> {
        let mut shared = Arc::try_unwrap(self)?;
        Ok(shared.descriptor.take().expect("not handed over").into())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let (Some(handover), Some(descriptor)) = (self.handover.take(), self.descriptor.take()) {
            handover.give(descriptor);
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor().as_fd()
    }
}

#[cold]
fn sync_failed(number: i32) -> io::Error {
    let cause = io::Error::from_raw_os_error(number);
    io::Error::new(
        cause.kind(),
        format!("an earlier sync of this file failed, what it should have kept is lost: {cause}"),
    )
}

impl Alignment {
    #[inline]
    fn check(self, address: *const u8, length: u32, offset: u64) -> io::Result<()> {
        let memory = address.addr() & (self.memory as usize - 1);
        let range = (u64::from(length) | offset) & (u64::from(self.offset) - 1);
        if memory == 0 && range == 0 { Ok(()) } else { Err(self.error()) }
    }

    #[cold]
    fn error(self) -> io::Error {
        let Self { memory, offset } = self;
        let text = if memory == offset {
            format!("O_DIRECT needs buffer address, length and offset aligned to {memory}")
        } else {
            format!(
                "O_DIRECT needs the buffer address aligned to {memory}, and length and offset \
                 aligned to {offset}"
            )
        };
        io::Error::new(io::ErrorKind::InvalidInput, text)
    }
}

/// Whether a read is worth a try at once: whether the last ones were answered by the page cache.
///
/// A miss is followed by reads that are not tried, one at first and up to 63. Cores that meddle
/// with it at the same time do no harm: it is a guess.
#[derive(Debug)]
pub(super) struct Luck {
    /// Reads still to be left out; `NEVER` for files without a cache.
    pause: AtomicU8,
    /// How many the last miss has cost.
    penalty: AtomicU8,
}

impl Luck {
    const NEVER: u8 = u8::MAX;
    const PENALTY_MAX: u8 = 63;

    fn new(cached: bool) -> Self {
        Self {
            pause: AtomicU8::new(if cached { 0 } else { Self::NEVER }),
            penalty: AtomicU8::new(0),
        }
    }

    /// Whether the file has no cache that a try could meet (`O_DIRECT`).
    fn is_out(&self) -> bool {
        self.pause.load(Ordering::Relaxed) == Self::NEVER
    }

    #[inline]
    pub(super) fn is_good(&self) -> bool {
        match self.pause.load(Ordering::Relaxed) {
            0 => true,
            Self::NEVER => false,
            pause => {
                self.pause.store(pause - 1, Ordering::Relaxed);
                false
            }
        }
    }

    #[inline]
    pub(super) fn hit(&self) {
        if self.penalty.load(Ordering::Relaxed) != 0 {
            self.penalty.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn miss(&self) {
        let penalty = (self.penalty.load(Ordering::Relaxed) * 2 + 1).min(Self::PENALTY_MAX);
        self.penalty.store(penalty, Ordering::Relaxed);
        self.pause.store(penalty, Ordering::Relaxed);
    }
}

/// A descriptor on its way from whoever needed it last to whoever waits to close it. Given up by
/// both, it is closed.
#[derive(Debug, Default)]
struct Handover(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    descriptor: Option<Descriptor>,
    waker: Option<Waker>,
    /// Somebody will need it for ever.
    stranded: bool,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, descriptor: Descriptor) {
        let waker = {
            let mut slot = self.lock();
            slot.descriptor = Some(descriptor);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<io::Result<Descriptor>> {
        // Foreign code: neither copied nor dropped under the lock.
        let waker = waker.clone();
        let mut slot = self.lock();
        if let Some(descriptor) = slot.descriptor.take() {
            return Poll::Ready(Ok(descriptor));
        }
        if slot.stranded {
            let text = "an operation on the file is still with the kernel, and its core is gone";
            return Poll::Ready(Err(io::Error::other(text)));
        }
        let old = slot.waker.replace(waker);
        drop(slot);
        drop(old);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fs::File;

    fn file() -> Shared {
        Shared::new(OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap()).into())
    }

    #[test]
    fn a_failed_sync_is_remembered_by_every_clone() {
        quoit::block_on(async {
            let shared = file();
            for harmless in [0, -i64::from(libc::EINVAL), -i64::from(libc::EROFS)] {
                shared.synced(harmless);
            }
            assert!(shared.intact().is_ok());
            shared.synced(-i64::from(libc::ENOSPC));
            shared.synced(-i64::from(libc::EIO));
            shared.synced(0);
            let file = File::from_shared(shared);
            let clone = file.clone();
            let first = |error: &io::Error| {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull, "the first one counts");
                assert!(error.to_string().contains("an earlier sync"), "{error}");
            };
            first(clone.write_at("x", 0).await.unwrap_err().error());
            first(&clone.set_len(0).await.unwrap_err());
            first(&clone.allocate(0, 1).await.unwrap_err());
            first(&clone.sync_data().await.unwrap_err());
            assert_eq!(file.read_at(vec![0; 4], 0).await.unwrap().1, b"\x7fELF", "reads go on");
            first(&clone.close().await.unwrap_err());
            first(&file.close().await.unwrap_err());
        });
    }

    #[test]
    fn alignment_is_wanted_of_address_length_and_offset() {
        let alignment = Alignment { memory: 512, offset: 4096 };
        let at = |address: usize| std::ptr::without_provenance::<u8>(address);
        assert!(alignment.check(at(512), 8192, 4096).is_ok());
        for (address, length, offset) in [(256, 4096, 0), (512, 512, 0), (512, 4096, 2048)] {
            let error = alignment.check(at(address), length, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("4096"), "{error}");
        }
        let same = Alignment { memory: 512, offset: 512 };
        let text = same.check(at(1), 512, 0).unwrap_err().to_string();
        assert_eq!(text, "O_DIRECT needs buffer address, length and offset aligned to 512");
    }

    #[test]
    fn misses_cost_tries_and_a_hit_restores_them() {
        let luck = Luck::new(true);
        let left_out = |luck: &Luck| (0..1000).take_while(|_| !luck.is_good()).count();
        for expected in [1, 3, 7, 15, 31, 63, 63] {
            luck.miss();
            assert_eq!(left_out(&luck), expected);
        }
        luck.hit();
        luck.miss();
        assert_eq!(left_out(&luck), 1);
        assert_eq!(left_out(&Luck::new(false)), 1000, "no cache, no try");
    }
}
