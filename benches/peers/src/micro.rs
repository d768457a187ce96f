//! Small operations: what a runtime costs when nothing waits for the kernel.
//!
//! The loops are written once, over [`Subject`], so that only the runtime differs. Each row is the
//! median of batches, taken twice: from the future that `block_on` polls, and from a task. Runtimes
//! treat the two differently (spawning from a task costs compio a hundred times as much), so the
//! better one counts. A process of its own runs them, pinned to one core.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, Ready, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::future::yield_now;
use serde::{Deserialize, Serialize};

use crate::contenders::{self, Contender};
use crate::process;
use crate::report::{Spread, in_turn, write_json};

const BATCHES: usize = 21;
const ITERATIONS: usize = 10_000;
const SLEEPS: usize = 101;

/// Their wakers are not thread-safe (monoio's with its `sync` feature are), which is cheaper.
const LOCAL_WAKERS: [&str; 2] = ["monoio", "kimojio"];

/// What a runtime must offer to be measured here.
pub trait Subject: 'static {
    /// Starts a task; the returned future is its end.
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()>;

    /// The runtime's own, where it has one: it may poll the kernel too, or go behind others.
    fn yield_now() -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }

    fn sleep(time: Duration) -> impl Future<Output = ()>;

    /// Submits a NOP to the ring and waits for its completion.
    fn nop() -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }
}

/// Nanoseconds per operation; `None` where a contender has no such thing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Rows {
    pub spawn_join: Option<f64>,
    pub yield_1: Option<f64>,
    pub yield_100: Option<f64>,
    pub own_yield: Option<f64>,
    pub wake_round_trip: Option<f64>,
    pub timer: Option<f64>,
    pub sleep_1ms: Option<f64>,
    pub nop: Option<f64>,
}

impl Rows {
    /// Row by row.
    fn better(&self, other: &Self) -> Self {
        let least = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.min(b)).or(a).or(b);
        Self {
            spawn_join: least(self.spawn_join, other.spawn_join),
            yield_1: least(self.yield_1, other.yield_1),
            yield_100: least(self.yield_100, other.yield_100),
            own_yield: least(self.own_yield, other.own_yield),
            wake_round_trip: least(self.wake_round_trip, other.wake_round_trip),
            timer: least(self.timer, other.timer),
            sleep_1ms: least(self.sleep_1ms, other.sleep_1ms),
            nop: least(self.nop, other.nop),
        }
    }

    fn named(&self) -> [(&'static str, Option<f64>); 8] {
        [
            ("spawn + join", self.spawn_join),
            ("yield, 1 task", self.yield_1),
            ("yield, 100 tasks", self.yield_100),
            ("its own yield, 1 task", self.own_yield),
            ("local wake, round trip", self.wake_round_trip),
            ("timer, create + drop", self.timer),
            ("sleep(1 ms) takes", self.sleep_1ms),
            ("ring NOP", self.nop),
        ]
    }
}

/// Runs all the loops on the runtime that polls this future.
pub async fn measure<S: Subject>() -> Rows {
    let from_root = rows::<S>().await;
    let slot = Rc::new(RefCell::new(Rows::default()));
    let filled = Rc::clone(&slot);
    S::spawn(async move {
        let rows = rows::<S>().await;
        filled.replace(rows);
    })
    .await;
    from_root.better(&slot.take())
}

async fn rows<S: Subject>() -> Rows {
    Rows {
        spawn_join: Some(spawns::<S>().await),
        yield_1: Some(yields::<S>(1).await),
        yield_100: Some(yields::<S>(100).await),
        own_yield: if S::yield_now().is_some() { Some(own_yields::<S>().await) } else { None },
        wake_round_trip: Some(wakes::<S>().await),
        timer: Some(timers::<S>().await),
        sleep_1ms: Some(sleeps::<S>().await),
        nop: if S::nop().is_some() { Some(nops::<S>().await) } else { None },
    }
}

async fn spawns<S: Subject>() -> f64 {
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        for _ in 0..ITERATIONS {
            S::spawn(async {}).await;
        }
    }
    batches.median()
}

async fn yields<S: Subject>(tasks: usize) -> f64 {
    let each = ITERATIONS / tasks;
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                S::spawn(async move {
                    for _ in 0..each {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    }
    batches.median()
}

async fn own_yields<S: Subject>() -> f64 {
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        let task = S::spawn(async {
            for _ in 0..ITERATIONS {
                if let Some(own) = S::yield_now() {
                    own.await;
                }
            }
        });
        task.await;
    }
    batches.median()
}

/// Two tasks hand a baton to and fro.
async fn wakes<S: Subject>() -> f64 {
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        let (there, back) = (Rc::new(Baton::default()), Rc::new(Baton::default()));
        let (take, give) = (Rc::clone(&there), Rc::clone(&back));
        let partner = S::spawn(async move {
            for _ in 0..ITERATIONS {
                take.taken().await;
                give.give();
            }
        });
        for _ in 0..ITERATIONS {
            there.give();
            back.taken().await;
        }
        partner.await;
    }
    batches.median()
}

#[derive(Default)]
struct Baton(RefCell<(bool, Option<Waker>)>);

impl Baton {
    fn give(&self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn taken(&self) {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A timer that is armed and never fires: what each timeout costs in the good case.
async fn timers<S: Subject>() -> f64 {
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        for _ in 0..ITERATIONS {
            let mut sleep = pin!(S::sleep(Duration::from_secs(10)));
            poll_fn(|context| {
                assert!(sleep.as_mut().poll(context).is_pending(), "ten seconds have not passed");
                Poll::Ready(())
            })
            .await;
        }
        // Some runtimes only mark a dropped timer; let them do the rest inside the measurement.
        yield_now().await;
    }
    batches.median()
}

async fn sleeps<S: Subject>() -> f64 {
    let mut times = Vec::with_capacity(SLEEPS);
    for _ in 0..SLEEPS {
        let start = Instant::now();
        S::sleep(Duration::from_millis(1)).await;
        times.push(start.elapsed().as_nanos() as f64);
    }
    median(&mut times)
}

async fn nops<S: Subject>() -> f64 {
    let mut batches = Batches::new(ITERATIONS);
    while batches.next() {
        for _ in 0..ITERATIONS {
            if let Some(nop) = S::nop() {
                nop.await;
            }
        }
    }
    batches.median()
}

/// Times what its user does between two calls of `next`. The first batch warms up.
struct Batches {
    iterations: usize,
    start: Option<Instant>,
    times: Vec<f64>,
}

impl Batches {
    fn new(iterations: usize) -> Self {
        Self { iterations, start: None, times: Vec::with_capacity(BATCHES + 1) }
    }

    fn next(&mut self) -> bool {
        if let Some(start) = self.start {
            self.times.push(start.elapsed().as_nanos() as f64 / self.iterations as f64);
        }
        self.start = Some(Instant::now());
        self.times.len() <= BATCHES
    }

    fn median(mut self) -> f64 {
        median(&mut self.times[1..])
    }
}

/// For what needs no runtime to be looped.
pub fn median_of_batches(iterations: usize, mut batch: impl FnMut()) -> f64 {
    let mut batches = Batches::new(iterations);
    while batches.next() {
        batch();
    }
    batches.median()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The command line of `peers micro`.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: crate::Common,
}

/// Runs each contender's loops in a process of its own, in turn, and prints one table.
pub fn run(options: &Options) -> io::Result<()> {
    let chosen = options.common.choose(|contender| contender.micro.is_some())?;
    let mut samples: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..options.common.rounds {
        for (place, contender) in in_turn(&chosen, round) {
            options.common.progress(round, contender.name);
            let rows: Rows = process::ask(&["micro-of", contender.name], options.common.core)?;
            for (name, value) in rows.named() {
                samples.entry((place, name)).or_default().extend(value);
            }
        }
    }
    options.common.done();
    print(&chosen, &samples);
    let raw: Vec<_> =
        samples.iter().map(|((place, row), values)| (chosen[*place].name, *row, values)).collect();
    write_json("micro", &raw)
}

/// The other side of [`run`].
pub fn child(name: &str) -> io::Result<Rows> {
    let micro = contenders::find(name)?.micro;
    micro.ok_or_else(|| io::Error::other(format!("{name} has no micro loops")))?()
}

fn print(chosen: &[&Contender], samples: &BTreeMap<(usize, &str), Vec<f64>>) {
    println!("nanoseconds per operation: median of the rounds (min-max)");
    println!("wakers that no other thread may use: {}\n", LOCAL_WAKERS.join(", "));
    println!("| row | contender | ns | min-max |\n|---|---|---:|---:|");
    for (row, _) in Rows::default().named() {
        for (place, contender) in chosen.iter().enumerate() {
            let Some(spread) = samples.get(&(place, row)).and_then(|all| Spread::of(all)) else {
                continue;
            };
            println!(
                "| {row} | {} | {:.1} | {:.1}-{:.1} |",
                contender.name, spread.median, spread.min, spread.max
            );
        }
    }
}
