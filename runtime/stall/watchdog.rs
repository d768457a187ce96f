//! The thread that looks.
//!
//! ```text
//!   new poll ──► seen ──limit──► reported ──twice the time──► reported ── .. ──► over: reported
//!                 │                  ▲
//!                 └── over: nothing  └── too many at once: counted, and told with the next
//! ```
//!
//! It sleeps between two looks and keeps no core from sleeping. It ends with its runtime.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::report::within_poll;
use super::{Seen, SharedWatched, Stall, StallState, Watched};
use crate::io::mailbox::CoreId;
use crate::io::pool::{SignalsBlocked, contain};
use crate::io::system::{self, Threads, stack};

type Action = Arc<dyn Fn(&Stall) + Send + Sync>;

/// So many stalls are reported at once, and then one each `REFILL` nanoseconds.
const BURST: u64 = 10;
const REFILL: u64 = 1_000_000_000;

/// The longest time between two reports of one stall.
const REPEAT_MAX: u64 = 60_000_000_000;

/// What a builder asks for.
#[derive(Clone)]
pub(crate) struct Detector {
    pub(crate) limit: Option<Duration>,
    pub(crate) action: Action,
}

impl Default for Detector {
    fn default() -> Self {
        Self { limit: None, action: Arc::new(|stall| eprintln!("quoit: {stall}")) }
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The watchdog of one runtime. Dropped, it ends its thread.
#[derive(Debug)]
pub(crate) struct Watchdog {
    cores: Cores,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Cores = Arc<Mutex<Vec<Weak<Watched>>>>;

impl Watchdog {
    /// `None`: nobody asked for one.
    pub(crate) fn start(detector: &Detector, threads: &Threads) -> io::Result<Option<Self>> {
        let Some(limit) = detector.limit else { return Ok(None) };
        let cores = Cores::default();
        let (stop, stopped) = mpsc::channel();
        let mut rounds = Rounds::new(limit, detector.action.clone(), cores.clone());
        let masked = SignalsBlocked::new();
        let body = move || {
            while stopped.recv_timeout(rounds.pause) == Err(RecvTimeoutError::Timeout) {
                rounds.go();
            }
        };
        let thread = threads.start("stall", body).map_err(|error| {
            let text = format!("the stall detector needs a thread: {error}");
            io::Error::new(error.kind(), text)
        })?;
        drop(masked);
        Ok(Some(Self { cores, stop: Some(stop), thread: Some(thread) }))
    }

    /// Watches the core that this thread drives, as long as it keeps this.
    pub(crate) fn watch(&self, core: CoreId) -> SharedWatched {
        let watched = Arc::new(Watched::new(core));
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.push(Arc::downgrade(&watched));
        watched
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was a bug of ours, and was printed.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Rounds {
    limit: u64,
    pause: Duration,
    action: Action,
    cores: Cores,
    watches: Vec<Watch>,
    budget: Budget,
}

/// What the thread knows of one core.
struct Watch {
    watched: Weak<Watched>,
    /// The poll that was going on at the last look, and when it was first seen.
    seen: Option<(Seen, u64)>,
    /// It has been a stall for so long, with the time of the next report.
    stalled: Option<Stalled>,
}

#[derive(Clone, Copy)]
struct Stalled {
    next: u64,
    is_reported: bool,
}

impl Rounds {
    fn new(limit: Duration, action: Action, cores: Cores) -> Self {
        let pause = (limit / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let budget = Budget { left: BURST, since: system::now(), unreported: 0 };
        Self { limit, pause, action, cores, watches: Vec::new(), budget }
    }

    /// One look at each core.
    fn go(&mut self) {
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        let new = cores.drain(..).map(|watched| Watch { watched, seen: None, stalled: None });
        self.watches.extend(new);
        drop(cores);
        let mut watches = std::mem::take(&mut self.watches);
        watches.retain_mut(|watch| {
            let Some(watched) = watch.watched.upgrade() else { return false };
            self.look(watch, &watched);
            true
        });
        self.watches = watches;
    }

    fn look(&mut self, watch: &mut Watch, watched: &Watched) {
        let (now, seen) = (system::now(), watched.look());
        match (watch.seen, seen) {
            (Some((before, since)), Some(seen)) if before == seen => {
                self.go_on(watch, watched, (seen, since), now);
            }
            (before, seen) => {
                if let (Some((seen, since)), Some(stalled)) = (before, watch.stalled.take()) {
                    self.end(watched, (seen, since), stalled, now);
                }
                watch.seen = seen.map(|seen| (seen, now));
            }
        }
    }

    /// The poll of the look before still goes on.
    fn go_on(&mut self, watch: &mut Watch, watched: &Watched, poll: (Seen, u64), now: u64) {
        let (seen, since) = poll;
        let elapsed = now.saturating_sub(since);
        let is_reported = match watch.stalled {
            None if elapsed >= self.limit => {
                watched.stalls.fetch_add(1, Ordering::Relaxed);
                watched.over.store(0, Ordering::Relaxed);
                watched.told.store(seen.poll, Ordering::Release);
                self.budget.take(now)
            }
            Some(stalled) if now >= stalled.next => stalled.is_reported,
            _ => return,
        };
        let next = now.saturating_add(elapsed.min(REPEAT_MAX));
        watch.stalled = Some(Stalled { next, is_reported });
        if is_reported {
            let stack = stack::of(&watched.thread).map(within_poll);
            // It may have ended while its stack was taken, which then is of something else.
            let stack = match watched.look() {
                Some(still) if still == seen => stack,
                _ => Err("it was over before its stack was taken"),
            };
            self.report(watched, seen, (StallState::Going, elapsed), stack);
        }
    }

    /// A poll that was a stall is over.
    fn end(&mut self, watched: &Watched, poll: (Seen, u64), stalled: Stalled, now: u64) {
        let (seen, since) = poll;
        if stalled.is_reported {
            // The core has seen the end itself, unless it came while the stall was found.
            let over = watched.over.load(Ordering::Acquire);
            let over = if over >= since { over } else { now };
            let elapsed = over.saturating_sub(since);
            let nothing = Err("it is over");
            self.report(watched, seen, (StallState::Over, elapsed), nothing);
        }
    }

    fn report(
        &mut self,
        watched: &Watched,
        seen: Seen,
        (state, elapsed): (StallState, u64),
        stack: Result<Vec<stack::Frame>, &'static str>,
    ) {
        let stall = Stall {
            core: watched.core,
            thread: watched.thread.name().to_owned(),
            task: seen.task,
            place: seen.place,
            state,
            elapsed: Duration::from_nanos(elapsed),
            limit: Duration::from_nanos(self.limit),
            unreported: std::mem::take(&mut self.budget.unreported),
            stack,
        };
        contain(|| (self.action)(&stall));
    }
}

/// How many stalls may still be reported.
struct Budget {
    left: u64,
    /// When it last grew.
    since: u64,
    unreported: u64,
}

impl Budget {
    fn take(&mut self, now: u64) -> bool {
        let grown = now.saturating_sub(self.since) / REFILL;
        self.left = self.left.saturating_add(grown).min(BURST);
        self.since += grown * REFILL;
        if self.left == 0 {
            self.unreported += 1;
            return false;
        }
        self.left -= 1;
        true
    }
}
