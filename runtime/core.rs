//! One core: its tasks, its proactor, and the loop that runs them.
//!
//! ```text
//!        ┌──► tasks that are ready, a slice of them
//!        │    the root future, if it was woken
//!        │    the inbox: what other threads sent
//!        │    the proactor: submit, reap, timers, mail ── waits here if nothing is ready
//!        └────────────────────────────────┘
//! ```
//!
//! A busy core does not starve its ring: it lets the proactor turn as soon as that wants to, and
//! after every `budget` polls in any case. A poll that has had all the answers from I/O that one
//! may have (`io/allowance.rs`) comes to as much. A core with nothing to do looks at every queue
//! once more after it has announced its sleep (`is_idle`), so that no wake is missed.

use std::cell::Cell;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::io::allowance;
use crate::io::mailbox::Doorbell;
use crate::io::proactor::{self, Closed, Ending, Park, Proactor};
use crate::io::system;
use crate::runtime::hooks::{self, Hooks};
use crate::runtime::id;
use crate::runtime::inbox::{Bell, Inbox};
use crate::runtime::tasks::{self, Tasks};
use crate::runtime::traced;
use crate::runtime::waker::{self, RootWaker};

/// How a core runs; see the methods of `Builder` of the same names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) task_budget: usize,
    pub(crate) spin: Duration,
}

/// What was there when a core was shut down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) tasks: usize,
    pub(crate) connections: usize,
}

impl Bell for Arc<Doorbell> {
    fn ring(&self) {
        Doorbell::ring(self);
    }
}

/// While it spins, a core asks the ring itself this often, besides watching what can be watched for
/// nothing: not every ring shows completions in user space.
const SPIN_ASKS_EVERY: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Core {
    tasks: Tasks,
    proactor: Rc<Proactor>,
    root: Arc<RootWaker>,
    pace: Pace,
    /// Polls since the proactor last had its turn.
    since_turn: Cell<usize>,
    /// The loop runs, so it must not be entered again.
    looping: Cell<bool>,
    closed: Cell<bool>,
    hooks: Hooks,
}

impl Core {
    pub(crate) fn new(proactor: Rc<Proactor>, pace: Pace, hooks: Hooks) -> Self {
        waker::vouch();
        let inbox = Inbox::new(Box::new(proactor.doorbell().clone()));
        Self {
            root: RootWaker::new(inbox.clone()),
            tasks: Tasks::new(inbox),
            proactor,
            pace,
            since_turn: Cell::new(0),
            looping: Cell::new(false),
            closed: Cell::new(false),
            hooks,
        }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn proactor(&self) -> &Rc<Proactor> {
        &self.proactor
    }

    /// THE LOOP, until the root future, which comes from `place`, is ready.
    #[track_caller]
    pub(crate) fn block_on<F: Future>(
        &self,
        future: F,
        place: &'static Location<'static>,
    ) -> F::Output {
        assert!(
            tasks::with_current(|_| ()).is_none(),
            "block_on was called inside a runtime, whose core it would block; `.await` the future, \
             or call it on another thread (task::spawn_blocking)"
        );
        // Declared before the future, hence dropped after it: its destructors run on the core, also
        // when its panic unwinds from here.
        let _running = self.enter_loop();
        let _exact = self.proactor.exact_waits();
        let mut future = pin!(traced::root(future, place));
        let waker = Waker::from(self.root.clone());
        self.tasks.root_woken.set(true);
        loop {
            self.run_tasks();
            if let Poll::Ready(output) = self.poll_root(future.as_mut(), &waker, place) {
                return output;
            }
            self.tasks.read_inbox();
            self.turn_proactor(Park::Until(None));
        }
    }

    /// One round of the loop without a root future, for those who bring a loop of their own. Waits
    /// as `park` allows. True: there is more to do right now.
    #[track_caller]
    pub(crate) fn turn(&self, park: Park) -> bool {
        let _running = self.enter_loop();
        self.proactor.doorbell().awake();
        // What has woken the last root is no work: nobody polls it here, and the next begins awake.
        self.tasks.root_woken.set(false);
        self.root.take();
        self.tasks.read_inbox();
        self.run_tasks();
        self.turn_proactor(park);
        self.tasks.read_inbox();
        // The caller may wait on the descriptor now, so this is a sleep like any other: announced
        // before the queues are looked at for the last time.
        let rests = self.proactor.rest() && self.is_idle();
        if !rests {
            self.proactor.doorbell().awake();
        }
        !rests
    }

    /// Something was spawned from outside the loop: whoever waits on the descriptor shall see it.
    pub(crate) fn knock(&self) {
        self.tasks.inbox().ring();
    }

    /// One round with a root future, which does not wait, for a simulation that gives the turns.
    pub(crate) fn turn_with<F: Future + ?Sized>(&self, root: Pin<&mut F>) -> Poll<F::Output> {
        let _running = self.enter_loop();
        self.run_tasks();
        let waker = Waker::from(self.root.clone());
        let polled = self.poll_root(root, &waker, Location::caller());
        if polled.is_pending() {
            self.tasks.read_inbox();
            self.turn_proactor(Park::No);
        }
        polled
    }

    /// Drops something of the core's on the core.
    pub(crate) fn drop_here<T>(&self, value: T) {
        let _running = self.enter_loop();
        drop(value);
    }

    fn run_tasks(&self) {
        let polled = self.tasks.run(self.pace.task_budget);
        self.since_turn.set(self.since_turn.get() + polled);
    }

    fn poll_root<F: Future + ?Sized>(
        &self,
        future: Pin<&mut F>,
        waker: &Waker,
        place: &'static Location<'static>,
    ) -> Poll<F::Output> {
        // Both are asked: each clears its own mark.
        if self.tasks.root_woken.replace(false) | self.root.take() {
            allowance::renew();
            let polling = self.tasks.watched().map(|watched| watched.begin(place, id::NONE));
            let polled = future.poll(&mut Context::from_waker(waker));
            drop(polling);
            let polls = if allowance::is_spent() { self.pace.task_budget } else { 1 };
            self.since_turn.set(self.since_turn.get() + polls);
            polled
        } else {
            Poll::Pending
        }
    }

    /// Lets the proactor turn: at once if the core is busy, and then only if it wants to or it is
    /// time; waiting as `park` allows if the core is idle.
    fn turn_proactor(&self, park: Park) {
        if !self.is_idle() {
            let due = self.since_turn.get() >= self.pace.task_budget;
            if due || self.proactor.wants_turn() {
                self.pass(Park::No);
            }
        } else if matches!(park, Park::Until(_)) && self.spin() {
            self.pass(Park::No);
        } else {
            self.park(park);
        }
    }

    /// A turn that may wait. What the hook brings is seen: the proactor asks `is_idle` again.
    fn park(&self, park: Park) {
        if park == Park::No {
            return self.pass(park);
        }
        self.tasks.count(|counts| counts.parks += 1);
        hooks::call(self.hooks.on_thread_park.as_ref());
        self.pass(park);
        hooks::call(self.hooks.on_thread_unpark.as_ref());
    }

    fn pass(&self, park: Park) {
        self.since_turn.set(0);
        self.tasks.count(|counts| counts.turns += 1);
        self.proactor.turn(park, &|| self.is_idle());
    }

    fn is_idle(&self) -> bool {
        !self.tasks.has_ready()
            && self.tasks.inbox().is_empty()
            && !self.tasks.root_woken.get()
            && !self.root.is_woken()
    }

    /// Watches for work without the kernel, as long as the pace allows. True: there is some.
    fn spin(&self) -> bool {
        // A paused clock jumps to the next timer instead of passing time.
        if self.pace.spin.is_zero() || self.proactor.clock().is_paused() {
            return false;
        }
        let deadline = self.proactor.next_deadline();
        let length = u64::try_from(self.pace.spin.as_nanos()).unwrap_or(u64::MAX);
        let end = system::now().saturating_add(length);
        let mut ask_at = 0;
        loop {
            if self.proactor.wants_turn() || !self.is_idle() {
                return true;
            }
            let now = system::now();
            if now >= end {
                return false;
            }
            if deadline.is_some_and(|deadline| self.proactor.clock().now() >= deadline) {
                return true;
            }
            if now >= ask_at {
                self.pass(Park::No);
                ask_at = now + SPIN_ASKS_EVERY;
            }
            std::hint::spin_loop();
        }
    }

    /// Drops all tasks, then ends the I/O: see `Runtime::shutdown`. `deadline` is a time of
    /// CLOCK_MONOTONIC. None: it was done before.
    pub(crate) fn shutdown(&self, deadline: u64) -> Option<(Left, Closed)> {
        if self.closed.replace(true) {
            return None;
        }
        let _running = self.enter_loop();
        let left = self.drop_what_is_left();
        Some((left, self.proactor.shutdown(deadline)))
    }

    /// `shutdown` in steps, for who gives the turns: this is the first, `end_turn` the others.
    pub(crate) fn begin_end(&self, deadline: u64) -> Option<(Left, Ending)> {
        if self.closed.replace(true) {
            return None;
        }
        let _running = self.enter_loop();
        let left = self.drop_what_is_left();
        Some((left, self.proactor.begin_end(deadline)?))
    }

    /// The tasks, and with them most connections: some are over at once, so they are counted first.
    fn drop_what_is_left(&self) -> Left {
        let connections = self.proactor.connections();
        Left { tasks: self.tasks.drop_all(), connections }
    }

    /// True: it has ended.
    pub(crate) fn end_turn(&self, ending: &mut Ending) -> bool {
        let _running = self.enter_loop();
        self.proactor.has_ended(ending) || {
            self.proactor.turn(Park::No, &|| true);
            self.proactor.has_ended(ending)
        }
    }

    /// Whether a turn would find something, as far as can be seen without one.
    pub(crate) fn wants_turn(&self) -> bool {
        !self.is_idle() || self.wants_end_turn()
    }

    /// The same at the end, when nothing but I/O goes on: who was woken is not asked again.
    pub(crate) fn wants_end_turn(&self) -> bool {
        !self.proactor.may_sleep() || self.proactor.wants_turn()
    }

    /// Makes this core the thread's current one, for its tasks and for its I/O, and keeps its loop
    /// from being entered a second time.
    #[track_caller]
    fn enter_loop(&self) -> Running<'_> {
        assert!(!self.looping.get(), "a runtime was driven from inside one of its own tasks");
        self.looping.set(true);
        Running {
            _tasks: self.tasks.enter(),
            _proactor: self.proactor.enter(),
            looping: &self.looping,
        }
    }
}

/// See `Core::enter_loop`.
struct Running<'a> {
    _tasks: tasks::Entered<'a>,
    _proactor: proactor::Entered<'a>,
    looping: &'a Cell<bool>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.looping.set(false);
    }
}
