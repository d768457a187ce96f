//! Waiting for signals: `ctrl_c` and `terminate`.
//!
//! ```text
//!   handler: count += 1, post ──► thread `quoit-signal` ──► wakers of those who wait
//!                                      ▲
//!   first poll: note the count ────────┴─ registry        later polls: has the count changed?
//! ```
//!
//! Signals belong to the process, and any number of cores, runtimes and other executors may wait at
//! once, while a handler may hardly do anything (no lock, no waker). So it hands over to a thread
//! that may: it sleeps on a semaphore, and starts with the first wait. Alternatives cost more for
//! less: a descriptor per core would have to be listed where a handler can read it, and signalfd(2)
//! needs the signal blocked in every thread of the program. So this needs no ring, and works
//! without a runtime.
//!
//! In a simulation each host is a process, and its signals are those that a test sends it: the
//! world then keeps count and list, and needs neither handler nor thread.
//!
//! Nothing is missed: a future registers and *then* reads the count, under the lock that the thread
//! takes after the count was raised. The registry holds one entry per waiting future.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::io::pool::{SignalsBlocked, contain};
use crate::io::ring::simulated::signals::Life;
use crate::io::ring::simulated::world;
use crate::io::system::{self, signals};

pub(crate) use crate::io::system::signals::Signal;

/// Waits for SIGINT, which a terminal sends on Ctrl-C.
///
/// Completes with the first delivery after its first poll, and with it every other future that was
/// waiting then. A further call waits for a further delivery; what comes between two calls is not
/// seen by the second. Any number of tasks, cores, runtimes and threads may wait at once; no
/// runtime is needed.
///
/// The first poll in the process installs a handler and starts a thread that wakes those who wait.
/// **From then on, and for good, SIGINT does not end the process any more**, not even when nobody
/// waits; a handler that was installed before is still called. In a process that was started with
/// SIGINT ignored (by a shell, in the background) it is heard from then on. Programs that this one
/// executes have the default again (signal(7)); after `fork` alone, waiting works in the parent
/// only.
///
/// Inside a [simulation](crate::sim) it waits for
/// [`World::interrupt`](crate::sim::World::interrupt) of its host, which kills a program that has
/// never waited for it.
///
/// # Errors
///
/// When the thread cannot be started (pthread_create(3)); the signal then does what it did before.
/// Inside a simulation, where no host runs: [`Unsupported`](io::ErrorKind::Unsupported).
///
/// # Cancel safety
///
/// Dropped, it stops waiting and takes no delivery from others.
///
/// # Examples
///
/// ```no_run
/// use std::pin::pin;
///
/// use futures::future::select;
/// use quoit::signal::{ctrl_c, terminate};
///
/// # quoit::block_on(async {
/// println!("press Ctrl-C");
/// select(pin!(ctrl_c()), pin!(terminate())).await;
/// println!("good bye");
/// # });
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    Delivery::of(Signal::Interrupt).await
}

/// Waits for SIGTERM, with which service managers and `kill` ask a program to end.
///
/// All that is said of [`ctrl_c`] and SIGINT holds for it and SIGTERM; in a simulation, for
/// [`World::terminate`](crate::sim::World::terminate).
///
/// # Errors
///
/// As [`ctrl_c`].
///
/// # Cancel safety
///
/// Dropped, it stops waiting and takes no delivery from others.
///
/// # Examples
///
/// ```
/// use std::process::{self, Command};
///
/// # quoit::block_on(async {
/// let stop = quoit::spawn(quoit::signal::terminate());
/// quoit::task::yield_now().await; // it is waiting now, so the signal does not end us
///
/// Command::new("sh").arg("-c").arg(format!("kill {}", process::id())).status()?;
/// stop.await??;
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
pub async fn terminate() -> io::Result<()> {
    Delivery::of(Signal::Terminate).await
}

/// The next delivery of a signal, counted from the first poll.
struct Delivery {
    signal: Signal,
    waiting: Option<Waiting>,
}

/// What the future remembers of its entry, so that a poll which changes nothing takes no lock.
struct Waiting {
    process: Process,
    entry: u64,
    seen: u64,
    waker: Waker,
}

impl Delivery {
    fn of(signal: Signal) -> Self {
        Self { signal, waiting: None }
    }

    fn leave(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let waker = waiting.process.remove(waiting.entry);
            // Foreign code, like every waker: not under the lock.
            drop(waker);
        }
    }
}

impl Future for Delivery {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let signal = self.signal;
        let Some(waiting) = &mut self.waiting else {
            let (process, waker) = (Process::here()?, cx.waker().clone());
            let (entry, seen) = process.enter(signal, waker.clone())?;
            self.waiting = Some(Waiting { process, entry, seen, waker });
            return Poll::Pending;
        };
        // Before the count is read: if the old waker was woken already, the count says so.
        if !waiting.waker.will_wake(cx.waker()) {
            waiting.waker = cx.waker().clone();
            let waker = waiting.waker.clone();
            let old = waiting.process.renew(waiting.entry, waker);
            drop(old);
        }
        if waiting.process.count(signal).is_none_or(|count| count == waiting.seen) {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whose signals are waited for.
#[derive(Clone, Copy)]
enum Process {
    Machine,
    Simulated(Life),
}

impl Process {
    fn here() -> io::Result<Self> {
        let Some(world) = world::current() else { return Ok(Self::Machine) };
        let nobody = || io::Error::new(io::ErrorKind::Unsupported, "this is no simulated host");
        Life::here(&world).map(Self::Simulated).ok_or_else(nobody)
    }

    /// A new entry: its name, and the count that it has seen.
    fn enter(self, signal: Signal, waker: Waker) -> io::Result<(u64, u64)> {
        match self {
            Self::Machine => lock().enter(signal, waker),
            Self::Simulated(life) => {
                Ok(life.with(|signals| signals.enter(signal, waker)).expect("we are here"))
            }
        }
    }

    /// `None`: its simulation is not here, and nothing is heard.
    fn count(self, signal: Signal) -> Option<u64> {
        match self {
            Self::Machine => Some(signals::count(signal)),
            Self::Simulated(life) => life.with(|signals| signals.count(signal)),
        }
    }

    fn renew(self, entry: u64, waker: Waker) -> Option<Waker> {
        match self {
            Self::Machine => lock().renew(entry, waker),
            Self::Simulated(life) => life.with(|signals| signals.renew(entry, waker)).flatten(),
        }
    }

    fn remove(self, entry: u64) -> Option<Waker> {
        match self {
            Self::Machine => lock().entries.remove(&entry)?.waker,
            Self::Simulated(life) => life.with(|signals| signals.remove(entry)).flatten(),
        }
    }
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { entries: BTreeMap::new(), next: 0, caught: [false; 2], watched: false });

fn lock() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits, in the order of their first polls.
struct Registry {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Which signals have our handler.
    caught: [bool; 2],
    /// The thread runs.
    watched: bool,
}

struct Entry {
    signal: Signal,
    /// How often the signal had come when the wait began.
    seen: u64,
    /// Taken when it is woken.
    waker: Option<Waker>,
}

impl Registry {
    /// A new entry: its name, and the count that it has seen.
    fn enter(&mut self, signal: Signal, waker: Waker) -> io::Result<(u64, u64)> {
        self.start(signal)?;
        let (entry, seen) = (self.next, signals::count(signal));
        self.next += 1;
        self.entries.insert(entry, Entry { signal, seen, waker: Some(waker) });
        Ok((entry, seen))
    }

    /// The thread first: a signal is not taken from its default before somebody is there to tell of
    /// it.
    fn start(&mut self, signal: Signal) -> io::Result<()> {
        if !self.watched {
            let masked = SignalsBlocked::new();
            system::Threads::default().start("signal", watch)?;
            drop(masked);
            self.watched = true;
        }
        let caught = &mut self.caught[signal as usize];
        if !*caught {
            signals::catch(signal)?;
            *caught = true;
        }
        Ok(())
    }

    fn renew(&mut self, entry: u64, waker: Waker) -> Option<Waker> {
        self.entries.get_mut(&entry)?.waker.replace(waker)
    }

    /// The wakers of those whose signal has come.
    fn due(&mut self) -> Vec<Waker> {
        let due = |entry: &mut Entry| match signals::count(entry.signal) == entry.seen {
            true => None,
            false => entry.waker.take(),
        };
        self.entries.values_mut().filter_map(due).collect()
    }
}

/// The life of the thread.
fn watch() {
    loop {
        signals::wait();
        let due = lock().due();
        for waker in due {
            // Foreign wakers may panic; the others are to hear of the signal all the same.
            contain(|| waker.wake());
        }
    }
}
