//! A host of the simulation while it is up: its cores, each a production runtime on the simulated
//! ring, and the one turn that the driver gives.
//!
//! ```text
//!   Running ── the program has returned, or the simulation is over ──► Ending ──► Ended
//!      │                                                                  │
//!      └──────────────── crash: everything is dropped where it stands ◄───┘
//! ```
//!
//! A core is due again: soon, if it has something to do; after a while, if a request of it may go
//! on; else when its next timer is, or when its host hears something.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::io::mailbox::CoreId;
use crate::io::pool::{Pool, contain};
use crate::io::proactor::Ending;
use crate::io::ring::Prepared;
use crate::io::ring::simulated::Chance;
use crate::io::ring::simulated::world::World;
use crate::runtime::builder::{Builder, DROP_DEADLINE, nanoseconds};
use crate::runtime::core::Left;
use crate::runtime::cores::CoreHandle;
use crate::runtime::one::Report;
use crate::runtime::{Handle, Metrics, Runtime};

/// The longest that a turn takes, in nanoseconds.
const TURN_MAX: usize = 5_000;
/// The longest that passes before a request which may go on is looked at again.
const STEP_MAX: usize = 200_000;

/// What a program comes to: an error is the message of its failure.
pub(crate) type Outcome = Result<(), String>;
/// A program that runs.
pub(crate) type Main<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// What a host runs, made anew for each core of each life.
pub(crate) type Program<'a> = Box<dyn FnMut(CoreHandle) -> Main<'a> + 'a>;

enum Phase<'a> {
    Running(Main<'a>),
    Ending { ending: Ending, left: Left },
    Ended(Report),
}

impl std::fmt::Debug for Phase<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running(_) => "Running",
            Self::Ending { .. } => "Ending",
            Self::Ended(_) => "Ended",
        })
    }
}

/// One core of a host that is up.
#[derive(Debug)]
pub(crate) struct Core<'a> {
    pub(crate) host: usize,
    pub(crate) boot: usize,
    runtime: Runtime,
    phase: Phase<'a>,
    /// When its next turn is; never, if nothing comes.
    pub(crate) due: u64,
    /// The changes of its host that it has seen.
    seen: u64,
    /// What was counted when its program had returned.
    pub(crate) metrics: Option<Metrics>,
}

impl<'a> Core<'a> {
    /// Starts the program on the cores of a host that has just booted.
    pub(crate) fn start(
        world: &Rc<World>,
        host: usize,
        boot: usize,
        (builder, count): (&Builder, usize),
        pool: &Arc<Pool>,
        program: &mut Program<'a>,
    ) -> Vec<Self> {
        let _here = world.on(boot);
        let prepared = Prepared::simulated(world.seed());
        let build = |_| {
            let runtime = builder.runtime(prepared.clone(), pool.clone());
            runtime.expect("nothing refuses a simulated core")
        };
        let runtimes: Vec<Runtime> = (0..count).map(build).collect();
        let handles = runtimes.iter().map(Runtime::handle).collect();
        let handles = CoreHandle::group(prepared.report().clone(), handles);
        let start = |(runtime, handle): (Runtime, CoreHandle)| {
            let main = program(handle.clone());
            let main = Box::pin(async move { handle.live(main).await.unwrap_or(Ok(())) });
            runtime.core().tasks().root_woken.set(true);
            let now = world.with(|state| state.now());
            let phase = Phase::Running(main);
            Self { host, boot, runtime, phase, due: now, seen: 0, metrics: None }
        };
        runtimes.into_iter().zip(handles).map(start).collect()
    }

    pub(crate) fn id(&self) -> CoreId {
        self.runtime.core().proactor().id()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// What the end came to, and what was counted by then.
    pub(crate) fn result(&self) -> Option<(Report, Metrics)> {
        match self.phase {
            Phase::Ended(report) => Some((report, self.runtime.metrics())),
            _ => None,
        }
    }

    /// One turn. Answers what the program has come to, when it has.
    ///
    /// # Panics
    ///
    /// With the program's panic.
    pub(crate) fn turn(&mut self, world: &World, chance: &mut Chance) -> Option<Outcome> {
        let _here = world.on(self.boot);
        let core = self.runtime.core();
        core.proactor().clock().advance_to(world.clock());
        let mut outcome = None;
        match &mut self.phase {
            Phase::Running(main) => {
                if chance.one_in(2) {
                    core.tasks().arrange(|tasks| chance.shuffle(tasks));
                }
                if let Poll::Ready(ready) = core.turn_with(main.as_mut()) {
                    outcome = Some(ready);
                }
            }
            Phase::Ending { ending, left } => {
                if core.end_turn(ending) {
                    self.phase =
                        Phase::Ended(Report::new(*left, core.tasks().leaked(), ending.closed));
                }
            }
            Phase::Ended(_) => {}
        }
        self.plan(world, chance);
        outcome
    }

    /// Begins the end that a dropped runtime has.
    pub(crate) fn end(&mut self, world: &World, grace: Option<Duration>) {
        let Phase::Running(_) = self.phase else { return };
        let _here = world.on(self.boot);
        let core = self.runtime.core();
        core.proactor().clock().advance_to(world.clock());
        self.metrics = Some(self.runtime.metrics());
        let grace = nanoseconds(grace.unwrap_or(DROP_DEADLINE));
        let deadline = core.proactor().clock().ending().saturating_add(grace);
        // As in `block_on`, the program goes first.
        let before = std::mem::replace(&mut self.phase, Phase::Ended(Report::default()));
        core.drop_here(before);
        let (left, ending) = core.begin_end(deadline).expect("it has not ended before");
        self.phase = Phase::Ending { ending, left };
        self.due = world.with(|state| state.now());
    }

    /// Drops everything; its host is down already.
    pub(crate) fn abandon(mut self, world: &World) {
        let _here = world.on(self.boot);
        let before = std::mem::replace(&mut self.phase, Phase::Ended(Report::default()));
        if let Phase::Ending { mut ending, .. } = before {
            // With the host down, a turn brings back all that is in flight. Then its time is over.
            ending.until = u64::MAX;
            let mut has_ended = self.runtime.core().end_turn(&mut ending);
            ending.until = 0;
            while !has_ended {
                has_ended = self.runtime.core().end_turn(&mut ending);
            }
            return;
        }
        contain(|| self.runtime.core().drop_here(before));
        self.runtime.end(Duration::ZERO);
    }

    /// Looks whether it was told something since its last turn; it then has one soon.
    pub(crate) fn notice(&mut self, world: &World, chance: &mut Chance) {
        if self.has_ended() {
            return;
        }
        let (now, changes) = world.with(|state| (state.now(), state.changes(self.boot)));
        let soon = now + TURN_MAX as u64;
        if self.due > soon && (changes != self.seen || self.wants_turn()) {
            self.seen = changes;
            self.due = now + chance.up_to(TURN_MAX) as u64;
        }
    }

    fn wants_turn(&self) -> bool {
        match self.phase {
            Phase::Running(_) => self.runtime.core().wants_turn(),
            Phase::Ending { .. } => self.runtime.core().wants_end_turn(),
            Phase::Ended(_) => false,
        }
    }

    /// When the next turn is, if nothing comes before.
    fn plan(&mut self, world: &World, chance: &mut Chance) {
        let core = self.runtime.core();
        let (now, changes) = world.with(|state| (state.now(), state.changes(self.boot)));
        self.seen = changes;
        let until = match &self.phase {
            Phase::Running(_) => None,
            Phase::Ending { ending, .. } => Some(ending.until),
            Phase::Ended(_) => {
                self.due = u64::MAX;
                return;
            }
        };
        if self.wants_turn() {
            self.due = now + chance.up_to(TURN_MAX) as u64;
            return;
        }
        let timer = core.proactor().next_deadline();
        let deadline = [until, timer].into_iter().flatten().min();
        let at = |local| world.with(|state| state.world_time(self.boot, local)).max(now + 1);
        self.due = deadline.map_or(u64::MAX, at);
        let ring = core.proactor().with_simulated(|ring| (ring.is_settled(), ring.next_due()));
        let (is_settled, next) = ring.expect("a simulated core has a simulated ring");
        if !is_settled {
            self.due = self.due.min(now + chance.up_to(STEP_MAX) as u64);
        } else if let Some(next) = next {
            self.due = self.due.min(next.max(now + 1));
        }
    }

    /// What it waits for, for people.
    pub(crate) fn describe(&self) -> String {
        let core = self.runtime.core();
        let places = core.tasks().places();
        let in_flight = core.proactor().with_simulated(|ring| ring.describe()).unwrap_or_default();
        let mut text = format!("{} tasks", places.len());
        for place in places {
            text += &format!(", one spawned at {place}");
        }
        if !in_flight.is_empty() {
            text += &format!("; in flight: {in_flight}");
        }
        text
    }
}
