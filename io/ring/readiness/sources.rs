//! What the engine knows of each descriptor number.
//!
//! Edge-triggered epoll reports *changes*, so the state between two changes is kept here, per
//! direction, in one bit:
//!
//! ```text
//!                     EAGAIN, or an answer that drained the descriptor
//!            ┌──────────────────────────────────────────────────────────┐
//!            │                                                          ▼
//!       MAY BE READY  (at first: nothing is known)                   BLOCKED
//!            ▲                                                          │
//!            └──────────────────────────────────────────────────────────┘
//!                                  an epoll event
//! ```
//!
//! Only a direction that epoll watches is ever BLOCKED: otherwise no event would come to end it. It
//! watches one from the first time that somebody waits there: who only reads is not told, first of
//! all, that he may write. And the answer that drained it counts only while no hang-up or error was
//! seen: those events come once, so the end of the stream has to be fetched by trying on until
//! `EAGAIN`.
//!
//! The generation counts how often the number was forgotten. It travels in the epoll data, so an
//! event of the descriptor that had the number before is recognized as stale.

use std::ops::{Index, IndexMut};

use super::pending::List;
use crate::io::request::Interest;

const HANG_UP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// The two directions of a descriptor. They wait, are told and are tried independently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Read,
    Write,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Read, Self::Write];

    pub(super) fn of(interest: Interest) -> Self {
        match interest {
            Interest::Readable => Self::Read,
            Interest::Writable => Self::Write,
        }
    }

    /// The events that concern this direction: its own, and those that nobody may miss.
    pub(super) fn events(self) -> u32 {
        let own = match self {
            Self::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Self::Write => libc::EPOLLOUT,
        };
        (own | libc::EPOLLHUP | libc::EPOLLERR) as u32
    }
}

/// One bit per side, and one for the whole.
mod bits {
    pub(super) const READY: u16 = 1;
    pub(super) const QUEUED: u16 = 1 << 2;
    pub(super) const POLLED: u16 = 1 << 4;
    pub(super) const WATCHED: u16 = 1 << 6;
    pub(super) const HANG_UP: u16 = 1 << 8;
    pub(super) const UNKNOWN: u16 = READY | READY << 1;
}

/// One descriptor number: 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    generation: u32,
    waiting: [List; 2],
    bits: u16,
}

impl Source {
    const NEW: Self = Self { generation: 0, waiting: [List::EMPTY; 2], bits: bits::UNKNOWN };

    #[inline]
    pub(super) fn waiting(&mut self, side: Side) -> &mut List {
        &mut self.waiting[side as usize]
    }

    #[inline]
    fn has(&self, bit: u16) -> bool {
        self.bits & bit != 0
    }

    /// Nothing can be had on this side before the next event.
    #[inline]
    pub(super) fn is_blocked(&self, side: Side) -> bool {
        !self.has(bits::READY << side as u8)
    }

    /// Notes that nothing more can be had. Meaningless, and ignored, where no event could end it.
    #[inline]
    pub(super) fn block(&mut self, side: Side) {
        if self.is_watched(side) {
            self.bits &= !(bits::READY << side as u8);
        }
    }

    /// A hang-up or an error stands: a short answer is not the end of what there is to fetch.
    #[inline]
    pub(super) fn is_hung_up(&self) -> bool {
        self.has(bits::HANG_UP)
    }

    /// Epoll tells of it.
    #[inline]
    pub(super) fn is_registered(&self) -> bool {
        self.has(bits::WATCHED | bits::WATCHED << 1)
    }

    /// Epoll tells of this side.
    #[inline]
    pub(super) fn is_watched(&self, side: Side) -> bool {
        self.has(bits::WATCHED << side as u8)
    }

    pub(super) fn set_watched(&mut self, sides: &[Side]) {
        for side in sides {
            self.bits |= bits::WATCHED << *side as u8;
        }
    }

    /// What epoll is to tell of, if it watches `sides`, too: changes only.
    pub(super) fn edges_with(&self, sides: &[Side]) -> u32 {
        let watched =
            Side::BOTH.into_iter().filter(|one| sides.contains(one) || self.is_watched(*one));
        watched.fold(libc::EPOLLET as u32, |edges, one| edges | one.events())
    }

    /// The side stands in the queue of those to try. It does so once.
    #[inline]
    pub(super) fn is_queued(&self, side: Side) -> bool {
        self.has(bits::QUEUED << side as u8)
    }

    #[inline]
    pub(super) fn set_queued(&mut self, side: Side, queued: bool) {
        let bit = bits::QUEUED << side as u8;
        self.bits = if queued { self.bits | bit } else { self.bits & !bit };
    }

    /// Somebody may wait for readiness itself.
    #[inline]
    pub(super) fn is_polled(&self, side: Side) -> bool {
        self.has(bits::POLLED << side as u8)
    }

    pub(super) fn set_polled(&mut self, side: Side, polled: bool) {
        let bit = bits::POLLED << side as u8;
        self.bits = if polled { self.bits | bit } else { self.bits & !bit };
    }

    /// Takes in an event: epoll tells the whole state of what it watches, not only what changed. It
    /// never comes to watch less, so what it does not tell any more is over.
    #[inline]
    pub(super) fn see(&mut self, events: u32) {
        for side in Side::BOTH {
            if events & side.events() != 0 {
                self.bits |= bits::READY << side as u8;
            }
        }
        let hung_up = if events & HANG_UP != 0 { bits::HANG_UP } else { 0 };
        self.bits = self.bits & !bits::HANG_UP | hung_up;
    }

    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Back to knowing nothing. A place in the queue is kept: the entry there still names the
    /// number, finds nobody waiting (or the next owner's first request, which is to be tried
    /// anyhow).
    fn forget(&mut self) {
        assert_eq!(self.waiting, [List::EMPTY; 2], "requests end before their descriptor goes");
        self.generation = self.generation.wrapping_add(1);
        self.bits = bits::UNKNOWN | self.bits & (bits::QUEUED | bits::QUEUED << 1);
    }
}

/// All sources by descriptor number: bounded by the largest number the process may open
/// (`RLIMIT_NOFILE`), and the kernel always gives out the smallest.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: Vec<Source>,
}

impl Sources {
    /// The source of a number, new ones included.
    pub(super) fn open(&mut self, number: u32) -> &mut Source {
        let index = number as usize;
        if index >= self.known.len() {
            self.known.resize(index + 1, Source::NEW);
        }
        &mut self.known[index]
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Source> {
        self.known.get_mut(number as usize)
    }

    pub(super) fn forget(&mut self, number: u32) {
        if let Some(source) = self.get(number) {
            source.forget();
        }
    }
}

impl Index<u32> for Sources {
    type Output = Source;

    #[inline]
    fn index(&self, number: u32) -> &Source {
        &self.known[number as usize]
    }
}

impl IndexMut<u32> for Sources {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut Source {
        &mut self.known[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_small() {
        assert_eq!(size_of::<Source>(), 16);
    }

    #[test]
    fn only_a_watched_side_is_blocked_and_an_event_ends_it() {
        let mut source = Source::NEW;
        source.block(Side::Read);
        assert!(!source.is_blocked(Side::Read), "no event would ever end it");

        source.set_watched(&[Side::Read]);
        source.block(Side::Write);
        assert!(!source.is_blocked(Side::Write), "nor of this side");
        source.set_watched(&[Side::Write]);
        source.block(Side::Read);
        source.block(Side::Write);
        source.see(libc::EPOLLIN as u32);
        assert!(!source.is_blocked(Side::Read));
        assert!(source.is_blocked(Side::Write));
        source.see(libc::EPOLLHUP as u32);
        assert!(!source.is_blocked(Side::Write), "a hang-up concerns both sides");
        assert!(source.is_hung_up());
        source.see(libc::EPOLLOUT as u32);
        assert!(!source.is_hung_up(), "each event tells the whole state of what is watched");
    }

    #[test]
    fn forgetting_keeps_only_the_place_in_the_queue() {
        let mut source = Source::NEW;
        source.set_watched(&[Side::Read]);
        source.block(Side::Read);
        source.set_queued(Side::Write, true);
        source.set_polled(Side::Read, true);
        source.forget();
        assert_eq!(source.generation(), 1);
        assert!(source.is_queued(Side::Write) && !source.is_queued(Side::Read));
        assert!(!source.is_registered() && !source.is_blocked(Side::Read));
        assert!(!source.is_polled(Side::Read));
    }
}
