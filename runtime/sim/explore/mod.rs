//! Explorers: a scenario is run once to see where it can be disturbed, and then again for each of
//! these places, under as many seeds as wanted.
//!
//! ```text
//!   each seed ──► run undisturbed ──► its points: every poll, or every request
//!                                        │ for each of them
//!                                        ▼
//!                 run again: the same up to the point ──► disturbed there ──► the books balance?
//! ```
//!
//! The *cancellation* explorer drops futures: those that the scenario has wrapped in
//! [`Explore::cancellable`], the tasks that it has started with [`Explore::spawn`], or, with
//! [`Explorer::drop_root`], the scenario itself. The *fault* explorer makes every request and every
//! direct call to the (simulated) kernel [fail](Explorer::fail) with each error that is plausible
//! there, or [hinders](Explorer::hinder) it: it comes late, or is cut short.
//!
//! # What is checked
//!
//! After each run the books of the core and of its kernel have to balance: connections accepted are
//! connections handed out, or closed with their listener; and no task, stream, listener, operation,
//! request, lease or descriptor is left. A panic fails the run: the scenario's own assertions, and
//! those of the simulated kernel, which watches over memory that is lent to it, over descriptor
//! numbers that are closed too soon, over programs that wait for what can never happen, and over
//! those that come to no end. So does a panic of a task, whether or not anybody awaits its handle:
//! except where the root was dropped, since the tasks it leaves lose whom they talk to.
//!
//! That the bytes are right only the scenario can know. Let it send what it can recognise, like a
//! counter, so that a byte that is lost, repeated or out of place shows.
//!
//! # Replaying
//!
//! The same seed and point give the same run. A failure names both: in the environment,
//! `QUOIT_SEED=7 QUOIT_POINT=cancel:12` runs that one alone, and `QUOIT_SIMULATION_TRACE=1` prints
//! what happened, event by event. `QUOIT_EXPLORE_SEEDS=1000` explores so many seeds, whatever the
//! test asks for, `QUOIT_EXPLORE_POINTS=1` at most so many points of each, and
//! `QUOIT_EXPLORE_KIND=cancel` explores in this way alone: `cancel`, `root`, `fail` or `hinder`.
//!
//! # What a scenario may use
//!
//! It is one program on one core that talks to itself over TCP, like the one in the example below,
//! and has files: its host is called `host`, so `sim::world().disk("host", ..)` looks into its
//! disk. What it may not use is what [no simulation](super#what-must-not-leak-in) may, like the
//! order of a `HashMap`.
//!
//! # Examples
//!
//! A read that is dropped at any poll loses nothing:
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::sim::explore::Explorer;
//!
//! let found = Explorer::new("reads").seeds(10).cancel(|explore| async move {
//!     let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
//!     let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
//!     let (server, _) = listener.accept().await.unwrap();
//!     quoit::spawn(async move { client.send_all((0..100).collect::<Vec<u8>>()).await });
//!     let mut got = Vec::new();
//!     while got.len() < 100 {
//!         // `None`: it was dropped here. The next read continues at the exact byte.
//!         if let Some(lease) = explore.cancellable("recv", server.recv()).await {
//!             got.extend_from_slice(&lease.unwrap());
//!         }
//!     }
//!     assert_eq!(got, (0..100).collect::<Vec<u8>>());
//! });
//! found.assert_clean();
//! ```

mod cancel;
mod found;
mod run;

use std::env;
use std::fmt;
use std::ops::Range;

pub use self::cancel::{Cancellable, Explore};
pub use self::found::{Failure, Found};
use self::run::{Disturbance, Ran, run};
use crate::io::ring::simulated::{Chance, Site};
use crate::runtime::{Builder, Runtime};

/// So many failures tell enough.
const FAILURES_MAX: usize = 8;

/// One seed in so many is run twice, to see that both runs are the same.
const TWICE: u64 = 8;

/// Explores a scenario; see the [module](self).
///
/// A scenario is a closure that makes a future, and it is called for each run. Its future is the
/// root of a program of its own, on a runtime of its own.
pub struct Explorer<'a> {
    name: String,
    seeds: u64,
    points_per_seed: usize,
    builder: Box<dyn Fn(u64) -> Builder + 'a>,
}

/// How the runs of an exploration are disturbed, in one word.
type Kind = &'static str;

const KINDS: [Kind; 4] = ["cancel", "root", "fail", "hinder"];

/// All that may disturb a run, as an undisturbed one shows it.
type Points = fn(&Ran) -> Vec<Disturbance>;

/// Which part of an exploration the environment asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replay {
    No,
    Seed(u64),
    Point {
        seed: u64,
        point: usize,
    },
    /// Points of another kind.
    OfOtherKind,
}

impl Replay {
    fn from_environment(kind: Kind) -> Self {
        if let Ok(only) = env::var("QUOIT_EXPLORE_KIND") {
            // A kind that is none would explore nothing, and find nothing wrong.
            assert!(
                KINDS.contains(&&*only),
                "QUOIT_EXPLORE_KIND is one of {KINDS:?}, not {only:?}"
            );
            if only != kind {
                return Self::OfOtherKind;
            }
        }
        let Some(seed) = number("QUOIT_SEED") else { return Self::No };
        let Ok(point) = env::var("QUOIT_POINT") else { return Self::Seed(seed) };
        let parts = point.split_once(':').map(|(kind, point)| (kind, point.parse()));
        let Some((of, Ok(point))) = parts else {
            panic!("QUOIT_POINT is a kind and a number, like `cancel:7`, not {point:?}");
        };
        if of == kind { Self::Point { seed, point } } else { Self::OfOtherKind }
    }
}

impl<'a> Explorer<'a> {
    /// An explorer of 20 seeds, all points of each. The name stands in what it reports.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            seeds: 20,
            points_per_seed: usize::MAX,
            builder: Box::new(small),
        }
    }

    /// How many seeds to explore, unless `QUOIT_EXPLORE_SEEDS` says otherwise.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Explores at most so many points of each seed, evenly spread over all of them; which ones,
    /// the seed decides. So many seeds come to all points in the time that few seeds take.
    #[must_use]
    pub fn points_per_seed(mut self, points: usize) -> Self {
        self.points_per_seed = points;
        self
    }

    /// The runtime for each seed. Default: each seed draws small limits (a few buffers of a few
    /// bytes, a few bytes ahead), so that each limit is met often.
    #[must_use]
    pub fn builder(mut self, builder: impl Fn(u64) -> Builder + 'a) -> Self {
        self.builder = Box::new(builder);
        self
    }

    /// Cancels at every poll of what the scenario has given to [`Explore::cancellable`] or
    /// [`Explore::spawn`].
    ///
    /// For each poll these are: instead of the poll, so before the first one, or when it was woken;
    /// and if it was pending, right after it, and a while later, woken or not. Under every other
    /// seed further cancels follow by chance after that one.
    pub fn cancel<F>(&self, scenario: impl Fn(Explore) -> F) -> Found
    where
        F: Future<Output = ()>,
    {
        let points = |ran: &Ran| (0..ran.events).map(Disturbance::Cancel).collect();
        self.explore("cancel", points, scenario)
    }

    /// Drops the scenario's own future at every poll, and ends the runtime; under every other seed
    /// its tasks go on for a while before that. It asks nothing of the scenario.
    pub fn drop_root<F>(&self, scenario: impl Fn(Explore) -> F) -> Found
    where
        F: Future<Output = ()>,
    {
        let points = |ran: &Ran| (0..ran.root_events).map(Disturbance::DropRoot).collect();
        self.explore("root", points, scenario)
    }

    /// Lets every request and every direct call fail, in turn, with each error that is plausible
    /// there.
    ///
    /// So the scenario has to live with errors: whatever is refused, it comes to its end, and
    /// asserts no more than still holds.
    ///
    /// ```
    /// use std::io;
    /// use quoit::net::{TcpListener, TcpStream};
    /// use quoit::sim::explore::Explorer;
    ///
    /// async fn hello() -> io::Result<()> {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     // Its buffers may be smaller than the message: somebody has to read meanwhile.
    ///     quoit::spawn(async move { client.send_all("hello").await });
    ///     let (server, _) = listener.accept().await?;
    ///     let mut message = [0; 5];
    ///     server.read_exact(&mut message).await?;
    ///     assert_eq!(&message, b"hello");
    ///     Ok(())
    /// }
    ///
    /// let found = Explorer::new("hello").seeds(5).fail(|_| async {
    ///     // Refused or done: both are an end.
    ///     let _ = hello().await;
    /// });
    /// found.assert_clean();
    /// ```
    pub fn fail<F>(&self, scenario: impl Fn(Explore) -> F) -> Found
    where
        F: Future<Output = ()>,
    {
        self.explore("fail", |ran| ran.faults(Site::failures), scenario)
    }

    /// Lets every request and every direct call be late, cut short, or interrupted, in turn.
    ///
    /// The runtime bears this: it costs time, and the scenario may expect everything to succeed.
    ///
    /// ```
    /// use quoit::net::{TcpListener, TcpStream};
    /// use quoit::sim::explore::Explorer;
    ///
    /// let found = Explorer::new("hello").seeds(5).hinder(|_| async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ///     let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    ///     quoit::spawn(async move { client.send_all("hello").await });
    ///     let (server, _) = listener.accept().await.unwrap();
    ///     let mut message = [0; 5];
    ///     server.read_exact(&mut message).await.unwrap();
    ///     assert_eq!(&message, b"hello");
    /// });
    /// found.assert_clean();
    /// ```
    pub fn hinder<F>(&self, scenario: impl Fn(Explore) -> F) -> Found
    where
        F: Future<Output = ()>,
    {
        self.explore("hinder", |ran| ran.faults(Site::hindrances), scenario)
    }

    fn explore<F>(&self, kind: Kind, points: Points, scenario: impl Fn(Explore) -> F) -> Found
    where
        F: Future<Output = ()>,
    {
        let replay = Replay::from_environment(kind);
        let mut found = Found::new(&self.name, kind, replay != Replay::No);
        for seed in self.seeds_of(replay) {
            let run = |disturbance| run(seed, (self.builder)(seed), disturbance, &scenario);
            let base = run(Disturbance::None);
            found.note(seed, None, &base);
            if base.failure.is_none() {
                if seed % TWICE == 0 {
                    found.compare(seed, &base, &run(Disturbance::None));
                }
                let all = points(&base);
                let chosen = match replay {
                    Replay::Point { point, .. } => vec![point],
                    _ => self.choose(seed, all.len()),
                };
                for point in chosen {
                    let disturbance = all.get(point).copied().unwrap_or_else(|| {
                        panic!("seed {seed} has {} points, so there is no {point}", all.len())
                    });
                    found.note(seed, Some(point), &run(disturbance));
                    if found.failures().len() >= FAILURES_MAX {
                        return found;
                    }
                }
            }
            if found.failures().len() >= FAILURES_MAX {
                break;
            }
        }
        found
    }

    fn seeds_of(&self, replay: Replay) -> Range<u64> {
        match replay {
            Replay::No => 0..number("QUOIT_EXPLORE_SEEDS").unwrap_or(self.seeds),
            Replay::Seed(seed) | Replay::Point { seed, .. } => seed..seed + 1,
            Replay::OfOtherKind => 0..0,
        }
    }

    /// Which of a seed's points to explore.
    fn choose(&self, seed: u64, points: usize) -> Vec<usize> {
        let most = number("QUOIT_EXPLORE_POINTS").map_or(usize::MAX, |most| most as usize);
        let count = self.points_per_seed.min(most).min(points);
        if count == points {
            return (0..points).collect();
        }
        let start = Chance::new(seed).below(points);
        (0..count).map(|at| (start + at * points / count) % points).collect()
    }
}

impl fmt::Debug for Explorer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("name", &self.name)
            .field("seeds", &self.seeds)
            .field("points_per_seed", &self.points_per_seed)
            .finish_non_exhaustive()
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Small limits, so that each is met often.
fn small(seed: u64) -> Builder {
    let mut chance = Chance::new(!seed);
    let count = chance.up_to(4) as u16;
    let limit = count + chance.below(4) as u16;
    let builder = Runtime::builder()
        .buffers(count, chance.up_to(64) as u32, limit)
        .accept_ahead(chance.up_to(4))
        .receive_ahead(chance.up_to(200))
        .send_ahead(chance.up_to(200));
    let builder = match chance.below(3) {
        0 => builder,
        mode => builder.send_inline(mode == 1),
    };
    builder.task_budget(chance.up_to(8))
}
