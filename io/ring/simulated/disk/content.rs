//! The bytes of one file, twice: as reads see them, and as the disk has them.
//!
//! ```text
//!   write ──► cache: pages, length ──sync──► disk: pages, length ──crash──► all that is left
//!                        └── write_back, at any time: any sector ──►┘
//! ```
//!
//! What is dirty reaches the disk in no order, a sector at a time. Metadata (the length, and which
//! pages exist) reaches it in steps: first the file is cut to the shortest that it was since the
//! last step, then it grows. A hole is a page that is not there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::options::Survival;
use crate::io::ring::simulated::random::Chance;

/// What space is counted in.
pub(super) const PAGE: usize = 4096;
/// The least that a disk writes as a whole.
pub(super) const SECTOR: usize = 512;

const ALL_SECTORS: u8 = u8::MAX;

/// Shared as long as cache and disk have the same bytes; so reserved pages cost next to nothing.
type Bytes = Rc<[u8; PAGE]>;

#[derive(Debug)]
struct Page {
    bytes: Bytes,
    /// Sectors that the disk may not have, a bit for each.
    dirty: u8,
    /// The disk has no place for it: it comes to be there as a whole, with the metadata.
    fresh: bool,
}

#[derive(Debug, Default)]
struct Stored {
    pages: BTreeMap<u64, Bytes>,
    length: u64,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Page>,
    length: u64,
    /// The shortest that it was since the disk has heard of its length.
    low: u64,
    stored: Stored,
}

/// One page of them for all, until somebody writes to his.
fn zeroes() -> Bytes {
    thread_local!(static ZEROES: Bytes = Rc::new([0; PAGE]));
    ZEROES.with(Clone::clone)
}

fn page_of(at: u64) -> u64 {
    at / PAGE as u64
}

fn offset_in_page(at: u64) -> usize {
    (at % PAGE as u64) as usize
}

/// The sectors that are written together, as bits.
fn units(sector: usize) -> impl Iterator<Item = u8> {
    let masks: &[u8] = if sector == PAGE { &[ALL_SECTORS] } else { &[1, 2, 4, 8, 16, 32, 64, 128] };
    masks.iter().copied()
}

impl Page {
    /// The bytes of some sectors become those of the disk.
    fn store(&self, number: u64, sectors: u8, stored: &mut Stored) {
        if sectors == ALL_SECTORS {
            stored.pages.insert(number, self.bytes.clone());
            return;
        }
        let bytes = stored.pages.entry(number).or_insert_with(zeroes);
        let bytes = Rc::make_mut(bytes);
        for sector in (0..PAGE / SECTOR).filter(|sector| sectors & 1 << sector != 0) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            bytes[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }
}

impl Stored {
    fn cut(&mut self, length: u64) {
        self.pages.retain(|number, _| number * (PAGE as u64) < length);
        if let (Some(bytes), rest @ 1..) =
            (self.pages.get_mut(&page_of(length)), offset_in_page(length))
        {
            Rc::make_mut(bytes)[rest..].fill(0);
        }
        self.length = length;
    }
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many pages it takes.
    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Bytes from a position on, as many as there are, and as fit.
    pub(super) fn read(&self, at: u64, room: usize) -> Vec<u8> {
        let count = self.length.saturating_sub(at).min(room as u64) as usize;
        let mut bytes = vec![0; count];
        let mut done = 0;
        while done < count {
            let (at, from) = (at + done as u64, offset_in_page(at + done as u64));
            let part = (PAGE - from).min(count - done);
            if let Some(page) = self.pages.get(&page_of(at)) {
                bytes[done..done + part].copy_from_slice(&page.bytes[from..from + part]);
            }
            done += part;
        }
        bytes
    }

    /// Writes at a position, with as many new pages as are free. How many bytes that were.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8], mut free: u64) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let (at, from) = (at + done as u64, offset_in_page(at + done as u64));
            let Some(page) = self.page(page_of(at), &mut free) else { break };
            let part = (PAGE - from).min(bytes.len() - done);
            Rc::make_mut(&mut page.bytes)[from..from + part]
                .copy_from_slice(&bytes[done..done + part]);
            for sector in from / SECTOR..=(from + part - 1) / SECTOR {
                page.dirty |= 1 << sector;
            }
            done += part;
            self.length = self.length.max(at + part as u64);
        }
        done
    }

    fn page(&mut self, number: u64, free: &mut u64) -> Option<&mut Page> {
        match self.pages.entry(number) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                *free = free.checked_sub(1)?;
                // The disk may have an older page of this number, cut off since.
                let page = Page { bytes: zeroes(), dirty: ALL_SECTORS, fresh: true };
                Some(entry.insert(page))
            }
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.pages.retain(|number, _| number * (PAGE as u64) < length);
            if let (Some(page), rest @ 1..) =
                (self.pages.get_mut(&page_of(length)), offset_in_page(length))
            {
                Rc::make_mut(&mut page.bytes)[rest..].fill(0);
                page.dirty |= ALL_SECTORS << (rest / SECTOR);
            }
        }
        self.length = length;
        self.low = self.low.min(length);
    }

    /// Makes all pages of a range exist, and the file reach to its end. `false`: there are not
    /// enough.
    pub(super) fn reserve(&mut self, start: u64, end: u64, mut free: u64) -> bool {
        let range = page_of(start)..page_of(end - 1) + 1;
        let there = self.pages.range(range.clone()).count() as u64;
        if range.end - range.start - there > free {
            return false;
        }
        for number in range {
            self.page(number, &mut free);
        }
        self.length = self.length.max(end);
        true
    }

    /// The disk has all of it.
    pub(super) fn sync(&mut self) {
        self.stored.pages.retain(|number, _| self.pages.contains_key(number));
        for (number, page) in &mut self.pages {
            page.store(*number, page.dirty, &mut self.stored);
            (page.dirty, page.fresh) = (0, false);
        }
        self.stored.length = self.length;
        self.low = self.length;
    }

    /// A sync that fails: some of it is on the disk, and nobody will try the rest again.
    pub(super) fn lose(&mut self, sector: usize, chance: &mut Chance) {
        self.store_metadata();
        for (number, page) in &mut self.pages {
            for unit in units(sector).filter(|unit| page.dirty & unit != 0) {
                if chance.one_in(2) {
                    page.store(*number, unit, &mut self.stored);
                }
            }
            (page.dirty, page.fresh) = (0, false);
        }
    }

    /// The disk gets to know the length.
    fn store_metadata(&mut self) {
        if self.low < self.stored.length {
            self.stored.cut(self.low);
            // What was written behind the cut since may just have been cut off with the rest.
            for (_, page) in self.pages.range_mut(page_of(self.low)..) {
                page.dirty = ALL_SECTORS;
            }
        }
        self.stored.length = self.length;
        self.low = self.length;
    }

    /// Some of what is dirty reaches the disk because it is time: what is written over later was on
    /// the disk before, now and then.
    pub(super) fn write_back(&mut self, survival: Survival, sector: usize, chance: &mut Chance) {
        match survival {
            Survival::Ordered if chance.one_in(4) => self.sync(),
            Survival::Posix if chance.one_in(4) => self.store_metadata(),
            _ => {
                let (low, ordered) = (self.low, survival == Survival::Ordered);
                for (number, page) in &mut self.pages {
                    // In order, new pages wait for the metadata, and so does what is beyond a cut.
                    if ordered && (page.fresh || (number + 1) * PAGE as u64 > low) {
                        continue;
                    }
                    for unit in units(sector) {
                        if page.dirty & unit != 0 && chance.one_in(4) {
                            page.store(*number, unit, &mut self.stored);
                            page.dirty &= !unit;
                        }
                    }
                }
            }
        }
    }

    /// The power goes. What is left is what the disk has, and what was on its way there.
    pub(super) fn crash(&mut self, survival: Survival, sector: usize, chance: &mut Chance) {
        let before = self.stored.length;
        let steps = chance.below(3);
        let cut_is_lost = steps == 0 && self.low < before;
        if steps > 0 && self.low < before {
            self.stored.cut(self.low);
        }
        let base = self.stored.length;
        if steps == 2 && self.length > base {
            self.stored.length = grown(base, self.length, chance);
        }
        let length = self.stored.length;
        for (number, page) in &self.pages {
            let start = number * PAGE as u64;
            if survival == Survival::Ordered && page.fresh {
                let end = start + PAGE as u64;
                let grows = start < length && end > base && length > base;
                // Else a hole that was filled; or what follows a cut that did not come about.
                let follows = cut_is_lost && end > self.low;
                if grows || start < base && !follows && chance.one_in(2) {
                    page.store(*number, ALL_SECTORS, &mut self.stored);
                }
                continue;
            }
            for unit in units(sector).filter(|unit| page.dirty & unit != 0) {
                let start = start + unit.trailing_zeros() as u64 * SECTOR as u64;
                let grows = start < length && start + sector as u64 > base && length > base;
                let must = survival == Survival::Ordered && grows;
                let may_not = survival == Survival::Ordered
                    && (start >= length || cut_is_lost && start + sector as u64 > self.low);
                if must || !may_not && chance.one_in(2) {
                    page.store(*number, page.dirty & unit, &mut self.stored);
                }
            }
        }
        self.recover();
    }

    /// After a crash the cache has what the disk has.
    fn recover(&mut self) {
        self.stored.cut(self.stored.length);
        self.length = self.stored.length;
        self.low = self.length;
        let page = |(number, bytes): (&u64, &Bytes)| {
            (*number, Page { bytes: bytes.clone(), dirty: 0, fresh: false })
        };
        self.pages = self.stored.pages.iter().map(page).collect();
    }
}

/// How far a file has grown that was growing: to its end, or to where a sector begins.
fn grown(from: u64, to: u64, chance: &mut Chance) -> u64 {
    if chance.one_in(2) {
        return to;
    }
    let some = from + chance.bits() % (to - from + 1);
    some.next_multiple_of(SECTOR as u64).min(to)
}
