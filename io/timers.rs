//! The wheel: deadlines to wakers, exact to the nanosecond.
//!
//! A deadline is a number of eleven digits in base 64, and there is one row of 64 slots per
//! digit. A timer lies in the row of the highest digit in which its deadline differs from
//! `elapsed`:
//!
//! ```text
//!   elapsed   0 0 0 0 0 3 9 17 40 2 8
//!   deadline  0 0 0 0 0 3 9 22  5 0 1      row 3, slot 22
//!                           ^^
//! ```
//!
//! So the rows are in order (all of row 0 is due before any of row 1), the slots of a row are in
//! order, and the first occupied slot of the first occupied row holds the next timer: two bit
//! scans. Slots keep the earliest deadline ever put into them. Nothing moves until that time
//! comes; then `elapsed` goes there, what is due fires straight from where it lies, and the rest
//! of the slot moves to lower rows. A timer moves at most ten times in its life and, since most
//! are removed or fire from where they were put, mostly never. A slot of row 0 is one nanosecond,
//! so nothing is ever rounded.
//!
//! Entries live in a slab and the lists run through them by index: insert and remove are O(1) and
//! allocate only when there are more timers than ever before. There is no limit but memory: each
//! entry belongs to one future (or one internal timer) that somebody keeps.

#[cfg(test)]
mod tests;

use std::task::Waker;

const DIGIT_BITS: usize = 6;
const SLOTS_PER_ROW: usize = 1 << DIGIT_BITS;
const ROWS: usize = u64::BITS.div_ceil(DIGIT_BITS as u32) as usize;

/// The end of a list.
const NIL: u32 = u32::MAX;

/// What happens when a deadline has come.
#[derive(Debug)]
pub(crate) enum Expiry {
    /// Wake whoever waits.
    Wake(Waker),
    /// A timer of the proactor's own, which knows its number.
    Token(u64),
}

/// Names one timer of one core. Numbers are never used again, so a key that outlives its timer (it
/// fired, or a message about it was late) matches nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    number: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// Order of insertion, and the generation of the key; zero in a vacant entry.
    number: u64,
    expiry: Option<Expiry>,
    previous: u32,
    /// Also links the vacant entries.
    next: u32,
    slot: u16,
}

#[derive(Clone, Debug)]
struct Slot {
    /// No later than the first deadline in the list: removing that one does not search for the
    /// next.
    earliest: u64,
    head: u32,
    tail: u32,
}

/// A timer that is about to fire; ordered as they fire.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due {
    deadline: u64,
    number: u64,
    index: u32,
}

/// All timers of one core.
#[derive(Debug)]
pub(crate) struct Timers {
    slots: Box<[Slot]>,
    /// One bit per slot that is not empty, one word per row.
    occupied: [u64; ROWS],
    /// One bit per row that is not empty.
    rows: u16,
    /// Every slot's place is relative to this time; nothing in a slot is before it, except what was
    /// already late when inserted, which lies in its slot of row 0.
    elapsed: u64,
    entries: Vec<Entry>,
    vacant: u32,
    last_number: u64,
    /// Kept for its memory; empty between calls.
    due: Vec<Due>,
}

impl Timers {
    pub(crate) fn new(now: u64) -> Self {
        let empty = Slot { earliest: u64::MAX, head: NIL, tail: NIL };
        Self {
            slots: vec![empty; ROWS * SLOTS_PER_ROW].into_boxed_slice(),
            occupied: [0; ROWS],
            rows: 0,
            elapsed: now,
            entries: Vec::new(),
            vacant: NIL,
            last_number: 0,
            due: Vec::new(),
        }
    }

    /// Timers that have neither fired nor been removed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.iter().filter(|entry| entry.expiry.is_some()).count()
    }

    /// Adds a timer. A deadline that has passed is as good as any other: it fires at the next
    /// [`expire`](Self::expire).
    pub(crate) fn insert(&mut self, deadline: u64, expiry: Expiry) -> TimerKey {
        self.last_number += 1;
        let number = self.last_number;
        let entry =
            Entry { deadline, number, expiry: Some(expiry), previous: NIL, next: NIL, slot: 0 };
        let index = match self.vacant {
            NIL => {
                assert!(self.entries.len() < NIL as usize, "more timers than an index can name");
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            index => {
                let reused = &mut self.entries[index as usize];
                self.vacant = reused.next;
                *reused = entry;
                index
            }
        };
        self.link(index);
        TimerKey { index, number }
    }

    /// Whether the timer has neither fired nor been removed.
    pub(crate) fn is_pending(&self, key: TimerKey) -> bool {
        self.entry(key).is_some()
    }

    /// Whether the timer, when it fires, wakes the task of `waker`; `None` if it is not pending.
    pub(crate) fn will_wake(&self, key: TimerKey, waker: &Waker) -> Option<bool> {
        self.entry(key).map(|entry| match &entry.expiry {
            Some(Expiry::Wake(current)) => current.will_wake(waker),
            _ => false,
        })
    }

    /// Gives a pending timer another waker. Answers the waker that nobody needs any more (the old
    /// one, or `waker` itself if the timer is not pending), to be dropped where no table is
    /// borrowed.
    #[must_use]
    pub(crate) fn replace_waker(&mut self, key: TimerKey, waker: Waker) -> Option<Waker> {
        let Some(entry) = self.entries.get_mut(key.index as usize) else { return Some(waker) };
        if entry.number != key.number {
            return Some(waker);
        }
        match entry.expiry.replace(Expiry::Wake(waker)) {
            Some(Expiry::Wake(old)) => Some(old),
            _ => None,
        }
    }

    /// Moves a pending timer to another deadline; among equal deadlines it keeps the rank of its
    /// insertion. Answers whether it was pending.
    pub(crate) fn reset(&mut self, key: TimerKey, deadline: u64) -> bool {
        let pending = self.is_pending(key);
        if pending {
            self.unlink(key.index);
            self.entries[key.index as usize].deadline = deadline;
            self.link(key.index);
        }
        pending
    }

    /// Takes a timer out. Answers what it would have done, to be dropped where no table is
    /// borrowed; `None` if it is not pending.
    #[must_use]
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Expiry> {
        self.entry(key)?;
        self.unlink(key.index);
        Some(self.release(key.index))
    }

    /// When to call [`expire`](Self::expire) next: never later than the next deadline, and
    /// earlier only if a timer has been removed that would have been the first.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.first_slot().map(|slot| self.slots[slot].earliest)
    }

    /// Takes out every timer whose deadline is not after `now`, ordered by deadline and then by
    /// insertion, and appends what they do to `out`. Afterwards
    /// [`next_deadline`](Self::next_deadline) is after `now`.
    pub(crate) fn expire(&mut self, now: u64, out: &mut Vec<Expiry>) {
        while let Some(slot) = self.first_slot() {
            if self.slots[slot].earliest > now {
                break;
            }
            self.open(slot, now);
        }
        if self.due.len() > 1 {
            self.due.sort_unstable();
        }
        let mut due = std::mem::take(&mut self.due);
        out.extend(due.drain(..).map(|timer| self.release(timer.index)));
        self.due = due;
    }

    /// Empties the first slot: what is due into `due`, the rest into lower rows.
    fn open(&mut self, slot: usize, now: u64) {
        // The new `elapsed` lies in this slot. All slots before it are empty, so the places of all
        // other timers stay right; those of this slot now agree with `elapsed` in one digit more.
        let within = (1_u64 << (slot / SLOTS_PER_ROW * DIGIT_BITS)) - 1;
        let last = self.slots[slot].earliest | within;
        self.elapsed = self.elapsed.max(now.min(last));

        let mut index = self.slots[slot].head;
        self.clear(slot);
        while index != NIL {
            let Entry { deadline, number, next, .. } = self.entries[index as usize];
            if deadline <= now {
                self.due.push(Due { deadline, number, index });
            } else {
                self.link(index);
            }
            index = next;
        }
    }

    fn entry(&self, key: TimerKey) -> Option<&Entry> {
        self.entries.get(key.index as usize).filter(|entry| entry.number == key.number)
    }

    /// Makes an unlinked entry vacant.
    fn release(&mut self, index: u32) -> Expiry {
        let entry = &mut self.entries[index as usize];
        let expiry = entry.expiry.take().expect("a timer fires or is removed once");
        entry.number = 0;
        entry.next = self.vacant;
        self.vacant = index;
        expiry
    }

    fn first_slot(&self) -> Option<usize> {
        if self.rows == 0 {
            return None;
        }
        let row = self.rows.trailing_zeros() as usize;
        Some(row * SLOTS_PER_ROW + self.occupied[row].trailing_zeros() as usize)
    }

    fn place(&self, deadline: u64) -> usize {
        let deadline = deadline.max(self.elapsed);
        // Bit 0 is set so that a deadline of right now belongs to row 0.
        let highest_difference = ((deadline ^ self.elapsed) | 1).ilog2() as usize;
        let row = highest_difference / DIGIT_BITS;
        let digit = (deadline >> (row * DIGIT_BITS)) as usize % SLOTS_PER_ROW;
        row * SLOTS_PER_ROW + digit
    }

    /// Appends an entry to the list of the slot where its deadline belongs.
    fn link(&mut self, index: u32) {
        let deadline = self.entries[index as usize].deadline;
        let place = self.place(deadline);
        let slot = &mut self.slots[place];
        slot.earliest = slot.earliest.min(deadline);
        let previous = std::mem::replace(&mut slot.tail, index);
        match previous {
            NIL => {
                slot.head = index;
                self.occupied[place / SLOTS_PER_ROW] |= 1 << (place % SLOTS_PER_ROW);
                self.rows |= 1 << (place / SLOTS_PER_ROW);
            }
            previous => self.entries[previous as usize].next = index,
        }
        let entry = &mut self.entries[index as usize];
        entry.previous = previous;
        entry.next = NIL;
        entry.slot = place as u16;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { previous, next, slot, .. } = self.entries[index as usize];
        let place = usize::from(slot);
        match previous {
            NIL => self.slots[place].head = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NIL => self.slots[place].tail = previous,
            next => self.entries[next as usize].previous = previous,
        }
        if self.slots[place].head == NIL {
            self.clear(place);
        }
    }

    fn clear(&mut self, place: usize) {
        self.slots[place] = Slot { earliest: u64::MAX, head: NIL, tail: NIL };
        let row = place / SLOTS_PER_ROW;
        self.occupied[row] &= !(1 << (place % SLOTS_PER_ROW));
        if self.occupied[row] == 0 {
            self.rows &= !(1 << row);
        }
    }
}
