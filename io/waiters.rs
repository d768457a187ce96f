//! Futures that wait at a resource, in the order of their first poll.
//!
//! ```text
//!   poll: not ready ──► enrolled (waker kept) ──► notified ──► poll: served, struck off
//!                            │                       │
//!                            └── dropped: struck off ┴──► if it stood first, the wake passes on
//! ```
//!
//! Only the first may be served, so concurrent reads get their bytes in the order in which they
//! asked. One waiter is the rule and needs no memory of its own; more stand in a boxed queue, which
//! is bounded by the futures that exist.
//!
//! Observers only want to know, and take nothing. So they have no place in the line, where one that
//! is woken and not polled again would hold up the others: a wake goes to all who asked before the
//! first in line did, and strikes them off until they ask again.
//!
//! The poll-based traits have no future whose drop would tell that nobody waits any more. So their
//! one place is the last: whoever has a future goes before it, and a wake strikes it off.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::task::{RawWakerVTable, Waker};

use crate::io::mailbox::WaiterId;

/// The poll-based traits share this place in line, as their contract of one waker per direction has
/// it.
pub(crate) const POLLER: WaiterId = WaiterId::MIN;

/// Stands for a read that has taken a part on another core, and comes first.
pub(crate) const HOLDER: WaiterId = WaiterId::MAX;

/// Who polls: its waker, and a copy of it that may be kept.
///
/// Copying a waker may run foreign code, which may call back into the core. So it is not done while
/// the tables are borrowed: a poll that wants to keep a foreign waker is told to wait, and runs
/// again with a copy. The runtime's own wakers, which do no such thing, are copied on the spot.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    waker: &'a Waker,
    copy: Option<Waker>,
    wanted: bool,
}

/// The table of the wakers that may be copied anywhere.
static TAME: AtomicPtr<RawWakerVTable> = AtomicPtr::new(std::ptr::null_mut());

/// Copying a waker with this table only counts.
pub(crate) fn trust(table: &'static RawWakerVTable) {
    TAME.store(std::ptr::from_ref(table).cast_mut(), Ordering::Relaxed);
}

impl<'a> Caller<'a> {
    /// Runs a poll that borrows the tables: once more if it has to wait with a foreign waker.
    /// Nothing may have been taken by then.
    #[inline]
    pub(crate) fn run<R>(waker: &'a Waker, mut poll: impl FnMut(&mut Self) -> R) -> R {
        let mut caller = Self { waker, copy: None, wanted: false };
        loop {
            let result = poll(&mut caller);
            if !caller.wanted {
                return result;
            }
            caller = Self { waker, copy: Some(waker.clone()), wanted: false };
        }
    }

    #[inline]
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        waker.will_wake(self.waker)
    }

    /// A copy to keep. None: wait, and nothing else; the poll is run again.
    #[inline]
    pub(crate) fn copy(&mut self) -> Option<Waker> {
        let table: *const RawWakerVTable = self.waker.vtable();
        if std::ptr::eq(table, TAME.load(Ordering::Relaxed)) {
            return Some(self.waker.clone());
        }
        let copy = self.copy.take();
        self.wanted = copy.is_none();
        copy
    }
}

#[derive(Debug)]
struct Waiting {
    id: WaiterId,
    /// Taken when it is notified; it comes back with the next poll.
    waker: Option<Waker>,
}

impl Waiting {
    /// Answers the waker it had: drop it outside the tables.
    fn renew(&mut self, caller: &mut Caller<'_>) -> Option<Waker> {
        if self.waker.as_ref().is_some_and(|old| caller.will_wake(old)) {
            return None;
        }
        let copy = caller.copy()?;
        self.waker.replace(copy)
    }

    /// Whether it does not stand before an observer: it asked later, or may be gone for good.
    fn is_behind(&self, id: WaiterId) -> bool {
        self.id == POLLER || (self.id != HOLDER && id < self.id)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<Waiting>,
    /// A pointer while nobody needs more.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Behind the first.
    rest: VecDeque<Waiting>,
    observers: Vec<Waiting>,
}

impl Waiters {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether `id` may be served now: nobody with a future waits, or it stands first.
    #[inline]
    pub(crate) fn may_go(&self, id: Option<WaiterId>) -> bool {
        self.first.as_ref().is_none_or(|first| Some(first.id) == id || first.id == POLLER)
    }

    /// Whether an observer may be told now: nobody with a future stands before it.
    #[inline]
    pub(crate) fn may_look(&self, id: Option<WaiterId>) -> bool {
        let behind = |first: &Waiting| first.is_behind(id.unwrap_or(HOLDER));
        self.first.as_ref().is_none_or(behind)
    }

    /// Has an observer told, or renews its waker. Answers the waker it had: drop it outside the
    /// tables.
    #[must_use]
    pub(crate) fn observe(&mut self, id: WaiterId, caller: &mut Caller<'_>) -> Option<Waker> {
        let mut observers = self.more.iter_mut().flat_map(|more| more.observers.iter_mut());
        if let Some(observer) = observers.find(|observer| observer.id == id) {
            return observer.renew(caller);
        }
        let waker = Some(caller.copy()?);
        self.more.get_or_insert_default().observers.push(Waiting { id, waker });
        None
    }

    /// Strikes an observer off, if it is there still. Answers its waker.
    #[must_use]
    pub(crate) fn overlook(&mut self, id: WaiterId) -> Option<Waker> {
        let observers = &mut self.more.as_mut()?.observers;
        let place = observers.iter().position(|observer| observer.id == id)?;
        observers.remove(place).waker
    }

    /// Puts `id` in line, or renews its waker. Answers the waker it had: drop it outside the
    /// tables.
    #[must_use]
    pub(crate) fn enrol(&mut self, id: WaiterId, caller: &mut Caller<'_>) -> Option<Waker> {
        if self.first.is_some() {
            return self.enrol_behind(id, caller);
        }
        self.first = caller.copy().map(|waker| Waiting { id, waker: Some(waker) });
        None
    }

    fn enrol_behind(&mut self, id: WaiterId, caller: &mut Caller<'_>) -> Option<Waker> {
        if let Some(waiting) = self.find(id) {
            return waiting.renew(caller);
        }
        if let Some(waker) = caller.copy() {
            self.stand(Waiting { id, waker: Some(waker) });
        }
        None
    }

    /// Keeps the place of `id`, who does not wait now.
    pub(crate) fn keep(&mut self, id: WaiterId) {
        if self.find(id).is_none() {
            self.stand(Waiting { id, waker: None });
        }
    }

    fn stand(&mut self, waiting: Waiting) {
        let Some(first) = &mut self.first else {
            self.first = Some(waiting);
            return;
        };
        let rest = &mut self.more.get_or_insert_default().rest;
        if first.id == POLLER {
            rest.push_back(mem::replace(first, waiting));
        } else {
            let poller = rest.back().is_some_and(|last| last.id == POLLER);
            rest.insert(rest.len() - usize::from(poller), waiting);
        }
    }

    /// Puts `HOLDER` before all others.
    pub(crate) fn hold(&mut self) {
        if self.first.as_ref().is_some_and(|first| first.id == HOLDER) {
            return;
        }
        let first = self.first.replace(Waiting { id: HOLDER, waker: None });
        if let Some(first) = first {
            self.more.get_or_insert_default().rest.push_front(first);
        }
    }

    /// Whether a future of its own stands first.
    pub(crate) fn is_led(&self) -> bool {
        self.first.as_ref().is_some_and(|first| ![HOLDER, POLLER].contains(&first.id))
    }

    /// Strikes `id` off. Answers its waker, and whether it stood first.
    #[must_use]
    #[inline]
    pub(crate) fn strike(&mut self, id: WaiterId) -> (Option<Waker>, bool) {
        if self.first.as_ref().is_some_and(|first| first.id == id) {
            let struck = self.first.take();
            if let Some(more) = &mut self.more {
                self.first = more.rest.pop_front();
            }
            return (struck.and_then(|waiting| waiting.waker), true);
        }
        (self.strike_from_behind(id), false)
    }

    #[cold]
    fn strike_from_behind(&mut self, id: WaiterId) -> Option<Waker> {
        let rest = &mut self.more.as_deref_mut()?.rest;
        let place = rest.iter().position(|waiting| waiting.id == id)?;
        rest.remove(place)?.waker
    }

    /// Whose turn it is, to be woken outside the tables: the first in line, and the observers that
    /// it does not stand before.
    #[inline]
    pub(crate) fn notify(&mut self, wakers: &mut Vec<Waker>) {
        if self.first.is_some() || self.more.is_some() {
            self.notify_those(wakers);
        }
    }

    fn notify_those(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(first) = &mut self.first {
            let waker = match first.id {
                POLLER => self.strike(POLLER).0,
                _ => first.waker.take(),
            };
            if let Some(waker) = waker {
                wakers.push(waker);
            }
        }
        if self.more.is_some() {
            self.notify_observers(wakers);
        }
    }

    #[cold]
    fn notify_observers(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(more) = &mut self.more {
            let first = self.first.as_ref();
            more.observers.retain_mut(|observer| {
                let told = first.is_none_or(|first| first.is_behind(observer.id));
                if told {
                    wakers.extend(observer.waker.take());
                }
                !told
            });
        }
    }

    /// The wakers of all, to be woken outside the tables.
    pub(crate) fn notify_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.line().filter_map(|waiting| waiting.waker.take()));
        if let Some(more) = &mut self.more {
            wakers.extend(more.observers.drain(..).filter_map(|observer| observer.waker));
        }
    }

    /// The places of a resource that leaves its core, all of whose wakers were taken. A poller's is
    /// none, and who holds is known elsewhere.
    pub(crate) fn take_places(&mut self) -> Self {
        let mut places = mem::take(self);
        for id in [HOLDER, POLLER] {
            let (waker, _) = places.strike(id);
            debug_assert!(waker.is_none(), "they were all told");
        }
        places
    }

    fn find(&mut self, id: WaiterId) -> Option<&mut Waiting> {
        self.line().find(|waiting| waiting.id == id)
    }

    fn line(&mut self) -> impl Iterator<Item = &mut Waiting> {
        let rest = self.more.iter_mut().flat_map(|more| more.rest.iter_mut());
        self.first.iter_mut().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nth(number: u64) -> WaiterId {
        POLLER.checked_add(number).unwrap()
    }

    fn enrol(waiters: &mut Waiters, id: WaiterId) -> Option<Waker> {
        Caller::run(Waker::noop(), |caller| waiters.enrol(id, caller))
    }

    fn notify(waiters: &mut Waiters) -> usize {
        let mut wakers = Vec::new();
        waiters.notify(&mut wakers);
        wakers.len()
    }

    #[test]
    fn the_line_keeps_the_order_of_first_polls() {
        let mut waiters = Waiters::default();
        assert!(waiters.may_go(None));
        for id in 1..=3 {
            assert!(enrol(&mut waiters, nth(id)).is_none());
        }
        assert!(
            waiters.may_go(Some(nth(1))) && !waiters.may_go(Some(nth(2))) && !waiters.may_go(None)
        );
        assert_eq!((notify(&mut waiters), notify(&mut waiters)), (1, 0));
        assert!(!waiters.strike(nth(2)).1, "the second did not stand first");
        assert!(waiters.strike(nth(1)).1);
        assert!(waiters.may_go(Some(nth(3))));
        assert!(waiters.strike(nth(3)).1 && waiters.is_empty());
    }

    #[test]
    fn the_poller_stands_last_and_only_until_it_is_woken() {
        let mut waiters = Waiters::default();
        assert!(enrol(&mut waiters, POLLER).is_none());
        assert!(waiters.may_go(None) && waiters.may_go(Some(nth(1))), "it may be gone for good");
        for id in 1..=2 {
            assert!(enrol(&mut waiters, nth(id)).is_none());
            assert!(waiters.may_go(Some(nth(1))) && !waiters.may_go(Some(POLLER)));
        }
        assert!(waiters.strike(nth(1)).1 && waiters.may_go(Some(nth(2))));
        assert!(waiters.strike(nth(2)).1 && waiters.may_go(Some(POLLER)));
        assert!(notify(&mut waiters) == 1 && waiters.is_empty());
    }

    #[test]
    fn observers_are_told_all_at_once_behind_whoever_stands_in_line() {
        let mut waiters = Waiters::default();
        let observe = |waiters: &mut Waiters, id| {
            Caller::run(Waker::noop(), |caller| drop(waiters.observe(nth(id), caller)));
        };
        for id in [1, 2, 2, 3] {
            observe(&mut waiters, id);
        }
        assert!(waiters.is_empty() && waiters.may_go(None), "they stand in nobody's way");
        assert!(waiters.overlook(nth(1)).is_some() && waiters.overlook(nth(1)).is_none());
        assert!(enrol(&mut waiters, nth(4)).is_none());
        observe(&mut waiters, 5);
        assert!(waiters.may_look(Some(nth(3))) && !waiters.may_look(Some(nth(5))));
        assert!(!waiters.may_look(None), "who asks only now");
        assert_eq!((notify(&mut waiters), notify(&mut waiters)), (3, 0), "the fifth is behind");
        waiters.hold();
        observe(&mut waiters, 3);
        assert_eq!(notify(&mut waiters), 0, "who has taken a part comes before all");
        assert!(waiters.strike(HOLDER).1);
        assert_eq!(notify(&mut waiters), 1);
        assert!(waiters.strike(nth(4)).1);
        assert_eq!((notify(&mut waiters), notify(&mut waiters)), (1, 0));
        observe(&mut waiters, 6);
        assert!(enrol(&mut waiters, POLLER).is_none());
        assert_eq!(notify(&mut waiters), 2, "the poller may be gone for good");
    }
}
