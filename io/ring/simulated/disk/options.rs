//! What a simulated disk may do to a program, for the program's tests to choose.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::content::{PAGE, SECTOR};
use crate::io::ring::simulated::random::Chance;

/// What a crash may leave of changes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Survival {
    /// What POSIX promises, which is very little: each sector, each length and each name of a new
    /// file survives or not, whatever becomes of the others. A file may be longer after the crash
    /// than what was written of it: zeroes fill the gap. The name of a new file is certain only
    /// after a sync of its directory. A program that bears this bears any file system.
    Posix,
    /// What file systems with a journal do, as ext4 with `data=ordered` (the default of most
    /// distributions): a file gets longer on the disk together with the bytes that it gets longer
    /// by, new names survive in the order in which they were made, and a sync of one file keeps all
    /// names that were made before it. Writes over bytes that the disk has already are torn and
    /// reordered all the same.
    Ordered,
}

/// What a simulated disk does, and how often. Rates are "one in so many"; zero is never.
///
/// The default is a disk that works: it takes its time, and keeps through a crash no more than it
/// has to ([`Survival::Posix`]). Errors and short counts have to be asked for, one by one or drawn
/// from a seed with [`drawn`](Self::drawn).
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct DiskOptions {
    pub(super) capacity: u64,
    pub(super) latency: RangeInclusive<Duration>,
    pub(super) sector: usize,
    pub(super) survival: Survival,
    pub(super) cache_misses: u32,
    pub(super) short_reads: u32,
    pub(super) short_writes: u32,
    pub(super) open_errors: u32,
    pub(super) read_errors: u32,
    pub(super) write_errors: u32,
    pub(super) sync_errors: u32,
    pub(super) close_errors: u32,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl DiskOptions {
    /// A disk that works.
    pub fn new() -> Self {
        Self {
            capacity: 1 << 30,
            latency: Duration::from_micros(5)..=Duration::from_micros(200),
            sector: SECTOR,
            survival: Survival::Posix,
            cache_misses: 2,
            short_reads: 0,
            short_writes: 0,
            open_errors: 0,
            read_errors: 0,
            write_errors: 0,
            sync_errors: 0,
            close_errors: 0,
        }
    }

    /// Any of all disks: each kind of fault is there or not, often or rarely. The capacity is that
    /// of [`new`](Self::new), since only the program knows what is little.
    pub fn drawn(chance: &mut Chance) -> Self {
        let mut rate = || if chance.one_in(2) { 1 << chance.up_to(6) } else { 0 };
        let options = Self::new()
            .short_reads(rate())
            .short_writes(rate())
            .open_errors(rate())
            .read_errors(rate())
            .write_errors(rate())
            .sync_errors(rate())
            .close_errors(rate());
        let slow = Duration::from_micros(1 << chance.below(16));
        let survival = if chance.one_in(2) { Survival::Posix } else { Survival::Ordered };
        let sector = if chance.one_in(2) { SECTOR } else { PAGE };
        let misses = chance.up_to(4) as u32;
        let options = options.cache_misses(misses).survival(survival).sector(sector);
        options.latency(Duration::ZERO..=slow)
    }

    /// How many bytes it holds, counted in pages of 4096. More is `ENOSPC`; the part of a write
    /// that fits is written. Default: 1 GiB.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// How long a request takes. Default: 5 to 200 microseconds.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn latency(mut self, range: RangeInclusive<Duration>) -> Self {
        assert!(!range.is_empty(), "a latency lies between two times, the shorter one first");
        self.latency = range;
        self
    }

    /// What the disk writes as a whole or not at all: 512 bytes, which is the default, or 4096. It
    /// is what direct I/O has to be aligned to, too.
    ///
    /// # Panics
    ///
    /// If it is another number.
    pub fn sector(mut self, bytes: usize) -> Self {
        assert!(matches!(bytes, SECTOR | PAGE), "sectors have 512 or 4096 bytes, not {bytes}");
        self.sector = bytes;
        self
    }

    /// What a crash may leave of changes that were not synced. Default: [`Survival::Posix`].
    pub fn survival(mut self, survival: Survival) -> Self {
        self.survival = survival;
        self
    }

    /// One in so many reads finds its bytes not in the page cache, so that it cannot be answered at
    /// once. Default: 2.
    pub fn cache_misses(mut self, one_in: u32) -> Self {
        self.cache_misses = one_in;
        self
    }

    /// One in so many reads brings less than is there, at least one byte (of direct I/O: one
    /// sector).
    pub fn short_reads(mut self, one_in: u32) -> Self {
        self.short_reads = one_in;
        self
    }

    /// One in so many writes takes less than it was given, at least one byte (of direct I/O: one
    /// sector).
    pub fn short_writes(mut self, one_in: u32) -> Self {
        self.short_writes = one_in;
        self
    }

    /// One in so many opens fails with `EMFILE`, before anything is made or emptied.
    pub fn open_errors(mut self, one_in: u32) -> Self {
        self.open_errors = one_in;
        self
    }

    /// One in so many reads fails with `EIO`.
    pub fn read_errors(mut self, one_in: u32) -> Self {
        self.read_errors = one_in;
        self
    }

    /// One in so many changes (writes, lengths, allocations) fails with `EIO`. Of a write a part
    /// may have been written.
    pub fn write_errors(mut self, one_in: u32) -> Self {
        self.write_errors = one_in;
        self
    }

    /// One in so many syncs fails with `EIO`. As with a real one, what it should have kept is then
    /// lost or not, reads show it all the same, and the next sync does not try it again.
    pub fn sync_errors(mut self, one_in: u32) -> Self {
        self.sync_errors = one_in;
        self
    }

    /// One in so many closes answers `EIO`, and what was not synced is lost or not. The descriptor
    /// is closed all the same.
    pub fn close_errors(mut self, one_in: u32) -> Self {
        self.close_errors = one_in;
        self
    }
}
