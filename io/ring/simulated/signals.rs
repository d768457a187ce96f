//! Signals of simulated hosts: each life of a host is a process of its own, which hears of its own
//! signals and is killed by those that it has never waited for.
//!
//! ```text
//!   order ──► deliver ──► caught: count += 1, wakers of those who wait
//!                    └──► not caught: the default, and the life ends as by SIGKILL
//! ```

use std::collections::BTreeMap;
use std::task::Waker;

use super::state::State;
use super::trace::Event;
use super::world::{self, World};
use crate::io::system::signals::Signal;

/// What one life of a host knows of its signals.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    counts: [u64; 2],
    /// Somebody has waited for it: from then on it does not end the process.
    caught: [bool; 2],
    /// Those who wait, in the order of their first polls; a waker is taken when it is woken.
    waiting: BTreeMap<u64, (Signal, Option<Waker>)>,
    next: u64,
}

impl Signals {
    /// Somebody waits: under what name, and how often the signal had come.
    pub(crate) fn enter(&mut self, signal: Signal, waker: Waker) -> (u64, u64) {
        self.caught[signal as usize] = true;
        self.next += 1;
        self.waiting.insert(self.next, (signal, Some(waker)));
        (self.next, self.count(signal))
    }

    pub(crate) fn count(&self, signal: Signal) -> u64 {
        self.counts[signal as usize]
    }

    pub(crate) fn renew(&mut self, entry: u64, waker: Waker) -> Option<Waker> {
        let (_, before) = self.waiting.get_mut(&entry)?;
        before.replace(waker)
    }

    pub(crate) fn remove(&mut self, entry: u64) -> Option<Waker> {
        self.waiting.remove(&entry)?.1
    }
}

/// What becomes of a signal.
pub(crate) enum Delivery {
    /// These wait for it.
    Caught(Vec<Waker>),
    /// Nobody has ever waited for it.
    Kills,
    /// The host is down.
    Nothing,
}

impl State {
    pub(crate) fn deliver(&mut self, host: usize, signal: Signal) -> Delivery {
        let Some(boot) = self.hosts[host].boot else { return Delivery::Nothing };
        self.note_on(boot, Event::Signalled { signal });
        let signals = &mut self.boots[boot].signals;
        if !signals.caught[signal as usize] {
            return Delivery::Kills;
        }
        signals.counts[signal as usize] += 1;
        let due = signals.waiting.values_mut().filter(|(of, _)| *of == signal);
        Delivery::Caught(due.filter_map(|(_, waker)| waker.take()).collect())
    }
}

/// A life of a host, for futures that wait for its signals. They may be anywhere, and hear of
/// nothing outside of their simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    world: u64,
    boot: usize,
}

impl Life {
    /// The one whose program is at its turn, if anybody's is.
    pub(crate) fn here(world: &World) -> Option<Self> {
        Some(Self { world: world.serial(), boot: world.try_here()? })
    }

    pub(crate) fn with<R>(self, f: impl FnOnce(&mut Signals) -> R) -> Option<R> {
        let world = world::current().filter(|world| world.serial() == self.world)?;
        Some(world.with(|state| f(&mut state.boots[self.boot].signals)))
    }
}
